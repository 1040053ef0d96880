//! What verdicts say, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;
use simmer_instruct::{Finish, Spent};

use crate::answer::Answer;
use crate::judging::{Judgement, Shown};
use crate::length::{Compared, LengthControl, length_control};
use crate::pairs::{Pair, Position, pairs};
use crate::question::Question;
use crate::recipe::{JudgeRecipe, Mode};
use crate::statistics::{Interval, mean_interval, wilson};
use crate::verdict::Verdict;

/// The report of a judgement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What the judge was asked.
    pub mode: Mode,
    /// The judge.
    pub judge: String,
    /// The prompts of the judge.
    pub prompts: String,
    /// The models.
    pub models: Vec<String>,
    /// The number of questions.
    pub questions: usize,
    /// The number of their turns.
    pub turns: usize,
    /// How often everything was judged.
    pub repeats: usize,
    /// The number of verdicts that were asked for.
    pub verdicts: usize,
    /// How many of these the judge's text did not have, also after all attempts.
    pub no_verdict: usize,
    /// How many were found in a later attempt only.
    pub asked_again: usize,
    /// Questions of categories with reference answers, without one.
    pub without_reference: usize,
    /// For each model, the answers that reached `max_tokens`.
    pub truncated_answers: Vec<usize>,
    /// For each model, the answers that are empty.
    pub empty_answers: Vec<usize>,
    /// The comparison of two models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairwise: Option<Versus>,
    /// The ratings of each model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub single: Option<Single>,
    /// The agreement of the judge with itself, from two repeats on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    /// What `verdicts`, and the answers of each model that was asked, needed; empty until the caller fills it in.
    pub spent: BTreeMap<String, Spent>,
}

/// The first model against the second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Versus {
    /// Pairs that the first model wins in both orders.
    pub wins: usize,
    /// Pairs that the second model wins in both orders.
    pub losses: usize,
    /// The other pairs of two verdicts.
    pub ties: usize,
    /// Pairs without two verdicts.
    pub no_verdict: usize,
    /// The mean over questions, with a tie as a half, and its Wilson interval.
    pub win_rate: Option<Interval>,
    /// The same for each turn.
    pub turns: BTreeMap<String, Interval>,
    /// The same for each category.
    pub categories: BTreeMap<String, Interval>,
    /// How verdicts depend on the order of the answers.
    pub position: Position,
    /// How verdicts depend on the length of the answers.
    pub length: Option<LengthControl>,
}

/// The ratings of answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Single {
    /// For each model.
    pub models: Vec<Ratings>,
    /// The mean of the first model minus that of the second, over turns with both ratings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Interval>,
}

/// The ratings of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratings {
    /// The mean of all ratings, and its bootstrap interval.
    pub mean: Option<Interval>,
    /// The same for each turn.
    pub turns: BTreeMap<String, Interval>,
    /// The same for each category.
    pub categories: BTreeMap<String, Interval>,
}

/// The agreement of the judge with itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Pairs of verdicts on the same prompt.
    pub pairs: usize,
    /// The share of those that are equal.
    pub equal: f64,
    /// The mean difference of two ratings of the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_difference: Option<f64>,
}

/// What one turn of a question is worth.
struct Scored {
    question: usize,
    turn: usize,
    value: f64,
}

impl Report {
    /// The report of all judgements of a recipe.
    pub fn new(
        recipe: &JudgeRecipe,
        judge: &str,
        questions: &[Question],
        answers: &[Vec<Answer>],
        judgements: &[Judgement],
        without_reference: usize,
    ) -> Self {
        let has = |judgement: &&Judgement| judgement.verdict.is_some();
        let counted = |of: fn(&Answer) -> usize| {
            let counts = answers.iter().map(|answers| answers.iter().map(of).sum());
            counts.collect()
        };
        let (pairwise, single) = match recipe.mode {
            Mode::Pairwise => (Some(Versus::new(questions, answers, judgements)), None),
            Mode::Single => (
                None,
                Some(Single::new(questions, answers.len(), judgements)),
            ),
        };
        Self {
            mode: recipe.mode,
            judge: judge.to_owned(),
            prompts: recipe.prompts.clone(),
            models: recipe
                .models
                .iter()
                .map(|model| model.shown().to_owned())
                .collect(),
            questions: questions.len(),
            turns: questions.iter().map(|question| question.turns.len()).sum(),
            repeats: recipe.judge.repeats,
            verdicts: judgements.len(),
            no_verdict: judgements.len() - judgements.iter().filter(has).count(),
            asked_again: judgements
                .iter()
                .filter(has)
                .filter(|judgement| judgement.attempts > 1)
                .count(),
            without_reference,
            truncated_answers: counted(|answer| {
                let ends = answer.finish.iter();
                ends.filter(|finish| **finish == Finish::Length).count()
            }),
            empty_answers: counted(|answer| {
                let turns = answer.turns.iter();
                turns.filter(|text| text.trim().is_empty()).count()
            }),
            pairwise,
            single,
            agreement: (recipe.judge.repeats > 1)
                .then(|| agreement(judgements))
                .flatten(),
            spent: BTreeMap::new(),
        }
    }
}

