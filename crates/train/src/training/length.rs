//! How long a run is, in steps and in epochs.

use simmer_data::{Cursor, Dataset};

use crate::config::{Interval, TrainConfig};

/// The length of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Length {
    /// Steps of the whole run.
    pub(super) steps: u64,
    /// Steps of an epoch; a stream, whose rows are not counted, is one epoch.
    pub(super) per_epoch: u64,
    /// Steps made, less those that come before the same place in the data with this recipe. Not 0 if the batch size or the number
    /// of rows has changed since the run started.
    surplus: i64,
}

impl Length {
    /// The length of a run that has made `step` steps, and reads on at a place in the data. Epochs are those of the rows that the
    /// run reads, whatever the size of the batches before.
    pub(super) fn of(config: &TrainConfig, data: &Dataset, step: u64, next: Cursor) -> Self {
        let before = data.steps_before(next).unwrap_or(step);
        Self::at(config, data.steps_per_epoch(), step, before)
    }

    fn at(config: &TrainConfig, per_epoch: Option<usize>, step: u64, before: u64) -> Self {
        let counted = per_epoch.map(|steps| steps as u64);
        let per_epoch = counted.or(config.max_steps).unwrap_or(1);
        let surplus = step as i64 - before as i64;
        Self {
            steps: config.total_steps_with(per_epoch, surplus),
            per_epoch,
            surplus,
        }
    }

    /// Epochs done after so many steps.
    pub(super) fn epochs(&self, step: u64) -> f64 {
        (step as i64 - self.surplus) as f64 / self.per_epoch as f64
    }

    /// Whether something is due after so many steps.
    pub(super) fn is_due(&self, every: Interval, step: u64) -> bool {
        let step = match every {
            Interval::Epoch => step.saturating_add_signed(-self.surplus),
            _ => step,
        };
        every.due(step, self.per_epoch)
    }

    /// What people should know of a run that goes on with other batches or rows; `None` if steps and epochs are what they were.
    pub(super) fn notice(&self, step: u64) -> Option<String> {
        (self.surplus != 0).then(|| {
            format!(
                "the batch size or the number of rows has changed: after {step} steps, the rest of the run takes {} more, to step {}",
                self.steps.saturating_sub(step),
                self.steps.max(step)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(epochs: Option<f64>, max_steps: Option<u64>) -> TrainConfig {
        let mut config: TrainConfig =
            toml::from_str("batch_size = 1\nlearning_rate = 1e-3\nmax_steps = 1").unwrap();
        (config.epochs, config.max_steps) = (epochs, max_steps);
        config
    }

    #[test]
    fn epochs_are_those_of_the_rows() {
        // 380 rows in batches of 4; after 23 steps, 288 rows are left: 18 batches of 16, 144 of 2
        for (per_epoch, before, steps) in [(95, 23, 95), (24, 6, 41), (190, 46, 167)] {
            let length = Length::at(&config(Some(1.0), None), Some(per_epoch), 23, before);
            assert_eq!(length.steps, steps);
            assert!((length.epochs(steps) - 1.0).abs() < 1e-12);
            assert_eq!(length.notice(23).is_some(), per_epoch != 95);
            assert!(length.is_due(Interval::Epoch, steps));
            assert!(!length.is_due(Interval::Epoch, steps - 1));
            assert!(length.is_due(Interval::Steps(20), 40));
        }
        // a number of steps is one
        let length = Length::at(&config(None, Some(30)), Some(24), 23, 6);
        assert_eq!(length.steps, 30);
        let length = Length::at(&config(Some(9.0), Some(30)), Some(24), 23, 6);
        assert_eq!(length.steps, 30);
        // more is done than there would be
        let length = Length::at(&config(Some(0.1), None), Some(24), 23, 6);
        assert_eq!(length.steps, 20);
        assert!(length.notice(23).unwrap().ends_with("step 23"));
        // rows of a stream are not counted
        let length = Length::at(&config(None, Some(30)), None, 23, 23);
        assert_eq!(
            (length.steps, length.per_epoch, length.notice(23)),
            (30, 30, None)
        );
    }
}
