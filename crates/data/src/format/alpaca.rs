//! Alpaca's rows: `instruction`, an `input` that may be missing or empty, and `output`.
//!
//! Also read: `response` or `completion` for `output`, `context` for `input` (Dolly), and the `system` and `history`
//! (a list of `[question, answer]`) of later datasets. A row with a history becomes messages.

use serde_json::Value;

use super::row::Row;
use super::{Format, Spec};
use crate::conversation::{Content, Conversation, Message, Role};
use crate::error::{RowError, json_type};

pub(super) const SPEC: Spec = Spec {
    name: "alpaca",
    keys: "`instruction`, `output`, and optionally `input`",
    mark: "instruction",
    fields: &[
        "instruction",
        "input",
        "output",
        "system",
        "history",
        "tools",
    ],
    read,
};

fn read(row: &mut Row) -> Result<Content, RowError> {
    let instruction = row.required(Format::Alpaca, &["instruction"])?;
    if instruction.trim().is_empty() {
        return Err(RowError::EmptyKey { key: "instruction" });
    }
    let input = row.optional(&["input", "context"])?;
    let output = row.required(Format::Alpaca, &["output", "response", "completion"])?;
    let system = row.optional(&["system"])?;
    let history = history(row)?;
    let last = Content::Instruction {
        system,
        instruction,
        input,
        output: Some(output),
    };
    if history.is_empty() {
        return Ok(last);
    }
    // The history goes between the system message and the question.
    let mut messages = Conversation::new(last).messages().unwrap_or_default();
    let first_user = usize::from(messages[0].role == Role::System);
    messages.splice(first_user..first_user, history);
    Ok(Content::Messages(messages))
}

/// The turns before the instruction, from a list of `[question, answer]`.
fn history(row: &mut Row) -> Result<Vec<Message>, RowError> {
    let wrong = |found: &Value| RowError::WrongType {
        key: "history".into(),
        expected: "a list of [question, answer] pairs",
        found: json_type(found),
    };
    let pairs = match row.take("history") {
        None => return Ok(Vec::new()),
        Some(Value::Array(pairs)) => pairs,
        Some(other) => return Err(wrong(&other)),
    };
    let mut turns = Vec::with_capacity(2 * pairs.len());
    for pair in pairs {
        match pair.as_array().map(Vec::as_slice) {
            Some([Value::String(question), Value::String(answer)]) => {
                turns.push(Message::new(Role::User, question));
                turns.push(Message::new(Role::Assistant, answer));
            }
            _ => return Err(wrong(&pair)),
        }
    }
    Ok(turns)
}
