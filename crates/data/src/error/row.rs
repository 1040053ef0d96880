//! Errors in one row of a data file.

use serde_json::Value;
use simmer_hint::Hint;

use super::Absent;
use crate::conversation::Role;
use crate::integer;
use crate::nearest::nearest;
use crate::template::RenderError;

/// An error in a row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The row is not a JSON object.
    #[error("expected an object, found {found}")]
    NotAnObject {
        /// The JSON type that was found.
        found: &'static str,
    },
    /// Two keys are equal.
    #[error("{what}")]
    Twice {
        /// Which key.
        what: String,
    },
    /// A key of the format is missing.
    #[error(
        "{}; the row has {}",
        missing(absent, *is_null),
        list(keys)
    )]
    MissingKey {
        /// The name of the row's format.
        format: &'static str,
        /// The keys of that format.
        expected: &'static str,
        /// The missing key.
        absent: Box<Absent>,
        /// Whether the row has the key as null.
        is_null: bool,
        /// The row's keys.
        keys: Vec<String>,
        /// The line of a recipe that reads another key as this one, if one may be meant.
        fields: Option<String>,
    },
    /// The row has another format than the file.
    #[error(
        "expected format {format} ({expected}), found {found}; the row has {}",
        list(keys)
    )]
    OtherFormat {
        /// The name of the file's format.
        format: &'static str,
        /// The keys of that format.
        expected: &'static str,
        /// The name of the format that this row has.
        found: &'static str,
        /// The row's keys.
        keys: Vec<String>,
    },
    /// The row's keys fit no format.
    #[error("unknown format; the row has {}{}", list(keys), and_not(absent))]
    UnknownFormat {
        /// The row's keys.
        keys: Vec<String>,
        /// Every known format with its keys.
        known: String,
        /// The key of a format that the row has as null.
        null: Option<&'static str>,
        /// What the recipe could say to read the row, if it can be told.
        reading: Option<String>,
        /// What `fields` names and the row lacks.
        absent: Vec<Absent>,
    },
    /// The row has preferences.
    #[error("key `{key}`: this row has preferences, which cannot be trained on yet")]
    Preference {
        /// The key.
        key: String,
    },
    /// The row has an image, audio or a video.
    #[error("key `{key}`: images, audio and video cannot be trained on; text alone can{}", found(kind.as_ref()))]
    Medium {
        /// The key.
        key: String,
        /// The type of the part, if the medium is a part of a message.
        kind: Option<String>,
    },
    /// The row has a weight that cannot be obeyed.
    #[error("key `{key}`: the weight of a row is 1, or 0 for a conversation; found {found}")]
    Weight {
        /// The key.
        key: String,
        /// What was found.
        found: String,
    },
    /// A message lacks a key.
    #[error(
        "key `{key}`: a message without the key `{missing}`; it has {}",
        list(keys)
    )]
    NoMessageKey {
        /// The message.
        key: String,
        /// The missing key.
        missing: String,
        /// The keys that it has.
        keys: Vec<String>,
    },
    /// A part of a message is of type text, but has none.
    #[error(
        "key `{key}`: a part of type text without the key `text`; it has {}",
        list(keys)
    )]
    PartWithoutText {
        /// The key.
        key: String,
        /// The part's keys.
        keys: Vec<String>,
    },
    /// A turn of a speaker that calls functions is no call.
    #[error(
        "key `{key}`: expected a call as JSON, {{\"name\": ..., \"arguments\": ...}} or a list of them: {what}"
    )]
    NotACall {
        /// The key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A key of the row and its first message are both a system message.
    #[error("key `{key}`: the row has it, and a system message too")]
    TwoSystems {
        /// The key.
        key: &'static str,
    },
    /// The value of a key is empty, but must not be.
    #[error("`{key}` is empty")]
    EmptyKey {
        /// The empty key.
        key: &'static str,
    },
    /// Two keys mean the same field.
    #[error("expected `{first}` or `{second}`, found both")]
    TwoKeys {
        /// One key.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A value has the wrong type.
    #[error("key `{key}`: expected {expected}, found {found}")]
    WrongType {
        /// The key.
        key: String,
        /// The expected type.
        expected: &'static str,
        /// The JSON type that was found.
        found: &'static str,
    },
    /// A key has content that this format does not use.
    #[error("key `{key}`: it has content, but this format does not use it")]
    UnusedKey {
        /// The key.
        key: String,
    },
    /// A message has an unknown role.
    #[error("key `{key}`: expected one of {known}; found `{role}`")]
    UnknownRole {
        /// The key, with the message's index from 0.
        key: String,
        /// Its role.
        role: String,
        /// The known names of roles.
        known: String,
    },
    /// A string that should contain JSON does not.
    #[error("key `{key}`: the string is not valid JSON: {what}")]
    InnerJson {
        /// The key.
        key: String,
        /// What is wrong with it.
        what: String,
        /// Whether it looks like a value as Python prints it.
        is_python: bool,
    },
    /// An object that should be a tool is none.
    #[error(
        "key `{key}`: expected a list of tools, each with `name` or `function`; found an object with {}",
        list(keys)
    )]
    NotATool {
        /// The key.
        key: String,
        /// The object's keys.
        keys: Vec<String>,
    },
    /// A part of a message is not text.
    #[error("key `{key}`: expected a part of type text, found {kind}")]
    NotText {
        /// The key.
        key: String,
        /// The part's type.
        kind: String,
    },
    /// A text is not a conversation in Baize's format.
    #[error("key `input`: not a conversation in Baize's format: {problem}")]
    NotBaize {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A key is to be renamed to one that the row already has.
    #[error("`fields` reads `{own}` as `{name}`, but the row has both")]
    FieldTaken {
        /// The row's key.
        own: String,
        /// The format's key.
        name: String,
    },
    /// A message has a role that is not allowed at its place.
    #[error("{own}[{index}]: expected a message from {expected}, found {role}")]
    Misplaced {
        /// The key of the list.
        key: &'static str,
        /// What `fields` says that the rows call it.
        own: String,
        /// The message's index, from 0.
        index: usize,
        /// Its role.
        role: Role,
        /// The roles that are allowed there.
        expected: &'static str,
    },
    /// No message is from the assistant.
    #[error("no message is from the assistant, so there is nothing to train on")]
    NoAnswer,
    /// The template cannot render the row.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl Hint for RowError {
    fn hint(&self) -> Option<String> {
        match self {
            RowError::NotAnObject { .. } => Some("rows are objects, such as {\"prompt\": \"...\", \"completion\": \"...\"}".into()),
            RowError::Preference { .. } => Some(
                "write the good answers alone as rows of their own, for example of `prompt` and `completion`; if the key means something else, rename it".into(),
            ),
            RowError::Medium { .. } => Some("remove the row, or the key if the text alone is enough".into()),
            RowError::Weight { .. } => Some(
                "remove the row or its weight; to repeat rows, set `weight` beside the path of a source; if the key means something else, rename it".into(),
            ),
            RowError::NoMessageKey { missing, .. } => Some(format!(
                "if another key has it, name that key beside the path: `fields = {{ {missing} = \"...\" }}`"
            )),
            RowError::UnknownFormat { null: Some(key), .. } => Some(format!("`{key}` is null in this row: give it a value, or remove the row")),
            RowError::UnknownFormat { absent, keys, .. } if !absent.is_empty() => Some(Absent::hint(absent, keys)),
            RowError::UnknownFormat { reading: Some(reading), .. } => Some(format!("to read these rows {reading} beside their path")),
            RowError::MissingKey { keys, .. } if keys.iter().any(|key| key == "instances") => {
                Some("give each instance a row of its own; these look like Self-Instruct's seed tasks".into())
            }
            RowError::MissingKey { absent, is_null: true, .. } => Some(format!("give `{}` a value, or remove the row", absent.own)),
            RowError::MissingKey { absent, keys, .. } if absent.is_renamed() => {
                Some(Absent::hint(std::slice::from_ref(&**absent), keys))
            }
            RowError::MissingKey { format, expected, fields, .. } => {
                let or = fields.as_ref().map_or_else(String::new, |fields| format!(", or set `{fields}` beside the path"));
                Some(format!("add the key{or}; a row of format {format} has {expected}"))
            }
            RowError::OtherFormat { .. } => {
                Some("a file has one format: move these rows to a second file and name both in `data.train`".into())
            }
            RowError::UnknownFormat { known, .. } => Some(format!(
                "rename the keys to those of a known format, or name them beside the path, such as `format = \"alpaca\", fields = {{ instruction = \"...\", output = \"...\" }}`; the formats: {known}"
            )),
            RowError::Misplaced { key: "conversations", index: 0, role: Role::Assistant, .. } => Some(
                "set `drop_leading_answers = true` next to the path to drop answers before the first user message".into(),
            ),
            RowError::NoAnswer => Some(
                "move the answer into the messages, as the last one; it may be under another key (`chosen` of preferences)".into(),
            ),
            RowError::PartWithoutText { .. } | RowError::NotText { .. } => Some(
                "write each part as {\"type\": \"text\", \"text\": \"...\"}; calls and thoughts are keys of the message, `tool_calls` and `thinking`".into(),
            ),
            RowError::NotACall { .. } => Some(
                "if the turn is plain text, give it to the assistant; `arguments` is an object".into(),
            ),
            RowError::NotATool { .. } => Some("write the tools as a list: [{\"name\": ..., \"parameters\": {...}}]".into()),
            RowError::InnerJson { is_python: true, .. } => Some(
                "the text is Python's, not JSON: write it with json.dumps".into(),
            ),
            RowError::InnerJson { .. } => Some("write the value itself, or its JSON text".into()),
            RowError::UnusedKey { key } => Some(unused(key)),
            RowError::UnknownRole { role, known, .. } => Some(unknown_role(role, known)),
            RowError::TwoSystems { .. } | RowError::TwoKeys { .. } | RowError::Twice { .. } => Some("keep one of them".into()),
            RowError::WrongType { expected, found, .. } => wrong_type(expected, found),
            RowError::Render(error) => error.hint(),
            _ => None,
        }
    }
}

