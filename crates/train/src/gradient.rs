//! The gradient of a step: that of all trained tensors in one flat buffer, or tensor by tensor if the whole model is trained.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use simmer_kernels::norm;
use simmer_model::{SegmentGradients, Segments};

/// Elements per sum. Backends split longer sums among threads, and the order of a sum must not depend on the number of
/// threads.
const PIECE: usize = 1 << 20;

/// The gradient of a step, as far as its micro-batches are computed.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, which is not moved"
)]
pub(crate) enum Gradient {
    /// Of all segments in one buffer.
    Flat {
        /// `[N]`; `None` before the first micro-batch.
        sum: Option<Tensor<1>>,
        /// The segments that a loss depended on.
        found: Vec<bool>,
    },
    /// Tensor by tensor.
    Tensors(SegmentGradients),
}

impl Gradient {
    /// No gradient yet.
    pub(crate) fn none(segments: &Segments, is_flat: bool) -> Self {
        let count = segments.all().len();
        if is_flat {
            let found = vec![false; count];
            Self::Flat { sum: None, found }
        } else {
            Self::Tensors(vec![None; count])
        }
    }

    /// Adds the gradients of a micro-batch.
    pub(crate) fn add(&mut self, segments: &Segments, more: SegmentGradients, device: &Device) {
        match self {
            Self::Flat { sum, found } => {
                for (found, more) in found.iter_mut().zip(&more) {
                    *found |= more.is_some();
                }
                let more = segments.joined(more, device);
                *sum = Some(added(sum.take(), more));
            }
            Self::Tensors(sums) => {
                for (sum, more) in sums.iter_mut().zip(more) {
                    if let Some(more) = more {
                        *sum = Some(added(sum.take(), more));
                    }
                }
            }
        }
    }

    /// The Euclidean norm over all tensors together.
    pub(crate) fn norm(&self, segments: &Segments) -> f64 {
        match self {
            Self::Flat { sum: None, .. } => 0.0,
            Self::Flat { sum: Some(sum), .. } => {
                let ranges = segments.all().iter().map(|segment| segment.range.clone());
                norm(sum.clone(), ranges.flat_map(pieces).collect())
            }
            Self::Tensors(sums) => norm_of_tensors(sums.iter().flatten()),
        }
    }
}

fn added(sum: Option<Tensor<1>>, more: Tensor<1>) -> Tensor<1> {
    match sum {
        Some(sum) => sum + more,
        None => more,
    }
}

/// A range in pieces of at most [`PIECE`] elements.
fn pieces(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(PIECE)
        .map(move |start| start..(start + PIECE).min(end))
}

fn norm_of_tensors<'a>(gradients: impl Iterator<Item = &'a Tensor<1>>) -> f64 {
    let pieces = gradients.flat_map(|gradient| gradient.clone().split(PIECE, 0));
    let sums: Vec<Tensor<1>> = pieces.map(|piece| piece.square().sum()).collect();
    if sums.is_empty() {
        return 0.0;
    }
    let sums = Tensor::cat(sums, 0).into_data();
    sums.iter::<f64>().sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(sizes: &[usize]) -> Segments {
        let sizes = sizes.iter().enumerate();
        let shapes: Vec<_> = sizes
            .map(|(index, size)| (index.to_string(), vec![*size]))
            .collect();
        Segments::of_shapes(&shapes)
    }

    fn tensors(values: &[&[f32]]) -> SegmentGradients {
        let all = values.iter();
        all.map(|values| Some(Tensor::from_data(*values, &Device::flex())))
            .collect()
    }

    fn both(sizes: &[usize], micro_batches: &[SegmentGradients]) -> [f64; 2] {
        let segments = segments(sizes);
        [true, false].map(|is_flat| {
            let mut gradient = Gradient::none(&segments, is_flat);
            for more in micro_batches {
                gradient.add(&segments, more.clone(), &Device::flex());
            }
            gradient.norm(&segments)
        })
    }

    #[test]
    fn the_norm_is_over_all_tensors() {
        let [flat, tensors_] = both(&[2, 1, 1], &[tensors(&[&[1.0, 2.0], &[-4.0], &[2.0]])]);
        assert_eq!(flat.to_bits(), tensors_.to_bits());
        assert!((flat - 5.0).abs() < 1e-12);
        // their squares are added without rounding
        let long: Vec<f32> = (0..2 * PIECE + 3).map(|i| (i % 7) as f32 * 0.125).collect();
        let expected: f64 = long.iter().map(|x| f64::from(*x).powi(2)).sum();
        let [flat, tensors_] = both(&[2, long.len()], &[tensors(&[&[0.0, 0.0], &long])]);
        assert_eq!(flat.to_bits(), tensors_.to_bits());
        assert!((flat / expected.sqrt() - 1.0).abs() < 1e-12);
        let broken = both(&[1, 1], &[tensors(&[&[1.0], &[f32::NAN]])]);
        assert!(broken.into_iter().all(f64::is_nan));
    }

    #[test]
    fn micro_batches_are_added_and_a_tensor_may_be_missing() {
        let mut first = tensors(&[&[3.0], &[1.0], &[9.0]]);
        let mut second = tensors(&[&[9.0], &[3.0], &[9.0]]);
        second[0] = None;
        first[2] = None;
        second[2] = None;
        let norms = both(&[1, 1, 1], &[first.clone(), second.clone()]);
        assert_eq!(norms.map(f64::to_bits), [5.0_f64.to_bits(); 2]);
        let segments = segments(&[1, 1, 1]);
        let mut gradient = Gradient::none(&segments, true);
        gradient.add(&segments, first, &Device::flex());
        gradient.add(&segments, second, &Device::flex());
        let Gradient::Flat { found, .. } = gradient else {
            unreachable!()
        };
        assert_eq!(found, [true, true, false]);
    }
}
