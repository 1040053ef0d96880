//! Reads files of every supported type as records, one at a time: JSON arrays, JSON Lines, CSV and Parquet, each also
//! compressed. No file is held in memory as a whole.

mod csv;
mod decompress;
mod json;
mod names;
mod parquet;
mod rows;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::Value;

use crate::conversation::Origin;
use crate::error::DataError;

pub use names::{files, has_known_ending};
pub use rows::{FileRow, rows};

/// The size limit of a record, in bytes. Rows of real datasets are much smaller.
const MAX_RECORD: usize = 64 << 20;

/// The content of one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// JSON that is not parsed yet, and the column on which it starts.
    Json(String, usize),
    /// Columns and their values.
    Columns(Vec<(String, Value)>),
}

/// One row of a file and its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub(crate) content: Content,
    /// Its position.
    pub origin: Origin,
}

impl Record {
    /// The row as JSON; columns are an object.
    ///
    /// # Errors
    /// [`DataError::Json`] if it is not valid JSON.
    pub fn value(&self) -> Result<Value, DataError> {
        match &self.content {
            Content::Columns(columns) => Ok(Value::Object(columns.iter().cloned().collect())),
            Content::Json(text, column) => serde_json::from_str(text).map_err(|error| {
                DataError::json(&self.origin.file, &error, self.origin.line, *column)
            }),
        }
    }

    /// Its approximate size, in bytes.
    pub(crate) fn size(&self) -> usize {
        match &self.content {
            Content::Json(text, _) => text.len(),
            Content::Columns(columns) => columns.iter().map(|(_, value)| size(value)).sum(),
        }
    }
}

/// The approximate size of a value: the bytes of its strings, and a few for everything else.
fn size(value: &Value) -> usize {
    let few = size_of::<Value>();
    few + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| key.len() + size(value))
            .sum(),
        _ => 0,
    }
}

/// The records of a file, in order.
pub struct Records {
    path: Arc<Path>,
    source: Source,
    rows: usize,
}

enum Source {
    Json(json::Records<Box<dyn BufRead + Send>>),
    Csv(Box<csv::Records>),
    Parquet(Box<parquet::Records>),
}

impl Source {
    fn of_csv(records: csv::Records) -> Source {
        Source::Csv(Box::new(records))
    }

    fn of_parquet(records: parquet::Records) -> Source {
        Source::Parquet(Box::new(records))
    }
}

/// An error inside a file, whose path is added later.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file cannot be opened.
    Open(std::io::Error),
    /// The content cannot be read.
    Io(std::io::Error),
    /// The line of the first byte that is not UTF-8.
    Utf8(usize),
    Json {
        line: usize,
        column: usize,
        what: String,
    },
    Csv {
        line: usize,
        what: String,
    },
    Parquet(String),
    Long {
        line: usize,
    },
}

impl Fault {
    fn at(self, path: &Path, rows: usize) -> DataError {
        let path = PathBuf::from(path);
        match self {
            Self::Io(source) if decompress::kind(&path).1.is_some() => {
                DataError::Compressed { path, rows, source }
            }
            Self::Open(source) | Self::Io(source) => DataError::Read { path, source },
            Self::Utf8(line) => DataError::NotUtf8 { path, line },
            Self::Json { line, column, what } => DataError::Json {
                path,
                line,
                column,
                what,
            },
            Self::Csv { line, what } => DataError::Csv { path, line, what },
            Self::Parquet(what) => DataError::Parquet { path, rows, what },
            Self::Long { line } => DataError::LongRow {
                origin: Origin {
                    file: path.into(),
                    row: rows + 1,
                    line,
                },
                limit: MAX_RECORD >> 20,
            },
        }
    }
}

impl Records {
    /// Opens a file of the type that its extension names. `read` counts the bytes as they are read.
    ///
    /// # Errors
    /// [`DataError`] if the file cannot be opened.
    pub fn open(path: &Path, read: &Arc<AtomicU64>) -> Result<Records, DataError> {
        Records::named(path, None, read)
    }

    /// Like [`Records::open`]; `columns` are the column names of a CSV file without a header.
    pub(crate) fn named(
        path: &Path,
        columns: Option<&[String]>,
        read: &Arc<AtomicU64>,
    ) -> Result<Records, DataError> {
        let source = match decompress::kind(path).0.as_deref() {
            Some("parquet") => parquet::Records::open(path, read).map(Source::of_parquet),
            Some("csv") => csv::Records::open(path, b',', columns, read).map(Source::of_csv),
            Some("tsv") => csv::Records::open(path, b'\t', columns, read).map(Source::of_csv),
            _ => decompress::open(path, read).map(|file| Source::Json(json::Records::new(file))),
        };
        Ok(Records {
            path: Arc::from(path),
            source: source.map_err(|fault| fault.at(path, 0))?,
            rows: 0,
        })
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// [`DataError`] if the next record cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "it returns a Result<Option>, as readers of files do"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, DataError> {
        let next = match &mut self.source {
            Source::Json(records) => records.next(),
            Source::Csv(records) => records.next(),
            Source::Parquet(records) => records.next(),
        };
        let Some((content, line)) = next.map_err(|fault| fault.at(&self.path, self.rows))? else {
            return Ok(None);
        };
        self.rows += 1;
        let origin = Origin {
            file: Arc::clone(&self.path),
            row: self.rows,
            line,
        };
        Ok(Some(Record { content, origin }))
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} after row {}", self.path.display(), self.rows)
    }
}

#[cfg(test)]
mod tests;
