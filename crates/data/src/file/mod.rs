//! Reads files of every supported type as records, one at a time: JSON arrays, JSON Lines, text, CSV, Parquet and Arrow, each
//! also compressed. No file is held in memory as a whole.

mod arrow;
mod csv;
mod decompress;
mod json;
mod kind;
mod names;
mod parquet;
mod rows;
mod text;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::Value;

use crate::bad::BadRow;
use crate::conversation::Origin;
use crate::error::DataError;

pub use names::{Found, files, has_known_ending, split_files};
pub use rows::{FileRow, rows};
pub use text::SampleBy;

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
            Content::Json(text, column) => serde_json::from_str(text)
                .map_err(|error| DataError::json(&self.origin, &error, text, *column)),
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
    wrapper: Option<String>,
}

/// How a file is read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Opening<'a> {
    /// The column names of a CSV file without a header.
    pub(crate) columns: Option<&'a [String]>,
    /// What a row of a text file is.
    pub(crate) sample_by: SampleBy,
}

enum Source {
    Json(Box<json::Records<Box<dyn BufRead + Send>>>),
    Text(Box<text::Records<Box<dyn BufRead + Send>>>),
    Arrow(Box<arrow::Records>),
    Csv(Box<csv::Records>),
    Parquet(Box<parquet::Records>),
}

impl Source {
    fn of_csv(records: csv::Records) -> Source {
        Source::Csv(Box::new(records))
    }

    fn of_arrow(records: arrow::Records) -> Source {
        Source::Arrow(Box::new(records))
    }

    fn of_parquet(records: parquet::Records) -> Source {
        Source::Parquet(Box::new(records))
    }
}

/// Whether a file has rows of plain text.
pub(crate) fn is_text(path: &Path) -> bool {
    decompress::kind(path).0.as_deref() == Some("txt")
}

/// Whether a file's name says that it is a table, whose first line has the names of its columns.
pub(crate) fn is_table(path: &Path) -> bool {
    matches!(decompress::kind(path).0.as_deref(), Some("csv" | "tsv"))
}

/// The first name that occurs twice.
fn twice<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
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
    /// A row of a CSV file has another number of fields than the header.
    Fields {
        line: usize,
        what: String,
    },
    /// A JSON file is one object with several lists that may be the rows.
    Lists(Vec<String>),
    /// A pointer of git-lfs in the file's place.
    Lfs,
    /// The file is something else than its name says.
    OtherKind {
        expected: &'static str,
        found: &'static str,
        remedy: &'static str,
    },
    Parquet(String),
    Arrow(String),
    /// Two columns of this name, of which a row could have only one.
    Twice(String),
    Long {
        line: usize,
    },
}

impl Fault {
    /// The line of a row that cannot be read, if the rows after it can.
    fn of_row(&self) -> Option<usize> {
        match self {
            Self::Utf8(line) | Self::Fields { line, .. } => Some(*line),
            _ => None,
        }
    }

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
                found: String::new(),
            },
            Self::Csv { line, what } | Self::Fields { line, what } => {
                DataError::Csv { path, line, what }
            }
            Self::Lists(keys) => DataError::SeveralLists { path, keys },
            Self::Lfs => DataError::LfsPointer { path },
            Self::OtherKind {
                expected,
                found,
                remedy,
            } => DataError::OtherKind {
                path,
                expected,
                found,
                remedy,
            },
            Self::Parquet(what) => DataError::Parquet { path, rows, what },
            Self::Arrow(what) => DataError::Arrow { path, rows, what },
            Self::Twice(column) => DataError::TwoColumns { path, column },
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
        Records::open_as(path, Opening::default(), read)
    }

    /// Like [`Records::open`], read in this way.
    pub(crate) fn open_as(
        path: &Path,
        opening: Opening<'_>,
        read: &Arc<AtomicU64>,
    ) -> Result<Records, DataError> {
        let mut wrapper = None;
        let source = source(path, opening, read, &mut wrapper);
        Ok(Records {
            path: Arc::from(path),
            source: source.map_err(|fault| fault.at(path, 0))?,
            rows: 0,
            wrapper,
        })
    }

    /// The key below which the rows are, if the file is a JSON object with a list of rows.
    pub fn wrapper(&self) -> Option<&str> {
        self.wrapper.as_deref()
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
        let next = self.next_row()?;
        next.transpose().map_err(|bad| *bad.error)
    }

    /// The next record, or what is wrong with it; `None` at the end.
    ///
    /// # Errors
    /// [`DataError`] if the records after the next cannot be read either.
    pub(crate) fn next_row(&mut self) -> Result<Option<Result<Record, BadRow>>, DataError> {
        let next = match &mut self.source {
            Source::Json(records) => records.next(),
            Source::Text(records) => records.next(),
            Source::Csv(records) => records.next(),
            Source::Parquet(records) => records.next(),
            Source::Arrow(records) => records.next(),
        };
        let origin = |line| Origin {
            file: Arc::clone(&self.path),
            row: self.rows + 1,
            line,
        };
        let row = match next {
            Ok(None) => return Ok(None),
            Ok(Some((content, line))) => Ok(Record {
                content: with_messages(content),
                origin: origin(line),
            }),
            Err(fault) => match fault.of_row() {
                Some(line) => {
                    let origin = origin(line);
                    Err(BadRow::new(origin, fault.at(&self.path, self.rows)))
                }
                None => return Err(fault.at(&self.path, self.rows)),
            },
        };
        self.rows += 1;
        Ok(Some(row))
    }
}

