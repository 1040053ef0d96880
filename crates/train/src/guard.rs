//! Steps that would spoil a run: what tells them, and what becomes of them.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use simmer_checkpoint::write_file;
use simmer_data::{Example, Tokenizer};

use crate::error::TrainError;
use crate::problem::Problem;
use crate::trainer::NoStep;

/// The folder with the rows of such steps, in a run's folder.
const ASIDE: &str = "aside";

/// The `[train.guard]` table: what becomes of a step that would spoil the run. Its update is never made, and its rows
/// are written into the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Of a loss or a gradient that is no finite number: "stop" ends the run, "skip" goes on with the next step.
    #[serde(default = "default_not_finite")]
    pub not_finite: Reaction,
    /// Of a loss far above those of the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spike: Option<Spike>,
    /// So many steps without an update, one after another, end the run.
    #[serde(default = "default_most_skips")]
    pub most_skips: u64,
}

/// `train.guard.spike`: a loss of more than `times` the median of those of the last `over` updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spike {
    /// How many times the median.
    pub times: f64,
    /// The updates that the median is of; before so many are made, no loss is a spike.
    #[serde(default = "default_over")]
    pub over: usize,
    /// What becomes of the step.
    #[serde(default = "default_then")]
    pub then: Reaction,
}

/// What becomes of a run at a step that would spoil it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reaction {
    /// It ends.
    Stop,
    /// It goes on with the step after.
    Skip,
}

fn default_not_finite() -> Reaction {
    Reaction::Stop
}

fn default_then() -> Reaction {
    Reaction::Skip
}

fn default_most_skips() -> u64 {
    10
}

fn default_over() -> usize {
    50
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            not_finite: default_not_finite(),
            spike: None,
            most_skips: default_most_skips(),
        }
    }
}

impl Guard {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let wrong = |key: &str, why: String| Err(Problem::new(format!("train.guard.{key}"), why));
        if self.most_skips == 0 {
            return wrong(
                "most_skips",
                "expected at least 1, found 0; \"stop\" is what ends a run at once".to_owned(),
            );
        }
        match &self.spike {
            Some(spike) if !(spike.times > 1.0 && spike.times.is_finite()) => wrong(
                "spike.times",
                format!("expected a number above 1, found {}", spike.times),
            ),
            Some(Spike { over: 0, .. }) => {
                wrong("spike.over", "expected at least 1, found 0".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The largest loss that is no spike after updates of these losses, the newest last (nats a token).
    pub(crate) fn most(&self, recent: &[Loss]) -> f64 {
        match &self.spike {
            Some(spike) if recent.len() >= spike.over => spike.times * median(recent),
            _ => f64::INFINITY,
        }
    }

    /// Adds the loss of an update, and forgets those that no longer count.
    pub(crate) fn remember(&self, recent: &mut Vec<Loss>, loss: f64) {
        if let Some(spike) = &self.spike {
            recent.push(Loss(loss));
            let old = recent.len().saturating_sub(spike.over);
            recent.drain(..old);
        }
    }

    /// What becomes of the run.
    pub(crate) fn reaction(&self, why: &NoStep) -> Reaction {
        match why {
            NoStep::Spike { .. } => self
                .spike
                .as_ref()
                .map_or(Reaction::Stop, |spike| spike.then),
            _ => self.not_finite,
        }
    }
}

/// A loss that a checkpoint keeps to the last digit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Loss(#[serde(with = "crate::checkpoint::exact")] pub f64);

fn median(of: &[Loss]) -> f64 {
    let mut sorted: Vec<f64> = of.iter().map(|loss| loss.0).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// One row of such a step, as it is written down.
#[derive(Serialize)]
struct Aside<'a> {
    file: &'a Path,
    row: usize,
    line: usize,
    /// Its own loss with the weights as they are (nats a token); none where that is no finite number.
    loss: Option<f64>,
    tokens: usize,
    targets: usize,
    text: String,
}

/// Writes the rows of a step into the run's folder, each with its own loss; the file's name below the folder.
pub(crate) fn set_aside(
    folder: &Path,
    step: u64,
    examples: &[Example],
    losses: &[f64],
    tokenizer: &Tokenizer,
) -> Result<String, TrainError> {
    let name = format!("{ASIDE}/step-{step:06}.jsonl");
    let path = folder.join(&name);
    let aside = folder.join(ASIDE);
    fs::create_dir_all(&aside).map_err(TrainError::io(&aside, "create"))?;
    let mut text = String::new();
    for (example, loss) in examples.iter().zip(losses) {
        let row = Aside {
            file: &example.origin.file,
            row: example.origin.row,
            line: example.origin.line,
            loss: Some(*loss).filter(|loss| loss.is_finite()),
            tokens: example.tokens.len(),
            targets: example.targets(),
            text: tokenizer.decode(&example.tokens, false)?,
        };
        let json = serde_json::to_string(&row)
            .map_err(|error| TrainError::io(&path, "write")(error.into()))?;
        text.push_str(&json);
        text.push('\n');
    }
    write_file(&path, |file| file.write_all(text.as_bytes()))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(times: f64, over: usize) -> Guard {
        Guard {
            spike: Some(Spike {
                times,
                over,
                then: Reaction::Skip,
            }),
            ..Guard::default()
        }
    }

    #[test]
    fn a_spike_is_told_by_the_median_of_enough_updates() {
        let guard = guard(2.0, 4);
        let mut recent = Vec::new();
        let mut most = Vec::new();
        for loss in [3.0, 1.0, 9.0, 2.0, 1.5, 1.0] {
            most.push(guard.most(&recent));
            guard.remember(&mut recent, loss);
        }
        most.push(guard.most(&recent));
        let none = f64::INFINITY;
        assert_eq!(most, [none, none, none, none, 5.0, 3.5, 3.5]);
        assert_eq!(recent.len(), 4);
        assert!(Guard::default().most(&recent).is_infinite());
    }

    #[test]
    fn impossible_guards_are_refused() {
        let why = |guard: Guard| guard.check().unwrap_err();
        let times = why(guard(1.0, 4));
        assert_eq!(times.key, "train.guard.spike.times");
        assert_eq!(times.why, "expected a number above 1, found 1");
        assert_eq!(why(guard(3.0, 0)).key, "train.guard.spike.over");
        let never = Guard {
            most_skips: 0,
            ..Guard::default()
        };
        assert_eq!(why(never).key, "train.guard.most_skips");
    }
}
