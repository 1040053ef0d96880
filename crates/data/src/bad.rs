//! Rows that cannot be read or used, and what becomes of them.

use std::fmt;

use serde::{Deserialize, Serialize};
use simmer_files::size::counted;

use crate::conversation::Origin;
use crate::error::DataError;

/// The number of rows of each kind that are kept with their reasons.
const KEPT: usize = 1000;

/// The number of kinds; rows of further kinds are counted together.
const KINDS: usize = 20;

/// The number of rows of each kind that are listed, unless more are asked for.
pub const LISTED: usize = 5;

/// What happens to rows that cannot be read or used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum BadRows {
    /// The first one is an error.
    #[default]
    Error,
    /// They are left out, counted and listed.
    Drop,
}

/// What a pass over the data does with rows that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum OnBad {
    /// Stops at the first.
    Stop,
    /// Leaves them out, up to this share of a source's rows.
    Drop { most: f64 },
    /// Lists all of them.
    List,
}

/// A row that cannot be read or used.
#[derive(Debug)]
pub struct BadRow {
    /// Its position.
    pub origin: Origin,
    /// What is wrong with it.
    pub error: Box<DataError>,
}

/// Rows of one source that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Unusable {
    /// The number of rows.
    pub rows: usize,
    /// The same rows by what is wrong with them, in the order in which the kinds were found.
    pub kinds: Vec<BadKind>,
}

/// Rows with the same fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadKind {
    /// What is wrong with them.
    pub what: String,
    /// The number of rows.
    pub rows: usize,
    /// The first rows.
    pub first: Vec<Offender>,
}

/// One row and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offender {
    /// The file, row and line.
    #[serde(serialize_with = "place")]
    pub origin: Origin,
    /// What is wrong with it.
    pub what: String,
}

fn place<S: serde::Serializer>(origin: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Place<'o> {
        file: std::borrow::Cow<'o, str>,
        row: usize,
        line: usize,
    }
    let Origin { file, row, line } = origin;
    let file = file.to_string_lossy();
    Place {
        file,
        row: *row,
        line: *line,
    }
    .serialize(serializer)
}

impl BadRow {
    pub(crate) fn new(origin: Origin, error: DataError) -> BadRow {
        BadRow {
            origin,
            error: Box::new(error),
        }
    }

    /// What is wrong with it, without its place.
    fn reason(&self) -> String {
        match &*self.error {
            DataError::Row { error, .. } => error.to_string(),
            DataError::Json {
                line, column, what, ..
            } => format!("invalid JSON at line {line} column {column}: {what}"),
            DataError::NotUtf8 { line, .. } => format!("line {line} is not UTF-8"),
            DataError::Csv { what, .. } => what.clone(),
            other => other.to_string(),
        }
    }

    /// What is wrong with it and with other rows of its kind.
    fn kind(&self) -> String {
        match &*self.error {
            DataError::Json { .. } => "invalid JSON".into(),
            DataError::NotUtf8 { .. } => "not UTF-8".into(),
            _ => kind(&self.reason()),
        }
    }
}

/// A reason without what follows its first semicolon, and with `N` for the places in lists.
fn kind(reason: &str) -> String {
    let reason = reason.split("; ").next().unwrap_or_default();
    let mut kind = String::with_capacity(reason.len());
    let mut in_brackets = false;
    for character in reason.chars() {
        match character {
            '0'..='9' if in_brackets => {
                if !kind.ends_with('N') {
                    kind.push('N');
                }
                continue;
            }
            _ => in_brackets = character == '[',
        }
        kind.push(character);
    }
    kind
}

impl Unusable {
    /// Counts a row.
    pub(crate) fn push(&mut self, bad: &BadRow) {
        self.rows += 1;
        let mut what = bad.kind();
        let known = self.kinds.iter().any(|kind| kind.what == what);
        if !known && self.kinds.len() >= KINDS {
            what = "other reasons".into();
        }
        let place = self.kinds.iter().position(|kind| kind.what == what);
        let place = place.unwrap_or_else(|| {
            self.kinds.push(BadKind {
                what,
                rows: 0,
                first: Vec::new(),
            });
            self.kinds.len() - 1
        });
        let kind = &mut self.kinds[place];
        kind.rows += 1;
        if kind.first.len() < KEPT {
            kind.first.push(Offender {
                origin: bad.origin.clone(),
                what: bad.reason(),
            });
        }
    }

    /// The first row and what is wrong with it.
    pub(crate) fn first(&self) -> Option<&Offender> {
        self.kinds.first()?.first.first()
    }
}

impl BadKind {
    /// The kind without the rows after the first `most`.
    #[must_use]
    pub fn listing(mut self, most: usize) -> BadKind {
        self.first.truncate(most);
        self
    }

    /// The listed rows, a line each, with `indent` before each line.
    pub fn list(&self, indent: &str) -> String {
        let mut lines: Vec<String> = Vec::new();
        for Offender { origin, what } in &self.first {
            lines.push(if *what == self.what {
                format!("{indent}{origin}")
            } else {
                format!("{indent}{origin}: {what}")
            });
        }
        if self.rows > self.first.len() {
            lines.push(format!("{indent}and {} more", self.rows - self.first.len()));
        }
        lines.join("\n")
    }
}

impl fmt::Display for BadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, counted(self.rows, "row"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RowError;

    #[test]
    fn rows_with_the_same_fault_are_one_kind() {
        assert_eq!(
            kind("key `messages[13].content[2]`: expected a string; the row has `a`"),
            "key `messages[N].content[N]`: expected a string"
        );
        assert_eq!(kind("expected 2 fields"), "expected 2 fields");
        let mut unusable = Unusable::default();
        for row in 1..=KEPT + 3 {
            let origin = Origin {
                row,
                ..Origin::default()
            };
            let error = DataError::row(origin.clone(), RowError::NoAnswer);
            unusable.push(&BadRow::new(origin, error));
        }
        assert_eq!((unusable.rows, unusable.kinds.len()), (KEPT + 3, 1));
        let kind = unusable.kinds.remove(0).listing(2);
        insta::assert_snapshot!(format!("{kind}\n{}", kind.list("  ")), @"
        no message is from the assistant, so there is nothing to train on: 1003 rows
          (none): row 1
          (none): row 2
          and 1001 more
        ");
    }

    #[test]
    fn many_kinds_are_pooled() {
        let mut unusable = Unusable::default();
        for row in 1..=KINDS + 5 {
            let origin = Origin {
                row,
                ..Origin::default()
            };
            let error = RowError::UnusedKey {
                key: format!("k{row}"),
            };
            unusable.push(&BadRow::new(origin.clone(), DataError::row(origin, error)));
        }
        assert_eq!(unusable.kinds.len(), KINDS + 1);
        let last = &unusable.kinds[KINDS];
        assert_eq!((last.what.as_str(), last.rows), ("other reasons", 5));
    }
}
