//! How far a run has come: the counters and losses that a training checkpoint keeps in its `state.json`.

use serde::{Deserialize, Serialize};
use simmer_data::Cursor;

use crate::guard::Loss;
use crate::manifest::Accepted;
use crate::ranks::Order;

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingState {
    /// Steps finished.
    pub step: u64,
    /// Where the next batch starts in the data.
    pub cursor: Cursor,
    /// Tokens that the model has seen.
    pub tokens: u64,
    /// Labels that the loss was computed on.
    pub targets: u64,
    /// The step after which the validation loss was last measured.
    pub validated_at: Option<u64>,
    /// The lowest validation loss so far.
    pub best: Option<Best>,
    /// Validations since the best one.
    pub without_improvement: u64,
    /// Steps without an update.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Steps without an update since the last update.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_in_a_row: u64,
    /// Losses of the last updates, if `train.guard.spike` compares with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<Loss>,
    /// How many changes were accepted before it: those of the manifest that it knows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted: usize,
    /// The order in which the micro-batches of a step are added; that of earlier versions if the file does not say it.
    #[serde(default)]
    pub order: Order,
}

impl TrainingState {
    /// Takes note of changes that were accepted since the state was written. If they make other losses of the same weights, those so
    /// far are forgotten, and the result is true: they would be compared with losses that mean something else.
    pub(crate) fn accept(&mut self, accepted: &[Accepted]) -> bool {
        let new = accepted.get(self.accepted..).unwrap_or_default();
        self.accepted = accepted.len();
        if !new.iter().any(|change| change.alters_losses) {
            return false;
        }
        self.recent.clear();
        self.without_improvement = 0;
        self.best.take().is_some()
    }

    /// Updates of the optimizer so far.
    pub(crate) fn updates(&self) -> u64 {
        self.step.saturating_sub(self.skipped)
    }
}

fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

/// The lowest validation loss of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The step after which it was measured.
    pub step: u64,
    /// The loss (nats per token).
    #[serde(with = "crate::exact")]
    pub loss: f64,
}
