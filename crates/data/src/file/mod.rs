//! Files into records, one after another, whatever the kind of file: JSON arrays, JSON lines, CSV and Parquet, each also
//! compressed. No file is in memory whole.

mod csv;
mod decompress;
mod json;
mod names;
mod parquet;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::conversation::Origin;
use crate::error::DataError;

pub use names::{files, has_known_ending};

/// The longest record that is read: no row of a real data set is near it.
const MAX_RECORD: usize = 64 << 20;

/// What stands for one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// JSON that is still to be parsed, and the column on which it starts.
    Json(String, usize),
    /// Columns and their values.
    Columns(Vec<(String, Value)>),
}

/// One row of a file, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) content: Content,
    pub(crate) origin: Origin,
}

/// The records of a file, from the first on.
pub(crate) struct Records {
    path: Arc<Path>,
    source: Source,
    rows: usize,
}

enum Source {
    Json(json::Records<Box<dyn BufRead + Send>>),
    Csv(Box<csv::Records>),
    Parquet(Box<parquet::Records>),
}

/// What went wrong inside a file.
#[derive(Debug)]
pub(crate) enum Fault {
    Io(std::io::Error),
    /// Line of the first byte that is no UTF-8.
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
            Self::Io(source) => DataError::Read { path, source },
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
                path,
                line,
                limit: MAX_RECORD >> 20,
            },
        }
    }
}

impl Records {
    /// Opens a file, by the ending of its name.
    pub(crate) fn open(path: &Path) -> Result<Records, DataError> {
        let fault = |fault: Fault| fault.at(path, 0);
        let source = match decompress::kind(path).0.as_deref() {
            Some("parquet") => {
                Source::Parquet(Box::new(parquet::Records::open(path).map_err(fault)?))
            }
            Some("csv") => Source::Csv(Box::new(csv::Records::open(path, b',').map_err(fault)?)),
            Some("tsv") => Source::Csv(Box::new(csv::Records::open(path, b'\t').map_err(fault)?)),
            _ => Source::Json(json::Records::new(decompress::open(path).map_err(fault)?)),
        };
        Ok(Records {
            path: Arc::from(path),
            source,
            rows: 0,
        })
    }

    /// The next record; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, DataError> {
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
