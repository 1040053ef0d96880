//! Intervals of rates and means over questions.

use serde::Serialize;
use simmer_data::Random;

/// An estimate with its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Its 95% interval; `None` for fewer than two questions.
    pub interval: Option<[f64; 2]>,
    /// The number of questions.
    pub questions: usize,
}

/// The 97.5% quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// The number of resamples of the bootstrap.
pub(crate) const DRAWS: u64 = 10_000;

/// The mean of the questions' values, each from 0 to 1, and its Wilson score interval:
///
/// `(p + z²/2n ± z·√(p(1 - p)/n + z²/4n²)) / (1 + z²/n)`, with the mean `p` and the number `n` of questions.
///
/// It is that of a share of questions; values between 0 and 1, such as ties, vary less than `p(1 - p)`, so it is too wide
/// rather than too narrow then. Two turns of a question are one value, since they are not independent.
///
/// Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
pub fn wilson(values: &[f64]) -> Option<Interval> {
    let n = values.len() as f64;
    let p = values.iter().sum::<f64>() / n;
    if values.is_empty() {
        return None;
    }
    let square = Z * Z;
    let middle = p + square / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + square / (4.0 * n * n)).max(0.0).sqrt();
    let end = |value: f64| (value / (1.0 + square / n)).clamp(0.0, 1.0);
    Some(Interval {
        value: p,
        interval: (values.len() > 1).then(|| [end(middle - half), end(middle + half)]),
        questions: values.len(),
    })
}

/// The mean of all values, and its 95% bootstrap interval: questions are resampled with replacement, each with all its values, 10,000
/// times, and the interval is from the 2.5% to the 97.5% quantile of the means. The resamples are fixed.
///
/// Source: Efron and Tibshirani 1993, chapter 13.
pub fn mean_interval(questions: &[Vec<f64>]) -> Option<Interval> {
    let sums: Vec<(f64, f64)> = questions
        .iter()
        .filter(|values| !values.is_empty())
        .map(|values| (values.iter().sum(), values.len() as f64))
        .collect();
    let mean = |rows: &mut dyn Iterator<Item = usize>| {
        let all = rows.fold((0.0, 0.0), |all, row| {
            (all.0 + sums[row].0, all.1 + sums[row].1)
        });
        Some(all.0 / all.1)
    };
    bootstrap(sums.len(), DRAWS, &mean)
}

/// A statistic of rows, given by their numbers.
pub(crate) type Statistic<'a> = &'a dyn Fn(&mut dyn Iterator<Item = usize>) -> Option<f64>;

/// A statistic of all rows, and its percentile interval over resampled rows; resamples without a value do not count.
pub(crate) fn bootstrap(rows: usize, draws: u64, statistic: Statistic<'_>) -> Option<Interval> {
    if rows == 0 {
        return None;
    }
    let value = statistic(&mut (0..rows))?;
    let drawn = (0..draws).filter_map(|draw| {
        let mut random = Random::new(0, draw);
        statistic(&mut (0..rows).map(|_| random.below(rows as u64) as usize))
    });
    let mut drawn: Vec<f64> = drawn.collect();
    drawn.sort_by(f64::total_cmp);
    let last = drawn.len().saturating_sub(1) as f64;
    let at = |share: f64| drawn[(share * last).round() as usize];
    Some(Interval {
        value,
        interval: (rows > 1 && !drawn.is_empty()).then(|| [at(0.025), at(0.975)]),
        questions: rows,
    })
}
