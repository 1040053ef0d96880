//! Steps that would harm a run, because loss or gradient is not finite or the loss is a spike: how they are detected
//! and what happens then.

use serde::{Deserialize, Serialize};

use crate::config::MOST;
use simmer_recipe::{Problem, wrong_count};

/// The `[train.guard]` table: what to do at a step whose loss or gradient is not finite, or whose loss is a spike. The
/// update of such a step is always skipped, and its rows are written to the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct Guard {
    /// If the loss or the gradient is not finite: `"stop"` (default) ends the run, `"skip"` continues with the next step.
    #[serde(default = "default_not_finite")]
    pub not_finite: Reaction,
    /// Which losses count as spikes, and what to do at one. Default: none do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spike: Option<Spike>,
    /// Skipped updates in a row after which the run ends, at least 1. Default: 10.
    #[serde(default = "default_most_skips")]
    pub most_skips: u64,
}

/// The `train.guard.spike` table: a loss above `times` the median loss of the last `over` updates is a spike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct Spike {
    /// The factor on the median above which a loss is a spike, above 1. Required.
    pub times: f64,
    /// The number of last updates in the median, at least 1; no loss is a spike before that many updates. Default: 50.
    #[serde(default = "default_over")]
    pub over: usize,
    /// What to do at a spike: `"skip"` (default) the update, or `"stop"` the run.
    #[serde(default = "default_then")]
    pub then: Reaction,
}

/// What to do at a step that would harm the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Reaction {
    /// End the run.
    Stop,
    /// Skip the update and continue with the next step.
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
                "expected at least 1, found 0; the nearest valid value is 1; to end the run at the first such step, set \
                 `not_finite` to \"stop\""
                    .to_owned(),
            );
        }
        match &self.spike {
            Some(spike) if !(spike.times > 1.0 && spike.times.is_finite()) => wrong(
                "spike.times",
                format!(
                    "expected a number above 1, such as 3, found {}",
                    spike.times
                ),
            ),
            Some(spike) => {
                let why = wrong_count(spike.over as u64, 1, MOST);
                why.map_or(Ok(()), |why| wrong("spike.over", why))
            }
            None => Ok(()),
        }
    }

    /// The largest loss that is not a spike after updates with these losses, the newest last (nats per token).
    pub(crate) fn most(&self, recent: &[Loss]) -> f64 {
        match &self.spike {
            Some(spike) if recent.len() >= spike.over => spike.times * median(recent),
            _ => f64::INFINITY,
        }
    }

    /// Adds the loss of an update and drops losses older than the last `over`.
    pub(crate) fn remember(&self, recent: &mut Vec<Loss>, loss: f64) {
        if let Some(spike) = &self.spike {
            recent.push(Loss(loss));
            let old = recent.len().saturating_sub(spike.over);
            recent.drain(..old);
        }
    }
}

/// A loss that a checkpoint stores exactly (nats per token).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Loss(#[serde(with = "crate::exact")] pub f64);

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
    fn a_spike_is_detected_by_the_median_of_enough_updates() {
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
        assert_eq!(times.why, "expected a number above 1, such as 3, found 1");
        assert_eq!(why(guard(3.0, 0)).key, "train.guard.spike.over");
        let never = Guard {
            most_skips: 0,
            ..Guard::default()
        };
        assert_eq!(why(never).key, "train.guard.most_skips");
    }
}
