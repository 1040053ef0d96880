//! Dropout masks that depend on what is masked, not on how it is batched.
//!
//! Each element's bit comes from a counter-based generator keyed by the token (which visit of
//! which example, which position) and the site (which layer). Packing rows otherwise, resuming a
//! run or changing the number of threads therefore changes no mask.
//!
//! Axes: T tokens, I features.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// The finaliser of SplitMix64: a bijection that scatters its input over all bits.
///
/// Source: Steele, Lea and Flood 2014; constants of Stafford's variant 13.
pub const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A mask that keeps each feature with probability `1 - probability`.
///
/// # Shapes
/// `keys`: one a token, `[T]`. Result: `[T, features]`, 0 or `1 / (1 - probability)`, f32.
///
/// # Panics
/// Where `probability` is not in `[0, 1)`.
pub fn dropout_mask(
    keys: &[u64],
    site: u64,
    features: usize,
    probability: f64,
    device: &Device,
) -> Tensor<2> {
    assert!(
        (0.0..1.0).contains(&probability),
        "dropout of {probability}"
    );
    let keep = (1.0 / (1.0 - probability)) as f32;
    let threshold = (probability * 2_f64.powi(32)) as u64;
    let mut mask = vec![0.0_f32; keys.len() * features];
    mask.par_chunks_mut(features.max(1))
        .zip(keys)
        .for_each(|(row, key)| {
            let stream = mix(key ^ mix(site));
            for (i, value) in row.iter_mut().enumerate() {
                let random = mix(stream.wrapping_add(i as u64)) >> 32;
                *value = if random >= threshold { keep } else { 0.0 };
            }
        });
    Tensor::from_data(TensorData::new(mask, [keys.len(), features]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_expected_share() {
        let keys: Vec<u64> = (0..200).collect();
        let mask = dropout_mask(&keys, 3, 500, 0.2, &Device::flex()).into_data();
        let values = mask.try_to_vec::<f32>().unwrap();
        let kept = values.iter().filter(|x| **x > 0.0).count() as f64 / values.len() as f64;
        // 100,000 draws: the standard deviation of the share is 0.0013
        assert!((kept - 0.8).abs() < 0.006, "kept {kept}");
        assert!(
            values
                .iter()
                .all(|x| [0.0_f32, 1.25].map(f32::to_bits).contains(&x.to_bits()))
        );
    }

    #[test]
    fn a_row_is_masked_alike_wherever_it_stands() {
        let device = Device::flex();
        let both = dropout_mask(&[7, 11], 1, 9, 0.5, &device).into_data();
        let second = dropout_mask(&[11], 1, 9, 0.5, &device).into_data();
        assert_eq!(
            both.try_to_vec::<f32>().unwrap()[9..],
            second.try_to_vec::<f32>().unwrap()
        );
        let other_site = dropout_mask(&[11], 2, 9, 0.5, &device).into_data();
        assert_ne!(
            second.try_to_vec::<f32>().unwrap(),
            other_site.try_to_vec::<f32>().unwrap()
        );
    }
}
