//! The seeds: tasks written by people, or questions.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::InstructError;

/// The maximum size of a file of seeds.
const MAX_BYTES: u64 = 1 << 30;

/// Seeds, and the SHA-256 of their file.
#[derive(Debug, Clone)]
pub struct Seeds {
    /// The seeds in the order of the file.
    pub all: Vec<Seed>,
    /// The hash of the file.
    pub sha256: String,
}

/// A task: an instruction with instances.
#[derive(Debug, Clone, Deserialize)]
pub struct Seed {
    /// Its name in the file; its line if it has none.
    #[serde(default)]
    pub id: String,
    /// The instruction.
    pub instruction: String,
    /// Inputs and outputs.
    #[serde(default)]
    pub instances: Vec<SeedInstance>,
    /// Whether it is a classification task.
    #[serde(default)]
    pub is_classification: bool,
}

/// An input and its output.
#[derive(Debug, Clone, Deserialize)]
pub struct SeedInstance {
    /// The input; may be empty.
    #[serde(default)]
    pub input: String,
    /// The output.
    pub output: String,
}

/// A seed as a prompt shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The instruction.
    pub instruction: String,
    /// The input of its first instance.
    pub input: String,
    /// The output of its first instance.
    pub output: String,
}

impl Seeds {
    /// Reads tasks, one line of JSON each.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is no task.
    pub fn tasks(path: &Path) -> Result<Self, InstructError> {
        Self::lines(path, |number, line| {
            let mut seed: Seed = serde_json::from_str(line).map_err(|error| error.to_string())?;
            if seed.instances.is_empty() {
                return Err("key `instances`: expected at least one, found none".to_owned());
            }
            if seed.id.is_empty() {
                seed.id = format!("line {number}");
            }
            Ok(Some(seed))
        })
    }

    /// Reads questions: lines of JSON with `question`, `topic` or `instruction`, or lines of text. A question that occurs twice is
    /// used once.
    ///
    /// # Errors
    /// If the file cannot be read, or a line of JSON has none of these keys.
    pub fn questions(path: &Path) -> Result<Self, InstructError> {
        let mut seen = HashSet::new();
        Self::lines(path, |number, line| {
            let question = if line.starts_with('{') {
                let row: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
                let keys = ["question", "topic", "instruction"];
                let text = keys.iter().find_map(|key| row.get(key)?.as_str());
                let text = text
                    .ok_or("expected text in `question`, `topic` or `instruction`, found none")?;
                text.to_owned()
            } else {
                line.to_owned()
            };
            Ok(seen.insert(question.clone()).then(|| Seed {
                id: format!("line {number}"),
                instruction: question,
                instances: Vec::new(),
                is_classification: false,
            }))
        })
    }

    fn lines(
        path: &Path,
        mut read: impl FnMut(usize, &str) -> Result<Option<Seed>, String>,
    ) -> Result<Self, InstructError> {
        let text = simmer_files::read_text(path, MAX_BYTES).map_err(InstructError::read(path))?;
        let mut all = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let seed = read(number, line.trim()).map_err(|problem| InstructError::Seed {
                path: path.to_owned(),
                line: number,
                problem,
            })?;
            all.extend(seed);
        }
        Ok(Self {
            all,
            sha256: simmer_files::digest::sha256(text.as_bytes()),
        })
    }

    /// Reports too few seeds for a prompt.
    pub(crate) fn at_least(&self, count: usize, path: &Path) -> Result<(), InstructError> {
        if self.all.len() >= count {
            return Ok(());
        }
        Err(InstructError::TooFewSeeds {
            path: path.to_owned(),
            expected: count,
            found: self.all.len(),
        })
    }
}

impl Seed {
    /// The seed as a prompt shows it.
    pub(crate) fn example(&self) -> Example {
        let first = self.instances.first();
        Example {
            instruction: self.instruction.clone(),
            input: first.map(|first| first.input.clone()).unwrap_or_default(),
            output: first.map(|first| first.output.clone()).unwrap_or_default(),
        }
    }
}
