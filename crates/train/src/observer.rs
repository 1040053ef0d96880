//! The interface through which a run reports its progress, to a terminal or a test.

use std::path::Path;
use std::sync::Arc;

use simmer_data::Report;
use simmer_files::size::grouped;
use simmer_lint::LintReport;
use simmer_model::base::Base;

use crate::estimate::Estimate;
use crate::metrics::{StepMetrics, ValidationMetrics};
use crate::trainer::StepProgress;

/// A summary of a run before its first step.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// What was read from the data files.
    pub data: &'a Report,
    /// The lint's findings, which are warnings only.
    pub lint: &'a LintReport,
    /// Training examples; `None` for a stream.
    pub examples: Option<usize>,
    /// Validation examples.
    pub validation_examples: usize,
    /// Trainable parameters.
    pub trained: usize,
    /// Parameters of the base model.
    pub weights: usize,
    /// Parameters of base model and adapter, as PEFT's `print_trainable_parameters` counts them: a base module that is
    /// trained whole counts twice, as its frozen original and its trained copy; a trained bias counts once.
    pub parameters: usize,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// The finished steps after which the run resumes; `None` if it starts at its first step.
    pub resumed_at: Option<u64>,
    /// The run's folder.
    pub folder: &'a Path,
    /// How far the current step is.
    pub progress: &'a Arc<StepProgress>,
}

impl Start<'_> {
    /// The line on trainable parameters: `trainable parameters: 217,088 of 2,086,592 (10.404%)`.
    pub fn trainable_parameters(&self) -> String {
        format!(
            "trainable parameters: {} of {} ({:.3}%)",
            grouped(self.trained as u64),
            grouped(self.parameters as u64),
            100.0 * self.trained as f64 / self.parameters as f64,
        )
    }
}

/// Is called for each event of a run. Every method does nothing by default; all events are in the run's files too.
pub trait Observer {
    /// A warning or notice for the user.
    fn on_notice(&mut self, _text: &str) {}
    /// Everything is loaded, and the first step follows.
    fn on_start(&mut self, _start: &Start<'_>) {}
    /// A step is finished.
    fn on_step(&mut self, _step: &StepMetrics) {}
    /// Progress of a validation, in tokens.
    fn on_validation_progress(&mut self, _done: usize, _all: usize) {}
    /// A validation is finished.
    fn on_validation(&mut self, _validation: &ValidationMetrics) {}
    /// The estimate of memory, before the base model's weights are loaded.
    fn on_estimate(&mut self, _estimate: &Estimate) {}
    /// The weights of the base model are about to be loaded.
    fn on_load(&mut self, _base: &Base) {}
    /// A checkpoint has been written.
    fn on_checkpoint(&mut self, _step: u64, _folder: &Path) {}
}

/// An observer that ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
