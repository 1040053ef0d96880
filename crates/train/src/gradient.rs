//! The gradient of a step: that of all trained tensors in one flat buffer, or tensor by tensor if the whole model is trained.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData, s};
use simmer_checkpoint::Dtype;
use simmer_checkpoint::numbers::floats;
use simmer_kernels::norm;
use simmer_model::{SegmentGradients, Segments};

use crate::ranks::RanksError;

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
    /// Of the segments of each place in a buffer there, if several devices share the layers.
    Placed {
        /// `[M]` for each place.
        sums: Vec<Tensor<1>>,
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

    /// The gradients of a micro-batch.
    pub(crate) fn of(
        segments: &Segments,
        found: SegmentGradients,
        is_flat: bool,
        device: &Device,
    ) -> Self {
        if !is_flat {
            return Self::Tensors(found);
        }
        let has = found.iter().map(Option::is_some).collect();
        if segments.are_placed() {
            return Self::Placed {
                sums: segments.joined_by_place(found),
                found: has,
            };
        }
        Self::Flat {
            sum: Some(segments.joined(found, device)),
            found: has,
        }
    }

    /// The same in one buffer on a device: what places have is copied there.
    fn gathered(self, segments: &Segments, device: &Device) -> Self {
        match self {
            Self::Placed { sums, found } => Self::Flat {
                sum: Some(segments.gathered(sums, device)),
                found,
            },
            other => other,
        }
    }

    /// The sum of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Flat { sum, mut found },
                Self::Flat {
                    sum: more,
                    found: others,
                },
            ) => {
                also(&mut found, others);
                let sum = added(sum, more);
                Self::Flat { sum, found }
            }
            (
                Self::Placed { sums, mut found },
                Self::Placed {
                    sums: more,
                    found: others,
                },
            ) => {
                also(&mut found, others);
                let sums = sums.into_iter().zip(more);
                let sums = sums.map(|(sum, more)| sum + more).collect();
                Self::Placed { sums, found }
            }
            (Self::Tensors(sums), Self::Tensors(more)) => {
                let pairs = sums.into_iter().zip(more);
                Self::Tensors(pairs.map(|(sum, more)| added(sum, more)).collect())
            }
            _ => unreachable!("the gradients of one model have one form"),
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
            Self::Placed { .. } => unreachable!("gathered before it is used"),
            Self::Tensors(sums) => norm_of_tensors(sums.iter().flatten()),
        }
    }
}

/// Adds the segments that another loss depended on.
fn also(found: &mut [bool], others: Vec<bool>) {
    for (found, other) in found.iter_mut().zip(others) {
        *found |= other;
    }
}

fn added(sum: Option<Tensor<1>>, more: Option<Tensor<1>>) -> Option<Tensor<1>> {
    match (sum, more) {
        (Some(sum), Some(more)) => Some(sum + more),
        (sum, more) => sum.or(more),
    }
}

/// The loss and the gradient of some micro-batches of a step.
#[derive(Debug)]
pub(crate) struct Partial {
    /// `[1]` the sum of the losses.
    pub(crate) loss: Tensor<1>,
    pub(crate) gradient: Gradient,
}

