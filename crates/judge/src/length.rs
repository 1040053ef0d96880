//! What the length of answers has to do with verdicts.

use serde::Serialize;

use crate::statistics::{Interval, bootstrap};

/// The number of resamples for the interval of the rate: each needs a fit.
const DRAWS: u64 = 1000;
/// The largest number of Newton's steps; it converges in fewer than ten.
const STEPS: usize = 100;

/// The lengths of the answers that were compared, and the win rate without their effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthControl {
    /// The mean number of characters of an answer of the first and of the second model.
    pub characters: [f64; 2],
    /// Of the comparisons with a winner and answers of different lengths, the share that the longer answer won.
    pub longer_wins: Option<f64>,
    /// The win rate of the first model if both answers had the same length; `None` if all comparisons have the same result, or
    /// all answers the same difference in length.
    pub win_rate: Option<Interval>,
}

/// One comparison: its question, the result for the first model (1, 0.5 or 0), and the characters of both answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// The number of the question.
    pub question: usize,
    /// 1: the first model wins; 0.5: a tie; 0: the second wins.
    pub result: f64,
    /// The characters of the answers of the first and of the second model.
    pub characters: [usize; 2],
}

impl Compared {
    fn difference(&self) -> f64 {
        self.characters[0] as f64 - self.characters[1] as f64
    }
}

/// The effect of length, by the idea of AlpacaEval 2, without its terms for the difficulty of instructions:
///
/// `P(first wins) = σ(θ + φ·tanh(d / s))`
///
/// with the difference `d` of the characters of the two answers and the standard deviation `s` of these differences. `θ` and `φ`
/// maximise `Σ y·ln P + (1 - y)·ln(1 - P) - φ²/2` over the results `y` (a tie is 0.5); this is logistic regression with C = 1. The
/// controlled rate is `σ(θ)`. Its interval is a 95% bootstrap interval over questions, from 1,000 resamples; `s` is that of all
/// comparisons.
///
/// Source: Dubois et al. 2024, "Length-Controlled AlpacaEval: A Simple Way to Debias Automatic Evaluators", arXiv:2404.04475.
pub fn length_control(compared: &[Compared]) -> Option<LengthControl> {
    let count = compared.len() as f64;
    if compared.is_empty() {
        return None;
    }
    let mean = |model: usize| {
        let all = compared.iter().map(|one| one.characters[model] as f64);
        all.sum::<f64>() / count
    };
    let decided: Vec<bool> = compared
        .iter()
        .filter(|one| one.difference() != 0.0 && (one.result - 0.5).abs() > 0.25)
        .map(|one| (one.difference() > 0.0) == (one.result > 0.5))
        .collect();
    let longer = decided.iter().filter(|longer| **longer).count();
    Some(LengthControl {
        characters: [mean(0), mean(1)],
        longer_wins: (!decided.is_empty()).then(|| longer as f64 / decided.len() as f64),
        win_rate: controlled(compared),
    })
}

fn controlled(compared: &[Compared]) -> Option<Interval> {
    let spread = deviation(compared)?;
    let mut questions: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut last = None;
    for one in compared {
        if last != Some(one.question) {
            questions.push(Vec::new());
            last = Some(one.question);
        }
        if let Some(rows) = questions.last_mut() {
            rows.push(((one.difference() / spread).tanh(), one.result));
        }
    }
    let rate = |rows: &mut dyn Iterator<Item = usize>| {
        let rows: Vec<(f64, f64)> = rows
            .flat_map(|row| questions[row].iter().copied())
            .collect();
        let [theta, _] = fit(&rows)?;
        Some(sigmoid(theta))
    };
    bootstrap(questions.len(), DRAWS, &rate)
}

/// The sample standard deviation of the differences; `None` if it is 0 or there is one.
fn deviation(compared: &[Compared]) -> Option<f64> {
    let count = compared.len() as f64;
    let mean = compared.iter().map(Compared::difference).sum::<f64>() / count;
    let squares = compared.iter().map(|one| (one.difference() - mean).powi(2));
    let spread = (squares.sum::<f64>() / (count - 1.0)).sqrt();
    (spread.is_finite() && spread > 0.0).then_some(spread)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `θ` and `φ` for pairs of `x` and the result, by Newton's method; `None` if all results are 1 or all are 0, so that `θ` has no end.
fn fit(rows: &[(f64, f64)]) -> Option<[f64; 2]> {
    let mean = rows.iter().map(|(_, y)| y).sum::<f64>() / rows.len() as f64;
    if !(mean > 0.0 && mean < 1.0) {
        return None;
    }
    let mut at = [(mean / (1.0 - mean)).ln(), 0.0];
    for _ in 0..STEPS {
        let (mut gradient, mut hessian) = ([0.0, -at[1]], [0.0, 0.0, 1.0]);
        for (x, y) in rows {
            let p = sigmoid(at[0] + at[1] * x);
            let (error, weight) = (y - p, p * (1.0 - p));
            gradient[0] += error;
            gradient[1] += error * x;
            hessian[0] += weight;
            hessian[1] += weight * x;
            hessian[2] += weight * x * x;
        }
        let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
        if determinant <= f64::MIN_POSITIVE {
            return None;
        }
        let step = [
            (hessian[2] * gradient[0] - hessian[1] * gradient[1]) / determinant,
            (hessian[0] * gradient[1] - hessian[1] * gradient[0]) / determinant,
        ];
        // a step that is too long for the quadratic model is shortened
        let longest = step[0].abs().max(step[1].abs());
        let scale = if longest > 2.0 { 2.0 / longest } else { 1.0 };
        at = [at[0] + scale * step[0], at[1] + scale * step[1]];
        if longest < 1e-10 {
            return Some(at);
        }
    }
    None
}
