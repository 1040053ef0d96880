//! Tasks as data: what is asked, of which rows, and how answers are measured.
//!
//! ```toml
//! about = "Science questions of school, the easy part (Clark et al. 2018)"
//! files = ["mc/ARC-Easy.jsonl"]                 # below the data folder; the first that is there
//!
//! [choice]
//! prompt = "Question: {{ question }}\nAnswer:"  # Jinja over the fields of a row
//! choices = "choices"                           # an expression
//! answer = "label"                              # the number of the right one, from 0
//! metrics = ["acc", "acc_norm"]
//! ```
//!
//! A field that a row lacks is an error that names the row.

mod built_in;
mod measures;

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::error::EvalError;

pub use measures::{ChoiceMetric, Extraction, Normalisation, Otherwise, Take, TextMetric};

/// No task's file is larger, in bytes.
const LARGEST: u64 = 4 << 20;

/// One task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// What it is called.
    #[serde(skip_deserializing)]
    pub name: String,
    /// What it measures, and who made it.
    pub about: String,
    /// Its rows, below the data folder: files, folders or patterns, of which the first that is there is read.
    pub files: Vec<String>,
    /// Names of the columns of CSV files without a header.
    pub columns: Option<Vec<String>>,
    /// Fields whose names cannot stand in texts, and the names that they have there.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// Other files whose rows are looked up by a key, under the name that they have in texts.
    #[serde(default)]
    pub tables: BTreeMap<String, Table>,
    /// Texts that every row has as further fields, in this order of names.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// An expression that is true of the rows that count.
    pub only: Option<String>,
    /// A text that names the part of the task that a row belongs to, or several, one a line.
    pub group: Option<String>,
    /// Questions that are answered in the prompt.
    pub shots: Option<Shots>,
    /// What stands before everything else.
    pub head: Option<String>,
    /// The question as one of several answers, of which the likeliest is taken.
    pub choice: Option<Choice>,
    /// The question as a text to be continued.
    pub generation: Option<Generation>,
    /// The question as an instruction, in the words of a template.
    pub instruction: Option<Instruction>,
    /// What the LLaMA paper does otherwise.
    pub paper: Option<Paper>,
}

/// Rows of another file, by a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// As a task's.
    pub files: Vec<String>,
    /// The field that tells its rows apart.
    pub key: String,
    /// An expression over the task's row: which row of the table is meant.
    pub of: String,
}

/// Questions with their answers before the question that is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shots {
    /// How many.
    pub count: usize,
    /// Where they are, as a task's files; without any, `rows` is used.
    #[serde(default)]
    pub files: Vec<String>,
    /// The rows themselves.
    #[serde(default)]
    pub rows: Vec<toml::Table>,
    /// A text that has to be the same for the question and for its shots.
    pub same: Option<String>,
    /// The prompt of a shot, where it is not the task's.
    pub prompt: Option<String>,
    /// The answer of a shot, where it is not the task's right one.
    pub answer: Option<String>,
    /// What stands between shots.
    #[serde(default = "empty_line")]
    pub between: String,
}

/// One of several answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The prompt; `choice` is one of its fields where prompts differ by choice.
    pub prompt: String,
    /// An expression for the list of choices.
    pub choices: String,
    /// An expression for the number of the right choice, from 0, or for a list of them.
    pub answer: String,
    /// What follows the prompt.
    #[serde(default = "after_a_space")]
    pub continuation: String,
    /// The prompt that says nothing, for metrics that compare with it.
    pub without: Option<String>,
    /// What is measured.
    pub metrics: Vec<ChoiceMetric>,
}

/// A text to be continued.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// The prompt.
    pub prompt: String,
    /// An expression for the right answers: a text, or a list of which any will do.
    pub answers: Option<String>,
    /// Texts that end an answer; they are not part of it.
    #[serde(default)]
    pub until: Vec<String>,
    /// The most new tokens.
    pub max_new_tokens: usize,
    /// Answers to one question, of which the most frequent counts; above 1 they are drawn.
    #[serde(default = "one")]
    pub samples: usize,
    /// See [`simmer_model::Sampling`]; 0 is greedy.
    #[serde(default)]
    pub temperature: f64,
    /// Ways to find the answer in the text, by name.
    #[serde(default)]
    pub extract: BTreeMap<String, Extraction>,
    /// What does not count when texts are compared.
    #[serde(default)]
    pub normalise: Normalisation,
    /// What is measured.
    pub metrics: Vec<TextMetric>,
}

/// An instruction in the layout of training data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instruction {
    /// As in a recipe's sources.
    pub template: String,
    /// Expressions for `instruction`, `input` and `output`, of rows in no layout that is known.
    #[serde(default)]
    pub row: BTreeMap<String, String>,
    /// The most tokens of a generated answer; 0: none is generated, and reference answers alone are measured.
    pub max_new_tokens: usize,
    /// What does not count when texts are compared.
    #[serde(default)]
    pub normalise: Normalisation,
}

/// What the LLaMA paper does otherwise.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Instead of the task's.
    pub head: Option<String>,
    /// Instead of the choice's.
    pub metrics: Option<Vec<ChoiceMetric>>,
    /// Published scores in percent, by size.
    #[serde(default)]
    pub scores: BTreeMap<String, f64>,
}

/// Whose prompts and measures are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Those of lm-evaluation-harness.
    #[default]
    Harness,
    /// Those of the LLaMA paper.
    Paper,
}

