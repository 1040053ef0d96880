//! One row of a data file, as an object.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use super::structure::strip_nulls;
use super::{Fields, Format, suggest};
use crate::conversation::{ListKey, Message, Role};
use crate::error::{Absent, RowError, json_type};

/// Keys with content in any format: if they are not blank, they must be used.
const CONTENT_KEYS: [&str; 5] = ["system", "history", "context", "tools", "functions"];

/// One row. A format takes the keys out one by one; the remaining keys were not used.
#[derive(Default)]
pub(super) struct Row {
    keys: Vec<String>,
    entries: Vec<(String, Value)>,
    /// The rows' own names for the keys of the format.
    fields: Fields,
    renamed: Vec<String>,
    /// The tools, which the format reads besides the content.
    pub(super) tools: Option<Value>,
    /// Whether the row's values come from typed columns, so that structs have null members that the row lacks.
    pub(super) typed: bool,
    /// The keys in which such members were left out.
    stripped: Vec<&'static str>,
    pub(super) may: May,
    pub(super) dropped_answers: bool,
}

/// What a row may be, because its [`Reading`](super::Reading) says so.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct May {
    pub(super) drop_leading_answers: bool,
    pub(super) lack_answers: bool,
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

    /// Renames keys to those of the format.
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

    /// The keys of the format that were renamed to.
    pub(super) fn renamed(&self) -> Vec<String> {
        self.renamed.clone()
    }

    /// The keys that `fields` names and the row does not have.
    pub(super) fn absent(&self) -> Vec<Absent> {
        let has = |name: &str| self.renamed.iter().any(|renamed| renamed == name);
        let names = self.fields.of_rows().map(|(name, _)| name);
        let absent = names.filter(|name| !has(name));
        absent.map(|name| self.fields.absent(name)).collect()
    }

    /// The row's own key of its list of messages.
    pub(super) fn list(&self, format: Format) -> ListKey {
        match format {
            Format::Messages | Format::Sharegpt => {
                let key = format.spec().mark;
                match self.fields.own(key) {
                    own if own == key => ListKey::new(key),
                    own => ListKey::new(own.to_owned()),
                }
            }
            _ => ListKey::default(),
        }
    }

    /// The row's own name for a key of messages.
    pub(super) fn own(&self, name: &str) -> String {
        self.fields.own(name).to_owned()
    }

    /// Drops the messages between the system message and the first user message, if `drop_leading_answers` is set.
    pub(super) fn drop_answers_before_question(&mut self, messages: &mut Vec<Message>) {
        let system = usize::from(
            messages
                .first()
                .is_some_and(|first| first.role == Role::System),
        );
        let question = messages
            .iter()
            .position(|message| message.role == Role::User);
        if let Some(question) =
            question.filter(|question| self.may.drop_leading_answers && *question > system)
        {
            messages.drain(system..question);
            self.dropped_answers = true;
        }
    }

    /// Leaves null members of structs out of the value of a typed column.
    pub(super) fn strip(&mut self, key: &'static str, value: &mut Value) {
        if self.typed && strip_nulls(value) && !self.stripped.contains(&key) {
            self.stripped.push(key);
        }
    }

    /// The keys and values that no format has taken.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key that no format has taken.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let mut entries = self.entries.iter();
        entries.find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// All keys that the row had, as error messages show them.
    pub(super) fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    /// Whether the key exists and is not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether the key's value is a list.
    pub(super) fn has_list(&self, name: &str) -> bool {
        self.get(name).is_some_and(Value::is_array)
    }

    /// Whether a value has no content: null, or an empty string, list or object.
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

    /// The text of the one key of `names` that exists; `None` if it is missing, null or empty.
    pub(super) fn optional(&mut self, names: &[&'static str]) -> Result<Option<String>, RowError> {
        Ok(self.text(names)?.filter(|text| !text.is_empty()))
    }

    /// The text of the one key of `names` that exists; it may be empty.
    pub(super) fn required(
        &mut self,
        format: Format,
        names: &[&'static str],
    ) -> Result<String, RowError> {
        self.text(names)?
            .ok_or_else(|| self.missing(format, names[0]))
    }

    /// As [`required`](Self::required), of the answer: `None` if it is missing and may be.
    pub(super) fn answer(
        &mut self,
        format: Format,
        names: &[&'static str],
    ) -> Result<Option<String>, RowError> {
        if self.may.lack_answers {
            self.text(names)
        } else {
            self.required(format, names).map(Some)
        }
    }

    pub(super) fn missing(&self, format: Format, key: &'static str) -> RowError {
        let absent = self.fields.absent(key);
        RowError::MissingKey {
            format: format.name(),
            expected: format.keys(),
            is_null: self.keys.contains(&format!("{} = null", absent.own)),
            absent: Box::new(absent),
            keys: self.keys(),
            fields: suggest::for_key(self, key),
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
                // A second name for the key is allowed if it is empty.
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

    /// The keys that the format did not use, except blank ones. A content key among them is an error.
    pub(super) fn unread(self) -> Result<Vec<String>, RowError> {
        let said = self.entries.into_iter().filter(|(_, v)| !Row::is_blank(v));
        let name = |key: String| match key.as_str() {
            "" => "a column without a name".to_owned(),
            _ => key,
        };
        let mut keys: Vec<String> = said.map(|(key, _)| name(key)).collect();
        let stripped = self.stripped.iter();
        keys.extend(stripped.map(|key| format!("null members inside {key}")));
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

            // A map would silently keep only the last of two equal keys.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut entries: Vec<(String, Value)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if entries.iter().any(|(other, _)| *other == key) {
                        return Err(A::Error::custom(format!("duplicate key `{key}`")));
                    }
                    entries.push((key, value));
                }
                Ok(Row::new(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
