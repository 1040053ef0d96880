//! Who watches a run: a terminal, a test.

use std::path::Path;

use simmer_data::Report;
use simmer_lint::LintReport;
use simmer_model::base::Base;

use crate::estimate::Estimate;
use crate::metrics::{StepMetrics, ValidationMetrics};

/// What a run is about to do.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// What reading the data came to.
    pub data: &'a Report,
    /// What is wrong with it, but not enough to stop.
    pub lint: &'a LintReport,
    /// Training examples; `None` of a stream.
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
    /// Finished steps that it goes on from.
    pub resumed_at: Option<u64>,
    /// The run's folder.
    pub folder: &'a Path,
}

/// Hears what happens in a run. Whatever is not listened to is not lost: it is in the run's files.
pub trait Observer {
    /// Something that a person should know.
    fn on_notice(&mut self, _text: &str) {}
    /// Everything is loaded; the first step comes next.
    fn on_start(&mut self, _start: &Start<'_>) {}
    /// A step is finished.
    fn on_step(&mut self, _step: &StepMetrics) {}
    /// A validation has come this far, in tokens.
    fn on_validation_progress(&mut self, _done: usize, _all: usize) {}
    /// A validation is finished.
    fn on_validation(&mut self, _validation: &ValidationMetrics) {}
    /// What the run will take, before its weights are loaded.
    fn on_estimate(&mut self, _estimate: &Estimate) {}
    /// The weights of the base are about to be loaded.
    fn on_load(&mut self, _base: &Base) {}

    /// A checkpoint is on the disk.
    fn on_checkpoint(&mut self, _step: u64, _folder: &Path) {}
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
