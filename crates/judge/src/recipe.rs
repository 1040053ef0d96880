//! The recipe of a judgement: a TOML file.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use simmer_files::digest::sha256;
use simmer_instruct::{Completions, EndpointConfig, InstructError, LocalConfig};

use crate::error::JudgeError;

/// A recipe: which answers are judged by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeRecipe {
    /// The questions: a file of MT-bench, Vicuna, Koala, Self-Instruct, AlpacaEval, or rows of your own.
    pub questions: PathBuf,
    /// Judge the first so many questions; 0: all.
    #[serde(default)]
    pub max_questions: usize,
    /// Reference answers, in a form of answers, such as FastChat's `reference_answer/gpt-4.jsonl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<PathBuf>,
    /// `pairwise`: two models are compared, in both orders; `single`: each answer is rated.
    #[serde(default)]
    pub mode: Mode,
    /// The prompts of the judge: `mt-bench`, or a file that ends in `.toml`.
    #[serde(default = "mt_bench")]
    pub prompts: String,
    /// The categories that are judged beside reference answers; `*`: all. Default: those of the prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_categories: Option<Vec<String>>,
    /// The folder that is written.
    pub out: PathBuf,
    /// Random seed: the samples of local models.
    #[serde(default)]
    pub seed: u64,
    /// The number of prompts that a local model completes together.
    #[serde(default = "eight")]
    pub batch: usize,
    /// The models whose answers are judged: two, or one to rate. A win rate is that of the first.
    #[serde(rename = "model")]
    pub models: Vec<ModelConfig>,
    /// The judge.
    pub judge: JudgeConfig,
}

/// What is asked of a judge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Which of two answers is better, in both orders.
    #[default]
    Pairwise,
    /// A rating of each answer.
    Single,
}

/// A `[[model]]` table: one of `answers`, `local` and `endpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Its name in the report. Default: the name of the file, the adapter, the base model, or the model of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A file with its answers: FastChat's, AlpacaEval's, or rows of `id` and `answer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<PathBuf>,
    /// A model on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalConfig>,
    /// A server of OpenAI's API; its function `/chat/completions` is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointConfig>,
    /// The prompt template of a local model. Default: the one that the adapter was trained with, else `chat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// A system message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The maximum number of new tokens of an answer.
    #[serde(default = "one_thousand")]
    pub max_tokens: usize,
    /// The temperature. Default: the one that the prompts name for the category of the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Sample among the fewest tokens whose probabilities add up to this.
    #[serde(default = "one")]
    pub top_p: f64,
    /// Texts at which an answer ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

/// The `[judge]` table: one of `local` and `endpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeConfig {
    /// A model on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalConfig>,
    /// A server of OpenAI's API; its function `/chat/completions` is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointConfig>,
    /// The prompt template of a local model. Default: the one that the adapter was trained with, else `chat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Whether the system message stands at the start of the user's, below a line `[Instruction]`, for models without one.
    #[serde(default)]
    pub system_in_prompt: bool,
    /// The maximum number of new tokens of a verdict.
    #[serde(default = "two_thousand")]
    pub max_tokens: usize,
    /// The temperature; 0: always the most likely token.
    #[serde(default)]
    pub temperature: f64,
    /// How often the judge is asked again if its text has no verdict; at a temperature of 0.7 or more.
    #[serde(default = "two")]
    pub retries: usize,
    /// How often everything is judged. From 2 on, the report has the agreement of the judge with itself; set `temperature`, too.
    #[serde(default = "once")]
    pub repeats: usize,
}

fn mt_bench() -> String {
    "mt-bench".to_owned()
}

fn eight() -> usize {
    8
}

fn one() -> f64 {
    1.0
}

fn once() -> usize {
    1
}

fn two() -> usize {
    2
}

fn one_thousand() -> usize {
    1024
}

fn two_thousand() -> usize {
    2048
}

/// The maximum size of a recipe.
const MAX_BYTES: u64 = 1 << 20;
/// The largest number of repeats and of retries.
const MOST: usize = 100;

impl Mode {
    /// As in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pairwise => "pairwise",
            Self::Single => "single",
        }
    }
}

impl JudgeRecipe {
    /// The JSON schema of a recipe, for editors.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// Reads a recipe, and gives each model a name.
    ///
    /// # Errors
    /// If it cannot be read, or is invalid; the message has line or key.
    pub fn from_file(path: &Path) -> Result<Self, JudgeError> {
        let text = simmer_files::read_text(path, MAX_BYTES).map_err(|source| JudgeError::Read {
            path: path.to_owned(),
            source,
        })?;
        let invalid = |problem: String| JudgeError::Recipe {
            path: path.to_owned(),
            problem,
        };
        let mut recipe: Self = toml::from_str(&text)
            .map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
        recipe.check().map_err(invalid)?;
        Ok(recipe)
    }

