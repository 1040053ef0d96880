//! The progress of a run: a live line on a terminal, log lines elsewhere.

mod text;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use simmer_files::size::{counted, readable};
use simmer_model::base::Base;
use simmer_train::estimate::Estimate;
use simmer_train::{
    History, Metrics, Observer, Start, StepMetrics, StepProgress, ValidationMetrics,
};

use crate::live_line::LiveLine;
use crate::loaded::read_ahead;
use crate::output::note;
use text::{Doing, View, is_one_of_twenty, left, log_line};

/// The number of recent steps that the live line shows.
const RECENT: usize = 50;
/// Without a terminal, a line is logged at least this often.
const SILENCE: Duration = Duration::from_mins(1);

/// Shows the progress of a run on standard error.
pub(crate) struct Live {
    line: Option<LiveLine>,
    view: Arc<Mutex<View>>,
    /// Steps between two log lines, if the user set it; otherwise about 20 lines per run.
    log_every: Option<u64>,
    last_line: Instant,
    /// Whether the run is between its first and its last step.
    is_training: Arc<AtomicBool>,
}

impl Live {
    pub(crate) fn new(log_every: Option<u64>) -> Self {
        Self {
            line: None,
            view: Arc::default(),
            log_every,
            last_line: Instant::now(),
            is_training: Arc::default(),
        }
    }

    /// True between the first and the last step.
    pub(crate) fn is_training(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_training)
    }

    pub(crate) fn finish(&mut self) {
        self.is_training.store(false, Ordering::SeqCst);
        self.line = None;
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_line_due(&self, step: u64) -> bool {
        let steps = self.view().steps;
        match self.log_every {
            Some(every) => step.is_multiple_of(every) || step == steps,
            None => {
                !self.line.as_ref().is_some_and(LiveLine::is_shown)
                    && (is_one_of_twenty(step, steps) || self.last_line.elapsed() >= SILENCE)
            }
        }
    }

    /// Shows the live line, which reads how far the current step is.
    fn show_line(&mut self, progress: &Arc<StepProgress>) {
        let (view, progress) = (Arc::clone(&self.view), Arc::clone(progress));
        self.line = Some(LiveLine::show(move |columns| {
            let view = view.lock().unwrap_or_else(PoisonError::into_inner);
            view.line(columns, progress.micro_batches(), view.since.elapsed())
        }));
    }
}

/// The last steps of a run up to `step`, from its folder.
fn earlier(folder: &Path, step: u64) -> VecDeque<StepMetrics> {
    // the live line alone needs them
    let lines = History::read(folder).unwrap_or_default().lines;
    let steps = lines.into_iter().filter_map(|line| match line {
        Metrics::Step(metrics) if metrics.step <= step => Some(metrics),
        _ => None,
    });
    let mut steps: VecDeque<StepMetrics> = steps.collect();
    steps.drain(..steps.len().saturating_sub(RECENT));
    steps
}

impl Observer for Live {
    fn on_load(&mut self, base: &Base) {
        // layers that are read as they are needed do not all fit into memory
        if base.offload().is_none() {
            read_ahead(base);
        }
    }

    fn on_notice(&mut self, text: &str) {
        note(text);
    }

    fn on_estimate(&mut self, estimate: &Estimate) {
        note(&format!(
            "estimated peak memory: {} (details: `simmer estimate`)",
            readable(estimate.peak)
        ));
    }

    fn on_start(&mut self, start: &Start<'_>) {
        note(&start.data.to_string());
        if start.lint.warnings().next().is_some() {
            note(&start.lint.to_string());
        }
        let examples = match start.examples {
            None => format!("a stream: {}", counted(start.steps as usize, "step")),
            Some(examples) => format!(
                "{}: {}, {} per epoch",
                counted(examples, "example"),
                counted(start.steps as usize, "step"),
                start.steps_per_epoch
            ),
        };
        note(&format!(
            "{}\ntraining on {examples}",
            start.trainable_parameters()
        ));
        let done = start.resumed_at.unwrap_or(0);
        *self.view() = View {
            steps: start.steps,
            done,
            ..View::default()
        };
        if let Some(step) = start.resumed_at {
            note(&format!("resuming after step {step}"));
            self.view().recent = earlier(start.folder, step);
        }
        self.is_training.store(true, Ordering::SeqCst);
        self.last_line = Instant::now();
        self.show_line(start.progress);
    }

    fn on_step(&mut self, step: &StepMetrics) {
        let line = {
            let mut view = self.view();
            view.step(step, RECENT);
            log_line(step, view.steps, left(&view.recent, view.steps))
        };
        if self.is_line_due(step.step) {
            self.last_line = Instant::now();
            note(&line);
        }
    }

    fn on_validation_progress(&mut self, done: usize, all: usize) {
        let percent = 100.0 * done as f64 / all.max(1) as f64;
        self.view().doing = Doing::Validation { percent };
    }

    fn on_validation(&mut self, validation: &ValidationMetrics) {
        self.view().begin();
        let best = if validation.best { " (best)" } else { "" };
        note(&format!(
            "step {}: validation loss {:.4}{best}",
            validation.step, validation.validation_loss
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_when_they_are_due() {
        let due = |log_every, steps| -> Vec<u64> {
            let live = Live::new(log_every);
            live.view().steps = steps;
            (1..=steps).filter(|step| live.is_line_due(*step)).collect()
        };
        assert_eq!(due(Some(4), 10), [4, 8, 10]);
        assert_eq!(due(None, 4), [1, 2, 3, 4]);
        assert_eq!(due(None, 4000).len(), 23);
    }

    #[test]
    fn a_resumed_run_shows_its_earlier_losses() {
        let folder = tempfile::tempdir().unwrap();
        let lines = (1..=70).map(|step| {
            let step = StepMetrics {
                step,
                ..text::tests::steps(1)[0].clone()
            };
            serde_json::to_string(&step).unwrap() + "\n"
        });
        let path = folder.path().join(simmer_train::METRICS_FILE);
        std::fs::write(path, lines.collect::<String>()).unwrap();
        let found = earlier(folder.path(), 60);
        let range = (found.len(), found[0].step, found[found.len() - 1].step);
        assert_eq!(range, (50, 11, 60));
        assert!(earlier(Path::new("missing"), 60).is_empty());
    }
}
