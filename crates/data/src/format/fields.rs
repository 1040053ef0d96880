//! What rows call the keys of their layout, where they have names of their own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Format;
use crate::error::DataError;

/// The layout's names, each with the rows' own: `{ instruction = "question", output = "answer" }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[derive(schemars::JsonSchema)]
pub struct Fields(BTreeMap<String, String>);

/// Keys of a message, which are inside the list of them.
const NESTED: [&str; 4] = ["role", "content", "from", "value"];

impl Fields {
    /// Fields of these names.
    pub fn new(fields: impl IntoIterator<Item = (String, String)>) -> Fields {
        Fields(fields.into_iter().collect())
    }

    /// Whether rows use the layout's own names.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The layout's names that have others.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What the rows call the field of this name.
    pub(super) fn own<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }

    /// Whether the field is one of messages, not of rows.
    pub(super) fn is_nested(name: &str) -> bool {
        NESTED.contains(&name)
    }

    /// The fields of rows that have other names, with these.
    pub(super) fn of_rows(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self
            .0
            .iter()
            .map(|(name, own)| (name.as_str(), own.as_str()));
        fields.filter(|(name, _)| !Fields::is_nested(name))
    }

    /// Whether the layout has fields of these names.
    pub(super) fn check(&self, format: Format) -> Result<(), DataError> {
        let known = format.spec().fields;
        let Some(unknown) = self.names().find(|name| !known.contains(name)) else {
            return Ok(());
        };
        let near = known.iter().max_by(|a, b| {
            let like = |name: &str| strsim::jaro_winkler(name, unknown);
            like(a).total_cmp(&like(b))
        });
        Err(DataError::Config {
            key: "train.fields",
            problem: format!(
                "format {format} has no field `{unknown}`; did you mean `{}`? It has {}",
                near.copied().unwrap_or_default(),
                known.join(", ")
            ),
        })
    }
}
