//! pass@k: the probability that at least one of `k` samples is right.

/// The unbiased estimate from `samples` samples of which `right` are right:
/// `1 - C(n - c, k) / C(n, k) = 1 - Π_{i = n - c + 1}^{n} (1 - k / i)`, and 1 if fewer than `k` are wrong.
///
/// Source: Chen et al. 2021, section 2.1 and figure 3.
pub fn pass_at_k(samples: usize, right: usize, k: usize) -> f64 {
    let wrong = samples.saturating_sub(right);
    if wrong < k {
        return 1.0;
    }
    let factors = (wrong + 1..=samples).map(|i| 1.0 - k as f64 / i as f64);
    1.0 - factors.product::<f64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `C(n, k)` for numbers whose products fit.
    fn choose(n: u128, k: u128) -> u128 {
        if k > n {
            return 0;
        }
        (0..k).fold(1, |product, i| product * (n - i) / (i + 1))
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "0 and 1 are exact")]
    fn the_ends_are_exact() {
        assert_eq!(pass_at_k(1, 1, 1), 1.0);
        assert_eq!(pass_at_k(200, 0, 100), 0.0);
        assert_eq!(pass_at_k(5, 3, 3), 1.0);
        // numpy: 1.0 - np.prod(1.0 - 10 / np.arange(200 - 3 + 1, 200 + 1))
        assert!((pass_at_k(200, 3, 10) - 0.143_307_446_322_521_8).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn it_is_the_share_of_choices_with_a_right_one(
            (n, c, k) in (1_usize..=60).prop_flat_map(|n| (Just(n), 0..=n, 1..=n)),
        ) {
            let [all, wrong] = [n, n - c].map(|from| choose(from as u128, k as u128));
            let direct = 1.0 - wrong as f64 / all as f64;
            prop_assert!((pass_at_k(n, c, k) - direct).abs() < 1e-12);
        }

        #[test]
        fn more_tries_and_more_right_samples_pass_more_often(
            (n, c, k) in (2_usize..=300).prop_flat_map(|n| (Just(n), 0..n, 1..n)),
        ) {
            let value = pass_at_k(n, c, k);
            prop_assert!((0.0..=1.0).contains(&value));
            prop_assert!(pass_at_k(n, c, k + 1) >= value - 1e-12);
            prop_assert!(pass_at_k(n, c + 1, k) >= value - 1e-12);
        }
    }
}
