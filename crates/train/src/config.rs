//! The `[train]` table of a recipe.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use simmer_model::Recompute;
use simmer_model::adapter::targets::Patterns;

use crate::clip::Clip;
use crate::guard::Guard;
use crate::optimizer::OptimizerConfig;
use crate::schedule::Schedule;
use crate::tracking::Track;
use simmer_recipe::{Problem, wrong_count};

/// The `[train]` table: how a run is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct TrainConfig {
    /// Passes over the training rows, a number above 0; a fraction ends within a pass. `epochs` or `max_steps` is
    /// required, and `epochs` cannot be combined with `data.stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Optimizer steps, at least 1. If `epochs` is set too, the run ends at whichever comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Examples per optimizer step, at least 1; the last step of an epoch takes the remaining ones. Required.
    pub batch_size: usize,
    /// The most tokens in one forward and backward pass, or `"auto"` for as many as fit into memory. Default: 4096.
    /// It sets the memory of the activations and changes results only by rounding. A row with more tokens gets a pass
    /// of its own.
    #[serde(default)]
    pub micro_batch_tokens: MicroBatchTokens,
    /// Gradient checkpointing: which activations the backward pass recomputes instead of keeping them in memory.
    /// `"none"` (default) keeps all; `"mlp"` recomputes the MLP of each layer, whose activations are the largest;
    /// `"layer"` recomputes whole layers, which takes one more forward pass. Changes results only by rounding.
    #[serde(default)]
    pub recompute: Recompute,
    /// Whether a prefix that rows of a pass share, such as a preamble, is computed once for all of them. Default:
    /// true. Changes results only by rounding. Ignored if the run has dropout, whose masks differ from row to row.
    #[serde(default = "default_share_prefixes", alias = "share_beginnings")]
    pub share_prefixes: bool,
    /// The peak learning rate, a number above 0. Required.
    pub learning_rate: f64,
    /// Peak learning rates that differ from `learning_rate`, by regular expressions found in the names of trained tensors; the
    /// first match applies. Such as `{ "layers\\.0\\." = 5e-5, "lora_B" = 1e-3 }`. Default: none.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub learning_rates: Patterns<f64>,
    /// LoRA+: the learning rate of the factors B, and of trained vectors, as a multiple of `learning_rate`, at least 1. The
    /// paper's choice is 16. Default: none, all have one rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loraplus_lr_ratio: Option<f64>,
    /// LoRA+: the peak learning rate of the factors of an adapted embedding. Default with `loraplus_lr_ratio`: 1e-6, as in
    /// PEFT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loraplus_lr_embedding: Option<f64>,
    /// The learning-rate schedule: `"linear"` (default), `"cosine"` or `"constant"`, or a table of one name and its
    /// settings such as `{ cosine = { warmup_ratio = 0.03 } }`.
    #[serde(default)]
    pub schedule: Schedule,
    /// The optimizer, `"adamw"` (default), or `{ adamw = { ... } }` with its settings.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// Gradient clipping: `{ norm = N }` scales a gradient with a larger norm down to N, `"none"` never does. Default:
    /// `{ norm = 1.0 }`.
    #[serde(default)]
    pub clip: Clip,
    /// The seed of everything random: initial weights, order of rows, choice of validation rows, dropout. Default: 42.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// What to do at a step whose loss or gradient is not finite, or whose loss is a spike.
    #[serde(default)]
    pub guard: Guard,
    /// When to measure the validation loss: `"epoch"` (default), `{ steps = N }` or `"never"`; always after the last
    /// step.
    #[serde(default)]
    pub validate_every: Interval,
    /// When to write a checkpoint: `"epoch"` (default), `{ steps = N }` or `"never"`; always after the last step and
    /// after a validation with the lowest loss so far.
    #[serde(default)]
    pub checkpoint_every: Interval,
    /// How many of the last checkpoints to keep, at least 1; the one with the lowest validation loss is kept as well.
    /// Default: 2.
    #[serde(default = "default_keep")]
    pub keep: usize,
    /// Early stopping: ends the run when the validation loss stops falling. Needs `data.validation`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Which weights to write at the end: `"last"` (default), those after the last step, or `"best"`, those with the
    /// lowest validation loss (needs `data.validation`).
    #[serde(default)]
    pub weights: Weights,
    /// Validation rows on which base model and trained model are compared at the end of the run; 0 skips the
    /// comparison. Default: 200.
    #[serde(default = "default_compare_rows")]
    pub compare_rows: usize,
    /// The programs that show the run while it goes on: `"tensorboard"` (an event file in the run's folder), `"mlflow"`
    /// (the server of the variable `MLFLOW_TRACKING_URI`), `"wandb"` (a folder for `wandb sync`). Default:
    /// `["tensorboard"]`. `[]` is none of them.
    #[serde(default = "default_track")]
    pub track: Vec<Track>,
}

