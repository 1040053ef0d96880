//! `tracking/mlflow.json` in a run's folder: what the server has of the run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::tracking::{Ending, kept};

const FILE: &str = "mlflow.json";

/// What the server has of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The server's address.
    pub(super) tracking_uri: String,
    pub(super) experiment_id: String,
    /// The run's name for the server.
    pub(super) run_id: String,
    /// Where the server keeps the run's files.
    pub(super) artifact_uri: String,
    /// Lines of `metrics.jsonl` that it has.
    pub(super) lines: u64,
    /// Whether it has the recipe.
    pub(super) described: bool,
    /// How the run ended last.
    pub(super) ending: Option<Ending>,
    /// Whether it knows that.
    pub(super) closed: bool,
}

impl Kept {
    pub(super) fn read(run: &Path) -> Option<Self> {
        kept::read(run, FILE)
    }

    pub(super) fn write(&self, run: &Path) -> Result<(), TrainError> {
        kept::write(run, FILE, self)
    }
}
