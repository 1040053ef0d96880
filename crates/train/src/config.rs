//! The `[train]` table of a recipe.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use simmer_model::Recompute;

use crate::clip::Clip;
use crate::guard::Guard;
use crate::optimizer::OptimizerConfig;
use crate::problem::Problem;
use crate::schedule::Schedule;

/// The `[train]` table: how a run is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct TrainConfig {
    /// Passes over the training rows; a fraction ends inside of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Optimizer steps. With `epochs` too, the run ends with the first of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Examples of one optimizer step; the last of an epoch takes what is left.
    pub batch_size: usize,
    /// The most tokens of one forward and backward pass. A memory setting: it changes no result
    /// but by rounding. A longer row has a pass of its own.
    #[serde(default)]
    pub micro_batch_tokens: MicroBatchTokens,
    /// What the backward pass computes again instead of keeping it in memory: "none", or "layer",
    /// which takes one more forward pass. It changes no result but by rounding.
    #[serde(default)]
    pub recompute: Recompute,
    /// Whether what rows of a pass have in common at their beginning, such as a preamble, is
    /// computed once for all of them. It changes no result but by rounding, and is left out where
    /// there is dropout.
    #[serde(default = "default_share_prefixes", alias = "share_beginnings")]
    pub share_prefixes: bool,
    /// The peak of the schedule.
    pub learning_rate: f64,
    /// How the learning rate moves over the steps.
    #[serde(default)]
    pub schedule: Schedule,
    /// What makes steps of gradients.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How long a step's gradient may be.
    #[serde(default)]
    pub clip: Clip,
    /// Where all chance comes from: initial weights, order of rows, validation rows, dropout.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// What becomes of a step that would spoil the run.
    #[serde(default)]
    pub guard: Guard,
    /// When the validation loss is measured; after the last step always.
    #[serde(default)]
    pub validate_every: Interval,
    /// When a checkpoint is written; after the last step always, and after a validation that is
    /// the best so far.
    #[serde(default)]
    pub checkpoint_every: Interval,
    /// How many checkpoints stay; the best one stays besides.
    #[serde(default = "default_keep")]
    pub keep: usize,
    /// Ends the run where the validation loss no longer falls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Which weights the run ends with.
    #[serde(default)]
    pub weights: Weights,
    /// Validation rows that base and trained model are compared on at the end; 0: they are not.
    #[serde(default = "default_compare_rows")]
    pub compare_rows: usize,
}

/// Beyond every batch that a machine can hold.
const MOST: usize = 1 << 30;

/// `train.micro_batch_tokens`: a number, or `"auto"`, what fits into the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MicroBatchTokens {
    /// So many.
    Tokens(usize),
    /// As many as fit: found before the run begins, and kept by it.
    Auto,
}

impl MicroBatchTokens {
    /// The number; the default's where it is still to be found.
    pub fn tokens(self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens,
            Self::Auto => 4096,
        }
    }
}

impl Default for MicroBatchTokens {
    fn default() -> Self {
        Self::Tokens(4096)
    }
}

impl schemars::JsonSchema for MicroBatchTokens {
    fn schema_name() -> Cow<'static, str> {
        "MicroBatchTokens".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 1 }, { "const": "auto" }]
        })
    }
}

impl Serialize for MicroBatchTokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Tokens(tokens) => tokens.serialize(serializer),
            Self::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for MicroBatchTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Found;

        impl Visitor<'_> for Found {
            type Value = MicroBatchTokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of tokens or \"auto\"")
            }

            fn visit_u64<E: de::Error>(self, tokens: u64) -> Result<Self::Value, E> {
                let tokens = usize::try_from(tokens).map_err(E::custom)?;
                Ok(MicroBatchTokens::Tokens(tokens))
            }

            fn visit_i64<E: de::Error>(self, tokens: i64) -> Result<Self::Value, E> {
                match u64::try_from(tokens) {
                    Ok(tokens) => self.visit_u64(tokens),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(tokens), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "auto" => Ok(MicroBatchTokens::Auto),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(Found)
    }
}

