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
        for parts in parts.chunk_by(|a, b| a.range.end == b.range.start) {
            let start = parts[0].range.start as i64;
            let span = parts.iter().map(|part| part.range.len() as i64).sum();
            let cut = |of: &TchTensor| {
                if span == length {
                    of.tensor.shallow_clone()
                } else {
                    of.tensor.narrow(0, start, span)
                }
            };
            let [value, mean, square, gradient] = [&value, &mean, &square, &gradient].map(cut);
            update([value, mean, square], gradient, &step, parts);
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

/// Updates parts that follow each other. Moments are alike for all of them. Rates and decays are numbers if there is one
/// part, and else tensors: a few kernels, however many parts there are.
fn update(
    [mut value, mut mean, mut square]: [Tensor; 3],
    gradient: Tensor,
    step: &AdamWStep,
    parts: &[Part],
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
    if let [part] = parts {
        if let Some(decay) = part.decay {
            let _ = value.g_mul_scalar_(decay);
        }
        let change = mean.div_out(&root, &root);
        let _ = value.g_add_(&(change * -step.rate(part.learning_rate)));
        return;
    }
    if parts.iter().any(|part| part.decay.is_some()) {
        let decays = elementwise(parts, &value, |part| part.decay.unwrap_or(1.0));
        let _ = value.g_mul_(&decays);
    }
    let rates = elementwise(parts, &value, |part| -step.rate(part.learning_rate));
    let mut change = mean.div_out(&root, &root);
    let _ = change.g_mul_(&rates);
    let _ = value.g_add_(&change);
}

/// A number of each part, once for each of its elements.
fn elementwise(parts: &[Part], like: &Tensor, number: impl Fn(&Part) -> f64) -> Tensor {
    let device = like.device();
    let numbers: Vec<f32> = parts.iter().map(|part| number(part) as f32).collect();
    let lengths: Vec<i64> = parts.iter().map(|part| part.range.len() as i64).collect();
    let [numbers, lengths] = [
        Tensor::from_slice(&numbers).to_device(device),
        Tensor::from_slice(&lengths).to_device(device),
    ];
    numbers.repeat_interleave_self_tensor(&lengths, 0, like.size()[0])
}
