//! Files into conversations, chunk by chunk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::row::Row;
use super::{Fields, Format};
use crate::conversation::{Conversation, Origin};
use crate::error::{DataError, RowError, json_type};
use crate::file::{Content, Record, Records};

/// How rows are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The layout of the rows; recognised from the first without it.
    pub format: Option<Format>,
    /// What the rows call the keys of their layout.
    pub fields: Fields,
    /// Whether answers before the first question are left out, as FastChat does; else they are an error.
    pub drop_leading_answers: bool,
}

/// The rows of several files of one layout.
#[derive(Debug)]
pub struct Reader {
    files: VecDeque<PathBuf>,
    current: Option<Records>,
    /// Read to recognise the layout.
    first: Option<Record>,
    parser: Parser,
    ignored_keys: BTreeMap<String, usize>,
    unseen: BTreeSet<String>,
    leading_answers: usize,
    bytes_read: Arc<AtomicU64>,
}

/// The most bytes of rows that a chunk goes on with, so that long rows do not fill the memory.
const CHUNK_BYTES: usize = 16 << 20;

/// What turns records into conversations.
#[derive(Debug)]
struct Parser {
    format: Format,
    reading: Reading,
}

/// What became of one record.
struct Parsed {
    conversation: Conversation,
    unread: Vec<String>,
    found: Vec<String>,
    leading_answers: bool,
}

impl Reader {
    /// Opens files whose rows have one layout.
    ///
    /// # Errors
    /// [`DataError`] when a file cannot be read or has no rows, when no layout has the keys of the first row, and when the
    /// layout has no such field as is to be renamed.
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
            let no_layout = || RowError::NoLayout {
                keys: keys.keys(),
                known: Format::list(),
            };
            reader.parser.format = Format::of(&keys).ok_or_else(|| row(no_layout()))?;
        }
        reading.fields.check(reader.format())?;
        Ok(reader)
    }

    /// The layout of the rows.
    pub fn format(&self) -> Format {
        self.parser.format
    }

    /// Keys that were there, said something and were not read, and in how many rows so far.
    pub fn ignored_keys(&self) -> &BTreeMap<String, usize> {
        &self.ignored_keys
    }

    /// Rows so far that began with an answer, which was left out.
    pub fn leading_answers(&self) -> usize {
        self.leading_answers
    }

    /// Bytes of the files that were read so far, compressed ones as they lie on the disk.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// At most `rows` more rows, fewer where they are long, in order; none at the end.
    ///
    /// # Errors
    /// [`DataError`] at the first row that is not of the layout or no row at all, and at the end where a renamed field was
    /// in no row.
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

    /// Passes over at most `rows` rows without looking at them; how many there were.
    ///
    /// # Errors
    /// [`DataError`] where a file cannot be read.
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

    /// At the end: a field that no row had was named wrongly.
    fn check_fields(&self) -> Result<(), DataError> {
        let Some(field) = self.unseen.iter().find(|field| !Fields::is_nested(field)) else {
            return Ok(());
        };
        Err(DataError::Config {
            key: "train.fields",
            problem: format!(
                "no row has the key `{}`, which is to be read as `{field}`",
                self.parser.reading.fields.own(field)
            ),
        })
    }
}

impl Parser {
    /// A record as an object, its renamed fields under the names of the layout.
    fn row(&self, record: &Record) -> Result<Result<Row, RowError>, DataError> {
        let row = match &record.content {
            Content::Columns(columns) => Ok(Row::new(columns.clone())),
            Content::Json(text, column) => parse(text, &record.origin, *column)?,
        };
        Ok(row.and_then(|mut row| {
            row.rename(&self.reading.fields)?;
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
                return Err(RowError::OtherLayout {
                    format: format.name(),
                    expected: format.keys(),
                    found: found.name(),
                    keys,
                });
            }
            let found = row.renamed();
            row.drop_leading_answers = self.reading.drop_leading_answers;
            let content = (format.spec().read)(&mut row)?;
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

/// Parses one row; an outer error is about JSON, an inner one about the row.
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
