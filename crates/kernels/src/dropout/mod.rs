//! Dropout masks that depend on the token and the layer, not on the batch.
//!
//! Each element is drawn by a counter-based generator. Its key is the token (which example, how often
//! it was seen before, which position) and the site (which layer). A different packing, a resumed run
//! or another number of threads therefore gives the same masks.
//!
//! Axes: T tokens, I features.

#[cfg(feature = "libtorch")]
mod libtorch;

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::flex::rows_of_task;
use crate::profile::{self, Operation};
use crate::simd::vectorised;
use crate::threads;

/// The finaliser of SplitMix64: a bijection in which every input bit affects all output bits.
///
/// Source: Steele, Lea and Flood 2014; constants of Stafford's variant 13.
pub const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Dropout of a tensor. Masks are drawn again in the backward pass, never stored.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Key of each token, `[T]`.
    pub keys: Arc<[u64]>,
    /// Number of the layer.
    pub site: u64,
    /// Probability that an element is cleared, in `[0, 1)`.
    pub probability: f64,
}

impl Dropout {
    /// The mask that `Dropout::apply` multiplies by: 0 or `1 / (1 - probability)`, in f32.
    ///
    /// # Shapes
    /// Result: `[T, features]`.
    pub fn mask(&self, features: usize, device: &Device) -> Tensor<2> {
        Tensor::from_data(self.mask_data(features), device)
    }

    /// The elements of [`Self::mask`].
    pub(crate) fn mask_data(&self, features: usize) -> TensorData {
        let shape = [self.keys.len(), features];
        let mut mask = vec![1.0; shape[0] * shape[1]];
        self.apply(&mut mask);
        TensorData::new(mask, shape)
    }

    /// Clears elements, and divides the others by the probability of keeping them.
    ///
    /// # Shapes
    /// `x`: `[T, I]`.
    ///
    /// # Panics
    /// If the probability is not in `[0, 1)`.
    pub(crate) fn apply(&self, x: &mut [f32]) {
        let probability = self.probability;
        assert!(
            (0.0..1.0).contains(&probability),
            "dropout of {probability}"
        );
        let _span = profile::span(Operation::Dropout, x.len(), 2 * 4 * x.len());
        let keep = (1.0 / (1.0 - probability)) as f32;
        let threshold = (probability * 2_f64.powi(32)) as u64;
        let features = x.len() / self.keys.len().max(1);
        let rows = rows_of_task(features);
        threads::chunks(x, rows * features, |task, x| {
            let keys = &self.keys[task * rows..];
            for (x, key) in x.chunks_exact_mut(features).zip(keys) {
                clear(x, mix(key ^ mix(self.site)), threshold, keep);
            }
        });
    }
}

vectorised! {
    fn clear(_simd, x: &'a mut [f32], stream: u64, threshold: u64, keep: f32) {
        for (i, x) in (0_u64..).zip(x) {
            let random = mix(stream.wrapping_add(i)) >> 32;
            *x *= if random >= threshold { keep } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(keys: &[u64], site: u64, features: usize, probability: f64) -> Vec<f32> {
        let dropout = Dropout {
            keys: keys.into(),
            site,
            probability,
        };
        let mask = dropout.mask(features, &Device::flex()).into_data();
        mask.try_into_vec().unwrap()
    }

    #[test]
    fn keeps_the_expected_share() {
        let keys: Vec<u64> = (0..200).collect();
        let values = mask(&keys, 3, 500, 0.2);
        let kept = values.iter().filter(|x| **x > 0.0).count() as f64 / values.len() as f64;
        // 100,000 draws: the standard deviation of the share is 0.0013
        assert!((kept - 0.8).abs() < 0.006, "kept {kept}");
        assert!(
            values
                .iter()
                .all(|x| [0.0_f32, 1.25].map(f32::to_bits).contains(&x.to_bits()))
        );
    }

    #[cfg(feature = "libtorch")]
    #[test]
    fn libtorch_draws_the_same_masks() {
        use burn::backend::libtorch::TchTensor;

        let on = crate::devices::torch();
        // more than one block, and keys with all bits
        let (tokens, features) = (700, 9001);
        let dropout = Dropout {
            keys: (0..tokens).map(mix).collect(),
            site: 5,
            probability: 0.3,
        };
        let ones = tch::Tensor::ones([tokens as i64, features as i64], (tch::Kind::Float, on));
        let found = TchTensor::new(dropout.masked(&ones).view([-1]));
        let found: Vec<f32> = Vec::try_from(&found).unwrap();
        let expected = dropout.mask(features, &Device::flex()).into_data();
        assert_eq!(found, expected.try_into_vec::<f32>().unwrap());
    }

    #[test]
    fn a_token_has_the_same_mask_in_every_batch() {
        let both = mask(&[7, 11], 1, 9, 0.5);
        assert_eq!(both[9..], mask(&[11], 1, 9, 0.5));
        assert_ne!(both[9..], mask(&[11], 2, 9, 0.5));
    }
}
