//! What can be wrong with one row of a data file.

use serde_json::Value;
use simmer_hint::Hint;

use crate::conversation::Role;
use crate::template::RenderError;

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The row is not a JSON object.
    #[error("expected an object, found {found}")]
    NotAnObject {
        /// The JSON type that is there.
        found: &'static str,
    },
    /// A key of the layout is not there.
    #[error("no `{key}`; its keys are {}", list(keys))]
    MissingKey {
        /// The name of the row's layout.
        format: &'static str,
        /// The keys of that layout.
        expected: &'static str,
        /// The missing key.
        key: &'static str,
        /// The keys that are there.
        keys: Vec<String>,
    },
    /// The row has the keys of another layout than the file's.
    #[error(
        "expected {format} ({expected}), found {found}; its keys are {}",
        list(keys)
    )]
    OtherLayout {
        /// The name of the file's layout.
        format: &'static str,
        /// The keys of that layout.
        expected: &'static str,
        /// The name of the layout that this row has.
        found: &'static str,
        /// The keys that are there.
        keys: Vec<String>,
    },
    /// The row has the keys of no layout.
    #[error("no layout has these keys: {}", list(keys))]
    NoLayout {
        /// The keys that are there.
        keys: Vec<String>,
        /// Every known layout with its keys.
        known: String,
    },
    /// A key that must say something is empty.
    #[error("`{key}` is empty")]
    EmptyKey {
        /// The empty key.
        key: &'static str,
    },
    /// Two keys say the same thing.
    #[error("both `{first}` and `{second}` are there, and only one can be used")]
    TwoKeys {
        /// One key.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A value has another type than its key wants.
    #[error("`{key}` is {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What it should hold.
        expected: &'static str,
        /// The JSON type that is there.
        found: &'static str,
    },
    /// A key carries content that this layout would lose.
    #[error("`{key}` would be lost: nothing here reads it")]
    UnusedKey {
        /// The key.
        key: String,
    },
    /// A message's role is none that is known.
    #[error("`{key}` is `{role}`; known are {known}")]
    UnknownRole {
        /// The key, with the message's number from 0.
        key: String,
        /// Its role.
        role: String,
        /// The names of roles.
        known: String,
    },
    /// A text that is to hold JSON holds something else.
    #[error("`{key}` is text that is no JSON: {what}")]
    InnerJson {
        /// The key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A part of a message that is no text.
    #[error("`{key}` is a part of type {kind}; text alone can be trained on")]
    NotText {
        /// The key.
        key: String,
        /// The part's type.
        kind: String,
    },
    /// A text that is no conversation in Baize's form.
    #[error("`input` is no conversation of Baize's: {problem}")]
    NotBaize {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A key that is to be renamed to one that is there already.
    #[error("`{own}` is to be read as `{name}`, but there is a `{name}` too")]
    FieldTaken {
        /// The row's key.
        own: String,
        /// The layout's.
        name: String,
    },
    /// A message stands where its role may not.
    #[error("{key}[{index}] is from {role}, expected {expected}")]
    Misplaced {
        /// The key of the list.
        key: &'static str,
        /// The message's number, from 0.
        index: usize,
        /// Its role.
        role: Role,
        /// The roles that may stand there.
        expected: &'static str,
    },
    /// No message is from the assistant.
    #[error("no message is from the assistant, so there is nothing to learn")]
    NoAnswer,
    /// The row's template cannot render it.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl Hint for RowError {
    fn hint(&self) -> Option<String> {
        match self {
            RowError::NoLayout { keys, .. } if keys.iter().any(|key| key == "chosen") => {
                Some("these are preferences (chosen, rejected), which this version does not train on".into())
            }
            RowError::MissingKey { keys, .. } if keys.iter().any(|key| key == "instances") => {
                Some("these are Self-Instruct's seed tasks: give each instance a row of its own".into())
            }
            RowError::MissingKey { format, expected, .. } => Some(format!("a row of format {format} has {expected}")),
            RowError::OtherLayout { .. } => {
                Some("a file holds one layout: put these rows in a file of their own and name both in data.train".into())
            }
            RowError::NoLayout { known, .. } => Some(format!("known layouts: {known}")),
            RowError::Misplaced { key: "conversations", index: 0, role: Role::Assistant, .. } => Some(
                "drop_leading_answers = true beside the path leaves out what is said before the first question".into(),
            ),
            RowError::NoAnswer => Some(
                "an answer that stands elsewhere in the row (`chosen` of preferences, say) has to be the last message".into(),
            ),
            RowError::Render(error) => error.hint(),
            _ => None,
        }
    }
}

/// Names in backquotes, with commas.
pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// How people call a JSON value's type.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