    fn check(&mut self) -> Result<(), String> {
        self.check_models()?;
        let judge = &self.judge;
        one_of(
            "[judge]",
            &[
                ("local", judge.local.is_some()),
                ("endpoint", judge.endpoint.is_some()),
            ],
        )?;
        if let Some(endpoint) = &judge.endpoint {
            check_endpoint("[judge.endpoint]", endpoint)?;
        }
        at_least_one("`batch`", self.batch)?;
        at_least_one("[judge]: `max_tokens`", judge.max_tokens)?;
        at_least_one("[judge]: `repeats`", judge.repeats)?;
        for (key, value) in [("repeats", judge.repeats), ("retries", judge.retries)] {
            if value > MOST {
                return Err(format!(
                    "[judge]: `{key}`: expected at most {MOST}, found {value}"
                ));
            }
        }
        within("[judge]: `temperature`", judge.temperature, 2.0)
    }

    fn check_models(&mut self) -> Result<(), String> {
        let expected = match self.mode {
            Mode::Pairwise => (2..=2, "two tables, to compare two models"),
            Mode::Single => (1..=2, "one or two tables"),
        };
        if !expected.0.contains(&self.models.len()) {
            return Err(format!(
                "`[[model]]`: expected {}, found {}",
                expected.1,
                self.models.len()
            ));
        }
        for (number, model) in self.models.iter_mut().enumerate() {
            let table = format!("[[model]] {}", number + 1);
            one_of(
                &table,
                &[
                    ("answers", model.answers.is_some()),
                    ("local", model.local.is_some()),
                    ("endpoint", model.endpoint.is_some()),
                ],
            )?;
            if let Some(endpoint) = &model.endpoint {
                check_endpoint(&format!("{table}: `endpoint`"), endpoint)?;
            }
            at_least_one(&format!("{table}: `max_tokens`"), model.max_tokens)?;
            within(
                &format!("{table}: `temperature`"),
                model.temperature.unwrap_or(0.0),
                2.0,
            )?;
            within(&format!("{table}: `top_p`"), model.top_p, 1.0)?;
            if model
                .name
                .as_ref()
                .is_none_or(|name| name.trim().is_empty())
            {
                model.name = Some(model.own_name());
            }
        }
        if let [first, second] = &self.models[..]
            && first.name == second.name
        {
            return Err(format!(
                "[[model]] 2: `name`: expected another name than that of the first model, found `{}`",
                second.shown()
            ));
        }
        Ok(())
    }

    /// How many prompts are completed together.
    pub(crate) fn batch_size(&self, completions: &dyn Completions, all: usize) -> usize {
        if completions.computes_batches() {
            self.batch
        } else {
            all.max(1)
        }
    }
}

impl ModelConfig {
    /// The name in the report.
    pub fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn own_name(&self) -> String {
        let last = |path: &Path| {
            let name = path.file_stem().unwrap_or(path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        match (&self.answers, &self.local, &self.endpoint) {
            (Some(path), _, _) => last(path),
            (
                _,
                Some(LocalConfig {
                    adapter: Some(adapter),
                    ..
                }),
                _,
            ) => adapter.display().to_string(),
            (_, Some(local), _) => local.base.display().to_string(),
            (_, _, Some(endpoint)) => endpoint.model.clone(),
            _ => String::new(),
        }
    }
}

/// The seed of a request.
pub(crate) fn seed_of(seed: u64, key: &impl Display) -> u64 {
    let hash = sha256(format!("{seed} {key}").as_bytes());
    u64::from_str_radix(&hash[..16], 16).unwrap_or(seed)
}

fn one_of(table: &str, keys: &[(&str, bool)]) -> Result<(), String> {
    let given: Vec<&str> = keys
        .iter()
        .filter(|(_, given)| *given)
        .map(|(key, _)| *key)
        .collect();
    if given.len() == 1 {
        return Ok(());
    }
    let known: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
    let found = if given.is_empty() {
        "none".to_owned()
    } else {
        format!("`{}`", given.join("` and `"))
    };
    Err(format!(
        "{table}: expected one of the keys `{}`, found {found}",
        known.join("`, `")
    ))
}

fn at_least_one(key: &str, value: usize) -> Result<(), String> {
    match value {
        0 => Err(format!("{key}: expected at least 1, found 0")),
        _ => Ok(()),
    }
}

fn within(key: &str, value: f64, most: f64) -> Result<(), String> {
    if (0.0..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{key}: expected 0 to {most}, found {value}"))
}

fn check_endpoint(table: &str, endpoint: &EndpointConfig) -> Result<(), String> {
    endpoint.check().map_err(|error| match error {
        InstructError::Endpoint { problem } => format!("{table}: {problem}"),
        error => error.to_string(),
    })
}
