//! `counts.json`: how much a run reads, and how much it trains.

use std::path::Path;

use serde::{Deserialize, Serialize};
use simmer_checkpoint::write_file;
use simmer_data::{Report, SourceReport};

use crate::error::TrainError;
use crate::observer::Start;

/// The file's name.
pub const COUNTS_FILE: &str = "counts.json";

/// What a run counted before its first step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The files trained on. Those of a stream are counted when it ends.
    pub train: Vec<SourceCounts>,
    /// The files that are for validation alone.
    pub validation: Vec<SourceCounts>,
    /// Training examples; none of a stream.
    pub examples: Option<usize>,
    /// Validation examples.
    pub validation_examples: usize,
    /// Weights that are trained.
    pub trained: usize,
    /// All weights.
    pub weights: usize,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
}

/// What was read of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// The file.
    pub path: String,
    /// The layout of its rows.
    pub format: String,
    /// The template that rendered them.
    pub template: String,
    /// Rows read.
    pub rows: usize,
    /// Examples made of them.
    pub examples: usize,
    /// Tokens of the examples.
    pub tokens: usize,
    /// Tokens to be predicted among those.
    pub targets: usize,
    /// Examples whose end was cut off.
    pub truncated: usize,
    /// Rows left out: too long, or without a token to train on.
    pub left_out: usize,
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

    /// The same with other data.
    pub(crate) fn with_data(mut self, data: &Report) -> Self {
        self.train = data.train.iter().map(SourceCounts::of).collect();
        self.validation = data.validation.iter().map(SourceCounts::of).collect();
        self
    }

    /// Reads those of a run's folder.
    ///
    /// # Errors
    /// A file that cannot be read, or is none.
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
            left_out: report.overlong.count + report.untrained.count,
        }
    }
}
