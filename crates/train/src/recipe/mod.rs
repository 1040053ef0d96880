//! The recipe: a TOML file that defines a run.
//!
//! The struct of each table is defined next to the code that uses it. Unknown keys, wrong types and impossible
//! combinations are errors that name file, line and key.

mod check;
mod elsewhere;
mod explain;
mod numbers;
mod places;
mod source;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simmer_data::DataConfig;
use simmer_hint::Hint;
use simmer_model::adapter::{AdapterTable, AdaptionPromptConfig, Ia3Config, LoraConfig};
use simmer_model::base::{BaseConfig, Precision};
use toml::de::{DeTable, Deserializer};

use crate::config::TrainConfig;
use crate::sample::SampleConfig;
pub(crate) use check::{full_on_quantised, of_adapter_table};
pub use elsewhere::option_here;
use source::Sources;

/// A recipe: everything that defines a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct Recipe {
    /// The device to compute on: `auto` (default), `cpu`, `libtorch` (libtorch on the CPU) or `libtorch-cuda:N` (GPU
    /// number N, from 0). `auto` chooses the fastest device that the build and the machine offer.
    #[serde(default = "default_device")]
    pub device: String,
    /// The base model and its tokenizer.
    pub base: BaseConfig,
    /// What is trained: an adapter, `[method.lora]`, `[method.ia3]` or `[method.adaption_prompt]`, or all weights, `[method.full]`.
    pub method: Method,
    /// The training and validation data.
    pub data: DataConfig,
    /// Steps, batches, optimizer, checkpoints.
    pub train: TrainConfig,
    /// Prompts that the base model and the trained model answer at the end of the run. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<SampleConfig>,
}

fn default_device() -> String {
    "auto".to_owned()
}

/// The `[method]` table: what is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Method {
    /// A LoRA adapter; the base model stays frozen.
    Lora(LoraConfig),
    /// An adapter of (IA)³; the base model stays frozen.
    Ia3(Ia3Config),
    /// LLaMA-Adapter; the base model stays frozen.
    AdaptionPrompt(AdaptionPromptConfig),
    /// Full fine-tuning: every weight of the base model, in f32.
    Full(FullConfig),
}

impl Method {
    /// The table of the adapter; `None` if every weight is trained.
    pub fn adapter(&self) -> Option<&dyn AdapterTable> {
        match self {
            Self::Lora(table) => Some(table),
            Self::Ia3(table) => Some(table),
            Self::AdaptionPrompt(table) => Some(table),
            Self::Full(_) => None,
        }
    }

    /// As [`Method::adapter`].
    pub fn adapter_mut(&mut self) -> Option<&mut dyn AdapterTable> {
        match self {
            Self::Lora(table) => Some(table),
            Self::Ia3(table) => Some(table),
            Self::AdaptionPrompt(table) => Some(table),
            Self::Full(_) => None,
        }
    }
}

/// The `[method.full]` table: full fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct FullConfig {
    /// The dtype in which the finished model is stored: `f32` (default), `bf16` or `f16`. Training itself is in f32.
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
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Something in the recipe is wrong.
    #[error("{place}: {what}")]
    Wrong {
        /// File, line and column, or the `--set` override.
        place: String,
        /// What is wrong.
        what: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
}

impl Hint for RecipeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, .. } if meant(path).is_file() && meant(path) != *path => {
                Some(format!("did you mean {}?", meant(path).display()))
            }
            Self::Read { path, .. } if !path.exists() => Some(
                "list the recipes that ship with the program with `simmer recipes`; \
                 copy one with `simmer recipes copy NAME`"
                    .to_owned(),
            ),
            Self::Read { path, .. } if path.is_dir() => Some(
                "give the recipe, a TOML file; the recipe of a run is recipe.toml in its folder"
                    .to_owned(),
            ),
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
                Some("a recipe is a TOML file, text in UTF-8".to_owned())
            }
            Self::Read { .. } => None,
            Self::Wrong { hint, .. } => hint.clone(),
        }
    }
}

/// The recipe that somebody means who left out or mistook the extension.
fn meant(path: &Path) -> PathBuf {
    path.with_extension("toml")
}

/// The largest recipe that is read, in bytes.
const LARGEST: u64 = 4 << 20;

impl Recipe {
    /// Reads a recipe and applies `--set KEY=VALUE` overrides, in order.
    ///
    /// # Errors
    /// The first problem, with file, line and key.
    pub fn from_file(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        let text = simmer_files::read_text(path, LARGEST).map_err(|source| RecipeError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text, sets)
    }

    /// A recipe from its text; `path` is named in errors.
    ///
    /// The value of an override is TOML; a value that is not valid TOML is taken as a string: `train.seed=7`,
    /// `base.path=my/model`, `data.train.0.path=rows.json`.
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
            .map_err(|error| explain::deserialization(&sources, &root, &error))?;
        match recipe.check() {
            Ok(()) => Ok(recipe),
            Err(problem) => Err(explain::problem(&sources, root.get_ref(), problem)),
        }
    }

    /// The whole recipe as TOML, with every default written out. It parses to the same recipe.
    ///
    /// # Panics
    /// Never for a recipe that was parsed from TOML, since all its values have a TOML form.
    pub fn resolved(&self) -> String {
        let text = toml::to_string(self)
            .unwrap_or_else(|error| panic!("a recipe has a TOML form: {error}"));
        numbers::with_exponents(&text)
    }

    /// The JSON schema of a recipe, which editors check and complete TOML files with.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).into()
    }
}

#[cfg(test)]
mod tests;
