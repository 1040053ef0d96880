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
    of: Rest<'a>,
    factors: Factors,
}

/// The end of the buffer from some element on.
struct Rest<'a> {
    new: &'a mut [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
    old: &'a [f32],
    gradient: &'a [f32],
}

impl Rest<'_> {
    /// The first elements, which are no longer in the rest.
    fn take(&mut self, elements: usize) -> Self {
        Self {
            new: self.new.split_off_mut(..elements).unwrap_or_default(),
            mean: self.mean.split_off_mut(..elements).unwrap_or_default(),
            square: self.square.split_off_mut(..elements).unwrap_or_default(),
            old: self.old.split_off(..elements).unwrap_or_default(),
            gradient: self.gradient.split_off(..elements).unwrap_or_default(),
        }
    }

    /// These elements stay as they are.
    fn stay(self) {
        self.new.copy_from_slice(self.old);
    }
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
        let length = old.len();
        let mut new = buffer(length);
        let rest = Rest {
            new: &mut new,
            mean: mean.storage_mut(),
            square: square.storage_mut(),
            old,
            gradient,
        };
        update_all(rest, &step, parts);
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
    fn of(step: &AdamWStep, learning_rate: f64, decay: Option<f64>) -> Self {
        Self {
            clip: step.clip as f32,
            mean: (1.0 - step.beta1) as f32,
            kept: step.beta2 as f32,
            square: (1.0 - step.beta2) as f32,
            correction: step.root_correction() as f32,
            eps: step.eps as f32,
            rate: step.rate(learning_rate) as f32,
            decay: decay.map(|decay| decay as f32),
        }
    }
}

/// Updates the parts, many of them in one task if they are small: with a rate for each tensor there may be hundreds.
fn update_all(mut rest: Rest<'_>, step: &AdamWStep, parts: Vec<Part>) {
    let size = rows_of_task(1);
    let mut tasks: Vec<Vec<Chunk<'_>>> = Vec::new();
    let (mut done, mut in_task) = (0, size);
    for part in parts {
        rest.take(part.range.start - done).stay();
        let factors = Factors::of(step, part.learning_rate, part.decay);
        done = part.range.end;
        let mut left = part.range.len();
        while left > 0 {
            if in_task == size {
                tasks.push(Vec::new());
                in_task = 0;
            }
            let elements = left.min(size - in_task);
            let of = rest.take(elements);
            if let Some(task) = tasks.last_mut() {
                task.push(Chunk { of, factors });
            }
            in_task += elements;
            left -= elements;
        }
    }
    let left = rest.old.len();
    rest.take(left).stay();
    threads::chunks(&mut tasks, 1, |_, tasks| {
        for Chunk { of, factors } in tasks.iter_mut().flatten() {
            update(of.new, of.mean, of.square, of.old, of.gradient, *factors);
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
