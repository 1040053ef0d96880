//! What came out: means with their errors, models side by side.

mod html;
mod table;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::answer::Answer;
use crate::metric::Score;
use crate::question::{Asked, Question};
use crate::statistics::{Difference, Mean, difference, mean};
use crate::task::{Protocol, Task};

pub use html::html;
pub use table::{markdown, terminal};

/// Questions that a page shows with their answers.
const SHOWN: usize = 20;

/// The scores of models on tasks. The first model is what the others are compared with.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whose prompts and measures.
    pub protocol: Protocol,
    /// The models, as they were named.
    pub models: Vec<String>,
    /// The size of the LLaMA paper that the base has, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Each task.
    pub tasks: Vec<TaskReport>,
}

/// The scores of models on one task.
#[derive(Debug, Clone, Serialize)]
pub struct TaskReport {
    /// The task.
    pub task: String,
    /// What it measures.
    pub about: String,
    /// Rows.
    pub rows: usize,
    /// Answered questions before each.
    pub shots: usize,
    /// Of each model, rows that were longer than it takes and lost tokens.
    pub cut: Vec<usize>,
    /// Each metric.
    pub metrics: Vec<MetricReport>,
    /// What the LLaMA paper has for that size, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<f64>,
    /// Some questions and what was answered.
    pub examples: Vec<Example>,
}

/// One metric of a task.
#[derive(Debug, Clone, Serialize)]
pub struct MetricReport {
    /// Its name.
    pub metric: String,
    /// Of each model, over all rows.
    pub means: Vec<Mean>,
    /// Of each model but the first, from the first.
    pub differences: Vec<Difference>,
    /// Of each model, the mean of the groups' means.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macro_average: Vec<f64>,
    /// Of each group, of each model.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Vec<Mean>>,
}

/// A question, and what each model says.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// The row, with file and number.
    pub origin: String,
    /// What was asked.
    pub prompt: String,
    /// What is right.
    pub right: String,
    /// What each model says.
    pub answers: Vec<String>,
    /// The scores of each answer.
    pub scores: Vec<Vec<Score>>,
}

/// What one model said to a task's questions, and how good it was; in the questions' order.
#[derive(Debug)]
pub struct Results<'a> {
    /// Its answers.
    pub answers: Vec<&'a Answer>,
    /// The scores of each.
    pub scores: Vec<Vec<Score>>,
}

impl TaskReport {
    /// The report of a task; `results` of each model.
    pub fn new(
        task: &Task,
        questions: &[Question],
        results: &[Results<'_>],
        size: Option<&str>,
    ) -> Self {
        let metrics = names(results);
        let metrics = metrics.into_iter();
        let published = task.paper.as_ref().zip(size);
        let cut = results.iter().map(|results| {
            let cut = results.answers.iter().filter(|answer| answer.cut > 0);
            cut.count()
        });
        Self {
            task: task.name.clone(),
            about: task.about.clone(),
            rows: questions.len(),
            shots: task.shots.as_ref().map_or(0, |shots| shots.count),
            cut: cut.collect(),
            metrics: metrics
                .map(|metric| MetricReport::new(metric, questions, results))
                .collect(),
            published: published.and_then(|(paper, size)| paper.scores.get(size).copied()),
            examples: examples(questions, results),
        }
    }
}

/// The metrics of all rows, in the order in which they come.
fn names(results: &[Results<'_>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for score in results
        .iter()
        .flat_map(|results| results.scores.iter().flatten())
    {
        if !names.contains(&score.metric) {
            names.push(score.metric.clone());
        }
    }
    names
}

impl MetricReport {
    fn new(metric: String, questions: &[Question], results: &[Results<'_>]) -> Self {
        // rows that have no such score (no reference answer) count for no model
        let values = |model: &Results<'_>, row: usize| {
            let score = model.scores[row]
                .iter()
                .find(|score| score.metric == metric)?;
            Some((score.value, score.weight))
        };
        let rows: Vec<usize> = (0..questions.len())
            .filter(|row| results.iter().all(|model| values(model, *row).is_some()))
            .collect();
        let of = |model: &Results<'_>, wanted: &dyn Fn(usize) -> bool| {
            let rows = rows.iter().filter(|row| wanted(**row));
            let found: Vec<_> = rows.filter_map(|row| values(model, *row)).collect();
            found
        };
        let means = results.iter().map(|model| mean(&of(model, &|_| true)));
        let differences = results.iter().skip(1).map(|model| {
            let pairs = rows
                .iter()
                .filter_map(|row| Some([values(&results[0], *row)?, values(model, *row)?]));
            difference(&pairs.collect::<Vec<_>>())
        });
        let mut groups = BTreeMap::new();
        for group in questions
            .iter()
            .filter_map(|question| question.group.as_ref())
        {
            groups.entry(group.clone()).or_insert_with(|| {
                let inside = |row: usize| questions[row].group.as_ref() == Some(group);
                let means = results.iter().map(|model| mean(&of(model, &inside)));
                means.collect::<Vec<Mean>>()
            });
        }
        let macro_average = (0..results.len())
            .filter(|_| !groups.is_empty())
            .map(|model| {
                let each = groups.values().map(|means| means[model].value);
                each.sum::<f64>() / groups.len() as f64
            });
        Self {
            macro_average: macro_average.collect(),
            means: means.collect(),
            differences: differences.collect(),
            groups,
            metric,
        }
    }
}

fn examples(questions: &[Question], results: &[Results<'_>]) -> Vec<Example> {
    let shown = questions.iter().enumerate().take(SHOWN);
    shown
        .map(|(row, question)| {
            let (prompt, right) = asked(question);
            Example {
                origin: question.origin.to_string(),
                prompt,
                right,
                answers: results
                    .iter()
                    .map(|model| said(question, model.answers[row]))
                    .collect(),
                scores: results
                    .iter()
                    .map(|model| model.scores[row].clone())
                    .collect(),
            }
        })
        .collect()
}

fn asked(question: &Question) -> (String, String) {
    match &question.asked {
        Asked::Choice {
            pairs,
            choices,
            right,
            ..
        } => {
            let right: Vec<&str> = right.iter().map(|one| choices[*one].as_str()).collect();
            let context = pairs.first().map_or("", |pair| pair.context.as_str());
            (context.to_owned(), right.join("\n"))
        }
        Asked::Text { prompt, answers } => (prompt.clone(), answers.join("\n")),
        Asked::Instruction(conversation) => {
            let mut messages = conversation.messages().unwrap_or_default();
            let last = messages.pop().map(|message| message.content);
            let words: Vec<String> = messages
                .into_iter()
                .map(|message| message.content)
                .collect();
            (words.join("\n\n"), last.unwrap_or_default())
        }
    }
}

fn said(question: &Question, answer: &Answer) -> String {
    if let Asked::Choice { choices, .. } = &question.asked {
        let each = answer.log_likelihoods.iter().zip(choices);
        let each = each.map(|(log, choice)| format!("{log:9.3}  {choice}"));
        return each.collect::<Vec<_>>().join("\n");
    }
    answer.texts.join("\n---\n")
}
