//! One JSON object of a data file, and what can be wrong with it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use super::{Fields, Format};
use crate::conversation::{Message, Role};
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
        /// The layout that the row is held to.
        format: Format,
        /// The missing key.
        key: &'static str,
        /// The keys that are there.
        keys: Vec<String>,
    },
    /// The row has the keys of another layout than the file's.
    #[error("expected {format} ({}), found {found}; its keys are {}", format.keys(), list(keys))]
    OtherLayout {
        /// The layout of the file.
        format: Format,
        /// The layout of this row.
        found: Format,
        /// The keys that are there.
        keys: Vec<String>,
    },
    /// The row has the keys of no layout.
    #[error("no layout has these keys: {}", list(keys))]
    NoLayout {
        /// The keys that are there.
        keys: Vec<String>,
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

impl RowError {
    /// What may mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            RowError::NoLayout { keys } if keys.iter().any(|key| key == "chosen") => {
                Some("these are preferences (chosen, rejected), which this version does not train on".into())
            }
            RowError::MissingKey { keys, .. } if keys.iter().any(|key| key == "instances") => {
                Some("these are Self-Instruct's seed tasks: give each instance a row of its own".into())
            }
            RowError::MissingKey { format, .. } => Some(format!("a row of format {format} has {}", format.keys())),
            RowError::OtherLayout { .. } => {
                Some("a file holds one layout: put these rows in a file of their own and name both in data.train".into())
            }
            RowError::NoLayout { .. } => {
                let known = Format::ALL.map(|format| format!("{format} ({})", format.keys()));
                Some(format!("known layouts: {}", known.join("; ")))
            }
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

/// Keys that change what a row says, whatever its layout: never left unread unless blank.
const CONTENT_KEYS: [&str; 6] = [
    "system",
    "history",
    "context",
    "tools",
    "functions",
    "images",
];

/// One row whose keys a layout takes out one by one; what remains was not read.
#[derive(Default)]
pub(super) struct Row {
    keys: Vec<String>,
    entries: Vec<(String, Value)>,
    /// Fields that have names of their own.
    fields: Fields,
    renamed: Vec<String>,
    /// What the layout found besides its content.
    pub(super) tools: Option<Value>,
    pub(super) drop_leading_answers: bool,
    pub(super) dropped_answers: bool,
}

impl Row {
    pub(super) fn new(entries: Vec<(String, Value)>) -> Row {
        let show = |(key, value): &(String, Value)| match value {
            Value::Null => format!("{key} = null"),
            _ => key.clone(),
        };
        let keys = entries.iter().map(show).collect();
        Row {
            keys,
            entries,
            ..Row::default()
        }
    }

    /// Gives fields with names of their own those of the layout.
    pub(super) fn rename(&mut self, fields: &Fields) -> Result<(), RowError> {
        for (name, own) in fields.of_rows() {
            let Some(place) = self.entries.iter().position(|(key, _)| key == own) else {
                continue;
            };
            if name != own && self.entries.iter().any(|(key, _)| key == name) {
                return Err(RowError::FieldTaken {
                    own: own.into(),
                    name: name.into(),
                });
            }
            name.clone_into(&mut self.entries[place].0);
            self.renamed.push(name.into());
        }
        self.fields = fields.clone();
        Ok(())
    }

    /// The fields that had names of their own.
    pub(super) fn renamed(&self) -> Vec<String> {
        self.renamed.clone()
    }

    /// What a field of messages is called here.
    pub(super) fn own(&self, name: &str) -> String {
        self.fields.own(name).to_owned()
    }

    /// Leaves out what is said before the first question, where that is wanted.
    pub(super) fn leave_out_leading_answers(&mut self, messages: &mut Vec<Message>) {
        let system = usize::from(
            messages
                .first()
                .is_some_and(|first| first.role == Role::System),
        );
        let question = messages
            .iter()
            .position(|message| message.role == Role::User);
        if let Some(question) =
            question.filter(|question| self.drop_leading_answers && *question > system)
        {
            messages.drain(system..question);
            self.dropped_answers = true;
        }
    }

    /// The keys that the row came with, as messages show them.
    pub(super) fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    /// Whether the key is there and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries
            .iter()
            .any(|(key, value)| key == name && !value.is_null())
    }

    /// Whether a value says nothing: null, or an empty string, list or object.
    pub(super) fn is_blank(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// Takes a key's value out; null counts as missing.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let index = self.entries.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.entries.swap_remove(index);
        (!value.is_null()).then_some(value)
    }

    /// The text under the one of `names` that is there; `None` where it is missing, null or empty.
    pub(super) fn optional(&mut self, names: &[&'static str]) -> Result<Option<String>, RowError> {
        Ok(self.text(names)?.filter(|text| !text.is_empty()))
    }

    /// The text under the one of `names` that is there; it may be empty.
    pub(super) fn required(
        &mut self,
        format: Format,
        names: &[&'static str],
    ) -> Result<String, RowError> {
        self.text(names)?
            .ok_or_else(|| self.missing(format, names[0]))
    }

    pub(super) fn missing(&self, format: Format, key: &'static str) -> RowError {
        RowError::MissingKey {
            format,
            key,
            keys: self.keys(),
        }
    }

    fn text(&mut self, names: &[&'static str]) -> Result<Option<String>, RowError> {
        let mut found: Option<(&'static str, String)> = None;
        for &name in names {
            let text = match self.take(name) {
                None => continue,
                Some(Value::String(text)) => text,
                Some(other) => {
                    return Err(RowError::WrongType {
                        key: name.into(),
                        expected: "a string",
                        found: json_type(&other),
                    });
                }
            };
            found = match found {
                // A second spelling may stand empty beside the first.
                Some((first, kept)) if text.is_empty() => Some((first, kept)),
                Some((first, kept)) if !kept.is_empty() => {
                    return Err(RowError::TwoKeys {
                        first,
                        second: name,
                    });
                }
                _ => Some((name, text)),
            };
        }
        Ok(found.map(|(_, text)| text))
    }

    /// The keys that no layout took, blank ones aside; content among them is an error.
    pub(super) fn unread(self) -> Result<Vec<String>, RowError> {
        let said = self.entries.into_iter().filter(|(_, v)| !Row::is_blank(v));
        let keys: Vec<String> = said.map(|(key, _)| key).collect();
        match keys.iter().find(|key| CONTENT_KEYS.contains(&key.as_str())) {
            Some(key) => Err(RowError::UnusedKey { key: key.clone() }),
            None => Ok(keys),
        }
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Row, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            // Maps would keep the last of two equal keys and lose the first without a word.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut entries: Vec<(String, Value)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if entries.iter().any(|(other, _)| *other == key) {
                        return Err(A::Error::custom(format!("the key `{key}` is there twice")));
                    }
                    entries.push((key, value));
                }
                Ok(Row::new(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
