//! How good an answer is: one number a row and metric.

mod choice;
mod rouge;
mod text;

use serde::{Deserialize, Serialize};

pub use choice::ChoiceMetric;
pub use rouge::rouge_l;
pub use text::{Extraction, Normalisation, Otherwise, Take, TextMetric};

use crate::answer::Answer;
use crate::error::EvalError;
use crate::question::{Asked, Question};
use crate::task::Task;

/// A number of one row, by the name of its metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The metric, with the way to find the answer where there are several: `exact_match,strict`.
    pub metric: String,
    /// 0 or 1 for what is right or wrong; a mean of rows is the task's.
    pub value: f64,
    /// What it counts for in the mean: 1, but for metrics over tokens or instructions.
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

/// Measures answers to a task's questions.
#[derive(Debug)]
pub struct Measure<'a> {
    task: &'a Task,
    texts: Option<text::Texts>,
}

impl<'a> Measure<'a> {
    /// The metrics of a task.
    ///
    /// # Errors
    /// Where a pattern of the task is wrong.
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
    pub fn scores(&self, question: &Question, answer: &Answer) -> Vec<Score> {
        let mut scores = Vec::new();
        match (&question.asked, &self.texts) {
            (Asked::Choice { choices, right, .. }, _) => {
                let metrics = self.task.choice.iter().flat_map(|choice| &choice.metrics);
                let found = metrics.map(|metric| metric.score(choices, right, answer));
                scores.extend(found);
            }
            (Asked::Text { answers, .. }, Some(texts)) => {
                scores.extend(texts.scores(answers, &answer.texts));
            }
            (Asked::Instruction(conversation), Some(texts)) => {
                scores.extend(reference_scores(answer));
                if let (Some(expected), false) =
                    (last_answer(conversation), answer.texts.is_empty())
                {
                    scores.extend(texts.scores(&[expected], &answer.texts));
                }
            }
            (Asked::Text { .. } | Asked::Instruction(_), None) => {}
        }
        scores
    }
}

/// What the model makes of the reference answer: loss, share of tokens that it would have chosen, perplexity.
fn reference_scores(answer: &Answer) -> Vec<Score> {
    let Some(reference) = &answer.reference else {
        return Vec::new();
    };
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
        // one answer that the model would never give must not hide the others
        Score::of("perplexity, at most 100", loss.exp().min(100.0)),
    ]
}

/// The answer that a conversation ends with.
fn last_answer(conversation: &simmer_data::Conversation) -> Option<String> {
    let messages = conversation.messages()?;
    let last = messages.into_iter().next_back()?;
    (last.role == simmer_data::Role::Assistant).then_some(last.content)
}
