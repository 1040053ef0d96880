//! The forms on flex: one pass over the buffer.

use std::ops::Range;

use burn::backend::Flex;
use burn_flex::FlexTensor;
use burn_flex::simd::kernels::sum_f32;

use super::{AdamWStep, FlatBackend, Part};
use crate::buffer::buffer;
use crate::flex::{self, contiguous, rows_of_task, values, whole};
use crate::reference::in_dtype;
use crate::simd::vectorised;
use crate::threads;

/// The factors of an update, in f32 as plain tensor operations round them.
#[derive(Clone, Copy)]
struct Factors {
    clip: f32,
    mean: f32,
    kept: f32,
    square: f32,
    correction: f32,
    eps: f32,
    rate: f32,
    decay: Option<f32>,
}

/// What one task updates.
struct Chunk<'a> {
    new: &'a mut [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
}

impl FlatBackend for Flex {
    fn adamw_step(
        value: FlexTensor,
        mean: FlexTensor,
        square: FlexTensor,
        gradient: FlexTensor,
        step: AdamWStep,
        parts: Vec<Part>,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [value, gradient] = [value, gradient].map(contiguous);
        let [mut mean, mut square] = [mean, square].map(whole);
        let (old, gradient) = (values(&value), values(&gradient));
        let mut new = buffer(old.len());
        let mut done = 0;
        for Part { range, decay } in parts {
            new[done..range.start].copy_from_slice(&old[done..range.start]);
            let chunk = Chunk {
                new: &mut new[range.clone()],
                mean: &mut mean.storage_mut()[range.clone()],
                square: &mut square.storage_mut()[range.clone()],
            };
            done = range.end;
            let factors = Factors::of(&step, decay);
            update_part(chunk, &old[range.clone()], &gradient[range], factors);
        }
        new[done..].copy_from_slice(&old[done..]);
        let length = new.len();
        (flex::tensor(new, [length]), mean, square)
    }

    fn copied_again(copy: FlexTensor, value: FlexTensor) -> FlexTensor {
        in_dtype::<Self>(value, copy.dtype())
    }

    fn sums_of_squares(gradient: FlexTensor, pieces: Vec<Range<usize>>) -> FlexTensor {
        let gradient = contiguous(gradient);
        let gradient = values(&gradient);
        let sums = threads::map(pieces.len(), |piece| {
            let piece = &gradient[pieces[piece].clone()];
            let squares: Vec<f32> = piece.iter().map(|x| x * x).collect();
            sum_f32(&squares)
        });
        flex::tensor(sums, [pieces.len()])
    }
}

impl Factors {
    fn of(step: &AdamWStep, decay: Option<f64>) -> Self {
        Self {
            clip: step.clip as f32,
            mean: (1.0 - step.beta1) as f32,
            kept: step.beta2 as f32,
            square: (1.0 - step.beta2) as f32,
            correction: step.root_correction() as f32,
            eps: step.eps as f32,
            rate: step.rate() as f32,
            decay: decay.map(|decay| decay as f32),
        }
    }
}

fn update_part(chunk: Chunk<'_>, old: &[f32], gradient: &[f32], factors: Factors) {
    let size = rows_of_task(1);
    let Chunk { new, mean, square } = chunk;
    let moments = mean.chunks_mut(size).zip(square.chunks_mut(size));
    let mut chunks: Vec<Chunk<'_>> = new
        .chunks_mut(size)
        .zip(moments)
        .map(|(new, (mean, square))| Chunk { new, mean, square })
        .collect();
    threads::chunks(&mut chunks, 1, |index, chunk| {
        for Chunk { new, mean, square } in chunk {
            let range = index * size..index * size + new.len();
            update(
                new,
                mean,
                square,
                &old[range.clone()],
                &gradient[range],
                factors,
            );
        }
    });
}

vectorised! {
    fn update(
        _simd,
        new: &'a mut [f32],
        mean: &'a mut [f32],
        square: &'a mut [f32],
        old: &'a [f32],
        gradient: &'a [f32],
        factors: Factors,
    ) {
        let decay = factors.decay.unwrap_or(1.0);
        let moments = mean.iter_mut().zip(square);
        let values = new.iter_mut().zip(old.iter().zip(gradient));
        for ((new, (old, gradient)), (mean, square)) in values.zip(moments) {
            let gradient = gradient * factors.clip;
            *mean += (gradient - *mean) * factors.mean;
            *square = *square * factors.kept + gradient * gradient * factors.square;
            let root = square.sqrt() / factors.correction + factors.eps;
            *new = old * decay - *mean / root * factors.rate;
        }
    }
}
