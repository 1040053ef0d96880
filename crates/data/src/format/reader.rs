//! Reads files as conversations, chunk by chunk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::refused::{self, weigh};
use super::row::{May, Row};
use super::structure::take_tools;
use super::{Fields, Format, suggest};
use crate::bad::BadRow;
use crate::conversation::{Conversation, Origin};
use crate::error::{DataError, RowError, json_type};
use crate::file::{Content, Opening, Record, Records, SampleBy};
use crate::integer;

/// How rows are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The format of the rows. Default: detected from the first row.
    pub format: Option<Format>,
    /// The rows' own names for the keys of the format.
    pub fields: Fields,
    /// Whether to drop answers before the first user message, as FastChat does; otherwise they are an error.
    pub drop_leading_answers: bool,
    /// Whether rows may lack the answer, as prompts do that are to be answered.
    pub without_answers: bool,
    /// What one row of a text file is.
    pub sample_by: SampleBy,
    /// Whether the format is that of the first row that has one; otherwise the first row must have it.
    pub skip_bad: bool,
}

/// How many rows may come before the first that has a format.
const MOST_UNKNOWN: usize = 1000;

/// The rows of one or more files with the same format.
#[derive(Debug)]
pub struct Reader {
    files: VecDeque<PathBuf>,
    current: Option<Records>,
    /// The first records, which were read to detect the format.
    first: VecDeque<Result<Record, BadRow>>,
    parser: Parser,
    ignored_keys: BTreeMap<String, usize>,
    unseen: BTreeSet<String>,
    leading_answers: usize,
    wrapper: Option<String>,
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
            first: VecDeque::new(),
            parser: Parser {
                format: reading.format.unwrap_or(Format::Text),
                reading: reading.clone(),
            },
            ignored_keys: BTreeMap::new(),
            unseen: reading.fields.names().map(str::to_owned).collect(),
            leading_answers: 0,
            wrapper: None,
            bytes_read: Arc::default(),
        };
        reader.detect()?;
        if reader.first.is_empty() {
            let path = files.first().cloned().unwrap_or_default();
            return Err(DataError::Empty { path });
        }
        reading.fields.check(reader.format())?;
        Ok(reader)
    }

    /// Reads rows up to the first that has a format.
    fn detect(&mut self) -> Result<(), DataError> {
        let most = if self.parser.reading.skip_bad {
            MOST_UNKNOWN
        } else {
            1
        };
        let mut read = VecDeque::new();
        while read.len() < most
            && let Some(next) = self.record()?
        {
            let format = match (&next, self.parser.reading.format) {
                (_, Some(format)) => Some(format),
                (Ok(record), None) => self.parser.detect(record).ok(),
                (Err(_), None) => None,
            };
            read.push_back(next);
            if let Some(format) = format {
                self.parser.format = format;
                self.first = read;
                return Ok(());
            }
        }
        match read.pop_front() {
            None => Ok(()),
            Some(Err(bad)) => Err(*bad.error),
            Some(Ok(first)) => self.parser.detect(&first).map(|_| ()),
        }
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

    /// The key below which a file had its rows, if it was one JSON object.
    pub(crate) fn wrapper(&self) -> Option<&str> {
        self.wrapper.as_deref()
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
        let rows = self.next_rows(rows)?.into_iter();
        rows.map(|row| row.map_err(|bad| *bad.error)).collect()
    }

    /// Like [`Reader::next_chunk`], with what is wrong with a row in its place.
    ///
    /// # Errors
    /// [`DataError`] if a file cannot be read further, and at the end if no row had a key that `fields` names.
    pub(crate) fn next_rows(
        &mut self,
        rows: usize,
    ) -> Result<Vec<Result<Conversation, BadRow>>, DataError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < rows
            && bytes < CHUNK_BYTES
            && let Some(record) = self.record()?
        {
            bytes += record.as_ref().map_or(0, Record::size);
            records.push(record);
        }
        if records.is_empty() && rows > 0 {
            self.check_fields()?;
        }
        let parser = &self.parser;
        let parsed: Vec<_> = records
            .into_par_iter()
            .map(|record| {
                let record = record?;
                let parsed = parser.parse(&record);
                parsed.map_err(|error| BadRow::new(record.origin, error))
            })
            .collect();
        let mut conversations = Vec::with_capacity(parsed.len());
        for parsed in parsed {
            let Parsed {
                conversation,
                unread,
                found,
                leading_answers,
            } = match parsed {
                Ok(parsed) => parsed,
                Err(bad) => {
                    conversations.push(Err(bad));
                    continue;
                }
            };
            for key in unread {
                *self.ignored_keys.entry(key).or_default() += 1;
            }
            for field in found {
                self.unseen.remove(&field);
            }
            self.leading_answers += usize::from(leading_answers);
            conversations.push(Ok(conversation));
        }
        Ok(conversations)
    }

    /// All rows that are left; those that cannot be used are left out if the reading skips them.
    ///
    /// # Errors
    /// As [`Reader::next_chunk`].
    pub fn rest(mut self) -> Result<Vec<Conversation>, DataError> {
        let mut all = Vec::new();
        loop {
            let chunk = self.next_rows(usize::MAX)?;
            if chunk.is_empty() {
                return Ok(all);
            }
            for row in chunk {
                match row {
                    Ok(row) => all.push(row),
                    Err(_) if self.parser.reading.skip_bad => {}
                    Err(bad) => return Err(*bad.error),
                }
            }
        }
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

    /// The next record of the files, or what is wrong with it.
    fn record(&mut self) -> Result<Option<Result<Record, BadRow>>, DataError> {
        if let Some(first) = self.first.pop_front() {
            return Ok(Some(first));
        }
        if let Some(current) = &mut self.current {
            match current.next_row()? {
                Some(record) => return Ok(Some(record)),
                None => self.current = None,
            }
        }
        let Some(file) = self.files.pop_front() else {
            return Ok(None);
        };
        let opening = Opening {
            sample_by: self.parser.reading.sample_by,
            ..Opening::default()
        };
        let mut records = Records::open_as(&file, opening, &self.bytes_read)?;
        let Some(first) = records.next_row()? else {
            return Err(DataError::Empty { path: file });
        };
        if let Some(key) = records.wrapper() {
            self.wrapper = Some(key.to_owned());
        }
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
                "no row has the key {}",
                self.parser.reading.fields.absent(field)
            ),
        })
    }
}

