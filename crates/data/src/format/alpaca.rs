//! Alpaca's rows: `instruction`, an `input` that may be missing or empty, and `output`.
//!
//! Also read: `response` or `completion` for `output`, `context` for `input` (Dolly), and the `system` and `history`
//! (a list of `[question, answer]`, or of messages) of later datasets. A row with a history becomes messages.

use serde_json::Value;

use super::row::Row;
use super::structure::inner_json;
use super::turns::messages;
use super::{Format, SYSTEM, Spec};
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
    let output = row.answer(Format::Alpaca, &["output", "response", "completion"])?;
    let system = row.optional(&SYSTEM)?;
    let history = history(row)?;
    let last = Content::Instruction {
        system,
        instruction,
        input,
        output,
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
    // CSV files have the list as JSON in a string.
    let history = match row.take("history") {
        Some(Value::String(text)) if text.trim_start().starts_with('[') => Some(
            serde_json::from_str(&text).map_err(|error| inner_json("history", &text, &error))?,
        ),
        other => other,
    };
    let pairs = match history {
        None => return Ok(Vec::new()),
        Some(value) if Row::is_blank(&value) => return Ok(Vec::new()),
        Some(Value::Array(turns)) if turns.iter().all(Value::is_object) => {
            return messages(row, "history", turns);
        }
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
