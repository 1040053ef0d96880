//! The fused form on flex.
//!
//! Axes as in [`super`].

use burn::backend::Flex;
use burn_flex::FlexTensor;
use half::bf16;

use super::RopeForms;
use crate::buffer::buffer;
use crate::flex::{self, contiguous, rows_of_task, values, whole};
use crate::profile::{self, Operation};
use crate::rounding;
use crate::simd::vectorised;
use crate::threads;

impl RopeForms for Flex {
    const FUSED: bool = true;

    /// Computes in place if no other tensor shares the memory of `x`.
    fn rope_form(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, back: bool) -> FlexTensor {
        let mut x = whole(x);
        let [cos, sin] = [contiguous(cos), contiguous(sin)];
        let [t, heads, dim] = x.layout().shape().dims();
        let [_, half] = cos.layout().shape().dims();
        let size = t * heads * 2 * half;
        let bytes = 2 * x.dtype().size() * size;
        let _span = profile::span(Operation::Rope, 3 * size, bytes);
        let tokens = rows_of_task(heads * dim);
        let shape = [heads, dim, half];
        let angles = |task: usize, elements: usize| {
            let count = elements / (heads * dim) * half;
            [&cos, &sin].map(|of| &values(of)[task * tokens * half..][..count])
        };
        if flex::is_half(&x) {
            threads::chunks(x.storage_mut::<bf16>(), tokens * heads * dim, |task, x| {
                let [cos, sin] = angles(task, x.len());
                let mut wide = buffer(x.len());
                rounding::widen_part(x, &mut wide);
                rotate(&mut wide, cos, sin, shape, back);
                rounding::round_part(&wide, x);
            });
            return x;
        }
        threads::chunks(x.storage_mut::<f32>(), tokens * heads * dim, |task, x| {
            let [cos, sin] = angles(task, x.len());
            rotate(x, cos, sin, shape, back);
        });
        x
    }
}

vectorised! {
    fn rotate(
        _simd,
        x: &'a mut [f32],
        cos: &'a [f32],
        sin: &'a [f32],
        shape: [usize; 3],
        back: bool,
    ) {
        let [heads, dim, half] = shape;
        let sign = if back { -1.0 } else { 1.0 };
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (x, (cos, sin)) in x.chunks_exact_mut(heads * dim).zip(angles) {
            for x in x.chunks_exact_mut(dim) {
                let (low, high) = x[..2 * half].split_at_mut(half);
                let pairs = low.iter_mut().zip(high);
                for ((low, high), (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
                    let [l, h, s] = [*low, *high, sign * sin];
                    *low = l * cos - h * s;
                    *high = h * cos + l * s;
                }
            }
        }
    }
}
