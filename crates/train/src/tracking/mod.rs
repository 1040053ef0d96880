//! Programs that show runs while they go on: one file or folder each.
//!
//! `Tracker` is what the loop knows of them. A tracker that writes a file does so at once. One that sends to a server is
//! a `Service`, which a `Follower` runs on a thread of its own: it reads the lines of `metrics.jsonl` that the server does
//! not have yet, so nothing is lost and no step waits.

mod follower;
mod kept;
mod lines;
mod mlflow;
mod protobuf;
mod scalars;
mod tensorboard;
mod unsent;
mod wandb;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::metrics::Metrics;
use crate::observer::Observer;
use crate::outcome::Outcome;
use simmer_recipe::Problem;

pub(crate) use tensorboard::FOLDER as EVENTS_FOLDER;
pub use unsent::Unsent;

/// A program that shows runs; a name in `train.track`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Track {
    /// An event file for TensorBoard, in the run's folder.
    Tensorboard,
    /// An MLflow server, which the variable `MLFLOW_TRACKING_URI` names.
    Mlflow,
    /// A folder for `wandb sync`, in the run's folder.
    Wandb,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// All steps are done.
    Finished,
    /// An error ended it.
    Failed,
    /// A signal ended it; it can be resumed.
    Interrupted,
}

impl Ending {
    /// How a run with this outcome ended; `None` for a panic.
    pub(crate) fn of(outcome: Option<&Result<Outcome, TrainError>>) -> Self {
        match outcome {
            Some(Ok(Outcome::Finished { .. })) => Self::Finished,
            Some(Ok(Outcome::Interrupted { .. })) => Self::Interrupted,
            Some(Err(_)) | None => Self::Failed,
        }
    }
}

/// A program that shows a run.
trait Tracker {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// Takes a line that has just been written to `metrics.jsonl`. After an error the tracker is dropped.
    fn record(&mut self, line: &Metrics) -> Result<(), TrainError>;

    /// Messages since the last call.
    fn notices(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// The run has ended: sends what is left, within a few seconds. `notify` gets what the user should know meanwhile.
    fn end(&mut self, _ending: Ending, _notify: &mut dyn FnMut(&str)) {}
}

/// The trackers of a run.
#[derive(Default)]
pub(crate) struct Trackers {
    open: Vec<Box<dyn Tracker>>,
}

impl Trackers {
    /// Checks before a run what its trackers need from the environment.
    ///
    /// # Errors
    /// A variable that is missing or wrong.
    pub(crate) fn check(wanted: &[Track]) -> Result<(), Problem> {
        for track in wanted {
            match track {
                Track::Tensorboard | Track::Wandb => {}
                Track::Mlflow => mlflow::check()?,
            }
        }
        Ok(())
    }

    /// Starts the trackers of the run in a folder, whose `metrics.jsonl` has the lines so far.
    pub(crate) fn open(&mut self, wanted: &[Track], run: &Path, observer: &mut dyn Observer) {
        for track in wanted {
            let opened = track.open(run);
            match opened {
                Ok(tracker) => self.open.push(tracker),
                Err(error) => observer.on_notice(&without(track.title(), &error)),
            }
        }
    }

    /// Passes a line of metrics on.
    pub(crate) fn record(&mut self, line: &Metrics, observer: &mut dyn Observer) {
        self.open.retain_mut(|tracker| {
            let recorded = tracker.record(line);
            for notice in tracker.notices() {
                observer.on_notice(&notice);
            }
            if let Err(error) = &recorded {
                observer.on_notice(&without(tracker.name(), error));
            }
            recorded.is_ok()
        });
    }

    /// Ends all trackers.
    pub(crate) fn end(&mut self, ending: Ending, observer: &mut dyn Observer) {
        for mut tracker in self.open.drain(..) {
            tracker.end(ending, &mut |text| observer.on_notice(text));
            for notice in tracker.notices() {
                observer.on_notice(&notice);
            }
        }
    }
}

impl Track {
    /// Starts it.
    fn open(self, run: &Path) -> Result<Box<dyn Tracker>, TrainError> {
        Ok(match self {
            Self::Tensorboard => Box::new(tensorboard::EventFile::begin(run)?),
            Self::Mlflow => Box::new(mlflow::follow(run)?),
            Self::Wandb => Box::new(wandb::RecordFile::begin(run)?),
        })
    }

    /// Its name, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Tensorboard => tensorboard::NAME,
            Self::Mlflow => mlflow::NAME,
            Self::Wandb => wandb::NAME,
        }
    }

    /// Checks the list of a recipe.
    pub(crate) fn check(wanted: &[Self]) -> Result<(), Problem> {
        let twice = (1..wanted.len()).find(|at| wanted[..*at].contains(&wanted[*at]));
        match twice {
            None => Ok(()),
            Some(at) => {
                let why = format!("{} is listed twice", wanted[at].title());
                Err(Problem::new("train.track", why))
            }
        }
    }
}

/// Sends the run in a folder to a tracker: all of it, or what it does not have yet. `notify` gets messages for the user.
///
/// # Errors
/// The run cannot be read, or the tracker does not take it.
pub fn send(track: Track, run: &Path, notify: &mut dyn FnMut(&str)) -> Result<(), TrainError> {
    match track {
        // rewritten from the metrics
        Track::Tensorboard => tensorboard::EventFile::begin(run).map(drop),
        Track::Mlflow => mlflow::send(run, notify),
        Track::Wandb => wandb::write(run, notify),
    }
}

/// The notice of a run that continues without a tracker.
fn without(name: &str, error: &TrainError) -> String {
    match name {
        tensorboard::NAME => format!("{error}; training continues without TensorBoard events"),
        name => format!("{error}; training continues without {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_is_listed_once() {
        use Track::{Mlflow, Tensorboard};
        assert_eq!(Track::check(&[Tensorboard, Mlflow]), Ok(()));
        let twice = Track::check(&[Mlflow, Tensorboard, Mlflow]).unwrap_err();
        assert_eq!(twice.to_string(), "`train.track`: MLflow is listed twice");
    }
}
