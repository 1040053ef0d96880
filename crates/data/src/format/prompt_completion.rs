//! Rows of a `prompt` and its `completion` (or `response`).

use super::row::{Row, RowError};
use super::{Format, Spec};
use crate::conversation::Content;

pub(super) const SPEC: Spec = Spec {
    name: "prompt_completion",
    keys: "`prompt` and `completion` (or `response`)",
    mark: "prompt",
    read,
};

fn read(row: &mut Row) -> Result<Content, RowError> {
    Ok(Content::Completion {
        prompt: row.required(Format::PromptCompletion, &["prompt"])?,
        completion: Some(row.required(Format::PromptCompletion, &["completion", "response"])?),
    })
}
