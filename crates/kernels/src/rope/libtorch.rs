//! The form on libtorch: one pass by a kernel of `rope.cu`, or else four passes, each over half of the rotated elements, and
//! a copy of the others.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;

use tch::{Kind, Tensor};

use super::RopeForms;
use crate::OptionalKernel;
use crate::libtorch::cuda::{self, Argument, variant};
use crate::libtorch::{bytes, fresh};
use crate::profile::{self, Operation};

const NAMES: [[&str; 2]; 2] = [
    ["rope_f32", "rope_f32_single"],
    ["rope_bf16", "rope_bf16_single"],
];

impl RopeForms for LibTorch {
    const FUSED: bool = true;

    fn rope_form(x: TchTensor, cos: TchTensor, sin: TchTensor, back: bool) -> TchTensor {
        let x = x.tensor;
        let [dim, half] = [x.size()[2], cos.tensor.size()[1]];
        let size = x.numel() / dim as usize * 2 * half as usize;
        let _span = profile::span(Operation::Rope, 3 * size, 2 * bytes(&[&x]));
        if let Some(y) = in_one_pass(&x, &cos.tensor, &sin.tensor, back) {
            return fresh(y);
        }
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

/// The result of the kernel, if it computes these tensors. The tokens of `x` may lie apart.
fn in_one_pass(x: &Tensor, cos: &Tensor, sin: &Tensor, back: bool) -> Option<Tensor> {
    let [tokens, heads, dim] = x.size()[..] else {
        return None;
    };
    let half = cos.size()[1];
    let is_table = |of: &Tensor| of.kind() == Kind::Float && of.is_contiguous();
    let [stride, of_head, of_feature] = x.stride()[..] else {
        return None;
    };
    if half == 0 || [of_head, of_feature] != [dim, 1] || !is_table(cos) || !is_table(sin) {
        return None;
    }
    let (name, width) = variant(&[x], &[stride, dim, half], NAMES)?;
    let kernel = cuda::ROPE.kernel(OptionalKernel::Rope, name, x)?;
    let y = Tensor::empty([tokens, heads, dim], (x.kind(), x.device()));
    let arguments = [
        Argument::Tensor(x),
        Argument::Tensor(cos),
        Argument::Tensor(sin),
        Argument::Tensor(&y),
        Argument::Int(tokens),
        Argument::Int(heads),
        Argument::Int(dim),
        Argument::Int(half),
        Argument::Long(stride),
        Argument::Float(if back { -1.0 } else { 1.0 }),
    ];
    kernel.on_threads((tokens * heads * (half / width)) as usize, &arguments);
    Some(y)
}
