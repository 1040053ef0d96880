//! The `[samples]` table of a recipe: prompts that show what a run has changed.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Prompts that base and trained model answer when a run is finished, most likely token by token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct SampleConfig {
    /// The prompts.
    pub prompts: Vec<String>,
    /// The template that they are put into; that of the first training file where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Most tokens of an answer.
    #[serde(default = "default_max_new_tokens")]
    pub max_new_tokens: usize,
}

fn default_max_new_tokens() -> usize {
    48
}

impl SampleConfig {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.prompts.is_empty() {
            let why = "names no prompt; leave the table out, or give it one";
            return Err(Problem::new("samples.prompts", why));
        }
        if self.max_new_tokens == 0 {
            let why = "expected at least 1 token, found 0";
            return Err(Problem::new("samples.max_new_tokens", why));
        }
        Ok(())
    }
}
