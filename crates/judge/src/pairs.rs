//! Comparisons in both orders.

use serde::Serialize;

use crate::judging::{Judgement, Shown};
use crate::verdict::{Preference, Verdict};

/// Which model a verdict is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The first model.
    First,
    /// The second model.
    Second,
    /// None.
    Tie,
}

/// Two verdicts on the same answers, in both orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The number of the question, from 0.
    pub question: usize,
    /// The turn, from 0.
    pub turn: usize,
    /// Which time, from 1.
    pub repeat: usize,
    /// With the first model's answer first.
    pub first_second: Option<Winner>,
    /// With the second model's answer first.
    pub second_first: Option<Winner>,
}

/// How the verdict depends on the order of the answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Position {
    /// The pairs of two verdicts.
    pub pairs: usize,
    /// Those whose verdict changes with the order.
    pub changed: usize,
    /// Those in which the answer that is shown first wins both times.
    pub first_wins: usize,
    /// Those in which the answer that is shown second wins both times.
    pub second_wins: usize,
}

/// Which model won, if the judge said so.
pub(crate) fn winner(judgement: &Judgement) -> Option<Winner> {
    let Some(Verdict::Preference(preference)) = judgement.verdict else {
        return None;
    };
    Some(match (judgement.shown, preference) {
        (_, Preference::Tie) => Winner::Tie,
        (Shown::SecondFirst, Preference::A) | (Shown::FirstSecond, Preference::B) => Winner::Second,
        _ => Winner::First,
    })
}

/// The pairs of the judgements, in their order.
pub(crate) fn pairs(judgements: &[Judgement]) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    for judgement in judgements {
        let Judgement {
            question,
            turn,
            repeat,
            ..
        } = *judgement;
        let is_of =
            |pair: &Pair| (pair.question, pair.turn, pair.repeat) == (question, turn, repeat);
        // both orders of a pair are neighbours
        if !pairs.last().is_some_and(is_of) {
            pairs.push(Pair {
                question,
                turn,
                repeat,
                first_second: None,
                second_first: None,
            });
        }
        let (Some(pair), winner) = (pairs.last_mut(), winner(judgement)) else {
            continue;
        };
        match judgement.shown {
            Shown::SecondFirst => pair.second_first = winner,
            _ => pair.first_second = winner,
        }
    }
    pairs
}

impl Pair {
    /// 1 if the first model wins in both orders, 0 if the second does, else 0.5; `None` without two verdicts.
    ///
    /// Source: FastChat, `fastchat/llm_judge/show_result.py`: verdicts that change with the order are a tie.
    pub fn result(&self) -> Option<f64> {
        match (self.first_second?, self.second_first?) {
            (Winner::First, Winner::First) => Some(1.0),
            (Winner::Second, Winner::Second) => Some(0.0),
            _ => Some(0.5),
        }
    }
}

impl Position {
    /// Counts pairs.
    pub fn of(pairs: &[Pair]) -> Self {
        let mut position = Self::default();
        for pair in pairs {
            let (Some(first), Some(second)) = (pair.first_second, pair.second_first) else {
                continue;
            };
            position.pairs += 1;
            position.changed += usize::from(first != second);
            match (first, second) {
                (Winner::First, Winner::Second) => position.first_wins += 1,
                (Winner::Second, Winner::First) => position.second_wins += 1,
                _ => (),
            }
        }
        position
    }
}
