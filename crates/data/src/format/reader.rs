//! Reads files as conversations, chunk by chunk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::refused::{self, weigh};
use super::row::Row;
use super::structure::take_tools;
use super::{Fields, Format};
use crate::conversation::{Conversation, Origin};
use crate::error::{DataError, RowError, json_type};
use crate::file::{Content, Record, Records};

/// How rows are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The format of the rows. Default: detected from the first row.
    pub format: Option<Format>,
    /// The rows' own names for the keys of the format.
    pub fields: Fields,
    /// Whether to drop answers before the first user message, as FastChat does; otherwise they are an error.
    pub drop_leading_answers: bool,
}

/// The rows of one or more files with the same format.
#[derive(Debug)]
pub struct Reader {
    files: VecDeque<PathBuf>,
    current: Option<Records>,
    /// The first record, which was read to detect the format.
    first: Option<Record>,
    parser: Parser,
    ignored_keys: BTreeMap<String, usize>,
    unseen: BTreeSet<String>,
    leading_answers: usize,
    bytes_read: Arc<AtomicU64>,
}

/// A chunk ends after this many bytes, so that long rows do not fill the memory.
const CHUNK_BYTES: usize = 16 << 20;

/// Converts records to conversations.
#[derive(Debug)]
struct Parser {
    format: Format,
    reading: Reading,
}

/// The result of parsing one record.
struct Parsed {
    conversation: Conversation,
    unread: Vec<String>,
    found: Vec<String>,
    leading_answers: bool,
}

impl Reader {
    /// Opens files whose rows have one format.
    ///
    /// # Errors
    /// [`DataError`] if a file cannot be read or has no rows, if the keys of the first row fit no format, or if
    /// `fields` has a key that the format does not have.
    pub fn open(files: &[PathBuf], reading: &Reading) -> Result<Reader, DataError> {
        let mut reader = Reader {
            files: files.iter().cloned().collect(),
            current: None,
            first: None,
            parser: Parser {
                format: reading.format.unwrap_or(Format::Text),
                reading: reading.clone(),
            },
            ignored_keys: BTreeMap::new(),
            unseen: reading.fields.names().map(str::to_owned).collect(),
            leading_answers: 0,
            bytes_read: Arc::default(),
        };
        reader.first = reader.record()?;
        let Some(first) = &reader.first else {
            let path = files.first().cloned().unwrap_or_default();
            return Err(DataError::Empty { path });
        };
        if reading.format.is_none() {
            let row = |error| DataError::row(first.origin.clone(), error);
            let keys = reader.parser.row(first)?.map_err(row)?;
            let unknown_format = || RowError::UnknownFormat {
                fields: Format::fields(&keys),
                keys: keys.keys(),
                known: Format::list(),
            };
            reader.parser.format = Format::of(&keys).ok_or_else(|| row(unknown_format()))?;
        }
        reading.fields.check(reader.format())?;
        Ok(reader)
    }

    /// The format of the rows.
    pub fn format(&self) -> Format {
        self.parser.format
    }

    /// Keys that were not used, each with the number of rows so far in which it was not empty.
    pub fn ignored_keys(&self) -> &BTreeMap<String, usize> {
        &self.ignored_keys
    }

    /// The number of rows so far that started with an answer, which was dropped.
    pub fn leading_answers(&self) -> usize {
        self.leading_answers
    }

