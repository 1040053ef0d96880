//! Rows of `messages`: a list of `{role, content}`, the form of chat services.

use serde_json::Value;

use super::row::{Row, RowError, json_type};
use super::{Format, Spec};
use crate::conversation::{Content, Message, Role};

pub(super) const SPEC: Spec = Spec {
    name: "messages",
    keys: "`messages`",
    mark: "messages",
    read,
};

fn read(row: &mut Row) -> Result<Content, RowError> {
    let messages = match row.take("messages") {
        Some(Value::Array(messages)) => messages,
        Some(other) => {
            return Err(RowError::WrongType {
                key: "messages".into(),
                expected: "a list of {role, content}",
                found: json_type(&other),
            });
        }
        None => return Err(row.missing(Format::Messages, "messages")),
    };
    let messages = messages
        .into_iter()
        .enumerate()
        .map(|(index, value)| message(index, value))
        .collect::<Result<Vec<_>, _>>()?;
    check_turns(&messages)?;
    Ok(Content::Messages(messages))
}

fn message(index: usize, value: Value) -> Result<Message, RowError> {
    let key = |name: &str| format!("messages[{index}]{name}");
    let wrong = |name: &str, expected, found: &Value| RowError::WrongType {
        key: key(name),
        expected,
        found: json_type(found),
    };
    let Value::Object(mut fields) = value else {
        return Err(wrong("", "an object with `role` and `content`", &value));
    };
    let mut text = |name: &'static str| match fields.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        found => Err(wrong(
            &format!(".{name}"),
            "a string",
            &found.unwrap_or(Value::Null),
        )),
    };
    let (role, content) = (text("role")?, text("content")?);
    let Some(role) = Role::named(&role) else {
        return Err(RowError::UnknownRole { index, role });
    };
    // Anything else that says something (tool calls, names, weights) would be lost.
    if let Some((name, _)) = fields.iter().find(|(_, value)| !Row::is_blank(value)) {
        return Err(RowError::UnusedKey {
            key: key(&format!(".{name}")),
        });
    }
    Ok(Message::new(role, content))
}

/// A conversation opens with a user, after at most one system message, and answers at least once.
fn check_turns(messages: &[Message]) -> Result<(), RowError> {
    let misplaced = |index: usize, expected| RowError::Misplaced {
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