fn missing(absent: &Absent, is_null: bool) -> String {
    if is_null {
        format!("key {absent}: expected a value, found null")
    } else {
        format!("missing key {absent}")
    }
}

fn and_not(absent: &[Absent]) -> String {
    let each = absent.iter().map(|absent| format!(", and no {absent}"));
    each.collect::<Vec<_>>().concat()
}

/// The hint for a key of a message that nothing reads.
fn unused(key: &str) -> String {
    const KNOWN: [&str; 9] = [
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "reasoning_content",
        "thinking",
        "weight",
        "train",
    ];
    let own = key.rsplit('.').next().unwrap_or(key);
    if [
        "mask",
        "masked",
        "trainable",
        "trained",
        "train_on",
        "learn",
    ]
    .contains(&own)
    {
        return "write `\"train\": true` or `false` for a message that is trained on or not, or remove the key".into();
    }
    let plain = own.to_lowercase().replace(['_', '-'], "");
    let near = KNOWN
        .into_iter()
        .find(|known| known.replace('_', "") == plain);
    match near {
        Some(known) if known != own => format!("rename it to `{known}`, or remove it"),
        _ => "remove the key, if the rest of the row is enough".into(),
    }
}

fn unknown_role(role: &str, known: &str) -> String {
    let near = nearest(&role.to_lowercase(), known.split(", "));
    match near.filter(|(similarity, _)| *similarity > 0.85) {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => "rename the role, or remove the message".into(),
    }
}

