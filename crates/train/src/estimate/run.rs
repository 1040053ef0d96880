//! The time of a whole run: steps, validations, and the comparison at its end.

use serde::Serialize;
use simmer_data::{Dataset, Example};
use simmer_kernels::Capabilities;

use super::{StepTime, Subject, time};
use crate::config::Interval;

/// The time of a whole run, without loading; early stopping may end it sooner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RunTime {
    /// Steps.
    pub steps: u64,
    /// Validations.
    pub validations: u64,
    /// Seconds of a validation.
    pub validation: f64,
    /// Seconds of the comparison of base and trained model at the end.
    pub comparison: f64,
    /// Seconds of all of it.
    pub seconds: f64,
}

impl Subject<'_> {
    /// The time of the whole run, at the rate of a step.
    pub(super) fn run(&self, data: &Dataset, step: StepTime, device: &Capabilities) -> RunTime {
        let train = &self.recipe.train;
        let per_epoch = data.steps_per_epoch().map(|steps| steps as u64);
        let per_epoch = per_epoch.or(train.max_steps).unwrap_or(1).max(1);
        let steps = train.total_steps(per_epoch);
        let rows = &data.validation;
        let validations = if rows.is_empty() {
            0
        } else {
            times(train.validate_every, steps, per_epoch)
        };
        let forward = |rows: &[Example]| self.forward(rows) * step.seconds / step.flops;
        let validation = forward(rows);
        let compared = &rows[..rows.len().min(train.compare_rows)];
        let comparison = 2.0 * (forward(compared) + self.answers(device));
        RunTime {
            steps,
            validations,
            validation,
            comparison,
            seconds: steps as f64 * step.seconds + validations as f64 * validation + comparison,
        }
    }

    /// Floating-point operations of one forward pass over examples.
    fn forward(&self, rows: &[Example]) -> f64 {
        let tokens: usize = rows.iter().map(|row| row.tokens.len()).sum();
        let targets: usize = rows.iter().map(Example::targets).sum();
        let pairs = rows
            .iter()
            .map(|row| (row.tokens.len() as f64).powi(2) / 2.0);
        let context = pairs.sum::<f64>() / (tokens.max(1) as f64);
        time::forward(&self.base.config, tokens as f64, targets as f64, context)
    }

    /// Seconds in which a model answers the sample prompts, if no answer ends early. Each token of an answer reads all
    /// weights.
    fn answers(&self, device: &Capabilities) -> f64 {
        let Some(samples) = &self.recipe.samples else {
            return 0.0;
        };
        let tokens = samples.prompts.len() * samples.max_new_tokens;
        tokens as f64 * self.base.bytes()[0] as f64 / device.read_rate
    }
}

/// How often something happens that is due at these intervals, and after the last step.
fn times(interval: Interval, steps: u64, per_epoch: u64) -> u64 {
    let every = match interval {
        Interval::Never => steps,
        Interval::Epoch => per_epoch,
        Interval::Steps(every) => every,
    };
    steps.div_ceil(every.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validations_are_counted_as_they_come() {
        for interval in [
            Interval::Never,
            Interval::Epoch,
            Interval::Steps(3),
            Interval::Steps(100),
        ] {
            for (steps, per_epoch) in [(1, 1), (12, 6), (13, 6), (5, 9), (9, 3)] {
                let due =
                    (1..=steps).filter(|step| *step == steps || interval.due(*step, per_epoch));
                let counted = due.count() as u64;
                assert_eq!(
                    times(interval, steps, per_epoch),
                    counted,
                    "{interval:?} {steps}"
                );
            }
        }
    }
}
