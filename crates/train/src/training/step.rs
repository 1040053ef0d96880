//! One step of a run, with or without its update.

use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use super::{Training, skipped_rows};
use crate::error::TrainError;
use crate::guard::{Guard, Reaction};
use crate::metrics::{self, Metrics, SkipMetrics, StepMetrics};
use crate::packing::Ready;
use crate::trainer::{NoStep, Step};

impl Training<'_> {
    /// One optimizer step; false if interrupted.
    pub(super) fn step(&mut self) -> Result<bool, TrainError> {
        let begin = Instant::now();
        let factor = self
            .config
            .schedule
            .factor(self.state.step, self.length.steps);
        let learning_rate = self.config.learning_rate * factor;
        let now = match self.ready.take() {
            Some(Err(error)) => return Err(error),
            Some(Ok(ready)) if ready.at == self.state.cursor => ready,
            _ => Ready::make(&mut self.data, self.trainer.packing(), self.state.cursor)?,
        };
        let most = self.config.guard.most(&self.state.recent);
        let step = match self.compute(&now, learning_rate, most) {
            Ok(step) => step,
            Err(NoStep::Interrupted) => return Ok(false),
            Err(NoStep::Ranks(error)) => return Err(error.into()),
            Err(why) => return self.skip(now, &why),
        };
        if self.saved_at == Some(self.state.step) {
            self.prune()?;
        }
        self.state.step += 1;
        self.state.cursor = now.next;
        self.state.tokens += step.tokens;
        self.state.targets += step.targets;
        self.state.skipped_in_a_row = 0;
        self.config
            .guard
            .remember(&mut self.state.recent, step.loss);
        let seconds = begin.elapsed().as_secs_f64();
        let metrics = StepMetrics {
            step: self.state.step,
            epoch: self.epoch(),
            loss: step.loss,
            learning_rate,
            learning_rates: self.trainer.rates().range(factor),
            grad_norm: step.grad_norm,
            tokens: step.tokens,
            targets: step.targets,
            seconds,
            tokens_per_second: step.tokens as f64 / seconds,
            peak_memory: metrics::peak_memory(),
            time: metrics::now(),
        };
        self.record(&Metrics::Step(metrics.clone()))?;
        self.observer.on_step(&metrics);
        Ok(true)
    }

    /// Computes the step and meanwhile prepares the data of the next one, which early stopping may leave unused.
    fn compute(&mut self, now: &Ready, learning_rate: f64, most: f64) -> Result<Step, NoStep> {
        let packing = self.trainer.packing();
        let is_last = self.state.step + 1 >= self.length.steps;
        let Self {
            data,
            trainer,
            stop,
            ..
        } = self;
        let (step, ready) = thread::scope(|scope| {
            let next = (!is_last).then(|| scope.spawn(|| Ready::make(data, packing, now.next)));
            let step = trainer.step(&now.packed, learning_rate, most, stop);
            (step, next.map(ScopedJoinHandle::join))
        });
        self.ready = ready.map(|ready| ready.unwrap_or_else(|panic| resume_unwind(panic)));
        step
    }

    /// Handles a step that would harm the run: writes its rows to the run's folder, then skips its update or ends the
    /// run, as the recipe's guard says. False if interrupted.
    fn skip(&mut self, now: Ready, why: &NoStep) -> Result<bool, TrainError> {
        let Some(losses) = self.trainer.losses(&now.examples, self.stop) else {
            return Ok(false);
        };
        let step = self.state.step + 1;
        let folder = self.folder.path();
        let rows = skipped_rows::write(folder, step, &now.examples, &losses, &self.tokenizer)?;
        let made = self.state.step - self.state.skipped_in_a_row;
        let guard = &self.config.guard;
        let skips = self.state.skipped_in_a_row + 1;
        let what = format!("{why}; the update was skipped (rows: {rows})");
        if reaction(guard, why) == Reaction::Stop {
            return Err(self.checkpoints.diverged(step, made, what)?);
        }
        if skips >= guard.most_skips {
            let what = format!(
                "{what}; {skips} skipped updates in a row end the run (train.guard.most_skips)"
            );
            return Err(self.checkpoints.diverged(step, made, what)?);
        }
        self.state.step = step;
        self.state.cursor = now.next;
        self.state.skipped += 1;
        self.state.skipped_in_a_row = skips;
        self.record(&Metrics::Skip(SkipMetrics {
            step,
            epoch: self.epoch(),
            skipped: why.to_string(),
            rows,
            time: metrics::now(),
        }))?;
        self.observer.on_notice(&format!("step {step}: {what}"));
        Ok(true)
    }
}

/// What the recipe's guard does with a step that has no update.
fn reaction(guard: &Guard, why: &NoStep) -> Reaction {
    match why {
        NoStep::Spike { .. } => guard
            .spike
            .as_ref()
            .map_or(Reaction::Stop, |spike| spike.then),
        _ => guard.not_finite,
    }
}
