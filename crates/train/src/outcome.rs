//! How a run ended.

use std::path::PathBuf;

use simmer_data::Example;

use crate::training_state::Best;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps are done, or the validation loss stopped falling.
    Finished {
        /// The adapter's folder in PEFT's layout; the model's folder for `method.full`.
        weights: PathBuf,
        /// Steps done.
        step: u64,
        /// Whether `train.early_stop` ended the run.
        stopped_early: bool,
        /// The lowest validation loss, if one was measured.
        best: Option<Best>,
        /// The first `train.compare_rows` validation examples, for the comparison with the base model.
        held_out: Vec<Example>,
    },
    /// The run was interrupted.
    Interrupted {
        /// The checkpoint to resume from; `None` before the first step.
        checkpoint: Option<PathBuf>,
        /// Steps done.
        step: u64,
    },
}
