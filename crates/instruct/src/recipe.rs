//! The recipe of a generation: a TOML file.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint::EndpointConfig;
use crate::error::InstructError;

/// A recipe: what generates which rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateRecipe {
    /// `self-instruct`, `alpaca`, `baize`, or a file that ends in `.toml`.
    pub method: String,
    /// The seeds: tasks, one line of JSON each, as Self-Instruct's `seed_tasks.jsonl`; for conversations, questions.
    pub seeds: PathBuf,
    /// The folder that is written.
    pub out: PathBuf,
    /// How many instructions to keep, or how many conversations. The completions of the last batch may give more.
    pub target: usize,
    /// Random seed: which seeds are in which prompt, and the samples of a local model.
    #[serde(default)]
    pub seed: u64,
    /// The number of prompts that are completed together. Instructions of a batch are compared with those of earlier ones.
    #[serde(default = "five")]
    pub batch: usize,
    /// Stop after so many batches in a row of which nothing is kept.
    #[serde(default = "fifty")]
    pub patience: usize,
    /// Stop asking for instructions after so many batches; 0: no limit.
    #[serde(default)]
    pub max_batches: usize,
    /// Whether the rows of the seeds are written, too.
    #[serde(default)]
    pub include_seeds: bool,
    /// The format of conversations.
    #[serde(default)]
    pub chat_format: ChatFormat,
    /// What completes the prompts.
    pub model: ModelConfig,
}

/// The format of conversations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatFormat {
    /// `messages`: a list of `role` and `content`.
    #[default]
    Messages,
    /// Baize's own: `topic`, and `input` with `[|Human|]` and `[|AI|]`.
    Baize,
}

/// The `[model]` table: one of its two forms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelConfig {
    /// A model on this machine.
    Local(LocalConfig),
    /// A server of OpenAI's API.
    Endpoint(EndpointConfig),
}

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalConfig {
    /// Base model: a folder, a .gguf file, or a name on the Hugging Face Hub.
    pub base: PathBuf,
    /// Adapter in PEFT's layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// How the weights are held in memory: `f32`, `bf16`, `f16`, `nf4`, `fp4` or `int8`. Default: as stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// How many prompts of a batch are computed together: several ranks share the groups of a batch. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<usize>,
    /// The device: `auto`, `cpu`, `libtorch` or `libtorch-cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
}

fn five() -> usize {
    5
}

fn fifty() -> usize {
    50
}

fn auto() -> String {
    "auto".to_owned()
}

/// The maximum size of a recipe.
const MAX_BYTES: u64 = 1 << 20;

impl GenerateRecipe {
    /// The JSON schema of a recipe, for editors.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// If it cannot be read, or is invalid; the message has line and key.
    pub fn from_file(path: &Path) -> Result<Self, InstructError> {
        let text = simmer_files::read_text(path, MAX_BYTES).map_err(InstructError::read(path))?;
        let invalid = |problem: String| InstructError::Invalid {
            path: path.to_owned(),
            problem,
        };
        let recipe: Self = toml::from_str(&text)
            .map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
        let positive = [
            ("target", recipe.target),
            ("batch", recipe.batch),
            ("patience", recipe.patience),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(invalid(format!("`{key}`: expected at least 1, found 0")));
        }
        if let ModelConfig::Endpoint(endpoint) = &recipe.model {
            endpoint.check()?;
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::method::Method;

    #[test]
    fn every_shipped_recipe_can_be_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut methods = Vec::new();
        for entry in fs::read_dir(root.join("recipes/generate")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_toml = |path: &Path| path.extension().is_some_and(|end| end == "toml");
            if is_toml(&path) && !name.ends_with("-method.toml") {
                let recipe = GenerateRecipe::from_file(&path).unwrap();
                let is_file = is_toml(Path::new(&recipe.method));
                let method = if is_file {
                    root.join(&recipe.method)
                } else {
                    recipe.method.into()
                };
                Method::named(&method.to_string_lossy()).unwrap();
                let text = fs::read_to_string(&path).unwrap();
                let command = format!("#   simmer data generate recipes/generate/{name}\n");
                assert!(text.contains(&command), "{name}");
                methods.push(name);
            }
        }
        assert!(methods.len() >= 4, "{methods:?}");
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.toml");
        let error = |text: &str| {
            fs::write(&path, text).unwrap();
            GenerateRecipe::from_file(&path).unwrap_err().to_string()
        };
        let recipe = "method = \"alpaca\"\nseeds = \"s\"\nout = \"o\"\ntarget = 0\n[model.local]\nbase = \"b\"\n";
        assert!(error(recipe).ends_with("g.toml: `target`: expected at least 1, found 0"));
        let found = error(&recipe.replace("target", "targets"));
        assert!(
            found.contains("line 4") && found.contains("unknown field `targets`"),
            "{found}"
        );
        let found = error(&recipe.replace("model.local", "model.remote"));
        assert!(found.contains("expected `local` or `endpoint`"), "{found}");
    }
}
