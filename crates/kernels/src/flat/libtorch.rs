//! The forms on libtorch: a few operations over the whole buffer.

use std::ops::Range;

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Kind, Tensor};

use super::{AdamWStep, FlatBackend, Part};
use crate::libtorch::fresh;

/// Squares per sum in f32; the sums are added in f64. Each is the work of one thread, so that the number of threads does
/// not change it.
const ROW: i64 = 1024;

impl FlatBackend for LibTorch {
    fn adamw_step(
        value: TchTensor,
        mean: TchTensor,
        square: TchTensor,
        gradient: TchTensor,
        step: AdamWStep,
        parts: Vec<Part>,
    ) -> (TchTensor, TchTensor, TchTensor) {
        let value = if step.in_place {
            value
        } else {
            fresh(value.tensor.copy())
        };
        let length = gradient.tensor.size()[0];
        for Part { range, decay } in parts {
            let (start, part) = (range.start as i64, range.len() as i64);
            let cut = |of: &TchTensor| {
                if part == length {
                    of.tensor.shallow_clone()
                } else {
                    of.tensor.narrow(0, start, part)
                }
            };
            let [value, mean, square, gradient] = [&value, &mean, &square, &gradient].map(cut);
            update([value, mean, square], gradient, &step, decay);
        }
        (value, mean, square)
    }

    fn copied_again(mut copy: TchTensor, value: TchTensor) -> TchTensor {
        copy.tensor.copy_(&value.tensor);
        copy
    }

    fn sums_of_squares(gradient: TchTensor, _pieces: Vec<Range<usize>>) -> TchTensor {
        let squares = gradient.tensor.square();
        let length = squares.size()[0];
        let rows = length / ROW;
        let whole = squares.narrow(0, 0, rows * ROW).view([rows, ROW]);
        let sums = whole.sum_dim_intlist(1, false, Kind::Float);
        let rest = squares.narrow(0, rows * ROW, length - rows * ROW);
        fresh(Tensor::cat(&[sums, rest], 0))
    }
}

fn update(
    [mut value, mut mean, mut square]: [Tensor; 3],
    gradient: Tensor,
    step: &AdamWStep,
    decay: Option<f64>,
) {
    let gradient = match step.clip {
        1.0 => gradient,
        clip => gradient * clip,
    };
    let _ = mean.lerp_(&gradient, 1.0 - step.beta1);
    let _ = square.g_mul_scalar_(step.beta2);
    let mut root = gradient.square();
    let _ = square.g_add_(&root.g_mul_scalar_(1.0 - step.beta2));
    let _ = square.sqrt_out(&root);
    let _ = root.g_div_scalar_(step.root_correction());
    let _ = root.g_add_scalar_(step.eps);
    if let Some(decay) = decay {
        let _ = value.g_mul_scalar_(decay);
    }
    let change = mean.div_out(&root, &root);
    let _ = value.g_add_(&(change * -step.rate()));
}
