//! Converts rows to conversations: one submodule per format of rows, and the list of formats.
//!
//! The format of a source is the one that the recipe names, or the first of [`Format::ALL`] that fits the keys of the
//! first row. All rows of the source must have it.

mod alpaca;
mod baize;
mod fields;
mod messages;
mod prompt_completion;
mod reader;
mod refused;
mod row;
mod sharegpt;
mod structure;
mod suggest;
mod text;
mod turns;

pub use fields::Fields;
pub use reader::{Reader, Reading, read};

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::conversation::Content;
use crate::error::RowError;
use row::Row;

/// A format of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Format {
    /// `messages`: a list of `{role, content}`.
    Messages,
    /// `conversations`: a list of `{from, value}`.
    Sharegpt,
    /// `topic`, and a conversation as text in `input`.
    Baize,
    /// `instruction`, `input`, `output`.
    Alpaca,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `text` alone.
    Text,
}

/// The keys that may hold the system message of a row.
const SYSTEM: [&str; 3] = ["system", "system_prompt", "system_message"];

/// The definition of a format, in its submodule.
struct Spec {
    /// The name in recipes and messages.
    name: &'static str,
    /// The keys of a row, for messages.
    keys: &'static str,
    /// The key by which the format is detected.
    mark: &'static str,
    /// Keys that rows may have under other names.
    fields: &'static [&'static str],
    /// Takes the format's keys out of a row.
    read: fn(&mut Row) -> Result<Content, RowError>,
}

impl Format {
    /// Every format, the most specific first: rows of other formats may have a `text`, too.
    pub const ALL: [Format; 6] = [
        Format::Messages,
        Format::Sharegpt,
        Format::Baize,
        Format::Alpaca,
        Format::PromptCompletion,
        Format::Text,
    ];

    fn spec(self) -> &'static Spec {
        match self {
            Format::Messages => &messages::SPEC,
            Format::Sharegpt => &sharegpt::SPEC,
            Format::Baize => &baize::SPEC,
            Format::Alpaca => &alpaca::SPEC,
            Format::PromptCompletion => &prompt_completion::SPEC,
            Format::Text => &text::SPEC,
        }
    }

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The keys of a row, for messages.
    pub fn keys(self) -> &'static str {
        self.spec().keys
    }

    /// Every format with its keys, for messages.
    fn list() -> String {
        let known = Format::ALL.map(|format| format!("{format} ({})", format.keys()));
        known.join("; ")
    }

    /// The key that would tell the format, if the row has it as null.
    fn of_null(row: &Row) -> Option<&'static str> {
        let marks = Format::ALL.map(|format| format.spec().mark);
        marks
            .into_iter()
            .find(|mark| row.get(mark).is_some_and(Value::is_null))
    }

    /// Detects the format by a row's keys.
    fn of(row: &Row) -> Option<Format> {
        Format::ALL.into_iter().find(|format| {
            row.has(format.spec().mark) && (*format != Format::Baize || !row.has("instruction"))
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