/// The upper limit of counts: no machine can hold a larger batch.
pub(crate) const MOST: u64 = 1 << 30;

/// `train.micro_batch_tokens`: a number of tokens, or `"auto"` for as many as fit into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MicroBatchTokens {
    /// At most this many tokens.
    Tokens(usize),
    /// As many tokens as fit into memory. The number is chosen before the run starts, and stays the same when it
    /// resumes.
    Auto,
}

impl MicroBatchTokens {
    /// The number of tokens; the default as long as `Auto` is not resolved.
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

fn default_track() -> Vec<Track> {
    vec![Track::Tensorboard]
}

fn default_keep() -> usize {
    2
}

/// When to validate, or to write a checkpoint: `"never"`, `"epoch"`, or `{ steps = N }`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Interval {
    /// Only at the end of the run.
    Never,
    /// After every pass over the training rows.
    #[default]
    Epoch,
    /// After every N optimizer steps, at least 1.
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
            Self::Steps(steps) => {
                wrong_count(steps, 1, u64::MAX).map_or(Ok(()), |why| Err(Problem::new(key, why)))
            }
            _ => Ok(()),
        }
    }
}

/// The `train.early_stop` table: early stopping.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct EarlyStop {
    /// Validations in a row without a better loss after which the run ends, at least 1. Required.
    pub patience: u64,
    /// A loss counts as better if it is lower than the best by more than this (nats per token). Default: 0.
    #[serde(default)]
    pub min_improvement: f64,
}

/// `train.weights`: which weights a run writes at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Weights {
    /// The weights after the last step.
    #[default]
    Last,
    /// The weights with the lowest validation loss.
    Best,
}

impl TrainConfig {
    /// The steps of the whole run, if an epoch has `steps_per_epoch` steps.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        self.total_steps_with(steps_per_epoch, 0)
    }

    /// The same of a run that has made `surplus` more steps than belong to its place in the epochs.
    pub(crate) fn total_steps_with(&self, steps_per_epoch: u64, surplus: i64) -> u64 {
        let by_epochs = self.epochs.map(|epochs| {
            let steps = (epochs * steps_per_epoch as f64).ceil() as u64;
            steps.saturating_add_signed(surplus)
        });
        match (by_epochs, self.max_steps) {
            (Some(by_epochs), Some(most)) => by_epochs.min(most),
            (Some(steps), None) | (None, Some(steps)) => steps,
            (None, None) => 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        self.check_length()?;
        let wrong = |key: &str, why: String| Err(Problem::new(format!("train.{key}"), why));
        let counts = [
            ("batch_size", self.batch_size),
            ("micro_batch_tokens", self.micro_batch_tokens.tokens()),
            ("keep", self.keep),
        ];
        for (key, count) in counts {
            if let Some(why) = wrong_count(count as u64, 1, MOST) {
                return wrong(key, why);
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let found = self.learning_rate;
            let why = format!("expected a number above 0, such as 1e-4, found {found}");
            return wrong("learning_rate", why);
        }
        self.check_rates()?;
        self.schedule.check()?;
        self.optimizer.check()?;
        self.clip.check()?;
        self.guard.check()?;
        self.validate_every.check("train.validate_every.steps")?;
        self.checkpoint_every
            .check("train.checkpoint_every.steps")?;
        Track::check(&self.track)?;
        self.check_early_stop()
    }

    fn check_length(&self) -> Result<(), Problem> {
        match (self.epochs, self.max_steps) {
            (None, None) => {
                let why = "expected `epochs` or `max_steps`, found neither";
                let hint = "set epochs = 3, for example".to_owned();
                Err(Problem::new("train", why).with_hint(Some(hint)))
            }
            (Some(epochs), _) if !(epochs > 0.0 && epochs.is_finite()) => {
                let why = format!("expected a number above 0, such as 1, found {epochs}");
                Err(Problem::new("train.epochs", why))
            }
            (_, Some(steps)) => wrong_count(steps, 1, u64::MAX)
                .map_or(Ok(()), |why| Err(Problem::new("train.max_steps", why))),
            _ => Ok(()),
        }
    }

    fn check_early_stop(&self) -> Result<(), Problem> {
        let wrong = |key: &str, why: String| Err(Problem::new(format!("train.{key}"), why));
        let Some(stop) = self.early_stop else {
            return Ok(());
        };
        if let Some(why) = wrong_count(stop.patience, 1, u64::MAX) {
            return wrong("early_stop.patience", why);
        }
        if !(stop.min_improvement >= 0.0 && stop.min_improvement.is_finite()) {
            let found = stop.min_improvement;
            let why = format!(
                "expected a number, at least 0, found {found}; the nearest valid value is 0"
            );
            return wrong("early_stop.min_improvement", why);
        }
        if self.validate_every == Interval::Never {
            let why = "needs validations during the run, but `validate_every` is \"never\"";
            return wrong("early_stop", why.to_owned());
        }
        Ok(())
    }
}
