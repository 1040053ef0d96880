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
        let [_, heads, dim] = x.layout().shape().dims();
        let size = values(&x).len();
        let _span = profile::span(Operation::Rope, 3 * size, 2 * 4 * size);
        let tokens = rows_of_task(heads * dim);
        threads::chunks(x.storage_mut::<f32>(), tokens * heads * dim, |task, x| {
            let angles = x.len() / heads / 2;
            let [cos, sin] =
                [&cos, &sin].map(|of| &values(of)[task * tokens * dim / 2..][..angles]);
            rotate(x, cos, sin, [heads, dim], back);
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
        shape: [usize; 2],
        back: bool,
    ) {
        let [heads, dim] = shape;
        let half = dim / 2;
        let sign = if back { -1.0 } else { 1.0 };
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (x, (cos, sin)) in x.chunks_exact_mut(heads * dim).zip(angles) {
            for x in x.chunks_exact_mut(dim) {
                let (low, high) = x.split_at_mut(half);
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
