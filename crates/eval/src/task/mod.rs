//! Tasks: which rows are asked which questions, and how answers are scored.
//!
//! ```toml
//! about = "Science questions of school, the easy part (Clark et al. 2018)"
//! files = ["mc/ARC-Easy.jsonl"]                 # in the data folder; the first that exists
//!
//! [choice]
//! prompt = "Question: {{ question }}\nAnswer:"  # Jinja over the fields of a row
//! choices = "choices"                           # an expression
//! answer = "label"                              # the index of the right choice, from 0
//! metrics = ["acc", "acc_norm"]
//! ```
//!
//! If a row lacks a field, the error names the row.

mod built_in;
mod generation;
mod measures;
mod suite;

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use simmer_data::format::Fields;

use crate::error::EvalError;

pub use generation::Generation;
pub use suite::Suite;

pub use measures::{ChoiceMetric, Extraction, Normalisation, Otherwise, Take, TextMetric};

/// The maximum size of a task file in bytes.
const LARGEST: u64 = 4 << 20;

/// One task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name.
    #[serde(skip_deserializing)]
    pub name: String,
    /// What it measures, and its source.
    pub about: String,
    /// Files, folders or patterns in the data folder with its rows. The first that exists is read.
    pub files: Vec<String>,
    /// The column names of CSV files without a header.
    pub columns: Option<Vec<String>>,
    /// Fields whose names cannot be used in templates, and the names to use instead.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// Other files, whose rows are looked up by a key, by their names in templates.
    #[serde(default)]
    pub tables: BTreeMap<String, Table>,
    /// Templates of additional fields of every row, filled in the order of their names.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// An expression that is true for the rows to use.
    pub only: Option<String>,
    /// A template for the group of a row, or several groups, one per line.
    pub group: Option<String>,
    /// Few-shot examples in the prompt.
    pub shots: Option<Shots>,
    /// A template for the start of the prompt.
    pub head: Option<String>,
    /// A multiple-choice question; the most likely choice is the answer.
    pub choice: Option<Choice>,
    /// A prompt to continue.
    pub generation: Option<Generation>,
    /// An instruction, formatted by a prompt template.
    pub instruction: Option<Instruction>,
    /// The differences of the LLaMA paper.
    pub paper: Option<Paper>,
}

/// Rows of another file, looked up by a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// As the task's `files`.
    pub files: Vec<String>,
    /// The field that identifies a row.
    pub key: String,
    /// An expression over the task's row for the key to look up.
    pub of: String,
}

/// Few-shot examples: questions with answers before the question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shots {
    /// The number of examples.
    pub count: usize,
    /// Their files, as the task's `files`; if there are none, `rows` is used.
    #[serde(default)]
    pub files: Vec<String>,
    /// The rows themselves.
    #[serde(default)]
    pub rows: Vec<toml::Table>,
    /// A template whose result must be the same for the question and for its examples.
    pub same: Option<String>,
    /// The prompt of an example, if it differs from the task's.
    pub prompt: Option<String>,
    /// The answer of an example, if it differs from the task's right answer.
    pub answer: Option<String>,
    /// Each question has its own examples, drawn from all rows as lm-evaluation-harness draws them: `random.sample` of Python
    /// after this seed, question after question. Default: the first rows, for all questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// With `seed`: one example more is drawn, and the question itself left out if it is among them, as the harness does for
    /// tasks without a test split.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
    /// The text between examples.
    #[serde(default = "empty_line")]
    pub between: String,
}

/// A multiple-choice question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The prompt. The field `choice` is the choice, for prompts that differ by choice.
    pub prompt: String,
    /// An expression for the list of choices.
    pub choices: String,
    /// An expression for the index of the right choice, from 0, or a list of indices.
    pub answer: String,
    /// The continuation of the prompt.
    #[serde(default = "after_a_space")]
    pub continuation: String,
    /// A neutral prompt, for metrics that compare with it.
    pub without: Option<String>,
    /// The metrics.
    pub metrics: Vec<ChoiceMetric>,
}

/// An instruction in the layout of training data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instruction {
    /// The prompt template, as in a recipe.
    pub template: String,
    /// Its text, if it is not that of the name: the template of an adapter. Never in a file.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub template_text: Option<String>,
    /// Expressions for `instruction`, `input` and `output`, for rows without a known layout.
    #[serde(default)]
    pub row: BTreeMap<String, String>,
    /// The rows' own names for the keys of a format. Never in a file.
    #[serde(default, skip_deserializing, skip_serializing_if = "Fields::is_empty")]
    pub names: Fields,
    /// The maximum number of tokens of a generated answer. 0 generates nothing and scores reference answers only.
    pub max_new_tokens: usize,
    /// What is ignored when texts are compared.
    #[serde(default)]
    pub normalise: Normalisation,
}