impl Versus {
    fn new(questions: &[Question], answers: &[Vec<Answer>], judgements: &[Judgement]) -> Self {
        let pairs = pairs(judgements);
        let results: Vec<Scored> = pairs
            .iter()
            .filter_map(|pair| {
                Some(Scored {
                    question: pair.question,
                    turn: pair.turn,
                    value: pair.result()?,
                })
            })
            .collect();
        let count = |wanted: f64| {
            let equal = |result: &&Scored| (result.value - wanted).abs() < 0.25;
            results.iter().filter(equal).count()
        };
        let characters = |model: usize, pair: &Pair| {
            let answer = answers.get(model).map(|answers| &answers[pair.question]);
            let text = answer.and_then(|answer| answer.turns.get(pair.turn));
            text.map_or(0, |text| text.chars().count())
        };
        let compared = pairs.iter().filter_map(|pair| {
            Some(Compared {
                question: pair.question,
                result: pair.result()?,
                characters: [characters(0, pair), characters(1, pair)],
            })
        });
        let rate = |values: &[&Scored]| {
            let means = by_question(values)
                .into_iter()
                .map(|values| values.iter().sum::<f64>() / values.len() as f64);
            wilson(&means.collect::<Vec<f64>>())
        };
        let all: Vec<&Scored> = results.iter().collect();
        Self {
            wins: count(1.0),
            losses: count(0.0),
            ties: count(0.5),
            no_verdict: pairs.len() - results.len(),
            win_rate: rate(&all),
            turns: turns(questions, &all, &rate),
            categories: categories(questions, &all, &rate),
            position: Position::of(&pairs),
            length: length_control(&compared.collect::<Vec<_>>()),
        }
    }
}

impl Single {
    fn new(questions: &[Question], models: usize, judgements: &[Judgement]) -> Self {
        let of = |judgement: &Judgement| match judgement.verdict {
            Some(Verdict::Rating(value)) => Some(Scored {
                question: judgement.question,
                turn: judgement.turn,
                value,
            }),
            _ => None,
        };
        let mean = |values: &[&Scored]| mean_interval(&by_question(values));
        let ratings = [Shown::First, Shown::Second].into_iter().take(models);
        let ratings = ratings.map(|shown| {
            let own = judgements
                .iter()
                .filter(|judgement| judgement.shown == shown);
            let values: Vec<Scored> = own.filter_map(of).collect();
            let all: Vec<&Scored> = values.iter().collect();
            Ratings {
                mean: mean(&all),
                turns: turns(questions, &all, &mean),
                categories: categories(questions, &all, &mean),
            }
        });
        // both ratings of a turn are neighbours
        let differences = judgements.windows(2).filter_map(|two| {
            let (first, second) = (of(&two[0])?, of(&two[1])?);
            let is_pair = two[0].shown == Shown::First && two[1].shown == Shown::Second;
            is_pair.then_some(Scored {
                value: first.value - second.value,
                ..first
            })
        });
        let differences: Vec<Scored> = differences.collect();
        let ratings = ratings.collect();
        let differences: Vec<&Scored> = differences.iter().collect();
        Self {
            models: ratings,
            difference: (models == 2).then(|| mean(&differences)).flatten(),
        }
    }
}

/// The values of each question.
fn by_question(values: &[&Scored]) -> Vec<Vec<f64>> {
    let mut all: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for value in values {
        all.entry(value.question).or_default().push(value.value);
    }
    all.into_values().collect()
}

type Estimate<'a> = &'a dyn Fn(&[&Scored]) -> Option<Interval>;

/// An estimate for each group of values.
fn grouped(
    values: &[&Scored],
    name: impl Fn(&Scored) -> Option<String>,
    estimate: Estimate<'_>,
) -> BTreeMap<String, Interval> {
    let mut groups: BTreeMap<String, Vec<&Scored>> = BTreeMap::new();
    for value in values {
        if let Some(name) = name(value) {
            groups.entry(name).or_default().push(value);
        }
    }
    let estimates = groups.into_iter();
    estimates
        .filter_map(|(name, values)| Some((name, estimate(&values)?)))
        .collect()
}

/// For each turn, if there are two.
fn turns(
    questions: &[Question],
    values: &[&Scored],
    estimate: Estimate<'_>,
) -> BTreeMap<String, Interval> {
    if questions.iter().all(|question| question.turns.len() == 1) {
        return BTreeMap::new();
    }
    grouped(values, |value| Some((value.turn + 1).to_string()), estimate)
}

fn categories(
    questions: &[Question],
    values: &[&Scored],
    estimate: Estimate<'_>,
) -> BTreeMap<String, Interval> {
    let name = |value: &Scored| questions.get(value.question)?.category.clone();
    grouped(values, name, estimate)
}

/// The agreement of verdicts on the same prompt.
fn agreement(judgements: &[Judgement]) -> Option<Agreement> {
    let mut groups: BTreeMap<(usize, usize, String), Vec<Verdict>> = BTreeMap::new();
    for judgement in judgements {
        let Judgement {
            question,
            turn,
            shown,
            ..
        } = judgement;
        if let Some(verdict) = judgement.verdict {
            let key = (*question, *turn, format!("{shown:?}"));
            groups.entry(key).or_default().push(verdict);
        }
    }
    let (mut pairs, mut equal, mut differences) = (0, 0, Vec::new());
    for verdicts in groups.values() {
        for (number, one) in verdicts.iter().enumerate() {
            for other in &verdicts[number + 1..] {
                pairs += 1;
                equal += usize::from(one == other);
                if let (Verdict::Rating(one), Verdict::Rating(other)) = (one, other) {
                    differences.push((one - other).abs());
                }
            }
        }
    }
    let count = differences.len() as f64;
    (pairs > 0).then(|| Agreement {
        pairs,
        equal: equal as f64 / pairs as f64,
        mean_difference: (count > 0.0).then(|| differences.iter().sum::<f64>() / count),
    })
}
