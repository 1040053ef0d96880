//! Rows into conversations: one submodule a layout of rows, and the list of them.
//!
//! The layout of a source is the one that the recipe names, or the first of [`Format::ALL`] whose keys the first row has;
//! every other row is held to it.

mod alpaca;
mod baize;
mod fields;
mod messages;
mod prompt_completion;
mod reader;
mod row;
mod sharegpt;
mod text;

pub use fields::Fields;
pub use reader::{Reader, Reading, read};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::conversation::Content;
use crate::error::RowError;
use row::Row;

/// A layout of rows that can be read.
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

/// What a submodule says of its layout.
struct Spec {
    /// The name in recipes and messages.
    name: &'static str,
    /// The keys of a row, for messages.
    keys: &'static str,
    /// The key that gives the layout away.
    mark: &'static str,
    /// Fields that rows may have under other names.
    fields: &'static [&'static str],
    /// Takes the layout's keys out of a row.
    read: fn(&mut Row) -> Result<Content, RowError>,
}

impl Format {
    /// Every layout, the most telling keys first: rows of the others may carry a `text` besides.
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

    /// The name that recipes use.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The keys of such a row.
    pub fn keys(self) -> &'static str {
        self.spec().keys
    }

    /// Every layout with its keys, for messages.
    fn list() -> String {
        let known = Format::ALL.map(|format| format!("{format} ({})", format.keys()));
        known.join("; ")
    }

    /// The layout that a row's keys give away.
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
