//! Means over rows, their standard errors, and the difference of two models.

use serde::{Deserialize, Serialize};

/// A mean over rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// `Σ w·x / Σ w`
    pub value: f64,
    /// Its standard error; `None` for a single row.
    pub stderr: Option<f64>,
    /// The number of rows.
    pub rows: usize,
}

/// The weighted mean of values, and its standard error `s / √n`. With equal weights, `s²` is the sample variance (n - 1);
/// otherwise, the mean is a ratio, and `s²` is the sample variance of `w·(x - mean) / w̄`.
///
/// `values`: pairs of value and weight.
///
/// Source: lm-evaluation-harness, `mean_stderr`; Cochran 1977, section 2.11, for ratios.
pub fn mean(values: &[(f64, f64)]) -> Mean {
    let rows = values.len();
    let weight: f64 = values.iter().map(|(_, w)| w).sum();
    let value = values.iter().map(|(x, w)| x * w).sum::<f64>() / weight;
    let typical = weight / rows as f64;
    let squares = values
        .iter()
        .map(|(x, w)| (w * (x - value) / typical).powi(2));
    let variance = squares.sum::<f64>() / (rows as f64 - 1.0);
    Mean {
        value,
        stderr: (rows > 1).then(|| (variance / rows as f64).sqrt()),
        rows,
    }
}

/// The difference of two models on the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The mean of the second model minus the mean of the first.
    pub value: f64,
    /// How sure it is; `None` for fewer than [`FEWEST_ROWS`] rows.
    #[serde(flatten)]
    pub bootstrap: Option<Bootstrap>,
}

/// What resampled rows say about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The 95% interval.
    pub interval: [f64; 2],
    /// The two-sided p-value: twice the smaller share of resamples on one side of 0.
    pub p: f64,
}

/// The fewest rows with a bootstrap interval.
///
/// The interval of `n` rows is about `±1.96·s·√((n-1)/n) / √n`, where Student's t needs `±t·s / √n` with `n - 1` degrees of freedom. So it is
/// too narrow, by a factor of 1.2 for 10 rows, 1.9 for 4 and 9 for 2; a single row has an interval without width.
pub const FEWEST_ROWS: usize = 10;

/// The number of resamples of the bootstrap.
const DRAWS: u64 = 10_000;

/// The paired bootstrap: rows are resampled with replacement, the same rows for both models. The resamples are fixed, so the
/// same rows always give the same result.
///
/// `pairs`: for each row, value and weight of the first and of the second model.
///
/// Source: Efron and Tibshirani 1993, chapters 8 and 13; Koehn 2004.
pub fn difference(pairs: &[[(f64, f64); 2]]) -> Difference {
    let of = |rows: &mut dyn Iterator<Item = &[(f64, f64); 2]>| {
        let mut sums = [[0.0; 2]; 2];
        for row in rows {
            for (sums, (x, w)) in sums.iter_mut().zip(row) {
                sums[0] += x * w;
                sums[1] += w;
            }
        }
        sums[1][0] / sums[1][1] - sums[0][0] / sums[0][1]
    };
    let value = of(&mut pairs.iter());
    if pairs.len() < FEWEST_ROWS {
        return Difference {
            value,
            bootstrap: None,
        };
    }
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|draw| {
            let mut random = Random::new(draw);
            of(&mut (0..pairs.len()).map(|_| &pairs[random.below(pairs.len())]))
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| draws[(share * (DRAWS - 1) as f64).round() as usize];
    let share = |side: fn(f64) -> bool| {
        let count = draws.iter().filter(|draw| side(**draw)).count();
        (count + 1) as f64 / (DRAWS + 1) as f64
    };
    let p = 2.0 * share(|draw| draw <= 0.0).min(share(|draw| draw >= 0.0));
    Difference {
        value,
        bootstrap: Some(Bootstrap {
            interval: [at(0.025), at(0.975)],
            p: p.min(1.0),
        }),
    }
}

/// SplitMix64, with one sequence per resample.
struct Random(u64);

impl Random {
    fn new(draw: u64) -> Self {
        Self(simmer_kernels::mix(draw))
    }

    /// A random number below `end`. The bias of the multiplication is below 2⁻³² for any number of rows below 2³².
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let random = simmer_kernels::mix(self.0);
        ((u128::from(random) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "sums of a few halves are exact")]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_the_harness_s() {
        let rows = [1.0, 0.0, 1.0, 1.0].map(|x| (x, 1.0));
        let found = mean(&rows);
        assert_eq!(found.value, 0.75);
        // statistics.stdev([1, 0, 1, 1]) / sqrt(4)
        assert!((found.stderr.unwrap() - 0.25).abs() < 1e-12);
        assert_eq!(mean(&rows[..1]).stderr, None);
    }

    #[test]
    fn weights_make_a_ratio() {
        let found = mean(&[(0.5, 2.0), (1.0, 6.0)]);
        assert_eq!(found.value, 0.875);
    }

    #[test]
    fn equal_models_do_not_differ() {
        let rows: Vec<_> = (0..100)
            .map(|row| [(f64::from(row % 2), 1.0), (f64::from((row / 2) % 2), 1.0)])
            .collect();
        let found = difference(&rows);
        assert_eq!(found.value, 0.0);
        let Bootstrap { interval, p } = found.bootstrap.unwrap();
        assert!(interval[0] < 0.0 && interval[1] > 0.0);
        assert!(p > 0.5, "{p}");
    }

    #[test]
    fn few_rows_have_no_interval() {
        let of = |rows: u8| {
            let rows = (0..rows).map(|row| [(0.0, 1.0), (f64::from(row % 2), 1.0)]);
            difference(&rows.collect::<Vec<_>>())
        };
        for rows in [1, 2, 9] {
            assert!(of(rows).bootstrap.is_none(), "{rows}");
        }
        let ten = of(10);
        assert_eq!(ten.value, 0.5);
        assert!(ten.bootstrap.is_some());
        // both kinds are read as they are written
        for found in [of(9), ten] {
            let json = serde_json::to_string(&found).unwrap();
            let read: Difference = serde_json::from_str(&json).unwrap();
            assert_eq!(read.bootstrap.is_some(), found.bootstrap.is_some());
        }
    }

    #[test]
    fn a_model_that_is_better_on_most_rows_differs() {
        let rows: Vec<_> = (0..200)
            .map(|row| [(0.0, 1.0), (f64::from(u8::from(row % 4 != 0)), 1.0)])
            .collect();
        let found = difference(&rows);
        assert_eq!(found.value, 0.75);
        // √(0.75 · 0.25 / 200) = 0.0306
        let Bootstrap { interval, p } = found.bootstrap.unwrap();
        assert!((interval[0] - (0.75 - 1.96 * 0.0306)).abs() < 0.01);
        assert!(p < 0.001);
        assert_eq!(found, difference(&rows));
    }
}
