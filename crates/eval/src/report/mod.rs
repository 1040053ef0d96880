//! What came out: means with their errors, models side by side.

mod page;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Reference};
use crate::metric::{Score, reference_scores};
use crate::question::{Asked, Question};
use crate::statistics::{Difference, Mean, difference, mean};
use crate::task::{Protocol, Task};

pub use page::html;
pub use table::{aligned, lines, markdown, terminal};

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReport {
    /// Its name.
    pub metric: String,
    /// Of each model, over all rows.
    pub means: Vec<Mean>,
    /// Of each model but the first, from the first.
    pub differences: Vec<Difference>,
    /// Of each model, the mean of the groups' means.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macro_average: Vec<f64>,
    /// Of each group, of each model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
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
        let scores = results.iter().map(|results| results.scores.clone());
        let scores: Vec<Vec<Vec<Score>>> = scores.collect();
        let groups = questions.iter().map(|question| question.groups.clone());
        let groups: Vec<Vec<String>> = groups.collect();
        let metrics = names(&scores).into_iter();
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
                .map(|metric| MetricReport::new(metric, &groups, &scores))
                .collect(),
            published: published.and_then(|(paper, size)| paper.scores.get(size).copied()),
            examples: examples(questions, results),
        }
    }
}

/// The metrics of all rows, in the order in which they come.
fn names(scores: &[Vec<Vec<Score>>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for score in scores.iter().flatten().flatten() {
        if !names.contains(&score.metric) {
            names.push(score.metric.clone());
        }
    }
    names
}

/// The scores of models on rows that have no text any more, such as those that a run held out.
pub fn of_references(models: &[Vec<Option<Reference>>]) -> Vec<MetricReport> {
    let rows = models.first().map_or(0, Vec::len);
    let scores = models.iter().map(|model| {
        let scores = model.iter();
        let scores = scores.map(|found| found.as_ref().map(reference_scores).unwrap_or_default());
        scores.collect()
    });
    let scores: Vec<Vec<Vec<Score>>> = scores.collect();
    let names = names(&scores);
    let groups = vec![Vec::new(); rows];
    names
        .into_iter()
        .map(|metric| MetricReport::new(metric, &groups, &scores))
        .collect()
}

impl MetricReport {
    /// `groups`: those of each row. `scores`: of each model, of each row.
    fn new(metric: String, groups: &[Vec<String>], scores: &[Vec<Vec<Score>>]) -> Self {
        let value = |model: &[Vec<Score>], row: usize| {
            let mut scores = model[row].iter();
            let score = scores.find(|score| score.metric == metric)?;
            Some((score.value, score.weight))
        };
        // rows that have no such score (no reference answer) count for no model
        let rows =
            (0..groups.len()).filter(|row| scores.iter().all(|model| value(model, *row).is_some()));
        let rows: Vec<usize> = rows.collect();
        let means = |wanted: &dyn Fn(usize) -> bool| -> Vec<Mean> {
            let of = |model: &Vec<Vec<Score>>| {
                let rows = rows.iter().filter(|row| wanted(**row));
                let found: Vec<_> = rows.filter_map(|row| value(model, *row)).collect();
                mean(&found)
            };
            scores.iter().map(of).collect()
        };
        let differences = scores.iter().skip(1).map(|model| {
            let pairs = rows.iter();
            let pairs =
                pairs.filter_map(|row| Some([value(&scores[0], *row)?, value(model, *row)?]));
            difference(&pairs.collect::<Vec<_>>())
        });
        let mut of_groups = BTreeMap::new();
        for group in groups.iter().flatten() {
            of_groups
                .entry(group.clone())
                .or_insert_with(|| means(&|row| groups[row].contains(group)));
        }
        // groups that overlap have no average
        let is_partition = groups.iter().all(|groups| groups.len() == 1);
        let models = (0..scores.len()).filter(|_| is_partition);
        let macro_average = models.map(|model| {
            let each = of_groups.values().map(|means| means[model].value);
            each.sum::<f64>() / of_groups.len() as f64
        });
        Self {
            macro_average: macro_average.collect(),
            means: means(&|_| true),
            differences: differences.collect(),
            groups: of_groups,
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
