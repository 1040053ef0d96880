//! Rows of `messages`: a list of `{role, content}`, the format of chat APIs.
//!
//! `name`, `tool_calls`, `tool_call_id` and similar keys are kept for chat templates. `weight` (OpenAI's, 0 or 1) or
//! `train` says whether a message is trained on.

use serde_json::{Map, Value};

use super::row::Row;
use super::{Format, Spec};
use crate::conversation::{Content, Message, Role};
use crate::error::{RowError, json_type};

pub(super) const SPEC: Spec = Spec {
    name: "messages",
    keys: "`messages`, a list of {role, content}",
    mark: "messages",
    fields: &["messages", "role", "content", "tools"],
    read,
};

/// Other keys of a message, kept for chat templates.
const MORE: [&str; 5] = [
    "name",
    "tool_calls",
    "tool_call_id",
    "reasoning_content",
    "thinking",
];

fn read(row: &mut Row) -> Result<Content, RowError> {
    let tools = ["tools", "functions"]
        .into_iter()
        .find_map(|key| row.take(key));
    row.tools = tools.filter(|tools| !Row::is_blank(tools));
    let messages = list(row, Format::Messages, "messages")?
        .into_iter()
        .enumerate()
        .map(|(index, value)| message(row, index, value))
        .collect::<Result<Vec<_>, _>>()?;
    check_turns("messages", &messages)?;
    Ok(Content::Messages(messages))
}

/// The list under a key.
fn list(row: &mut Row, format: Format, key: &'static str) -> Result<Vec<Value>, RowError> {
    match row.take(key) {
        Some(Value::Array(items)) => Ok(items),
        // CSV and Parquet files may have the list as JSON in a string.
        Some(Value::String(text)) if text.trim_start().starts_with('[') => {
            serde_json::from_str(&text).map_err(|error| RowError::InnerJson {
                key: key.into(),
                what: error.to_string(),
            })
        }
        Some(other) => Err(RowError::WrongType {
            key: key.into(),
            expected: "a list",
            found: json_type(&other),
        }),
        None => Err(row.missing(format, key)),
    }
}

/// A list of objects with two strings each. Other keys with content are an error, except known metadata.
pub(super) fn texts_of(
    row: &mut Row,
    format: Format,
    key: &'static str,
    names: [&str; 2],
) -> Result<Vec<(String, String)>, RowError> {
    let turn = |(index, value): (usize, Value)| {
        let mut object = object(key, index, value)?;
        let [from, value] = names.map(|name| text(key, index, &mut object, name));
        nothing_else(key, index, &object, &["markdown", "text", "tokens"])?;
        Ok((from?, value?))
    };
    list(row, format, key)?
        .into_iter()
        .enumerate()
        .map(turn)
        .collect()
}

fn object(key: &str, index: usize, value: Value) -> Result<Map<String, Value>, RowError> {
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(RowError::WrongType {
            key: format!("{key}[{index}]"),
            expected: "an object",
            found: json_type(&other),
        }),
    }
}

fn text(
    key: &str,
    index: usize,
    fields: &mut Map<String, Value>,
    name: &str,
) -> Result<String, RowError> {
    match fields.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        found => Err(RowError::WrongType {
            key: format!("{key}[{index}].{name}"),
            expected: "a string",
            found: json_type(&found.unwrap_or(Value::Null)),
        }),
    }
}

/// Refuses other keys with content, which would be lost; the keys in `but` are allowed.
fn nothing_else(
    key: &str,
    index: usize,
    fields: &Map<String, Value>,
    but: &[&str],
) -> Result<(), RowError> {
    let said =
        |(name, value): &(&String, &Value)| !Row::is_blank(value) && !but.contains(&name.as_str());
    match fields.iter().find(said) {
        Some((name, _)) => Err(RowError::UnusedKey {
            key: format!("{key}[{index}].{name}"),
        }),
        None => Ok(()),
    }
}

fn message(row: &Row, index: usize, value: Value) -> Result<Message, RowError> {
    let key = "messages";
    let (role_key, content_key) = (row.own("role"), row.own("content"));
    let mut fields = object(key, index, value)?;
    let role = text(key, index, &mut fields, &role_key)?;
    let role = match role.as_str() {
        "developer" => Role::System,
        "function" => Role::Tool,
        name => Role::named(name).ok_or_else(|| RowError::UnknownRole {
            key: format!("{key}[{index}].{role_key}"),
            known: "system, developer, user, assistant, tool, function".into(),
            role: role.clone(),
        })?,
    };
    let calls = fields
        .get("tool_calls")
        .is_some_and(|calls| !Row::is_blank(calls));
    let null_content = calls && fields.get(&content_key).is_some_and(Value::is_null);
    let content = match fields.shift_remove(&content_key) {
        None | Some(Value::Null) if calls => String::new(),
        Some(Value::Array(parts)) => parts_of_text(index, &content_key, parts)?,
        found => {
            fields.extend(found.map(|found| (content_key.clone(), found)));
            text(key, index, &mut fields, &content_key)?
        }
    };
    let mut message = Message::new(role, content);
    message.null_content = null_content;
    message.train = trained(index, &mut fields)?;
    for name in MORE {
        if let Some(value) = fields
            .shift_remove(name)
            .filter(|value| !Row::is_blank(value))
        {
            message.more.insert(name.into(), value);
        }
    }
    nothing_else(key, index, &fields, &[])?;
    Ok(message)
}

/// Joins the parts of a content, which must all be text.
fn parts_of_text(index: usize, content: &str, parts: Vec<Value>) -> Result<String, RowError> {
    let mut said = String::new();
    for (place, part) in parts.into_iter().enumerate() {
        match (
            part.get("type").and_then(Value::as_str),
            part.get("text").and_then(Value::as_str),
        ) {
            (Some("text"), Some(text)) => said.push_str(text),
            (kind, _) => {
                return Err(RowError::NotText {
                    key: format!("messages[{index}].{content}[{place}]"),
                    kind: kind.unwrap_or("no type").into(),
                });
            }
        }
    }
    Ok(said)
}

/// Whether the message is trained on, if the row says so.
fn trained(index: usize, fields: &mut Map<String, Value>) -> Result<Option<bool>, RowError> {
    for (name, expected) in [
        ("weight", "0 or 1"),
        ("train", "true or false"),
        ("training", "true or false"),
    ] {
        let train = match fields.shift_remove(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Bool(train)) => train,
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => false,
            Some(Value::Number(number)) if number.as_f64() == Some(1.0) => true,
            Some(other) => {
                return Err(RowError::WrongType {
                    key: format!("messages[{index}].{name}"),
                    expected,
                    found: json_type(&other),
                });
            }
        };
        return Ok(Some(train));
    }
    Ok(None)
}

/// Checks the order of the roles: at most one system message, then a user message, and at least one answer.
pub(super) fn check_turns(key: &'static str, messages: &[Message]) -> Result<(), RowError> {
    let misplaced = |index: usize, expected| RowError::Misplaced {
        key,
        index,
        role: messages[index].role,
        expected,
    };
    let first = usize::from(messages.first().is_some_and(|m| m.role == Role::System));
    if messages.len() > first && messages[first].role != Role::User {
        return Err(misplaced(first, "user"));
    }
    if let Some(late) = (1..messages.len()).find(|&i| messages[i].role == Role::System) {
        return Err(misplaced(late, "user, assistant or tool"));
    }
    if !messages.iter().any(|m| m.role == Role::Assistant) {
        return Err(RowError::NoAnswer);
    }
    Ok(())
}