/// Opens a file by its type. `wrapper` becomes the key below which a JSON object has the rows.
fn source(
    path: &Path,
    opening: Opening<'_>,
    read: &Arc<AtomicU64>,
    wrapper: &mut Option<String>,
) -> Result<Source, Fault> {
    let mut file = simmer_files::open(path).map_err(Fault::Open)?;
    let start = start(&mut file).map_err(Fault::Io)?;
    if simmer_files::is_lfs_pointer(&start) {
        return Err(Fault::Lfs);
    }
    kind::check(&mut file, path, &start)?;
    let Opening { columns, sample_by } = opening;
    let table = |file: File, delimiter| {
        let source = decompress::reader(file, path, read)?;
        csv::Records::new(source, delimiter, columns).map(Source::of_csv)
    };
    match decompress::kind(path).0.as_deref() {
        Some("parquet") => parquet::Records::new(file, path, read).map(Source::of_parquet),
        Some("arrow") => arrow::Records::new(file, path, read).map(Source::of_arrow),
        Some("csv") => table(file, None),
        Some("tsv") => table(file, Some(b'\t')),
        Some("txt") => {
            let file = decompress::reader(file, path, read)?;
            Ok(Source::Text(Box::new(text::Records::new(file, sample_by))))
        }
        _ => {
            match shape(&mut file, path) {
                Ok(json::Shape::Several(keys)) => return Err(Fault::Lists(keys)),
                Ok(json::Shape::Wrapped(key)) => *wrapper = Some(key),
                // An error comes again where the rows are read.
                Ok(json::Shape::Rows) | Err(_) => {}
            }
            file.rewind().map_err(Fault::Io)?;
            let file = decompress::reader(file, path, read)?;
            let records = json::Records::new(file, wrapper.clone());
            Ok(Source::Json(Box::new(records)))
        }
    }
}

/// Where a JSON file has its rows. The bytes that are read for it are not counted.
fn shape(file: &mut File, path: &Path) -> Result<json::Shape, Fault> {
    // Both handles share one position, which the caller sets back.
    let file = file.try_clone().map_err(Fault::Io)?;
    json::shape(decompress::reader(file, path, &Arc::default())?)
}

/// The first bytes of a file, which is at its start again afterwards.
fn start(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start)
}

/// A row that is a list of objects has the messages of a conversation.
fn with_messages(content: Content) -> Content {
    match content {
        Content::Json(text, column) if is_list_of_objects(&text) => {
            Content::Json(format!("{{\"messages\": {text}}}"), column)
        }
        other => other,
    }
}

fn is_list_of_objects(text: &str) -> bool {
    text.starts_with('[')
        && serde_json::from_str::<Vec<Value>>(text)
            .is_ok_and(|list| !list.is_empty() && list.iter().all(Value::is_object))
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} after row {}", self.path.display(), self.rows)
    }
}

#[cfg(test)]
mod tests;
