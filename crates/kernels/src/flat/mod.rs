//! AdamW and the norm of a gradient, over a flat buffer of parameters.
//!
//! `m ← m + (1-β₁)(g-m)`, `v ← β₂v + (1-β₂)g²`,
//! `p ← p(1-ηλ) - η/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + ε)`
//!
//! Source: Loshchilov and Hutter 2019; torch `optim/adamw.py`, `_single_tensor_adamw`.
//!
//! Axes: N elements of the buffer.

mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

/// One update of AdamW: what is the same for all elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// β₁
    pub beta1: f64,
    /// β₂
    pub beta2: f64,
    /// ε
    pub eps: f64,
    /// t, this update included.
    pub updates: u64,
    /// Factor of the gradient, below 1 if it is clipped.
    pub clip: f64,
    /// Whether `value` may be updated in place, with all tensors that share its memory. A device does so if
    /// [`Capabilities::updates_in_place`](crate::Capabilities::updates_in_place).
    pub in_place: bool,
}

impl AdamWStep {
    /// `η / (1-β₁ᵗ)`
    fn rate(&self, learning_rate: f64) -> f64 {
        learning_rate / (1.0 - self.beta1.powf(self.updates as f64))
    }

    /// `√(1-β₂ᵗ)`
    fn root_correction(&self) -> f64 {
        (1.0 - self.beta2.powf(self.updates as f64)).sqrt()
    }
}

/// A part of the buffer that an update treats alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its elements.
    pub range: Range<usize>,
    /// η
    pub learning_rate: f64,
    /// `1-ηλ`, if its weights decay.
    pub decay: Option<f64>,
}

impl Part {
    /// Whether an update treats the elements of both alike.
    pub fn is_treated_as(&self, other: &Self) -> bool {
        let of =
            |part: &Self| [Some(part.learning_rate), part.decay].map(|of| of.map(f64::to_bits));
        of(self) == of(other)
    }
}

/// Parameters with their moments; each is `[N]`, in f32.
#[derive(Debug, Clone)]
pub struct AdamWTensors {
    /// p
    pub value: Tensor<1>,
    /// m
    pub mean: Tensor<1>,
    /// v
    pub square: Tensor<1>,
}

/// Updates the parts of a buffer; all else stays as it is. Moments that nothing else holds are updated in place.
///
/// # Shapes
/// `gradient`: `[N]`, f32. `parts`: in ascending order.
pub fn adamw(
    tensors: AdamWTensors,
    gradient: Tensor<1>,
    step: AdamWStep,
    parts: Vec<Part>,
) -> AdamWTensors {
    let AdamWTensors {
        value,
        mean,
        square,
    } = tensors;
    let [value, mean, square, gradient] =
        [value, mean, square, gradient].map(Tensor::into_dispatch);
    let (value, mean, square) = Dispatch::adamw_step(value, mean, square, gradient, step, parts);
    let [value, mean, square] = [value, mean, square].map(Tensor::from_dispatch);
    AdamWTensors {
        value,
        mean,
        square,
    }
}

/// The Euclidean norm of a gradient.
///
/// On the processor, each piece is summed in the order of Burn's `square().sum()`, and the sums are added in f64 in the
/// order of the pieces. Other devices sum the buffer as a whole.
///
/// # Shapes
/// `gradient`: `[N]`, f32. `pieces`: together the whole buffer.
pub fn norm(gradient: Tensor<1>, pieces: Vec<Range<usize>>) -> f64 {
    if pieces.is_empty() {
        return 0.0;
    }
    let sums = Dispatch::sums_of_squares(gradient.into_dispatch(), pieces);
    let sums = Tensor::<1>::from_dispatch(sums).into_data();
    sums.iter::<f64>().sum::<f64>().sqrt()
}

/// A buffer in the dtype of `copy`: `copy` itself, with new elements, where a device updates in place.
///
/// # Shapes
/// `copy`, `value`, result: `[N]`.
pub fn copy_again(copy: Tensor<1>, value: Tensor<1>) -> Tensor<1> {
    let [copy, value] = [copy, value].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::copied_again(copy, value))
}

