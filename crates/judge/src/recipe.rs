//! The recipe of a judgement: a TOML file.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use simmer_files::digest::sha256;
use simmer_instruct::{Completions, EndpointConfig, LocalConfig};
use simmer_recipe::{Kind, Problem, RecipeError, at_least_one, wrong_count, wrong_part};

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

/// The largest number of repeats and of retries.
const MOST: u64 = 100;

impl Mode {
    /// As in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pairwise => "pairwise",
            Self::Single => "single",
        }
    }
}

impl Kind for JudgeRecipe {
    const CHOICES: &'static [&'static str] = &[];
    const OVERRIDE: &'static str = "max_questions=10";

    fn check(&self) -> Result<(), Problem> {
        self.check_models()?;
        at_least_one("batch", self.batch)?;
        self.check_judge()
    }

    fn shape(path: &str) -> Option<String> {
        let text = match path {
            "model" => {
                "write a table [[model]] for each model, with `local`, `endpoint` or `answers`"
            }
            "judge" => {
                "write the table [judge] with local = { base = \"FOLDER\" }, or [judge.endpoint]"
            }
            "questions" => "write questions = \"FILE\"",
            "out" => "write out = \"FOLDER\"",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn guide() -> Option<&'static str> {
        Some("docs/guide/judging.md has the keys of such a recipe")
    }
}

impl JudgeRecipe {
    /// The JSON schema of a recipe, for editors.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// Reads a recipe, applies `KEY=VALUE` overrides in order, and gives each model a name.
    ///
    /// # Errors
    /// If it cannot be read, or is invalid; the message has line and key.
    pub fn from_file(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        Ok(simmer_recipe::from_file::<Self>(path, sets)?.with_names())
    }

    /// A recipe from its text; `path` is named in errors.
    ///
    /// # Errors
    /// As [`JudgeRecipe::from_file`].
    pub fn parse(path: &Path, text: &str, sets: &[String]) -> Result<Self, RecipeError> {
        Ok(simmer_recipe::parse::<Self>(path, text, sets)?.with_names())
    }

    fn with_names(mut self) -> Self {
        for model in &mut self.models {
            model.name = Some(model.named());
        }
        self
    }

    fn check_judge(&self) -> Result<(), Problem> {
        let judge = &self.judge;
        let (local, endpoint) = (judge.local.is_some(), judge.endpoint.is_some());
        one_of("judge", &[("local", local), ("endpoint", endpoint)])?;
        if let Some(endpoint) = &judge.endpoint {
            endpoint
                .check()
                .map_err(|problem| problem.below("judge.endpoint"))?;
            not_beside(
                "judge",
                "endpoint",
                &[("template", judge.template.is_some())],
            )?;
        }
        at_least_one("judge.max_tokens", judge.max_tokens)?;
        at_least_one("judge.repeats", judge.repeats)?;
        for (key, found) in [("repeats", judge.repeats), ("retries", judge.retries)] {
            if let Some(why) = wrong_count(found as u64, 0, MOST) {
                return Err(Problem::new(format!("judge.{key}"), why));
            }
        }
        within("judge.temperature", judge.temperature, 2.0)
    }

    fn check_models(&self) -> Result<(), Problem> {
        let expected = match self.mode {
            Mode::Pairwise => (2..=2, "two tables [[model]], to compare two models"),
            Mode::Single => (1..=2, "one or two tables [[model]]"),
        };
        let found = self.models.len();
        if !expected.0.contains(&found) {
            let why = format!("expected {}, found {found}", expected.1);
            return Err(Problem::new("model", why));
        }
        for (number, model) in self.models.iter().enumerate() {
            model.check(&format!("model.{number}"))?;
        }
        if let [first, second] = &self.models[..]
            && first.named() == second.named()
        {
            let why = format!(
                "expected another name than that of the first model, found `{}`",
                second.named()
            );
            let hint = "write name = \"...\" in each [[model]]".to_owned();
            return Err(Problem::new("model.1.name", why).with_hint(Some(hint)));
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

    /// The name, or one from the file or the model.
    fn named(&self) -> String {
        let given = self.name.as_ref().filter(|name| !name.trim().is_empty());
        given.cloned().unwrap_or_else(|| self.own_name())
    }

    fn check(&self, table: &str) -> Result<(), Problem> {
        let (local, endpoint) = (self.local.is_some(), self.endpoint.is_some());
        let ways = [
            ("answers", self.answers.is_some()),
            ("local", local),
            ("endpoint", endpoint),
        ];
        one_of(table, &ways)?;
        if let Some(endpoint) = &self.endpoint {
            endpoint
                .check()
                .map_err(|problem| problem.below(&format!("{table}.endpoint")))?;
            not_beside(table, "endpoint", &[("template", self.template.is_some())])?;
        }
        if self.answers.is_some() {
            let settings = [
                ("temperature", self.temperature.is_some()),
                ("template", self.template.is_some()),
                ("system", self.system.is_some()),
                ("stop", !self.stop.is_empty()),
                ("top_p", self.top_p < one()),
                ("max_tokens", self.max_tokens != one_thousand()),
            ];
            not_beside(table, "answers", &settings)?;
        }
        at_least_one(&format!("{table}.max_tokens"), self.max_tokens)?;
        let temperature = self.temperature.unwrap_or(0.0);
        within(&format!("{table}.temperature"), temperature, 2.0)?;
        within(&format!("{table}.top_p"), self.top_p, 1.0)
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

/// Exactly one of the keys must be given.
fn one_of(table: &str, keys: &[(&str, bool)]) -> Result<(), Problem> {
    let given = keys.iter().filter(|(_, given)| *given);
    let given: Vec<&str> = given.map(|(key, _)| *key).collect();
    if given.len() == 1 {
        return Ok(());
    }
    let known: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
    let found = if given.is_empty() {
        "none".to_owned()
    } else {
        format!("`{}`", given.join("` and `"))
    };
    let why = format!(
        "expected one of the keys `{}`, found {found}",
        known.join("`, `")
    );
    Err(Problem::new(table, why))
}

/// None of the keys may be given beside the key `beside`, which has no use for them.
fn not_beside(table: &str, beside: &str, keys: &[(&str, bool)]) -> Result<(), Problem> {
    let Some((key, _)) = keys.iter().find(|(_, given)| *given) else {
        return Ok(());
    };
    let why = format!("expected no such key beside `{beside}`, which does not use it");
    let hint = match beside {
        "answers" => "remove it: the answers of a file are judged as they are",
        _ => "remove it: the server applies the template of its model",
    };
    Err(Problem::new(format!("{table}.{key}"), why).with_hint(Some(hint.to_owned())))
}

fn within(key: &str, found: f64, most: f64) -> Result<(), Problem> {
    wrong_part(found, 0.0, most).map_or(Ok(()), |why| Err(Problem::new(key, why)))
}
