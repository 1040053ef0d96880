//! The recipe of a generation: a TOML file.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use simmer_recipe::{Kind, Problem, RecipeError, at_least_one};

use crate::endpoint::EndpointConfig;

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
    /// Dtype of the activations and of the matrix multiplications: `f32`, or `bf16`, which is less exact, and faster where the
    /// device multiplies in it. Default: `bf16` for weights in bf16 on a GPU, else `f32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<ComputeDtype>,
    /// How many prompts of a batch are computed together: several ranks share the groups of a batch. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<usize>,
    /// The device: `auto`, `cpu`, `libtorch` or `libtorch-cuda:N`; several GPUs, with commas between them, share the layers.
    #[serde(default = "auto")]
    pub device: String,
}

// `Compute` of the crate `model` without fp8, which only trains: this crate does not depend on Burn
/// What a local model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDtype {
    /// 32 bits.
    F32,
    /// 16 bits.
    Bf16,
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

impl Kind for GenerateRecipe {
    const CHOICES: &'static [&'static str] = &["model"];
    const OVERRIDE: &'static str = "target=100";

    fn check(&self) -> Result<(), Problem> {
        at_least_one("target", self.target)?;
        at_least_one("batch", self.batch)?;
        at_least_one("patience", self.patience)?;
        match &self.model {
            ModelConfig::Endpoint(endpoint) => endpoint
                .check()
                .map_err(|problem| problem.below("model.endpoint")),
            ModelConfig::Local(_) => Ok(()),
        }
    }

    fn shape(path: &str) -> Option<String> {
        let text = match path {
            "model" | "model.local" => {
                "write the table [model.local] with base = \"FOLDER\", or [model.endpoint] with url and model"
            }
            "method" => {
                "write method = \"self-instruct\", \"alpaca\", \"baize\" or the name of a .toml file"
            }
            "seeds" => "write seeds = \"FILE\": tasks, or for conversations questions",
            "out" => "write out = \"FOLDER\"",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn guide() -> Option<&'static str> {
        Some("docs/guide/generating-data.md has the keys of recipes and methods")
    }
}

impl GenerateRecipe {
    /// The JSON schema of a recipe, for editors.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// Reads a recipe and applies `KEY=VALUE` overrides, in order.
    ///
    /// # Errors
    /// If it cannot be read, or is invalid; the message has line and key.
    pub fn from_file(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        simmer_recipe::from_file(path, sets)
    }

    /// A recipe from its text; `path` is named in errors.
    ///
    /// # Errors
    /// As [`GenerateRecipe::from_file`].
    pub fn parse(path: &Path, text: &str, sets: &[String]) -> Result<Self, RecipeError> {
        simmer_recipe::parse(path, text, sets)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use simmer_hint::Hint;

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
                let recipe = GenerateRecipe::from_file(&path, &[]).unwrap();
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
    fn a_wrong_key_is_named_with_its_place() {
        let recipe = "method = \"alpaca\"\nseeds = \"s\"\nout = \"o\"\ntarget = 1\n[model.local]\nbase = \"b\"\n";
        let said = |text: &str, sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            let error = GenerateRecipe::parse(Path::new("g.toml"), text, &sets).unwrap_err();
            format!("{error}\n{}", error.hint().unwrap_or_default())
        };
        for (text, sets, expected) in [
            (
                recipe.replace("= 1", "= 0"),
                &[][..],
                "g.toml: line 4, column 1: `target`: expected at least 1, found 0; the nearest valid value is 1\n\
                 docs/guide/generating-data.md has",
            ),
            (
                recipe.replace("target", "targets"),
                &[],
                "g.toml: line 4, column 1: unknown key `targets` in the recipe; did you mean `target`?\nkeys of the recipe: ",
            ),
            (
                recipe.replace("model.local", "model.remote"),
                &[],
                "`model`: unknown value `remote`",
            ),
            (
                recipe.to_owned() + "compute = \"f16\"\n",
                &[],
                "`model.local.compute`: unknown value `f16`; did you mean `bf16`?",
            ),
            (
                recipe.replace("[model.local]\nbase = \"b\"\n", ""),
                &[],
                "g.toml: the recipe lacks `model`\nwrite the table [model.local]",
            ),
            (
                recipe.to_owned(),
                &["batch=many"],
                "--set batch=many: expected a whole number, at least 0, found the text \"many\"\n",
            ),
            (
                recipe.to_owned(),
                &["model.endpoint.url=ftp://x", "model.endpoint.model=m"],
                "--set model.endpoint.url=ftp://x: expected http:// or https://, found \"ftp://x\"\n",
            ),
            (
                recipe.replace(
                    "[model.local]\nbase = \"b\"",
                    "[model.endpoint]\nurl = \"http://bob:hunter2@host/v1\"\nmodel = \"m\"",
                ),
                &[],
                "`model.endpoint.url`: expected an address without `@`: a user name or password would appear in messages and files\n\
                 put the key into an environment variable",
            ),
            (
                recipe.to_owned(),
                &["target"],
                "--set target: expected KEY=VALUE, found no `=`\nwrite an override as --set target=100",
            ),
        ] {
            let found = said(&text, sets);
            assert!(found.contains(expected), "{found}\n{expected}");
        }
    }

    #[test]
    fn overrides_count_in_order_and_replace_the_model() {
        let text = "method = \"alpaca\"\nseeds = \"s\"\nout = \"o\"\ntarget = 1\n[model.local]\nbase = \"b\"\n";
        let sets = ["target=7", "model.local.base=my/model", "target=8"].map(str::to_owned);
        let recipe = GenerateRecipe::parse(Path::new("g.toml"), text, &sets).unwrap();
        assert_eq!(recipe.target, 8);
        assert!(
            matches!(&recipe.model, ModelConfig::Local(local) if local.base == Path::new("my/model"))
        );
        let sets = ["model.endpoint.url=http://x", "model.endpoint.model=m"].map(str::to_owned);
        let recipe = GenerateRecipe::parse(Path::new("g.toml"), text, &sets).unwrap();
        assert!(matches!(&recipe.model, ModelConfig::Endpoint(endpoint) if endpoint.model == "m"));
    }
}
