//! The messages of a row: objects of `{role, content}` or `{from, value}`.

use serde_json::{Map, Value};

use super::refused::{is_medium, is_preference};
use super::row::Row;
use super::structure::{calls, spoken_calls};
use crate::conversation::{Message, Role, THOUGHTS};
use crate::error::{RowError, json_type};

/// The names of authors: the roles of chat APIs, ShareGPT's speakers, and those of ms-swift and LangChain. All of them are
/// read under `role` and `from` alike, in any case, and with `-` for `_`.
const ROLES: [(&str, Role); 20] = [
    ("system", Role::System),
    ("developer", Role::System),
    ("user", Role::User),
    ("human", Role::User),
    ("assistant", Role::Assistant),
    ("gpt", Role::Assistant),
    ("chatgpt", Role::Assistant),
    ("bing", Role::Assistant),
    ("bard", Role::Assistant),
    ("model", Role::Assistant),
    ("ai", Role::Assistant),
    ("bot", Role::Assistant),
    ("tool", Role::Tool),
    ("observation", Role::Tool),
    ("function_response", Role::Tool),
    ("tool_response", Role::Tool),
    ("ipython", Role::Tool),
    ("function", Role::Tool),
    ("function_call", Role::Assistant),
    ("tool_call", Role::Assistant),
];

/// The authors whose text is a call.
const CALLERS: [&str; 2] = ["function_call", "tool_call"];

/// Other keys of a message, kept for chat templates, beside its thought.
const MORE: [&str; 2] = ["name", "tool_call_id"];

/// Metadata of a turn in ShareGPT's exports.
const METADATA: [&str; 3] = ["markdown", "text", "tokens"];

/// The messages of the list `key`.
pub(super) fn messages(
    row: &mut Row,
    key: &'static str,
    items: Vec<Value>,
) -> Result<Vec<Message>, RowError> {
    let own = row.own(key);
    let items = items.into_iter().enumerate();
    items
        .map(|(index, item)| {
            let at = format!("{own}[{index}]");
            match item {
                Value::Object(fields) => message(row, key == "conversations", &at, fields),
                other => Err(RowError::WrongType {
                    key: at,
                    expected: "an object",
                    found: json_type(&other),
                }),
            }
        })
        .collect()
}

fn message(
    row: &mut Row,
    conversations: bool,
    at: &str,
    mut fields: Map<String, Value>,
) -> Result<Message, RowError> {
    // The names of the format come first, then those of the other.
    let keys = |first: [&str; 2], second: [&str; 2]| {
        let first = first.map(|name| row.own(name));
        let other = fields.contains_key(second[0]) && !fields.contains_key(&first[0]);
        if other { second.map(Into::into) } else { first }
    };
    let [role_key, content_key] = if conversations {
        keys(["from", "value"], ["role", "content"])
    } else {
        keys(["role", "content"], ["from", "value"])
    };
    let speaker = text(at, &mut fields, &role_key)?;
    let (author, role) = role(&speaker, || format!("{at}.{role_key}"))?;

    let key = format!("{at}.{content_key}");
    let mut calls = message_calls(row, at, &mut fields)?;
    let caller = CALLERS.contains(&author);
    let null_content = !calls.is_empty() && fields.get(&content_key).is_some_and(Value::is_null);
    let content = match fields.shift_remove(&content_key) {
        Some(mut value) if caller => {
            row.strip("tool_calls", &mut value);
            calls.extend(spoken_calls(&key, value)?);
            String::new()
        }
        None | Some(Value::Null) if !calls.is_empty() => String::new(),
        Some(Value::Array(parts)) => parts_of_text(&key, parts)?,
        found => {
            fields.extend(found.map(|found| (content_key.clone(), found)));
            text(at, &mut fields, &content_key)?
        }
    };
    let mut message = Message::new(role, content);
    message.null_content = null_content;
    message.train = trained(at, &mut fields)?;
    if !calls.is_empty() {
        let calls = Value::Array(calls);
        message.more.insert("tool_calls".into(), calls);
    }
    for name in MORE.into_iter().chain(THOUGHTS) {
        if let Some(value) = fields
            .shift_remove(name)
            .filter(|value| !Row::is_blank(value))
        {
            message.more.insert(name.into(), value);
        }
    }
    one_thought(&message)?;
    nothing_else(at, &fields, if conversations { &METADATA } else { &[] })?;
    Ok(message)
}

/// The calls of a message, in the form of today's chat APIs or of the first.
fn message_calls(
    row: &mut Row,
    at: &str,
    fields: &mut Map<String, Value>,
) -> Result<Vec<Value>, RowError> {
    let mut found = Vec::new();
    if let Some(mut value) = fields.shift_remove("tool_calls") {
        row.strip("tool_calls", &mut value);
        found = calls(&format!("{at}.tool_calls"), value)?;
    }
    if let Some(mut value) = fields.shift_remove("function_call")
        && !Row::is_blank(&value)
    {
        row.strip("function_call", &mut value);
        found.extend(spoken_calls(&format!("{at}.function_call"), value)?);
    }
    Ok(found)
}