/// Whether a file that a task names stays below the folder that it is looked for in: tasks are passed on.
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

fn one() -> usize {
    1
}

impl Task {
    /// The task of that name: one that ships, or a file that ends in `.toml`.
    ///
    /// # Errors
    /// Where there is none, or its file is wrong.
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
            return Self::parse(&stem.to_string_lossy(), &text);
        }
        let found = built_in::TASKS.iter().find(|(known, _)| *known == name);
        let (name, text) = found.ok_or_else(|| EvalError::unknown_task(name, Self::names()))?;
        Self::parse(name, text)
    }

    /// The names of the tasks that ship.
    pub fn names() -> impl Iterator<Item = &'static str> {
        built_in::TASKS.iter().map(|(name, _)| *name)
    }

    /// Rows of an instruction file, in the words of a template.
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
                row: BTreeMap::new(),
                max_new_tokens,
                normalise: Normalisation::default(),
            }),
            paper: None,
        }
    }

    /// With so many drawn answers to each question, of which the most frequent counts too.
    pub fn with_samples(mut self, samples: usize, temperature: f64) -> Self {
        if let Some(generation) = &mut self.generation {
            generation.samples = samples;
            generation.temperature = temperature;
            if samples > 1 {
                generation.metrics.push(TextMetric::Majority);
            }
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
            // it has the line, which may be all of the file
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
            let problem = "expected one of the tables [choice], [generation] and [instruction]";
            return Err(invalid(problem.to_owned()));
        }
        if task.files.is_empty() {
            return Err(invalid("`files` names no file".to_owned()));
        }
        if let Some(file) = task.all_files().find(|file| !stays_below(file)) {
            let problem = format!("`{file}` is not the name of a file below the data folder");
            return Err(invalid(problem));
        }
        if let Some(shots) = &task.shots
            && shots.files.is_empty()
            && shots.rows.len() < shots.count
        {
            let problem = format!("shots: {} wanted, {} there", shots.count, shots.rows.len());
            return Err(invalid(problem));
        }
        Ok(task)
    }

    /// The files that it names anywhere.
    fn all_files(&self) -> impl Iterator<Item = &str> {
        let tables = self.tables.values().flat_map(|table| &table.files);
        let shots = self.shots.iter().flat_map(|shots| &shots.files);
        self.files
            .iter()
            .chain(tables)
            .chain(shots)
            .map(String::as_str)
    }

    /// The task as a protocol has it.
    ///
    /// # Errors
    /// Where the protocol says nothing of it.
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
        Ok(self)
    }

    /// With so many answered questions before each.
    ///
    /// # Errors
    /// Where the task has none, or not so many.
    pub fn with_shots(mut self, count: usize) -> Result<Self, EvalError> {
        let problem = match &mut self.shots {
            Some(shots) if !shots.files.is_empty() || count <= shots.rows.len() => {
                shots.count = count;
                return Ok(self);
            }
            None if count == 0 => return Ok(self),
            Some(shots) => format!("{count} shots are wanted, {} are there", shots.rows.len()),
            None => format!("{count} shots are wanted, and it has none"),
        };
        Err(EvalError::Task {
            name: self.name,
            problem,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_that_ships_can_be_read() {
        for name in Task::names() {
            let task = Task::named(name).unwrap();
            assert_eq!(task.name, name);
            if task.paper.is_some() {
                task.under(Protocol::Paper).unwrap();
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_task_is_said() {
        let about = "about = \"x\"\nfiles = [\"x.jsonl\"]\n";
        let wrong = |text: &str| Task::parse("mine", text).unwrap_err().to_string();
        insta::assert_snapshot!(wrong(about), @"task `mine`: expected one of the tables [choice], [generation] and [instruction]");
        insta::assert_snapshot!(wrong(&format!("{about}prompt = \"\"\n")), @r#"
        task `mine`: TOML parse error at line 3, column 1
          |
        3 | prompt = ""
          | ^^^^^^
        unknown field `prompt`, expected one of `about`, `files`, `columns`, `rename`, `tables`, `fields`, `only`, `group`, `shots`, `head`, `choice`, `generation`, `instruction`, `paper`
        "#);
        let outside = |keys: &str| wrong(&format!("about = \"x\"\n{keys}"));
        let generation = "[generation]\nprompt = \"\"\nmax_new_tokens = 1\nmetrics = []\n";
        insta::assert_snapshot!(outside(&format!("files = [\"mc/../../x.jsonl\"]\n{generation}")), @"task `mine`: `mc/../../x.jsonl` is not the name of a file below the data folder");
        insta::assert_snapshot!(outside(&format!("files = [\"x.jsonl\"]\n[shots]\ncount = 1\nfiles = [\"/etc/passwd\"]\n{generation}")), @"task `mine`: `/etc/passwd` is not the name of a file below the data folder");
        insta::assert_snapshot!(Task::named("hellaswgg").unwrap_err().to_string(), @"there is no task `hellaswgg`; did you mean `hellaswag`?");
        let paper = Task::named("truthfulqa_mc1")
            .unwrap()
            .under(Protocol::Paper);
        insta::assert_snapshot!(paper.unwrap_err().to_string(), @"task `truthfulqa_mc1`: the LLaMA paper says nothing of it");
        let shots = Task::named("piqa").unwrap().with_shots(3);
        insta::assert_snapshot!(shots.unwrap_err().to_string(), @"task `piqa`: 3 shots are wanted, and it has none");
    }
}
