//! Reductions of logits, for choosing a token.
//!
//! Axes: V vocabulary size.

use crate::simd::{exp, max, sum, vectorised};

/// Logits per block: a block is summed in f32, the blocks are summed in f64.
const BLOCK: usize = 1024;

/// The index of the largest logit, the first if several are equal; `None` if all are NaN or minus
/// infinity.
///
/// # Shapes
/// `logits`: `[V]`.
pub fn most_likely(logits: &[f32]) -> Option<usize> {
    let mut largest = f32::NEG_INFINITY;
    find_largest(logits, &mut largest);
    let place = logits.iter().position(|logit| *logit >= largest);
    place.filter(|_| largest > f32::NEG_INFINITY)
}

/// `log Σ exp(z)` over the logits `z`.
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
            // a block's sum in f32 has an error of at most 32 roundings of 2⁻²⁴
            prop_assert!((log_sum_exp(&logits) - expected).abs() < 4e-6);
        }

        #[test]
        fn the_first_of_equal_logits_is_chosen(logits in prop::collection::vec(-3_i8..3, 1..200)) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            let expected = logits.iter().position(|logit| logit.to_bits() == largest.to_bits());
            prop_assert_eq!(most_likely(&logits), expected);
        }
    }

    #[test]
    fn without_a_finite_logit_there_is_no_choice() {
        assert_eq!(most_likely(&[]), None);
        assert_eq!(most_likely(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(most_likely(&[f32::NAN, 1.0]), Some(1));
    }
}