/// An author's name as it is known, and its role.
fn role(name: &str, key: impl Fn() -> String) -> Result<(&'static str, Role), RowError> {
    let plain = name.trim().to_ascii_lowercase().replace(['-', ' '], "_");
    let found = ROLES.into_iter().find(|(known, _)| plain == *known);
    found.ok_or_else(|| {
        let names = ROLES.map(|(name, _)| name);
        RowError::UnknownRole {
            key: key(),
            role: name.into(),
            known: names.join(", "),
        }
    })
}

fn text(at: &str, fields: &mut Map<String, Value>, name: &str) -> Result<String, RowError> {
    match fields.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(RowError::WrongType {
            key: format!("{at}.{name}"),
            expected: "a string",
            found: json_type(&other),
        }),
        None => Err(RowError::NoMessageKey {
            key: at.into(),
            missing: name.into(),
            keys: fields.keys().cloned().collect(),
        }),
    }
}

/// Refuses two different thoughts, of which one would be lost.
fn one_thought(message: &Message) -> Result<(), RowError> {
    let mut thoughts = THOUGHTS
        .into_iter()
        .filter_map(|name| Some((name, message.more.get(name)?)));
    let Some((first, thought)) = thoughts.next() else {
        return Ok(());
    };
    match thoughts.find(|(_, other)| *other != thought) {
        Some((second, _)) => Err(RowError::TwoKeys { first, second }),
        None => Ok(()),
    }
}

/// Joins the parts of a content, which must all be text.
fn parts_of_text(content: &str, parts: Vec<Value>) -> Result<String, RowError> {
    let mut said = String::new();
    for (place, part) in parts.into_iter().enumerate() {
        let key = format!("{content}[{place}]");
        let Value::Object(mut part) = part else {
            return Err(RowError::NotText {
                key,
                kind: json_type(&part).into(),
            });
        };
        let kind = part.shift_remove("type").filter(|kind| !kind.is_null());
        let kind = match kind {
            Some(Value::String(kind)) => kind,
            _ => "no type".into(),
        };
        if is_medium(&kind)
            || part
                .iter()
                .any(|(name, v)| is_medium(name) && !Row::is_blank(v))
        {
            let kind = Some(kind);
            return Err(RowError::Medium { key, kind });
        }
        if kind != "text" {
            return Err(RowError::NotText { key, kind });
        }
        let Some(Value::String(text)) = part.shift_remove("text") else {
            let keys = part.keys().cloned();
            let keys = ["type".to_owned()].into_iter().chain(keys).collect();
            return Err(RowError::PartWithoutText { key, keys });
        };
        said.push_str(&text);
        nothing_else(&key, &part, &[])?;
    }
    Ok(said)
}

/// Whether the message is trained on, if the row says so.
fn trained(at: &str, fields: &mut Map<String, Value>) -> Result<Option<bool>, RowError> {
    let mut said: Option<(&'static str, bool)> = None;
    for (name, expected) in [
        ("weight", "0 or 1"),
        ("loss_weight", "0 or 1"),
        ("train", "true or false"),
        ("training", "true or false"),
        ("loss", "true or false"),
    ] {
        let train = match fields.shift_remove(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Bool(train)) => train,
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => false,
            Some(Value::Number(number)) if number.as_f64() == Some(1.0) => true,
            Some(other) => {
                return Err(RowError::WrongType {
                    key: format!("{at}.{name}"),
                    expected,
                    found: json_type(&other),
                });
            }
        };
        match said {
            Some((first, other)) if other != train => {
                return Err(RowError::TwoKeys {
                    first,
                    second: name,
                });
            }
            _ => said = Some((name, train)),
        }
    }
    Ok(said.map(|(_, train)| train))
}

/// Refuses other keys with content, which would be lost; the keys in `but` are allowed.
fn nothing_else(at: &str, fields: &Map<String, Value>, but: &[&str]) -> Result<(), RowError> {
    let said =
        |(name, value): &(&String, &Value)| !Row::is_blank(value) && !but.contains(&name.as_str());
    let Some((name, _)) = fields.iter().find(said) else {
        return Ok(());
    };
    let key = format!("{at}.{name}");
    Err(if is_medium(name) {
        RowError::Medium { key, kind: None }
    } else if is_preference(name) {
        RowError::Preference { key }
    } else {
        RowError::UnusedKey { key }
    })
}

/// Puts the row's own system message before its messages.
pub(super) fn with_system(
    key: &'static str,
    system: Option<String>,
    messages: &mut Vec<Message>,
) -> Result<(), RowError> {
    let Some(system) = system else {
        return Ok(());
    };
    match messages.first() {
        Some(first) if first.role == Role::System && first.content == system => {}
        Some(first) if first.role == Role::System => return Err(RowError::TwoSystems { key }),
        _ => messages.insert(0, Message::new(Role::System, system)),
    }
    Ok(())
}

/// Checks the order of the roles: at most one system message, then a user message, and at least one answer, unless
/// it may be missing.
pub(super) fn check_turns(
    row: &Row,
    key: &'static str,
    messages: &[Message],
) -> Result<(), RowError> {
    let misplaced = |index: usize, expected| RowError::Misplaced {
        key,
        own: row.own(key),
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
    if !row.may.lack_answers && !messages.iter().any(|m| m.role == Role::Assistant) {
        return Err(RowError::NoAnswer);
    }
    Ok(())
}
