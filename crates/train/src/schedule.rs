//! The learning-rate schedule.
//!
//! Source: transformers `optimization.py`, `get_constant_schedule_with_warmup`,
//! `get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup` and
//! `get_cosine_with_min_lr_schedule_with_warmup`.

use std::borrow::Cow;

use serde::de::MapAccess;
use serde::{Deserialize, Deserializer, Serialize};

use crate::named::{self, Named};
use simmer_recipe::{Problem, wrong_part};

/// `train.schedule`: the learning-rate schedule, `"constant"`, `"linear"` or `"cosine"`, or with settings
/// `{ cosine = { warmup_ratio = 0.03 } }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// After the warmup, the learning rate stays at its peak.
    Constant(Warmup),
    /// After the warmup, the learning rate falls linearly to 0.
    Linear(Warmup),
    /// After the warmup, the learning rate falls along half a cosine wave to `min_ratio` of its peak.
    Cosine(Cosine),
}

/// The warmup, during which the learning rate rises linearly from 0 to its peak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct Warmup {
    /// Optimizer steps of warmup. Default: 0.
    pub warmup_steps: u64,
    /// Steps of warmup as a fraction of all steps, from 0 to 1, rounded up; cannot be combined with `warmup_steps`.
    /// Default: 0.
    pub warmup_ratio: f64,
}

/// Settings of the cosine schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct Cosine {
    /// Optimizer steps of warmup, during which the learning rate rises linearly from 0 to its peak. Default: 0.
    pub warmup_steps: u64,
    /// Steps of warmup as a fraction of all steps, from 0 to 1, rounded up; cannot be combined with `warmup_steps`.
    /// Default: 0.
    pub warmup_ratio: f64,
    /// The learning rate at the end as a fraction of its peak, from 0 to 1. Default: 0.
    pub min_ratio: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Linear(Warmup::default())
    }
}

impl Schedule {
    /// The factor on the peak learning rate for the update after `step` finished steps, in a run of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let warmup = self.warmup().steps(steps);
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let length = steps.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant(_) => 1.0,
            Self::Linear(_) => steps.saturating_sub(step) as f64 / length,
            Self::Cosine(Cosine { min_ratio, .. }) => {
                let progress = (step - warmup) as f64 / length;
                let wave = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                (wave * (1.0 - min_ratio) + min_ratio).max(0.0)
            }
        }
    }

    /// The largest factor of a run of `steps` steps.
    pub(crate) fn largest(&self, steps: u64) -> f64 {
        let last = steps.saturating_sub(1);
        self.factor(self.warmup_steps(steps).min(last), steps)
    }

    /// The steps of the warmup in a run of `steps` steps.
    pub(crate) fn warmup_steps(&self, steps: u64) -> u64 {
        self.warmup().steps(steps)
    }

    fn warmup(&self) -> Warmup {
        match *self {
            Self::Constant(warmup) | Self::Linear(warmup) => warmup,
            Self::Cosine(Cosine {
                warmup_steps,
                warmup_ratio,
                ..
            }) => Warmup {
                warmup_steps,
                warmup_ratio,
            },
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Constant(_) => "constant",
            Self::Linear(_) => "linear",
            Self::Cosine(_) => "cosine",
        }
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        let wrong = |key: &str, why: String| {
            let name = self.name();
            Err(Problem::new(format!("train.schedule.{name}.{key}"), why))
        };
        let warmup = self.warmup();
        if let Some(why) = wrong_part(warmup.warmup_ratio, 0.0, 1.0) {
            return wrong("warmup_ratio", why);
        }
        if warmup.warmup_ratio > 0.0 && warmup.warmup_steps > 0 {
            return wrong(
                "warmup_ratio",
                "cannot be combined with `warmup_steps`; set one of them".to_owned(),
            );
        }
        match self {
            Self::Cosine(Cosine { min_ratio, .. }) => {
                wrong_part(*min_ratio, 0.0, 1.0).map_or(Ok(()), |why| wrong("min_ratio", why))
            }
            _ => Ok(()),
        }
    }
}

impl Warmup {
    /// The steps of warmup in a run of `steps`.
    fn steps(self, steps: u64) -> u64 {
        if self.warmup_ratio > 0.0 {
            (self.warmup_ratio * steps as f64).ceil() as u64
        } else {
            self.warmup_steps
        }
    }
}