fn wrong_type(expected: &str, found: &str) -> Option<String> {
    let text = expected == "a string";
    Some(match found {
        "null" => "give it a value, or remove it".into(),
        "a number" | "a boolean" if text => "put it in quotes, so that it is text".into(),
        "an object" if text => "write it as text, for example as its JSON text".into(),
        "a list" if text => "write one text; several answers are rows of their own".into(),
        "a list" | "a string" if expected == "an object" => {
            "write messages as objects of `role` and `content`; a file of columns is saved as rows with pandas' \
             `to_json(path, orient=\"records\", lines=True)`"
                .into()
        }
        _ => return None,
    })
}

/// Names in backticks, separated by commas.
pub(crate) fn list(names: &[String]) -> String {
    const MOST: usize = 10;
    if names.is_empty() {
        return "none".into();
    }
    let shown = names.iter().take(MOST);
    let quoted: Vec<_> = shown.map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(MOST) {
        0 => quoted.join(", "),
        more => format!("{} and {more} more", quoted.join(", ")),
    }
}

/// The end of a message about a part of a message.
fn found(kind: Option<&String>) -> String {
    kind.map_or_else(String::new, |kind| format!("; found a part of type {kind}"))
}

/// A JSON value's type, as error messages name it.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) if integer::digits(value).is_some() => "a number",
        Value::Object(_) => "an object",
    }
}
