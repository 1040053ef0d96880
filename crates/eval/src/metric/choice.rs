//! Metrics of multiple-choice questions, computed from log-likelihoods.

use super::Score;
use crate::answer::Answer;
use crate::task::ChoiceMetric;

impl ChoiceMetric {
    fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::AccBytes => "acc_bytes",
            Self::AccPerplexity => "acc_perplexity",
            Self::AccMutualInfo => "acc_mutual_info",
            Self::Mc2 => "mc2",
            Self::LikelihoodDiff => "likelihood_diff",
            Self::PctStereotype => "pct_stereotype",
            Self::PctStereotypePerplexity => "pct_stereotype_perplexity",
        }
    }

    /// The score of a question's answer.
    pub(super) fn score(self, choices: &[String], right: &[usize], answer: &Answer) -> Score {
        let found = &answer.log_likelihoods;
        let divided = |length: fn(&String) -> usize| {
            let pairs = found.iter().zip(choices);
            pairs.map(|(l, choice)| l / length(choice) as f64).collect()
        };
        let by_token = || -> Vec<f64> {
            let pairs = found.iter().zip(&answer.tokens);
            pairs.map(|(l, tokens)| l / *tokens as f64).collect()
        };
        let is_right = |numbers: Vec<f64>| f64::from(u8::from(right.contains(&largest(&numbers))));
        let value = match self {
            Self::Acc => is_right(found.clone()),
            Self::AccNorm => is_right(divided(|choice| choice.chars().count())),
            Self::AccBytes => is_right(divided(String::len)),
            Self::AccPerplexity => is_right(by_token()),
            Self::AccMutualInfo => {
                let pairs = found.iter().zip(&answer.without);
                is_right(pairs.map(|(l, without)| l - without).collect())
            }
            Self::Mc2 => {
                let most = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let shares: Vec<f64> = found.iter().map(|l| (l - most).exp()).collect();
                let of_right: f64 = right.iter().map(|number| shares[*number]).sum();
                of_right / shares.iter().sum::<f64>()
            }
            Self::LikelihoodDiff => (found[0] - found[1]).abs(),
            Self::PctStereotype => f64::from(u8::from(found[0] > found[1])),
            Self::PctStereotypePerplexity => {
                let by_token = by_token();
                f64::from(u8::from(by_token[0] > by_token[1]))
            }
        };
        Score::of(self.name(), value)
    }
}

/// The index of the largest number, the first if several are equal.
fn largest(numbers: &[f64]) -> usize {
    let mut best = 0;
    for (index, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "sums of a few halves are exact")]
mod tests {
    use super::*;

    fn score(metric: ChoiceMetric, likelihoods: &[f64], choices: &[&str], right: &[usize]) -> f64 {
        let answer = Answer {
            log_likelihoods: likelihoods.to_vec(),
            without: vec![-1.0, -5.0],
            tokens: vec![8, 1],
            ..Answer::default()
        };
        let choices: Vec<String> = choices.iter().map(|choice| (*choice).to_owned()).collect();
        metric.score(&choices, right, &answer).value
    }

    #[test]
    fn the_likeliest_choice_depends_on_how_it_is_counted() {
        let choices = ["abcdefgh", "é"];
        let both = [-8.0, -1.5];
        assert_eq!(score(ChoiceMetric::Acc, &both, &choices, &[1]), 1.0);
        assert_eq!(score(ChoiceMetric::AccNorm, &both, &choices, &[0]), 1.0);
        // divided by its two bytes, the second choice is the more likely one again
        assert_eq!(score(ChoiceMetric::AccBytes, &both, &choices, &[1]), 1.0);
        assert_eq!(
            score(ChoiceMetric::AccPerplexity, &both, &choices, &[0]),
            1.0
        );
        assert_eq!(
            score(ChoiceMetric::PctStereotypePerplexity, &both, &choices, &[0]),
            1.0
        );
        assert_eq!(
            score(ChoiceMetric::AccMutualInfo, &both, &choices, &[1]),
            1.0
        );
        assert_eq!(
            score(ChoiceMetric::PctStereotype, &both, &choices, &[0]),
            0.0
        );
        assert_eq!(
            score(ChoiceMetric::LikelihoodDiff, &both, &choices, &[0]),
            6.5
        );
        // the first of equal choices
        assert_eq!(score(ChoiceMetric::Acc, &[-2.0, -2.0], &choices, &[0]), 1.0);
    }

    #[test]
    fn the_share_of_what_is_right() {
        let thirds = [1.0_f64 / 6.0, 1.0 / 3.0, 1.0 / 2.0].map(f64::ln);
        let share = score(ChoiceMetric::Mc2, &thirds, &["a", "b", "c"], &[0, 2]);
        assert!((share - 2.0 / 3.0).abs() < 1e-12);
        // exp(-2000) underflows
        let far = [-2000.0, -2000.0];
        assert!((score(ChoiceMetric::Mc2, &far, &["a", "b"], &[0]) - 0.5).abs() < 1e-12);
    }
}
