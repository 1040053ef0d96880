//! The form on libtorch: four passes, each over half of the rotated elements, and a copy of the others.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;

use super::RopeForms;
use crate::libtorch::{bytes, fresh};
use crate::profile::{self, Operation};

impl RopeForms for LibTorch {
    const FUSED: bool = true;

    fn rope_form(x: TchTensor, cos: TchTensor, sin: TchTensor, back: bool) -> TchTensor {
        let x = x.tensor;
        let [dim, half] = [x.size()[2], cos.tensor.size()[1]];
        let size = x.numel() / dim as usize * 2 * half as usize;
        let _span = profile::span(Operation::Rope, 3 * size, 2 * bytes(&[&x]));
        let cos = cos.tensor.unsqueeze(1); // [T, 1, R/2]
        let sin = sin.tensor.unsqueeze(1); // [T, 1, R/2]
        let minus = sin.neg();
        let [to_low, to_high] = if back { [sin, minus] } else { [minus, sin] };
        let y = x.empty_like();
        let halves = |of: &tch::Tensor| [of.narrow(2, 0, half), of.narrow(2, half, half)];
        let [low, high] = halves(&x); // [T, N, R/2]
        let [mut y_low, mut y_high] = halves(&y);
        let _ = low.mul_out(&y_low, &cos);
        let _ = y_low.addcmul_(&high, &to_low);
        let _ = high.mul_out(&y_high, &cos);
        let _ = y_high.addcmul_(&low, &to_high);
        let rest = dim - 2 * half;
        if rest > 0 {
            let of = |of: &tch::Tensor| of.narrow(2, 2 * half, rest);
            of(&y).copy_(&of(&x)); // [T, N, D - R]
        }
        fresh(y)
    }
}
