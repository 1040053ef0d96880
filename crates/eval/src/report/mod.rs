//! The report: means with standard errors, and comparisons of models.

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

/// The number of questions that a page shows with their answers.
const SHOWN: usize = 20;

/// The scores of models on tasks. The other models are compared with the first.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The protocol whose prompts and metrics are used.
    pub protocol: Protocol,
    /// The models, as the user named them.
    pub models: Vec<String>,
    /// The size of the base model, if it is one of the LLaMA paper.
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
    /// The number of rows.
    pub rows: usize,
    /// The number of few-shot examples.
    pub shots: usize,
    /// For each model, the number of rows that were truncated to its context.
    pub cut: Vec<usize>,
    /// The metrics.
    pub metrics: Vec<MetricReport>,
    /// The score of the LLaMA paper for that size, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<f64>,
    /// The scores of the LLaMA paper for all sizes, in percent, beside those of its suite.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub paper: BTreeMap<String, f64>,
    /// For each model, how many of the rows that it was trained on have words of the task's questions; `None` if these rows are
    /// not known.
    pub contamination: Vec<Option<Contamination>>,
    /// The Python that ran the answers, if they are programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// What a reader of the scores has to know, a sentence each.
    pub notes: Vec<String>,
    /// Some questions with their answers.
    pub examples: Vec<Example>,
}

/// Training rows with words of a task's questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Contamination {
    /// Their number.
    pub rows: usize,
    /// The number of all rows that the model was trained on.
    pub of: usize,
}

/// One metric of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReport {
    /// Its name.
    pub metric: String,
    /// The mean of each model over all rows.
    pub means: Vec<Mean>,
    /// The difference of each other model from the first.
    pub differences: Vec<Difference>,
    /// For each model, the mean of its group means.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macro_average: Vec<f64>,
    /// For each group, the mean of each model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Vec<Mean>>,
}

/// A question, and the answers of the models.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// The row, with file and number.
    pub origin: String,
    /// The prompt.
    pub prompt: String,
    /// The right answer.
    pub right: String,
    /// The answer of each model.
    pub answers: Vec<String>,
    /// The scores of each answer.
    pub scores: Vec<Vec<Score>>,
}

/// The answers of one model to the questions of a task, and their scores, in the order of the questions.
#[derive(Debug)]
pub struct Results<'a> {
    /// Its answers.
    pub answers: Vec<&'a Answer>,
    /// The scores of each.
    pub scores: Vec<Vec<Score>>,
}

impl TaskReport {
    /// The report of a task, from the `results` of each model.
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
            paper: BTreeMap::new(),
            contamination: vec![None; results.len()],
            python: None,
            notes: Vec::new(),
            examples: examples(questions, results),
        }
    }
}

/// The names of all metrics, in the order of their first occurrence.
fn names(scores: &[Vec<Vec<Score>>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for score in scores.iter().flatten().flatten() {
        if !names.contains(&score.metric) {
            names.push(score.metric.clone());
        }
    }
    names
}

/// The scores of models on reference answers whose text is no longer known, such as the validation rows of a run.
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
    /// `groups`: the groups of each row. `scores`: for each model, the scores of each row.
    fn new(metric: String, groups: &[Vec<String>], scores: &[Vec<Vec<Score>>]) -> Self {
        let value = |model: &[Vec<Score>], row: usize| {
            let mut scores = model[row].iter();
            let score = scores.find(|score| score.metric == metric)?;
            Some((score.value, score.weight))
        };
        // a row without this score (no reference answer) counts for no model
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
        // overlapping groups have no average
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
                    .map(|model| answered(question, model.answers[row]))
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
        Asked::Text { turns, answers } => (turns.text(), answers.join("\n")),
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

fn answered(question: &Question, answer: &Answer) -> String {
    if let Asked::Choice { choices, .. } = &question.asked {
        let each = answer.log_likelihoods.iter().zip(choices);
        let each = each.map(|(log, choice)| format!("{log:9.3}  {choice}"));
        return each.collect::<Vec<_>>().join("\n");
    }
    answer.texts.join("\n---\n")
}
