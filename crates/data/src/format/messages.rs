//! Rows of `messages`: a list of `{role, content}`, the format of chat APIs.
//!
//! `name`, `tool_calls`, `tool_call_id` and similar keys are kept for chat templates. `weight` (OpenAI's, 0 or 1) or
//! `train` says whether a message is trained on. Messages of `{from, value}` are read as ShareGPT's.

use serde_json::Value;

use super::row::Row;
use super::structure::inner_json;
use super::turns::{check_turns, messages, with_system};
use super::{Format, SYSTEM, Spec};
use crate::conversation::Content;
use crate::error::{RowError, json_type};
use crate::integer;

pub(super) const SPEC: Spec = Spec {
    name: "messages",
    keys: "`messages`, a list of {role, content}",
    mark: "messages",
    fields: &["messages", "role", "content", "system", "tools"],
    read,
};

fn read(row: &mut Row) -> Result<Content, RowError> {
    let items = list(row, Format::Messages, "messages")?;
    let mut messages = messages(row, "messages", items)?;
    let system = row.optional(&SYSTEM)?;
    with_system("system", system, &mut messages)?;
    row.drop_answers_before_question(&mut messages);
    check_turns(row, "messages", &messages)?;
    Ok(Content::Messages(messages))
}

/// The list under a key.
pub(super) fn list(
    row: &mut Row,
    format: Format,
    key: &'static str,
) -> Result<Vec<Value>, RowError> {
    match row.take(key) {
        Some(Value::Array(items)) => Ok(items),
        // CSV and Parquet files may have the list as JSON in a string.
        Some(Value::String(text)) if text.trim_start().starts_with('[') => {
            integer::from_str(&text).map_err(|error| inner_json(&row.own(key), &text, &error))
        }
        Some(other) => Err(RowError::WrongType {
            key: row.own(key),
            expected: "a list",
            found: json_type(&other),
        }),
        None => Err(row.missing(format, key)),
    }
}
