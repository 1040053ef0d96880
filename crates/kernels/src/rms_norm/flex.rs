//! The fused form on flex.
//!
//! Axes as in [`super`].

use burn::backend::Flex;
use burn_flex::FlexTensor;
use half::bf16;
use pulp::Simd;

use super::RmsNormForms;
use crate::buffer::buffer;
use crate::flex::{self, contiguous, rows_of_task, values};
use crate::product::Numbers;
use crate::profile::{self, Operation};
use crate::rounding::{self, to_bf16, to_f32};
use crate::simd::{dot, dot3, vectorised};
use crate::threads;

impl RmsNormForms for Flex {
    const FUSED: bool = true;

    fn rms_norm_form(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
        let [x, weight] = [contiguous(x), contiguous(weight)];
        let [tokens, width] = x.layout().shape().dims();
        let size = tokens * width;
        let _span = profile::span(Operation::RmsNorm, 4 * size, 2 * x.dtype().size() * size);
        let mut wide = buffer(width);
        flex::stored(&weight).widen_chunk(0, &mut wide);
        let rows = rows_of_task(width) * width;
        if let Numbers::Bf16(x) = flex::numbers(&x) {
            let mut y = buffer(size);
            threads::chunks(&mut y, rows, |task, y| {
                let x = &x[task * rows..][..y.len()];
                forward_halves(x, &wide, eps as f32, y);
            });
            return flex::half_tensor(y, [tokens, width]);
        }
        let mut y = buffer(size);
        threads::chunks(&mut y, rows, |task, y| {
            let x = &values(&x)[task * rows..][..y.len()];
            forward(x, &wide, eps as f32, y);
        });
        flex::tensor(y, x.layout().shape().clone())
    }

    fn rms_norm_gradient(
        x: FlexTensor,
        weight: FlexTensor,
        dy: FlexTensor,
        eps: f64,
        trained: bool,
    ) -> (FlexTensor, Option<FlexTensor>) {
        let [x, weight, dy] = [x, weight, flex::widened(dy)].map(contiguous);
        let [tokens, width] = x.layout().shape().dims();
        let size = tokens * width;
        let _span = profile::span(Operation::RmsNorm, 10 * size, 3 * 4 * size);
        let mut wide = buffer(width);
        flex::stored(&weight).widen_chunk(0, &mut wide);
        let rows = rows_of_task(width) * width;
        let mut dx = buffer(size);
        let kept = if trained { width } else { 0 };
        let mut parts = vec![0.0; size.div_ceil(rows) * kept];
        threads::chunk_pairs(&mut dx, rows, &mut parts, kept, |task, dx, d_weight| {
            let range = task * rows..task * rows + dx.len();
            let dy = &values(&dy)[range.clone()];
            let mut widened = Vec::new();
            let x = rounding::part(flex::numbers(&x), range, &mut widened);
            backward(x, &wide, dy, eps as f32, dx, d_weight);
        });
        let dx = flex::tensor(dx, [tokens, width]);
        if !trained {
            return (dx, None);
        }
        // tasks have a fixed size, so the order of this sum does not depend on the number of threads
        let mut d_weight = vec![0.0; width];
        for part in parts.chunks_exact(width) {
            for (sum, part) in d_weight.iter_mut().zip(part) {
                *sum += part;
            }
        }
        (dx, Some(flex::tensor(d_weight, [width])))
    }
}

/// `1 / sqrt(mean(x²) + eps)` of one row, `[H]`.
#[inline(always)]
fn scale<S: Simd>(simd: S, x: &[f32], eps: f32) -> f32 {
    let mean_square = dot(simd, x, x) / x.len() as f32;
    1.0 / (mean_square + eps).sqrt()
}

vectorised! {
    fn forward(simd, x: &'a [f32], weight: &'a [f32], eps: f32, y: &'a mut [f32]) {
        let width = weight.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let s = scale(simd, x, eps);
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * s * w;
            }
        }
    }
}

vectorised! {
    /// As [`forward`], from and to bf16.
    fn forward_halves(simd, x: &'a [bf16], weight: &'a [f32], eps: f32, y: &'a mut [bf16]) {
        let width = weight.len();
        let mut wide = vec![0.0; width];
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            for (wide, x) in wide.iter_mut().zip(x) {
                *wide = to_f32(*x);
            }
            let s = scale(simd, &wide, eps);
            for ((y, x), w) in y.iter_mut().zip(&wide).zip(weight) {
                *y = to_bf16(x * s * w);
            }
        }
    }
}

vectorised! {
    fn backward(
        simd,
        x: &'a [f32],
        weight: &'a [f32],
        dy: &'a [f32],
        eps: f32,
        dx: &'a mut [f32],
        d_weight: &'a mut [f32],
    ) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
        for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
            let s = scale(simd, x, eps);
            let mean = dot3(simd, dy, weight, x) / width as f32;
            let back = s * s * s * mean;
            for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
                *dx = s * dy * w - x * back;
            }
            for ((sum, x), dy) in d_weight.iter_mut().zip(x).zip(dy) {
                *sum += dy * x * s;
            }
        }
    }
}