/// The reference implementation of [`adamw`] for a buffer that is one part, in plain tensor operations.
///
/// # Shapes
/// As [`adamw`].
pub fn adamw_reference(
    tensors: AdamWTensors,
    gradient: Tensor<1>,
    step: AdamWStep,
    learning_rate: f64,
    decay: Option<f64>,
) -> AdamWTensors {
    let AdamWTensors {
        value,
        mean,
        square,
    } = tensors;
    let gradient = match step.clip {
        1.0 => gradient,
        clip => gradient * clip,
    };
    let mean = mean.clone() + (gradient.clone() - mean) * (1.0 - step.beta1);
    let square = square * step.beta2 + gradient.square() * (1.0 - step.beta2);
    let root = square.clone().sqrt() / step.root_correction() + step.eps;
    let value = match decay {
        Some(decay) => value * decay,
        None => value,
    };
    AdamWTensors {
        value: value - mean.clone() / root * step.rate(learning_rate),
        mean,
        square,
    }
}

/// [`adamw`] and [`norm`] on a backend.
#[burn::backend::backend_extension(Flex, LibTorch: cfg(feature = "libtorch"))]
pub trait FlatBackend: Backend {
    /// See [`adamw`].
    fn adamw_step(
        value: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
        parts: Vec<Part>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// See [`copy_again`].
    fn copied_again(copy: FloatTensor<Self>, value: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Sums that add up to the sum of all squares; see [`norm`].
    fn sums_of_squares(gradient: FloatTensor<Self>, pieces: Vec<Range<usize>>)
    -> FloatTensor<Self>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices;
    use burn::tensor::{DType, Device, Distribution, Tolerance};

    fn random(size: usize, device: &Device) -> Tensor<1> {
        Tensor::random([size], Distribution::Normal(0.0, 1.0), device)
    }

    fn tensors(size: usize, device: &Device) -> AdamWTensors {
        AdamWTensors {
            value: random(size, device),
            mean: random(size, device) * 0.1,
            square: random(size, device).square(),
        }
    }

    fn step(clip: f64) -> AdamWStep {
        AdamWStep {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            updates: 3,
            clip,
            in_place: false,
        }
    }

    const RATE: f64 = 0.01;

    fn part(range: Range<usize>, decay: Option<f64>) -> Part {
        Part {
            range,
            learning_rate: RATE,
            decay,
        }
    }

    fn bits(of: &Tensor<1>) -> Vec<u32> {
        let values = of.to_data().try_to_vec::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn every_bit_is_that_of_plain_tensor_operations() {
        let device = Device::flex();
        let size = 40_000; // several tasks
        for (clip, decay) in [(1.0, None), (0.37, Some(0.999))] {
            let before = tensors(size, &device);
            let gradient = random(size, &device);
            let expected =
                adamw_reference(before.clone(), gradient.clone(), step(clip), RATE, decay);
            // one part, or many that an update treats alike
            let cut = [0, 1, 17, 9_000, 30_000, size];
            let cut = cut.windows(2).map(|ends| part(ends[0]..ends[1], decay));
            for parts in [vec![part(0..size, decay)], cut.collect()] {
                let found = adamw(before.clone(), gradient.clone(), step(clip), parts);
                assert_eq!(bits(&found.value), bits(&expected.value));
                assert_eq!(bits(&found.mean), bits(&expected.mean));
                assert_eq!(bits(&found.square), bits(&expected.square));
            }
        }
    }

    #[test]
    fn parts_are_updated_and_the_rest_stays() {
        let size = 100;
        for device in devices::all() {
            let device = device.without_autodiff();
            let here = tensors(size, &Device::flex());
            let moved = |x: &Tensor<1>| Tensor::<1>::from_data(x.to_data(), &device);
            let before = AdamWTensors {
                value: moved(&here.value),
                mean: moved(&here.mean),
                square: moved(&here.square),
            };
            let kept = before.value.to_data();
            let gradient = random(size, &Device::flex());
            let faster = |range, decay| Part {
                learning_rate: 16.0 * RATE,
                ..part(range, decay)
            };
            // two that touch, and one apart
            let parts = vec![
                part(10..30, Some(0.9)),
                faster(30..60, None),
                faster(70..80, Some(0.7)),
            ];
            let after = adamw(before.clone(), moved(&gradient), step(0.5), parts.clone());
            before.value.to_data().assert_eq(&kept, true);
            for Part {
                range,
                learning_rate,
                decay,
            } in parts
            {
                let cut = |x: &Tensor<1>| x.clone().slice(range.clone());
                let of = AdamWTensors {
                    value: cut(&here.value),
                    mean: cut(&here.mean),
                    square: cut(&here.square),
                };
                let expected = adamw_reference(of, cut(&gradient), step(0.5), learning_rate, decay);
                for (found, expected) in [
                    (&after.value, expected.value),
                    (&after.mean, expected.mean),
                    (&after.square, expected.square),
                ] {
                    // a few roundings of values of order one
                    cut(found)
                        .into_data()
                        .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
                }
            }
            for range in [0..10, 60..70, 80..100] {
                let [found, before] =
                    [&after.value, &here.value].map(|of| of.clone().slice(range.clone()));
                found.into_data().assert_eq(&before.into_data(), true);
            }
        }
    }

    #[test]
    fn views_of_a_buffer_that_is_updated_in_place_show_it() {
        let device = Device::flex();
        assert!(!crate::Capabilities::of(&device).updates_in_place);
        for device in devices::all() {
            let device = device.without_autodiff();
            if !crate::Capabilities::of(&device).updates_in_place {
                continue;
            }
            let before = tensors(64, &device);
            let view = before.value.clone().slice(16..32).reshape([4, 4]);
            let gradient = random(64, &device);
            let step = AdamWStep {
                in_place: true,
                ..step(1.0)
            };
            let copy = before.value.clone().cast(DType::BF16);
            let rounded = copy.clone().slice(16..32);
            let after = adamw(before, gradient, step, vec![part(0..64, None)]);
            let again = copy_again(copy, after.value.clone()).slice(16..32);
            rounded
                .into_data()
                .assert_eq(&again.clone().into_data(), true);
            let expected = after.value.slice(16..32);
            let cast = expected.clone().cast(DType::BF16).into_data();
            again.into_data().assert_eq(&cast, true);
            let expected = expected.into_data();
            view.reshape([16]).into_data().assert_eq(&expected, true);
        }
    }

    #[test]
    fn norms() {
        for device in devices::all() {
            let device = device.without_autodiff();
            for (size, pieces) in [
                (5_000, vec![0..1, 1..4_000, 4_000..5_000]),
                (3, vec![0..1, 1..3]),
            ] {
                let gradient = random(size, &device);
                let values = gradient.to_data().try_to_vec::<f32>().unwrap();
                let sum: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
                let found = norm(gradient, pieces);
                assert!((found / sum.sqrt() - 1.0).abs() < 1e-6);
            }
            let broken = Tensor::<1>::from_data([1.0, f32::NAN], &device);
            assert!(norm(broken, vec![0..1, 1..2]).is_nan());
        }
    }

    #[test]
    fn sums_of_pieces_have_the_bits_of_plain_tensor_operations() {
        let gradient = random(10_000, &Device::flex());
        let pieces = vec![0..100, 100..7_001, 7_001..10_000];
        let plain: Vec<Tensor<1>> = pieces
            .iter()
            .map(|piece| gradient.clone().slice(piece.clone()).square().sum())
            .collect();
        let plain: f64 = Tensor::cat(plain, 0).into_data().iter::<f64>().sum();
        assert_eq!(norm(gradient, pieces).to_bits(), plain.sqrt().to_bits());
    }
}