impl Parser {
    /// The format of a row.
    fn detect(&self, record: &Record) -> Result<Format, DataError> {
        let row = |error| DataError::row(record.origin.clone(), error);
        let keys = self.row(record)?.map_err(row)?;
        let unknown_format = || RowError::UnknownFormat {
            null: Format::of_null(&keys),
            reading: suggest::for_row(&keys),
            keys: keys.keys(),
            known: Format::list(),
            absent: keys.absent(),
        };
        Format::of(&keys).ok_or_else(|| row(unknown_format()))
    }

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
            row.may = May {
                drop_leading_answers: self.reading.drop_leading_answers,
                lack_answers: self.reading.without_answers,
            };
            row.tools = take_tools(&mut row)?;
            let mut content = (format.spec().read)(&mut row)?;
            weigh(&mut row, &mut content)?;
            if row.tools.is_some() && format == Format::Text {
                return Err(RowError::UnusedKey {
                    key: "tools".into(),
                });
            }
            let mut conversation = Conversation::new(content);
            conversation.list = row.list(format);
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
    match integer::from_str::<Row>(text) {
        Ok(row) => Ok(Ok(row)),
        Err(error) => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(value) if !value.is_object() => Ok(Err(RowError::NotAnObject {
                found: json_type(&value),
            })),
            // valid JSON with two equal keys
            Ok(_) => {
                let what = error.to_string();
                let what = what
                    .split(" at line ")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                Ok(Err(RowError::Twice { what }))
            }
            Err(_) => Err(DataError::json(origin, &error, text, column)),
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
    Reader::open(&crate::file::files(path)?, &reading)?.rest()
}