/// The differences of the LLaMA paper.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Replaces the task's `head`.
    pub head: Option<String>,
    /// Replaces the prompt of `generation`.
    pub prompt: Option<String>,
    /// Replaces the text between few-shot examples.
    pub between: Option<String>,
    /// Replaces what is ignored when texts are compared.
    pub normalise: Option<Normalisation>,
    /// Replaces the metrics of `choice`.
    pub metrics: Option<Vec<ChoiceMetric>>,
    /// Published scores in percent, by model size.
    #[serde(default)]
    pub scores: BTreeMap<String, f64>,
    /// The same with other numbers of few-shot examples than the task's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shots: BTreeMap<String, BTreeMap<String, f64>>,
}

/// The source of prompts and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Those of lm-evaluation-harness.
    #[default]
    Harness,
    /// Those of the LLaMA paper.
    Paper,
}

/// Whether a file that a task names is inside the data folder. Tasks are shared, so they must not read other files.
fn stays_below(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn empty_line() -> String {
    "\n\n".to_owned()
}

fn after_a_space() -> String {
    " {{ choice }}".to_owned()
}

impl Task {
    /// The built-in task with this name, or the task in a file that ends in `.toml`.
    ///
    /// # Errors
    /// If there is no such task, or it is invalid.
    pub fn named(name: &str) -> Result<Self, EvalError> {
        if Path::new(name)
            .extension()
            .is_some_and(|ending| ending == "toml")
        {
            let text = simmer_files::read_text(Path::new(name), LARGEST).map_err(|source| {
                EvalError::Read {
                    path: name.into(),
                    source,
                }
            })?;
            let stem = Path::new(name).file_stem().unwrap_or_default();
            let parsed = Self::parse(&stem.to_string_lossy(), &text);
            return parsed.map_err(|error| error.in_file(name));
        }
        let found = built_in::TASKS.iter().find(|(known, _)| *known == name);
        let (name, text) = found.ok_or_else(|| EvalError::unknown_task(name, Self::names()))?;
        Self::parse(name, text)
    }

    /// The names of the built-in tasks.
    pub fn names() -> impl Iterator<Item = &'static str> {
        built_in::TASKS.iter().map(|(name, _)| *name)
    }

    /// A task from a file of instruction data, formatted by a prompt template.
    pub fn of_file(file: &Path, template: &str, max_new_tokens: usize) -> Self {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        Self {
            name: format!("held-out-{name}"),
            about: format!("the answers of {}", file.display()),
            files: vec![file.display().to_string()],
            columns: None,
            rename: BTreeMap::new(),
            tables: BTreeMap::new(),
            fields: BTreeMap::new(),
            only: None,
            group: None,
            shots: None,
            head: None,
            choice: None,
            generation: None,
            instruction: Some(Instruction {
                template: template.to_owned(),
                template_text: None,
                row: BTreeMap::new(),
                names: Fields::default(),
                max_new_tokens,
                normalise: Normalisation::default(),
            }),
            paper: None,
        }
    }

    /// The task with the text of its prompt template, which is then not looked up by its name.
    pub fn with_template_text(mut self, text: String) -> Self {
        if let Some(instruction) = &mut self.instruction {
            instruction.template_text = Some(text);
        }
        self
    }

    /// The task with the rows' own names for the keys of a format.
    pub fn with_names(mut self, names: Fields) -> Self {
        if let Some(instruction) = &mut self.instruction {
            instruction.names = names;
        }
        self
    }

    fn parse(name: &str, text: &str) -> Result<Self, EvalError> {
        let invalid = |problem: String| EvalError::Task {
            name: name.to_owned(),
            problem,
        };
        let mut task: Self = toml::from_str(text).map_err(|error| {
            let shown = error.to_string();
            // the message quotes the line, which may be the whole file
            let short = shown.len() < 2000;
            invalid(if short {
                shown
            } else {
                error.message().to_owned()
            })
        })?;
        name.clone_into(&mut task.name);
        let kinds = [
            task.choice.is_some(),
            task.generation.is_some(),
            task.instruction.is_some(),
        ];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            let problem =
                "expected exactly one of the tables [choice], [generation] and [instruction]";
            return Err(invalid(problem.to_owned()));
        }
        if task.files.is_empty() {
            return Err(invalid("`files` is empty".to_owned()));
        }
        if let Some(generation) = &task.generation {
            generation.check().map_err(invalid)?;
        }
        if let Some(file) = task.all_files().find(|file| !stays_below(file)) {
            let problem = format!("`{file}` is not a path inside the data folder");
            return Err(invalid(problem));
        }
        if let Some(shots) = &task.shots
            && shots.files.is_empty()
            && shots.rows.len() < shots.count
        {
            let problem = format!(
                "[shots]: count is {}, but rows has {}",
                shots.count,
                shots.rows.len()
            );
            return Err(invalid(problem));
        }
        if let Some(shots) = &task.shots
            && shots.spare
            && shots.seed.is_none()
        {
            return Err(invalid("[shots]: `spare` needs `seed`".to_owned()));
        }
        if let Some(shots) = &task.shots
            && shots.seed.is_some()
            && shots.same.is_some()
        {
            let problem =
                "[shots]: `seed` draws from all rows, and `same` takes some of them: remove one";
            return Err(invalid(problem.to_owned()));
        }
        Ok(task)
    }

    /// All files that the task names.
    fn all_files(&self) -> impl Iterator<Item = &str> {
        let tables = self.tables.values().flat_map(|table| &table.files);
        let shots = self.shots.iter().flat_map(|shots| &shots.files);
        self.files
            .iter()
            .chain(tables)
            .chain(shots)
            .map(String::as_str)
    }

    /// The task under a protocol.
    ///
    /// # Errors
    /// If the protocol does not contain it.
    pub fn under(mut self, protocol: Protocol) -> Result<Self, EvalError> {
        let Protocol::Paper = protocol else {
            return Ok(self);
        };
        let Some(paper) = &self.paper else {
            return Err(EvalError::NotInPaper { name: self.name });
        };
        if let Some(head) = &paper.head {
            self.head = Some(head.clone());
        }
        if let (Some(choice), Some(metrics)) = (&mut self.choice, &paper.metrics) {
            choice.metrics.clone_from(metrics);
        }
        if let Some(generation) = &mut self.generation {
            if let Some(prompt) = &paper.prompt {
                generation.prompt.clone_from(prompt);
            }
            if let Some(normalise) = &paper.normalise {
                generation.normalise.clone_from(normalise);
            }
        }
        if let (Some(shots), Some(between)) = (&mut self.shots, &paper.between) {
            shots.between.clone_from(between);
        }
        Ok(self)
    }

    /// The task with `count` few-shot examples. Published scores are those with as many, if there are any.
    ///
    /// # Errors
    /// If the task does not have that many.
    pub fn with_shots(mut self, count: usize) -> Result<Self, EvalError> {
        let found = match &mut self.shots {
            Some(shots) if !shots.files.is_empty() || count <= shots.rows.len() => {
                if let Some(paper) = self.paper.as_mut().filter(|_| shots.count != count) {
                    let published = paper.shots.get(&count.to_string());
                    paper.scores = published.cloned().unwrap_or_default();
                }
                shots.count = count;
                return Ok(self);
            }
            None if count == 0 => return Ok(self),
            Some(shots) => shots.rows.len().to_string(),
            None => "none".to_owned(),
        };
        Err(EvalError::TooFewShots {
            name: self.name,
            count,
            found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_task_can_be_read() {
        for name in Task::names() {
            let task = Task::named(name).unwrap();
            assert_eq!(task.name, name);
            if task.paper.is_some() {
                task.under(Protocol::Paper).unwrap();
            }
        }
    }

    #[test]
    fn published_scores_are_those_of_as_many_shots() {
        let of = |shots: usize| {
            let task = Task::named("nq_open").unwrap().with_shots(shots).unwrap();
            task.paper.unwrap().scores.get("7B").copied()
        };
        assert_eq!(
            [0, 1, 5, 64, 2].map(of),
            [Some(16.8), Some(18.7), Some(22.0), Some(26.1), None]
        );
    }

    #[test]
    fn invalid_tasks_are_reported() {
        let about = "about = \"x\"\nfiles = [\"x.jsonl\"]\n";
        let wrong = |text: &str| Task::parse("mine", text).unwrap_err().to_string();
        insta::assert_snapshot!(wrong(about), @"task `mine`: expected exactly one of the tables [choice], [generation] and [instruction]");
        insta::assert_snapshot!(wrong(&format!("{about}prompt = \"\"\n")), @r#"
        task `mine`: TOML parse error at line 3, column 1
          |
        3 | prompt = ""
          | ^^^^^^
        unknown field `prompt`, expected one of `about`, `files`, `columns`, `rename`, `tables`, `fields`, `only`, `group`, `shots`, `head`, `choice`, `generation`, `instruction`, `paper`
        "#);
        let outside = |keys: &str| wrong(&format!("about = \"x\"\n{keys}"));
        let generation = "[generation]\nprompt = \"\"\nmax_new_tokens = 1\nmetrics = []\n";
        insta::assert_snapshot!(outside(&format!("files = [\"mc/../../x.jsonl\"]\n{generation}")), @"task `mine`: `mc/../../x.jsonl` is not a path inside the data folder");
        insta::assert_snapshot!(outside(&format!("files = [\"x.jsonl\"]\n[shots]\ncount = 1\nfiles = [\"/etc/passwd\"]\n{generation}")), @"task `mine`: `/etc/passwd` is not a path inside the data folder");
        insta::assert_snapshot!(Task::named("hellaswgg").unwrap_err().to_string(), @"unknown task `hellaswgg`; did you mean `hellaswag`?");
        let paper = Task::named("truthfulqa_mc1")
            .unwrap()
            .under(Protocol::Paper);
        insta::assert_snapshot!(paper.unwrap_err().to_string(), @"task `truthfulqa_mc1`: the LLaMA paper does not report it");
        let shots = Task::named("crows_pairs").unwrap().with_shots(3);
        insta::assert_snapshot!(shots.unwrap_err().to_string(), @"task `crows_pairs`: few-shot examples requested: 3, but the task has none");
    }
}