impl Partial {
    /// The sum of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            loss: self.loss + other.loss,
            gradient: self.gradient.plus(other.gradient),
        }
    }

    /// The same on one device, if several share the layers.
    pub(crate) fn gathered(self, segments: &Segments, device: &Device) -> Self {
        if !segments.are_placed() {
            return self;
        }
        Self {
            loss: self.loss.to_device(device),
            gradient: self.gradient.gathered(segments, device),
        }
    }

    /// One tensor that ranks can add up: the gradient, 1 for each segment that has one, and the loss.
    ///
    /// # Shapes
    /// Result: `[N + S + 1]` for N parameters in S segments.
    pub(crate) fn joined(self, segments: &Segments, device: &Device) -> Tensor<1> {
        let Gradient::Flat { sum, found } = self.gradient else {
            unreachable!("several ranks train an adapter");
        };
        let gradient = sum.unwrap_or_else(|| Tensor::zeros([segments.elements()], device));
        let found: Vec<f32> = found
            .into_iter()
            .map(|found| f32::from(u8::from(found)))
            .collect();
        let length = found.len();
        let found = Tensor::from_data(TensorData::new(found, [length]), device);
        Tensor::cat(vec![gradient, found, self.loss], 0)
    }

    /// The same of no micro-batch.
    pub(crate) fn zeros(segments: &Segments, device: &Device) -> Tensor<1> {
        Tensor::zeros([segments.elements() + segments.all().len() + 1], device)
    }

    /// The partial sum of such a tensor.
    pub(crate) fn parted(values: Tensor<1>, segments: &Segments) -> Self {
        let elements = segments.elements();
        let end = elements + segments.all().len();
        let found = values.clone().slice(s![elements..end]).into_data();
        Self {
            loss: values.clone().slice(s![end..=end]),
            gradient: Gradient::Flat {
                sum: Some(values.slice(s![..elements])),
                found: found.iter::<f32>().map(|count| count > 0.0).collect(),
            },
        }
    }

    /// Its bytes: the loss, which segments have a gradient, and the flat gradient.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = self.loss.into_scalar::<f32>().to_le_bytes().to_vec();
        if let Gradient::Flat { sum, found } = self.gradient {
            bytes.extend(found.iter().map(|found| u8::from(*found)));
            if let Some(sum) = sum {
                let values = sum.into_data();
                bytes.reserve(4 * values.num_elements());
                bytes.extend(values.iter::<f32>().flat_map(f32::to_le_bytes));
            }
        }
        bytes
    }

    /// The partial sum of these bytes, from rank `from`.
    ///
    /// # Errors
    /// Another number of bytes than a model with these segments has.
    pub(crate) fn decode(
        bytes: &[u8],
        from: usize,
        segments: &Segments,
        device: &Device,
    ) -> Result<Self, RanksError> {
        let count = segments.all().len();
        let elements = segments.elements();
        if bytes.len() != 4 + count + 4 * elements {
            return Err(RanksError::Message {
                rank: from,
                why: format!(
                    "expected the gradient of {elements} parameters, found {} bytes",
                    bytes.len()
                ),
            });
        }
        let (loss, rest) = bytes.split_at(4);
        let (found, values) = rest.split_at(count);
        let tensor = |values: Vec<f32>| {
            let length = values.len();
            Tensor::from_data(TensorData::new(values, [length]), device)
        };
        Ok(Self {
            loss: tensor(floats(loss, Dtype::F32)),
            gradient: Gradient::Flat {
                sum: Some(tensor(floats(values, Dtype::F32))),
                found: found.iter().map(|found| *found == 1).collect(),
            },
        })
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
            let all = micro_batches.iter().cloned();
            let all = all.map(|one| Gradient::of(&segments, one, is_flat, &Device::flex()));
            let sum = all.reduce(Gradient::plus).unwrap();
            sum.norm(&segments)
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
        let of = |found| Gradient::of(&segments, found, true, &Device::flex());
        let sum = Partial {
            loss: Tensor::from_data([2.5_f32], &Device::flex()),
            gradient: of(first.clone()).plus(of(second.clone())),
        };
        // so does it as one tensor, which ranks may add up
        let joined = Partial {
            loss: sum.loss.clone(),
            gradient: of(first).plus(of(second)),
        };
        let device = Device::flex();
        let joined = joined.joined(&segments, &device) + Partial::zeros(&segments, &device);
        let parted = Partial::parted(joined, &segments);
        assert_eq!(
            parted.loss.into_scalar::<f32>().to_bits(),
            2.5_f32.to_bits()
        );
        assert_eq!(parted.gradient.norm(&segments).to_bits(), 5.0_f64.to_bits());
        assert!(
            matches!(parted.gradient, Gradient::Flat { found, .. } if found == [true, true, false])
        );
        // it arrives at another rank as it was
        let bytes = sum.encode();
        assert!(Partial::decode(&bytes[1..], 1, &segments, &Device::flex()).is_err());
        let sum = Partial::decode(&bytes, 1, &segments, &Device::flex()).unwrap();
        assert_eq!(sum.loss.into_scalar::<f32>().to_bits(), 2.5_f32.to_bits());
        assert_eq!(sum.gradient.norm(&segments).to_bits(), 5.0_f64.to_bits());
        let Gradient::Flat { found, .. } = sum.gradient else {
            unreachable!()
        };
        assert_eq!(found, [true, true, false]);
    }
}
