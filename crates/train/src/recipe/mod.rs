//! A recipe: one TOML file that says everything about a run.
//!
//! The tables' structs live beside the code that uses them. Unknown keys, wrong types and
//! impossible combinations are errors that name file, line and key.

mod explain;
mod source;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simmer_data::DataConfig;
use simmer_model::adapter::LoraConfig;
use simmer_model::base::{BaseConfig, Precision};
use simmer_model::device;
use toml::de::{DeTable, Deserializer};

use crate::config::TrainConfig;
use crate::problem::Problem;
use crate::sample::SampleConfig;
use crate::vocabulary;
use source::Sources;

/// Everything about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct Recipe {
    /// Where it computes: `cpu`, or `auto` for the best that the build and the machine have.
    #[serde(default = "default_device")]
    pub device: String,
    /// What is fine-tuned.
    pub base: BaseConfig,
    /// Which weights are trained.
    pub method: Method,
    /// What is trained on.
    pub data: DataConfig,
    /// How it is trained.
    pub train: TrainConfig,
    /// What base and trained model are asked when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<SampleConfig>,
}

fn default_device() -> String {
    "auto".to_owned()
}

/// Which weights are trained.
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Method {
    /// Low-rank matrices beside the frozen base.
    Lora(LoraConfig),
    /// Every weight of the base, in f32.
    Full(FullConfig),
}

/// The `[method.full]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct FullConfig {
    /// How the weights of the finished model are stored.
    pub precision: Precision,
}

impl Default for FullConfig {
    fn default() -> Self {
        let precision = Precision::F32;
        Self { precision }
    }
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{place}: {what}")]
    Wrong {
        /// File, line and column, or the `--set` that said it.
        place: String,
        /// What is wrong.
        what: String,
        /// What may mend it.
        hint: Option<String>,
    },
}

impl RecipeError {
    /// What may mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, .. } if !path.exists() => Some(
                "`simmer recipes` lists the recipes that ship with the program; \
                 `simmer recipes copy NAME` writes one into a file"
                    .to_owned(),
            ),
            Self::Read { .. } => None,
            Self::Wrong { hint, .. } => hint.clone(),
        }
    }
}

/// No recipe is larger, in bytes.
const LARGEST: u64 = 4 << 20;

impl Recipe {
    /// Reads a recipe and applies `--set KEY=VALUE` overrides, in order.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line and key.
    pub fn from_file(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        let text = simmer_files::read_text(path, LARGEST).map_err(|source| RecipeError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text, sets)
    }

    /// A recipe from its text; `path` is named in errors.
    ///
    /// A set's value is TOML, or a string where it is not: `train.seed=7`, `base.path=my/model`,
    /// `data.train.0.path=rows.json`.
    ///
    /// # Errors
    /// As [`Recipe::from_file`].
    pub fn parse(path: &Path, text: &str, sets: &[String]) -> Result<Self, RecipeError> {
        let sources = Sources::new(path, text, sets)?;
        let mut root = DeTable::parse(text).map_err(|error| sources.syntax(&error))?;
        for set in sources.sets() {
            set.apply(root.get_mut())?;
        }
        let recipe = Self::deserialize(Deserializer::from(root.clone()))
            .map_err(|error| explain::deserialization(&sources, root.get_ref(), &error))?;
        match recipe.check() {
            Ok(()) => Ok(recipe),
            Err(problem) => Err(explain::problem(&sources, root.get_ref(), problem)),
        }
    }

    /// The whole recipe as TOML, with every default spelled out; it parses to the same recipe.
    ///
    /// # Panics
    /// Never for a recipe that was parsed: TOML has a form for all that TOML can say.
    pub fn resolved(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| panic!("a recipe has a TOML form: {error}"))
    }

    /// The JSON schema of a recipe, which editors check and complete TOML files with.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).into()
    }

    /// Whether the values go together.
    ///
    /// # Errors
    /// The first key whose value cannot be.
    pub fn check(&self) -> Result<(), Problem> {
        if let Err(error) = device::check(&self.device) {
            return Err(Problem::new("device", error.to_string()));
        }
        self.train.check()?;
        if let Some(samples) = &self.samples {
            samples.check()?;
        }
        let needs_validation = |key: &str| {
            let why = "needs a validation set, and [data] has no `validation`";
            Err(Problem::new(key, why))
        };
        if self.data.validation.is_none() {
            if self.train.early_stop.is_some() {
                return needs_validation("train.early_stop");
            }
            if self.train.weights == crate::config::Weights::Best {
                return needs_validation("train.weights");
            }
        }
        self.check_stream()?;
        let base = &self.base;
        if base.path.is_some() && base.init.is_some() {
            let why = "there is `base.path` too; weights come from a checkpoint or from chance";
            return Err(Problem::new("base.init", why));
        }
        if base.path.is_none() && base.init.is_none() {
            let why = "needs `path` (a checkpoint) or `init` (random weights)";
            return Err(Problem::new("base", why));
        }
        vocabulary::check(base)
    }

    /// A stream has no last row that anything could be counted by.
    fn check_stream(&self) -> Result<(), Problem> {
        if !self.data.stream {
            return Ok(());
        }
        let train = &self.train;
        if train.epochs.is_some() {
            let why = "a stream (data.stream) is not counted in epochs: give `max_steps`";
            return Err(Problem::new("train.epochs", why));
        }
        if train.max_steps.is_none() {
            let why = "needs `max_steps`: a stream (data.stream) has no end";
            return Err(Problem::new("train", why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