    /// Bytes read from the files so far; for compressed files, the bytes as stored on disk.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The next rows in order: at most `rows`, fewer if they are long, none at the end.
    ///
    /// # Errors
    /// [`DataError`] for the first row that is invalid or has another format, and at the end if no row had a key that
    /// `fields` names.
    pub fn next_chunk(&mut self, rows: usize) -> Result<Vec<Conversation>, DataError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < rows
            && bytes < CHUNK_BYTES
            && let Some(record) = self.record()?
        {
            bytes += record.size();
            records.push(record);
        }
        if records.is_empty() && rows > 0 {
            self.check_fields()?;
        }
        let parser = &self.parser;
        let parsed: Vec<_> = records
            .par_iter()
            .map(|record| parser.parse(record))
            .collect();
        let mut conversations = Vec::with_capacity(parsed.len());
        for parsed in parsed {
            let Parsed {
                conversation,
                unread,
                found,
                leading_answers,
            } = parsed?;
            for key in unread {
                *self.ignored_keys.entry(key).or_default() += 1;
            }
            for field in found {
                self.unseen.remove(&field);
            }
            self.leading_answers += usize::from(leading_answers);
            conversations.push(conversation);
        }
        Ok(conversations)
    }

    /// Skips at most `rows` rows without parsing them, and returns how many it skipped.
    ///
    /// # Errors
    /// [`DataError`] if a file cannot be read.
    pub fn skip(&mut self, rows: usize) -> Result<usize, DataError> {
        let mut skipped = 0;
        while skipped < rows && self.record()?.is_some() {
            skipped += 1;
        }
        Ok(skipped)
    }

    /// The next record of the files.
    fn record(&mut self) -> Result<Option<Record>, DataError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if let Some(current) = &mut self.current {
            match current.next()? {
                Some(record) => return Ok(Some(record)),
                None => self.current = None,
            }
        }
        let Some(file) = self.files.pop_front() else {
            return Ok(None);
        };
        let mut records = Records::open(&file, &self.bytes_read)?;
        let Some(first) = records.next()? else {
            return Err(DataError::Empty { path: file });
        };
        self.current = Some(records);
        Ok(Some(first))
    }

    /// At the end of the data, checks that every key in `fields` was in some row.
    fn check_fields(&self) -> Result<(), DataError> {
        let Some(field) = self.unseen.iter().find(|field| !Fields::is_nested(field)) else {
            return Ok(());
        };
        Err(DataError::Config {
            key: "train.fields",
            problem: format!(
                "no row has the key `{}`, which `fields` reads as `{field}`",
                self.parser.reading.fields.own(field)
            ),
        })
    }
}

impl Parser {
    /// A record as an object, with its keys renamed to those of the format.
    fn row(&self, record: &Record) -> Result<Result<Row, RowError>, DataError> {
        let row = match &record.content {
            Content::Columns(columns) => {
                let mut row = Row::new(columns.clone());
                row.typed = true;
                Ok(row)
            }
            Content::Json(text, column) => parse(text, &record.origin, *column)?,
        };
        Ok(row.and_then(|mut row| {
            row.rename(&self.reading.fields)?;
            refused::check(&row)?;
            Ok(row)
        }))
    }

    fn parse(&self, record: &Record) -> Result<Parsed, DataError> {
        let format = self.format;
        let read = self.row(record)?.and_then(|mut row| {
            if !row.has(format.spec().mark)
                && let Some(found) = Format::of(&row)
            {
                let keys = row.keys();
                return Err(RowError::OtherFormat {
                    format: format.name(),
                    expected: format.keys(),
                    found: found.name(),
                    keys,
                });
            }
            let found = row.renamed();
            row.drop_leading_answers = self.reading.drop_leading_answers;
            row.tools = take_tools(&mut row)?;
            let mut content = (format.spec().read)(&mut row)?;
            weigh(&mut row, &mut content)?;
            if row.tools.is_some() && format == Format::Text {
                return Err(RowError::UnusedKey {
                    key: "tools".into(),
                });
            }
            let mut conversation = Conversation::new(content);
            conversation.tools = row.tools.take();
            let leading_answers = row.dropped_answers;
            Ok(Parsed {
                conversation,
                unread: row.unread()?,
                found,
                leading_answers,
            })
        });
        match read {
            Ok(mut parsed) => {
                parsed.conversation.origin = record.origin.clone();
                Ok(parsed)
            }
            Err(error) => Err(DataError::row(record.origin.clone(), error)),
        }
    }
}

/// Parses one row. The outer error is about the JSON, the inner one about the row.
fn parse(text: &str, origin: &Origin, column: usize) -> Result<Result<Row, RowError>, DataError> {
    match serde_json::from_str::<Row>(text) {
        Ok(row) => Ok(Ok(row)),
        Err(error) => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(value) if !value.is_object() => Ok(Err(RowError::NotAnObject {
                found: json_type(&value),
            })),
            _ => Err(DataError::json(&origin.file, &error, origin.line, column)),
        },
    }
}

/// All rows of a file.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::next_chunk`].
pub fn read(path: &Path, format: Option<Format>) -> Result<Vec<Conversation>, DataError> {
    let reading = Reading {
        format,
        ..Reading::default()
    };
    let mut reader = Reader::open(&crate::file::files(path)?, &reading)?;
    let mut rows = Vec::new();
    loop {
        let chunk = reader.next_chunk(usize::MAX)?;
        if chunk.is_empty() {
            return Ok(rows);
        }
        rows.extend(chunk);
    }
}
