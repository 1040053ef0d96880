//! The `[samples]` table of a recipe: prompts that show the effect of a run.

use serde::{Deserialize, Serialize};
use simmer_data::{Conversation, Message, Role, Template, Tokenizer, prompt_tokens};
use simmer_hint::Hint;

use crate::config::MOST;
use simmer_recipe::{Problem, wrong_count};

/// The `[samples]` table: prompts that base model and trained model answer at the end of a run, by greedy decoding.
/// Needs `base.path`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct SampleConfig {
    /// The prompts, at least one. Required.
    pub prompts: Vec<String>,
    /// The system message before each prompt. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The template of the prompts. Default: the template of the first training source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The most tokens of an answer, at least 1. Default: 48.
    #[serde(default = "default_max_new_tokens")]
    pub max_new_tokens: usize,
}

fn default_max_new_tokens() -> usize {
    48
}

impl SampleConfig {
    /// A prompt as a conversation, behind the system message.
    pub fn conversation(&self, prompt: &str) -> Conversation {
        let Some(system) = &self.system else {
            return Conversation::prompt(prompt);
        };
        Conversation::chat(vec![
            Message::new(Role::System, system),
            Message::new(Role::User, prompt),
        ])
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.prompts.is_empty() {
            let why =
                "expected at least one prompt, found none; add one, or remove the table [samples]";
            return Err(Problem::new("samples.prompts", why));
        }
        if let Some(index) = self.prompts.iter().position(String::is_empty) {
            let why = "expected a prompt, found an empty text";
            return Err(Problem::new(format!("samples.prompts.{index}"), why));
        }
        if let Some(Err(error)) = self.template.as_deref().map(Template::check_name) {
            let problem = Problem::new("samples.template", error.to_string());
            return Err(problem.with_hint(error.hint()));
        }
        let why = wrong_count(self.max_new_tokens as u64, 1, MOST);
        why.map_or(Ok(()), |why| {
            Err(Problem::new("samples.max_new_tokens", why))
        })
    }

    /// Checks that a model with this tokenizer and context can answer every prompt at the end of the run. `first` is
    /// the template of the first source.
    ///
    /// # Errors
    /// The first template or prompt that it cannot use.
    pub(crate) fn check_prompts(
        &self,
        first: &str,
        tokenizer: &Tokenizer,
        context: usize,
    ) -> Result<(), Problem> {
        let name = self.template.as_deref().unwrap_or(first);
        let key = match self.template {
            Some(_) => "samples.template",
            None => "data.train.0.template",
        };
        let template = Template::named(name, tokenizer).map_err(|error| {
            let why = format!("{error} (it renders the prompts of [samples])");
            Problem::new(key, why).with_hint(error.hint())
        })?;
        for (index, prompt) in self.prompts.iter().enumerate() {
            let problem = |why| Problem::new(format!("samples.prompts.{index}"), why);
            let rendered = template
                .prompt(&self.conversation(prompt))
                .map_err(|error| {
                    let hint = "name a template that renders one question with samples.template";
                    problem(error.to_string()).with_hint(Some(hint.to_owned()))
                })?;
            let tokens = prompt_tokens(&rendered, tokenizer).map_err(|error| {
                let hint = error.hint();
                problem(error.to_string()).with_hint(hint)
            })?;
            if tokens.is_empty() || tokens.len() > context {
                return Err(problem(format!(
                    "expected 1 to {context} tokens, the context of the base model, found {} with template `{name}`",
                    tokens.len()
                )));
            }
        }
        Ok(())
    }
}
