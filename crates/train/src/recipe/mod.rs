//! The recipe: a TOML file that defines a run.
//!
//! The struct of each table is defined next to the code that uses it. Unknown keys, wrong types and impossible
//! combinations are errors that name file, line and key.

mod check;
mod elsewhere;
mod numbers;
mod places;
mod shape;

use std::path::Path;

use serde::{Deserialize, Serialize};
use simmer_data::DataConfig;
use simmer_model::adapter::{AdapterTable, AdaptionPromptConfig, Ia3Config, LoraConfig};
use simmer_model::base::{BaseConfig, Precision};
use simmer_model::device::Devices;
use simmer_recipe::{Here, Kind, Problem};

use crate::config::TrainConfig;
use crate::sample::SampleConfig;
pub(crate) use check::{full_on_quantised, of_adapter_table};
pub use elsewhere::option_here;
pub use simmer_recipe::RecipeError;

/// A recipe: everything that defines a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct Recipe {
    /// The device to compute on: `auto` (default), `cpu`, `libtorch` (libtorch on the CPU) or `libtorch-cuda:N` (GPU
    /// number N, from 0). `auto` chooses the fastest device that the build and the machine offer. A list of GPUs, such as
    /// `["libtorch-cuda:0", "libtorch-cuda:1"]`, shares the layers of the base model, which one of them could not hold.
    #[serde(default)]
    pub device: Devices,
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

impl Kind for Recipe {
    const CHOICES: &'static [&'static str] = &[
        "base.init.rope_scaling",
        "data.validation",
        "method",
        "train.checkpoint_every",
        "train.clip",
        "train.optimizer",
        "train.schedule",
        "train.validate_every",
    ];
    const OVERRIDE: &'static str = "train.learning_rate=1e-4";
    const FORMER: &'static [&'static str] = &["share_beginnings"];

    fn check(&self) -> Result<(), Problem> {
        Self::check(self)
    }

    fn key_here(name: &str, table: Option<&str>) -> Option<Here> {
        elsewhere::key_here(name, table)
    }

    fn value_here(key: &str, name: &str) -> Option<&'static str> {
        elsewhere::value_here(key, name)
    }

    fn shape(path: &str) -> Option<String> {
        shape::shape(path)
    }

    /// The sources of a validation set are like those of the training set.
    fn same_table(path: String) -> String {
        path.replace("data.validation.files", "data.train")
    }
}

impl Recipe {
    /// Reads a recipe and applies `--set KEY=VALUE` overrides, in order.
    ///
    /// # Errors
    /// The first problem, with file, line and key.
    pub fn from_file(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        simmer_recipe::from_file(path, sets)
    }

    /// A recipe from its text; `path` is named in errors.
    ///
    /// The value of an override is TOML; a value that is not valid TOML is taken as a string: `train.seed=7`,
    /// `base.path=my/model`, `data.train.0.path=rows.json`.
    ///
    /// # Errors
    /// As [`Recipe::from_file`].
    pub fn parse(path: &Path, text: &str, sets: &[String]) -> Result<Self, RecipeError> {
        simmer_recipe::parse(path, text, sets)
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
