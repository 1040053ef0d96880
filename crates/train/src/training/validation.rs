//! The loss on the validation rows.

use std::time::Instant;

use super::Training;
use crate::error::TrainError;
use crate::metrics::{self, Metrics, ValidationMetrics};
use crate::training_state::Best;

impl Training<'_> {
    /// Measures the validation loss, if there are validation examples; false if interrupted.
    pub(super) fn validate(&mut self) -> Result<bool, TrainError> {
        let step = self.state.step;
        if self.data.validation.is_empty() || step == 0 {
            return Ok(true);
        }
        let begin = Instant::now();
        let observer = &mut *self.observer;
        let mut progress = |done, all| observer.on_validation_progress(done, all);
        let examples = &self.data.validation;
        let found = self
            .trainer
            .evaluate_together(examples, self.stop, &mut progress)?;
        let Some(found) = found else {
            return Ok(false);
        };
        if !found.loss.is_finite() {
            let what = format!("the validation loss is {}", found.loss);
            return Err(self.checkpoints.diverged(step, step, what)?);
        }
        let least = self
            .config
            .early_stop
            .map_or(0.0, |stop| stop.min_improvement);
        let is_best = self
            .state
            .best
            .is_none_or(|best| found.loss < best.loss - least);
        if is_best {
            let loss = found.loss;
            self.state.best = Some(Best { step, loss });
            self.state.without_improvement = 0;
        } else {
            self.state.without_improvement += 1;
        }
        self.state.validated_at = Some(step);
        let metrics = ValidationMetrics {
            step,
            epoch: self.epoch(),
            validation_loss: found.loss,
            best: is_best,
            targets: found.targets,
            seconds: begin.elapsed().as_secs_f64(),
            time: metrics::now(),
        };
        self.record(&Metrics::Validation(metrics.clone()))?;
        self.observer.on_validation(&metrics);
        Ok(true)
    }
}
