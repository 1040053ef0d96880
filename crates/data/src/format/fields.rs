//! Other names for the keys of a format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Format;
use crate::error::{Absent, DataError};
use crate::nearest::nearest;

/// The keys of the format, each with the rows' own name: `{ instruction = "question", output = "answer" }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[derive(schemars::JsonSchema)]
pub struct Fields(BTreeMap<String, String>);

/// Keys of messages, not of rows.
const NESTED: [&str; 4] = ["role", "content", "from", "value"];

impl Fields {
    /// A map from the keys of the format to the rows' own names.
    pub fn new(fields: impl IntoIterator<Item = (String, String)>) -> Fields {
        Fields(fields.into_iter().collect())
    }

    /// Whether rows use the names of the format.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys of the format that have other names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The rows' own name for a key of the format.
    pub(super) fn own<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }

    /// Whether the key is one of messages, not of rows.
    pub(super) fn is_nested(name: &str) -> bool {
        NESTED.contains(&name)
    }

    /// The keys of rows that have other names, with these names.
    pub(super) fn of_rows(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self
            .0
            .iter()
            .map(|(name, own)| (name.as_str(), own.as_str()));
        fields.filter(|(name, _)| !Fields::is_nested(name))
    }

    /// A key of the format that rows lack, with their own name for it.
    pub(super) fn absent(&self, name: &str) -> Absent {
        Absent {
            own: self.own(name).to_owned(),
            key: name.to_owned(),
        }
    }

    /// Checks that the format has all keys that are given other names.
    pub(super) fn check(&self, format: Format) -> Result<(), DataError> {
        let known = format.spec().fields;
        let Some(unknown) = self.names().find(|name| !known.contains(name)) else {
            return Ok(());
        };
        let near = nearest(unknown, known.iter().copied());
        Err(DataError::Config {
            key: "train.fields",
            problem: format!(
                "format {format} has no field `{unknown}`; did you mean `{}`? It has {}",
                near.map_or("", |(_, near)| near),
                known.join(", ")
            ),
        })
    }
}
