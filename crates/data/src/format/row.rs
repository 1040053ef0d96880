//! One JSON object of a data file, and what can be wrong with it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use super::{Fields, Format};
use crate::conversation::{Message, Role};
use crate::error::{RowError, json_type};

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
            format: format.name(),
            expected: format.keys(),
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
