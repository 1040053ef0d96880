//! Llama 3's scaled rotary frequencies, which GGUF stores as one divisor per frequency.

use std::f32::consts::PI;

use crate::config::RopeScaling;
use crate::gguf::GgufError;

/// The divisor of each frequency: 1 for short wavelengths, the factor for long ones, interpolated between. `None` for other
/// kinds of scaling, which are in the metadata.
///
/// `[head_dim / 2]`, computed in f32 in the order in which PyTorch does it for llama.cpp's converter: PyTorch divides a
/// number by a tensor by multiplying with the reciprocal.
pub(super) fn factors(scaling: &RopeScaling, theta: f64, head_dim: usize) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 {
        factor,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: original,
    } = scaling
    else {
        return None;
    };
    let (factor, low, high) = (
        *factor as f32,
        *low_freq_factor as f32,
        *high_freq_factor as f32,
    );
    let original = *original as f32;
    let divisor = |pair: usize| {
        let exponent = (2 * pair) as f32 / head_dim as f32;
        let frequency = (theta as f32).powf(exponent).recip();
        let wavelength = frequency.recip() * (2.0 * PI);
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (wavelength.recip() * original - low) / (high - low);
            ((1.0 - smooth) / factor + smooth).recip()
        }
    };
    Some((0..head_dim / 2).map(divisor).collect())
}

/// The scaling with these divisors, assuming the `low_freq_factor` 1 and `high_freq_factor` 4 of all Llama 3 models; the
/// rule uses only the quotients of the original context and these two.
///
/// # Errors
/// If no factor and original context give these divisors.
pub(super) fn scaling(
    found: &[f32],
    theta: f64,
    head_dim: usize,
) -> Result<RopeScaling, GgufError> {
    if same(&vec![1.0; found.len()], found) {
        return Ok(RopeScaling::Default);
    }
    // the longest wavelength has the full factor unless it is interpolated
    let largest = found.iter().copied().fold(0.0, f32::max);
    let factors = [largest, 8.0, 32.0, 2.0, 4.0, 16.0, 64.0];
    let originals = [8192].into_iter().chain((4..=20).map(|bits| 1 << bits));
    for original_max_position_embeddings in originals {
        for factor in factors {
            let scaling = RopeScaling::Llama3 {
                factor: factor.into(),
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings,
            };
            if self::factors(&scaling, theta, head_dim).is_some_and(|made| same(&made, found)) {
                return Ok(scaling);
            }
        }
    }
    let range = |pick: fn(f32, f32) -> f32, start| found.iter().copied().fold(start, pick);
    Err(GgufError::RopeFactors {
        found: format!(
            "{} divisors from {} to {}",
            found.len(),
            range(f32::min, f32::INFINITY),
            range(f32::max, f32::NEG_INFINITY)
        ),
    })
}

/// Equal up to the difference of two ways to compute a power in f32.
fn same(made: &[f32], found: &[f32]) -> bool {
    made.len() == found.len()
        && (made.iter().zip(found)).all(|(made, found)| (made - found).abs() <= 1e-4 * made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama3(factor: f64, original_max_position_embeddings: usize) -> RopeScaling {
        RopeScaling::Llama3 {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings,
        }
    }

    #[test]
    fn the_models_in_use_are_recognised() {
        for (factor, original, theta, head_dim) in [
            (8.0, 8192, 500_000.0, 128),
            (32.0, 8192, 500_000.0, 64),
            (4.0, 64, 10_000.0, 16),
        ] {
            let scaling = llama3(factor, original);
            let factors = factors(&scaling, theta, head_dim).unwrap();
            assert_eq!(super::scaling(&factors, theta, head_dim).unwrap(), scaling);
        }
        let plain = super::scaling(&[1.0; 8], 10_000.0, 16).unwrap();
        assert_eq!(plain, RopeScaling::Default);
        assert_eq!(factors(&RopeScaling::Linear { factor: 2.0 }, 1e4, 16), None);
    }

    #[test]
    fn values_are_those_of_the_converter() {
        // the converter's lines, computed with PyTorch 2.9
        let factors = factors(&llama3(32.0, 8192), 500_000.0, 64).unwrap();
        assert_eq!(factors[..15], [1.0; 15]);
        assert_eq!(factors[15..18], [1.651_329_3, 3.292_262_8, 9.666_731]);
        assert_eq!(factors[18..], [32.0; 14]);
    }

    #[test]
    fn other_divisors_are_refused() {
        let message = scaling(&[1.0, 1.5, 7.0, 3.0], 10_000.0, 8).unwrap_err();
        insta::assert_snapshot!(message,
            @"`rope_freqs.weight`: 4 divisors from 1 to 7; only Llama 3's rule is supported");
    }
}
