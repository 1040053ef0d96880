//! `counts.json`: the counts of a run's rows, tokens, parameters and steps.

use std::path::Path;

use serde::{Deserialize, Serialize};
use simmer_data::bad::{BadKind, LISTED};
use simmer_data::{Report, SourceReport};
use simmer_files::write_file;

use crate::error::TrainError;
use crate::observer::Start;

/// The file's name.
pub const COUNTS_FILE: &str = "counts.json";

/// The counts of a run, written before its first step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The training sources. Those of a stream are counted when the run ends.
    pub train: Vec<SourceCounts>,
    /// The sources that are used only for validation.
    pub validation: Vec<SourceCounts>,
    /// Training examples; `None` for a stream.
    pub examples: Option<usize>,
    /// Validation examples.
    pub validation_examples: usize,
    /// Trainable parameters.
    pub trained: usize,
    /// Parameters of the base model.
    pub weights: usize,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
}

/// The counts of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// The path, as in the recipe.
    pub path: String,
    /// The format of its rows.
    pub format: String,
    /// The template that rendered them.
    pub template: String,
    /// Rows read.
    pub rows: usize,
    /// Examples that the rows became.
    pub examples: usize,
    /// Tokens of the examples.
    pub tokens: usize,
    /// Labels among those tokens.
    pub targets: usize,
    /// Truncated examples.
    pub truncated: usize,
    /// Dropped rows: too long, without a label, or not usable.
    pub left_out: usize,
    /// The files that were read, each with its rows.
    #[serde(default)]
    pub files: Vec<(String, usize)>,
    /// Data files of the folder that were not read, and why.
    #[serde(default)]
    pub unread: Vec<(String, String)>,
    /// Rows that could not be used, by what is wrong with them.
    #[serde(default)]
    pub unusable: Vec<UnusableCounts>,
}

/// Rows of one source that could not be used for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusableCounts {
    /// What is wrong with them.
    pub what: String,
    /// The number of rows.
    pub rows: usize,
    /// The first of them: file, row and what is wrong.
    pub first: Vec<String>,
}

impl Counts {
    pub(crate) fn of(start: &Start<'_>) -> Self {
        Self {
            train: Vec::new(),
            validation: Vec::new(),
            examples: start.examples,
            validation_examples: start.validation_examples,
            trained: start.trained,
            weights: start.weights,
            steps: start.steps,
            steps_per_epoch: start.steps_per_epoch,
        }
        .with_data(start.data)
    }

    /// The same counts with those of other data.
    pub(crate) fn with_data(mut self, data: &Report) -> Self {
        self.train = data.train.iter().map(SourceCounts::of).collect();
        self.validation = data.validation.iter().map(SourceCounts::of).collect();
        self
    }

    /// Parameters of base model and adapter, as [`Start::parameters`] counts them; trained biases count twice here.
    pub fn parameters(&self) -> usize {
        let is_full = self.trained == self.weights;
        self.weights + if is_full { 0 } else { self.trained }
    }

    /// Reads the counts in a run's folder.
    ///
    /// # Errors
    /// A file that cannot be read, or that does not hold counts.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(COUNTS_FILE);
        let text = std::fs::read(&path).map_err(TrainError::io(&path, "read"))?;
        serde_json::from_slice(&text).map_err(|error| TrainError::io(&path, "read")(error.into()))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(COUNTS_FILE);
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| TrainError::io(&path, "write")(error.into()))?;
        Ok(write_file(&path, |file| writeln!(file, "{json}"))?)
    }
}

impl SourceCounts {
    fn of(report: &SourceReport) -> Self {
        Self {
            path: report.path.clone(),
            format: report.format.to_string(),
            template: report.template.clone(),
            rows: report.rows,
            examples: report.examples,
            tokens: report.tokens,
            targets: report.targets,
            truncated: report.truncated.count,
            left_out: report.overlong.count + report.untrained.count + report.unusable.rows,
            files: report
                .files
                .iter()
                .map(|(file, rows)| (file.display().to_string(), *rows))
                .collect(),
            unread: report
                .unread
                .iter()
                .map(|(file, why)| (file.display().to_string(), why.clone()))
                .collect(),
            unusable: report
                .unusable
                .kinds
                .iter()
                .map(UnusableCounts::of)
                .collect(),
        }
    }
}

impl UnusableCounts {
    fn of(kind: &BadKind) -> Self {
        let first = kind.first.iter().take(LISTED);
        Self {
            what: kind.what.clone(),
            rows: kind.rows,
            first: first
                .map(|bad| format!("{}: {}", bad.origin, bad.what))
                .collect(),
        }
    }
}
