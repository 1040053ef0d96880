//! Rows of a `prompt` and its `completion` (or `response`).

use super::row::Row;
use super::{Format, Spec};
use crate::conversation::Content;
use crate::error::RowError;

pub(super) const SPEC: Spec = Spec {
    name: "prompt_completion",
    keys: "`prompt` and `completion` (or `response`)",
    mark: "prompt",
    fields: &["prompt", "completion"],
    read,
};

fn read(row: &mut Row) -> Result<Content, RowError> {
    let prompt = row.required(Format::PromptCompletion, &["prompt"])?;
    let completion = row.required(Format::PromptCompletion, &["completion", "response"])?;
    // In GPT4All's data, the key says where a row comes from.
    row.take("source");
    Ok(Content::Completion {
        prompt,
        completion: Some(completion),
    })
}