impl schemars::JsonSchema for Schedule {
    fn schema_name() -> Cow<'static, str> {
        "Schedule".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        named::schema(&[
            ("constant", generator.subschema_for::<Warmup>()),
            ("linear", generator.subschema_for::<Warmup>()),
            ("cosine", generator.subschema_for::<Cosine>()),
        ])
    }
}

/// The names of the schedules.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    Constant,
    Linear,
    Cosine,
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        named::deserialize(deserializer)
    }
}

impl Named for Schedule {
    type Name = Name;

    const WHAT: &'static str = "a schedule";

    const EXAMPLE: &'static str = "{ cosine = { warmup_ratio = 0.03 } }";

    fn with_defaults(name: Name) -> Self {
        match name {
            Name::Constant => Self::Constant(Warmup::default()),
            Name::Linear => Self::Linear(Warmup::default()),
            Name::Cosine => Self::Cosine(Cosine::default()),
        }
    }

    fn with_settings<'de, A: MapAccess<'de>>(name: Name, table: &mut A) -> Result<Self, A::Error> {
        Ok(match name {
            Name::Constant => Self::Constant(table.next_value()?),
            Name::Linear => Self::Linear(table.next_value()?),
            Name::Cosine => Self::Cosine(table.next_value()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warmup(warmup_steps: u64) -> Warmup {
        let warmup_ratio = 0.0;
        Warmup {
            warmup_steps,
            warmup_ratio,
        }
    }

    fn cosine(warmup_steps: u64, warmup_ratio: f64) -> Schedule {
        let min_ratio = 0.0;
        Schedule::Cosine(Cosine {
            warmup_steps,
            warmup_ratio,
            min_ratio,
        })
    }

    #[derive(Deserialize)]
    struct Golden {
        schedule: String,
        warmup_steps: u64,
        steps: u64,
        factors: Vec<f64>,
    }

    #[test]
    fn factors_are_those_of_transformers() {
        let text = include_str!("../../../tests/goldens/schedules.json");
        let goldens: Vec<Golden> = serde_json::from_str(text).unwrap();
        assert!(goldens.len() >= 10);
        for golden in goldens {
            let schedule = match golden.schedule.as_str() {
                "constant" => Schedule::Constant(warmup(golden.warmup_steps)),
                "linear" => Schedule::Linear(warmup(golden.warmup_steps)),
                "cosine" => cosine(golden.warmup_steps, 0.0),
                other => panic!("no schedule {other}"),
            };
            for (step, expected) in golden.factors.iter().enumerate() {
                let factor = schedule.factor(step as u64, golden.steps);
                // the last digit of a cosine
                assert!(
                    (factor - expected).abs() < 1e-15,
                    "{schedule:?}, step {step}: {factor} for {expected}"
                );
            }
        }
    }

    /// The log of a published run: 609 steps, 2e-5, cosine, warmup ratio 0.03.
    #[test]
    fn a_published_log_is_reproduced() {
        let schedule = cosine(0, 0.03);
        assert_eq!(schedule.warmup().steps(609), 19);
        for (step, logged) in [
            (1, 1.0526e-6),
            (100, 1.9084e-5),
            (304, 1.0532e-5),
            (609, 0.0),
        ] {
            let rate = 2e-5 * schedule.factor(step, 609);
            assert!(
                (rate - logged).abs() < 0.5e-9,
                "step {step}: {rate} for {logged}"
            );
        }
    }

    #[test]
    fn the_largest_factor_is_that_after_the_warmup() {
        let warm = |steps| Schedule::Linear(warmup(steps));
        for (schedule, steps) in [
            (warm(0), 5),
            (warm(2), 5),
            (warm(9), 4),
            (cosine(3, 0.0), 4),
        ] {
            let each = (0..steps).map(|step| schedule.factor(step, steps));
            let largest = each.fold(0.0, f64::max);
            assert!(
                (schedule.largest(steps) - largest).abs() < 1e-15,
                "{schedule:?}"
            );
        }
        // the one step of the run is the first of the warmup
        assert!(warm(1).largest(1) == 0.0);
    }

    #[test]
    fn the_cosine_ends_at_its_floor() {
        let schedule = Schedule::Cosine(Cosine {
            min_ratio: 0.1,
            ..Cosine::default()
        });
        assert!((schedule.factor(0, 10) - 1.0).abs() < 1e-15);
        assert!((schedule.factor(5, 10) - 0.55).abs() < 1e-15);
        assert!((schedule.factor(10, 10) - 0.1).abs() < 1e-15);
    }
}
