//! The `[samples]` table of a recipe: prompts that show the effect of a run.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// The `[samples]` table: prompts that base model and trained model answer at the end of a run, by greedy decoding.
/// Needs `base.path`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct SampleConfig {
    /// The prompts, at least one. Required.
    pub prompts: Vec<String>,
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
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.prompts.is_empty() {
            let why =
                "expected at least one prompt, found none; add one, or remove the table [samples]";
            return Err(Problem::new("samples.prompts", why));
        }
        if self.max_new_tokens == 0 {
            let why = "expected at least 1 token, found 0";
            return Err(Problem::new("samples.max_new_tokens", why));
        }
        Ok(())
    }
}
