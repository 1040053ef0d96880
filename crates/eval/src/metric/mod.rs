//! Metrics: one score per row and metric.

mod choice;
mod math;
mod rouge;
mod text;

use serde::{Deserialize, Serialize};
use simmer_ifeval::{Outcome, of_row};

pub(crate) use math::boxed;
pub use rouge::rouge_l;

use crate::answer::{Answer, Reference};
use crate::error::EvalError;
use crate::question::{Asked, Question};
use crate::task::Task;

/// The score of one row by one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The name of the metric, followed by the name of the extraction if the task has several: `exact_match,strict`.
    pub metric: String,
    /// The value, such as 1 for a right answer and 0 for a wrong one. The task's score is the mean over its rows.
    pub value: f64,
    /// Its weight in the mean: 1, except for metrics over tokens or instructions.
    pub weight: f64,
}

impl Score {
    fn of(metric: impl Into<String>, value: f64) -> Self {
        Self {
            metric: metric.into(),
            value,
            weight: 1.0,
        }
    }
}

/// Scores the answers to a task's questions.
#[derive(Debug)]
pub struct Measure<'a> {
    task: &'a Task,
    texts: Option<text::Texts>,
}

impl<'a> Measure<'a> {
    /// The metrics of a task.
    ///
    /// # Errors
    /// If a regular expression of the task is invalid.
    pub fn new(task: &'a Task) -> Result<Self, EvalError> {
        let texts = match (&task.generation, &task.instruction) {
            (Some(generation), _) => Some(text::Texts::of(&task.name, generation)?),
            (None, Some(instruction)) => {
                Some(text::Texts::of_instruction(&task.name, instruction)?)
            }
            (None, None) => None,
        };
        Ok(Self { task, texts })
    }

    /// The scores of one answer.
    ///
    /// # Errors
    /// If the row cannot be scored.
    pub fn scores(&self, question: &Question, answer: &Answer) -> Result<Vec<Score>, EvalError> {
        let mut scores = Vec::new();
        match (&question.asked, &self.texts) {
            (Asked::Choice { choices, right, .. }, _) => {
                let metrics = self.task.choice.iter().flat_map(|choice| &choice.metrics);
                let found = metrics.map(|metric| metric.score(choices, right, answer));
                scores.extend(found);
            }
            (Asked::Text { answers, .. }, Some(texts)) => {
                scores.extend(texts.scores(answers, &answer.texts));
                if texts.verifies() {
                    scores.extend(verified(question, answer)?);
                }
            }
            (Asked::Instruction(conversation), Some(texts)) => {
                scores.extend(answer.reference.iter().flat_map(reference_scores));
                if let (Some(expected), false) =
                    (last_answer(conversation), answer.texts.is_empty())
                {
                    scores.extend(texts.scores(&[expected], &answer.texts));
                }
            }
            (Asked::Text { .. } | Asked::Instruction(_), None) => {}
        }
        Ok(scores)
    }
}

/// The scores of IFEval: instructions that a program can check.
fn verified(question: &Question, answer: &Answer) -> Result<Vec<Score>, EvalError> {
    let instructions = of_row(&question.fields);
    let instructions = instructions.map_err(|problem| EvalError::row(&question.origin, problem))?;
    let response = answer.texts.first().map_or("", String::as_str);
    let Outcome { strict, loose } = Outcome::of(&instructions, response);
    let scores = [("strict", strict), ("loose", loose)].map(|(way, kept)| {
        let count = kept.iter().filter(|kept| **kept).count();
        let all = f64::from(u8::from(count == kept.len()));
        [
            Score::of(format!("prompt_level_{way}_acc"), all),
            Score {
                metric: format!("inst_level_{way}_acc"),
                value: count as f64 / kept.len() as f64,
                weight: kept.len() as f64,
            },
        ]
    });
    Ok(scores.into_iter().flatten().collect())
}

/// The scores of a reference answer: loss, token accuracy, perplexity.
pub fn reference_scores(reference: &Reference) -> Vec<Score> {
    let tokens = reference.tokens as f64;
    let loss = -reference.log_prob / tokens;
    let of_tokens = |metric: &str, value: f64| Score {
        metric: metric.to_owned(),
        value,
        weight: tokens,
    };
    vec![
        of_tokens("loss", loss),
        of_tokens("token_accuracy", reference.likeliest as f64 / tokens),
        Score::of("perplexity", loss.exp()),
        // a single very unlikely answer must not dominate the mean
        Score::of("perplexity, at most 100", loss.exp().min(100.0)),
    ]
}

/// The answer at the end of a conversation.
fn last_answer(conversation: &simmer_data::Conversation) -> Option<String> {
    let messages = conversation.messages()?;
    let last = messages.into_iter().next_back()?;
    (last.role == simmer_data::Role::Assistant).then_some(last.content)
}
