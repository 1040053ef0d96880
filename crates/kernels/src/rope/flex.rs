//! The fused form on flex.
//!
//! Axes as in [`super`].

use burn::backend::Flex;
use burn_flex::FlexTensor;

use super::RopeForms;
use crate::flex::{contiguous, rows_of_task, values, whole};
use crate::profile::{self, Operation};
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
        let _span = profile::span(Operation::Rope, 3 * size, 2 * 4 * size);
        let tokens = rows_of_task(heads * dim);
        threads::chunks(x.storage_mut::<f32>(), tokens * heads * dim, |task, x| {
            let angles = x.len() / (heads * dim) * half;
            let [cos, sin] = [&cos, &sin].map(|of| &values(of)[task * tokens * half..][..angles]);
            rotate(x, cos, sin, [heads, dim, half], back);
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
