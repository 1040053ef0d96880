//! What choosing a token needs of its logits.
//!
//! Axes: V vocabulary.

use crate::simd::{exp, max, sum, vectorised};

/// Logits whose exponentials are summed in f32, before the sum goes on in f64.
const BLOCK: usize = 1024;

/// The place of the largest, the first of several; `None` where every one is NaN or minus infinity.
///
/// # Shapes
/// `logits`: `[V]`.
pub fn most_likely(logits: &[f32]) -> Option<usize> {
    let mut largest = f32::NEG_INFINITY;
    find_largest(logits, &mut largest);
    let place = logits.iter().position(|logit| *logit >= largest);
    place.filter(|_| largest > f32::NEG_INFINITY)
}

/// `log Σ exp(z)`.
///
/// # Shapes
/// `logits`: `[V]`.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let mut largest = f32::NEG_INFINITY;
    find_largest(logits, &mut largest);
    let mut total = 0.0;
    sum_exponentials(logits, largest, &mut total);
    f64::from(largest) + total.ln()
}

vectorised! {
    fn find_largest(simd, logits: &'a [f32], largest: &'a mut f32) {
        *largest = max(simd, logits);
    }
}

vectorised! {
    fn sum_exponentials(simd, logits: &'a [f32], largest: f32, total: &'a mut f64) {
        let mut block = [0.0; BLOCK];
        for logits in logits.chunks(BLOCK) {
            let block = &mut block[..logits.len()];
            for (exponential, logit) in block.iter_mut().zip(logits) {
                *exponential = exp(*logit - largest);
            }
            *total += f64::from(sum(simd, block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_definition(logits in prop::collection::vec(-30.0_f32..30.0, 1..5000)) {
            let exponentials = logits.iter().map(|z| f64::from(*z).exp());
            let expected = exponentials.sum::<f64>().ln();
            // a block's sum of f32 is within 32 roundings of 2⁻²⁴
            prop_assert!((log_sum_exp(&logits) - expected).abs() < 4e-6);
        }

        #[test]
        fn the_first_of_the_largest(logits in prop::collection::vec(-3_i8..3, 1..200)) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            let expected = logits.iter().position(|logit| logit.to_bits() == largest.to_bits());
            prop_assert_eq!(most_likely(&logits), expected);
        }
    }

    #[test]
    fn nothing_is_most_likely_of_nothing() {
        assert_eq!(most_likely(&[]), None);
        assert_eq!(most_likely(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(most_likely(&[f32::NAN, 1.0]), Some(1));
    }
}