fn default_share_prefixes() -> bool {
    true
}

fn default_seed() -> u64 {
    42
}

fn default_compare_rows() -> usize {
    200
}

fn default_keep() -> usize {
    2
}

/// When something happens: `"never"`, `"epoch"`, or `{ steps = N }`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Interval {
    /// Not before the end.
    Never,
    /// After every pass over the training rows.
    #[default]
    Epoch,
    /// After so many optimizer steps.
    Steps(u64),
}

impl Interval {
    /// Whether it is due after `step` finished steps.
    pub(crate) fn due(self, step: u64, steps_per_epoch: u64) -> bool {
        let every = match self {
            Self::Never => return false,
            Self::Epoch => steps_per_epoch,
            Self::Steps(steps) => steps,
        };
        step > 0 && step.is_multiple_of(every)
    }

    fn check(self, key: &str) -> Result<(), Problem> {
        match self {
            Self::Steps(0) => Err(Problem::new(key, "expected at least 1 step, found 0")),
            _ => Ok(()),
        }
    }
}

/// When a run ends early.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct EarlyStop {
    /// So many validations in a row without a better loss end the run.
    pub patience: u64,
    /// A loss is better where it is lower by more than this.
    #[serde(default)]
    pub min_improvement: f64,
}

/// Which weights a run ends with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Weights {
    /// Those after the last step.
    #[default]
    Last,
    /// Those with the lowest validation loss.
    Best,
}

impl TrainConfig {
    /// The steps of a run over an epoch of `steps_per_epoch`.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        let by_epochs = self
            .epochs
            .map(|epochs| (epochs * steps_per_epoch as f64).ceil() as u64);
        match (by_epochs, self.max_steps) {
            (Some(by_epochs), Some(most)) => by_epochs.min(most),
            (Some(steps), None) | (None, Some(steps)) => steps,
            (None, None) => 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        let wrong = |key: &str, why: String| Err(Problem::new(format!("train.{key}"), why));
        match (self.epochs, self.max_steps) {
            (None, None) => {
                let why = "lacks both `epochs` and `max_steps`; the run needs an end";
                return Err(Problem::new("train", why));
            }
            (Some(epochs), _) if !(epochs > 0.0 && epochs.is_finite()) => {
                return wrong(
                    "epochs",
                    format!("expected a number above 0, found {epochs}"),
                );
            }
            (_, Some(0)) => return wrong("max_steps", "expected at least 1, found 0".to_owned()),
            _ => {}
        }
        let counts = [
            ("batch_size", self.batch_size),
            ("micro_batch_tokens", self.micro_batch_tokens.tokens()),
            ("keep", self.keep),
        ];
        for (key, count) in counts {
            if count == 0 {
                return wrong(key, "expected at least 1, found 0".to_owned());
            }
        }
        let counts = [
            ("batch_size", self.batch_size),
            ("micro_batch_tokens", self.micro_batch_tokens.tokens()),
        ];
        for (key, count) in counts {
            if count > MOST {
                return wrong(key, format!("expected at most {MOST}, found {count}"));
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let found = self.learning_rate;
            return wrong(
                "learning_rate",
                format!("expected a number above 0, found {found}"),
            );
        }
        self.schedule.check()?;
        self.optimizer.check()?;
        self.clip.check()?;
        self.guard.check()?;
        self.validate_every.check("train.validate_every.steps")?;
        self.checkpoint_every
            .check("train.checkpoint_every.steps")?;
        let Some(stop) = self.early_stop else {
            return Ok(());
        };
        if stop.patience == 0 {
            return wrong(
                "early_stop.patience",
                "expected at least 1, found 0".to_owned(),
            );
        }
        if !(stop.min_improvement >= 0.0 && stop.min_improvement.is_finite()) {
            let found = stop.min_improvement;
            let why = format!("expected a number, at least 0, found {found}");
            return wrong("early_stop.min_improvement", why);
        }
        if self.validate_every == Interval::Never {
            let why = "needs validations on the way, and `validate_every` is \"never\"";
            return wrong("early_stop", why.to_owned());
        }
        Ok(())
    }
}
