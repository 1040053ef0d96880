//! A data file into conversations, each with its row and line.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::value::RawValue;

use super::Format;
use super::row::{Row, RowError, json_type};
use crate::conversation::{Conversation, Origin};
use crate::error::DataError;

/// The rows of one file.
#[derive(Debug)]
pub struct Source {
    /// The file, as it was named.
    pub file: Arc<Path>,
    /// The layout of its rows.
    pub format: Format,
    /// Its rows, in file order.
    pub conversations: Vec<Conversation>,
    /// Keys that were there, said something and were not read, and in how many rows.
    pub ignored_keys: BTreeMap<String, usize>,
}

/// Reads a JSON array or JSONL file whose rows have the layout `format`, or the one that the first row has.
///
/// # Errors
/// [`DataError`] when the file cannot be read or is no UTF-8, at the line and column where it is no JSON, when it has no
/// rows, and at the first row that is not of the layout.
pub fn read(path: &Path, format: Option<Format>) -> Result<Source, DataError> {
    let file: Arc<Path> = Arc::from(path);
    let bytes = std::fs::read(path).map_err(|source| DataError::Read {
        path: path.into(),
        source,
    })?;
    let text = utf8(&bytes, path)?;
    let rows = split(text, path)?;
    let Some(first) = rows.first() else {
        return Err(DataError::Empty { path: path.into() });
    };
    let at = |index: usize, line: usize| Origin {
        file: file.clone(),
        row: index + 1,
        line,
    };
    let format = match format {
        Some(format) => format,
        None => recognise(first, path)?.map_err(|e| DataError::row(at(0, first.line), e))?,
    };
    let read: Vec<_> = rows
        .par_iter()
        .enumerate()
        .map(|(index, raw)| conversation(raw, format, at(index, raw.line), path))
        .collect();

    let mut conversations = Vec::with_capacity(read.len());
    let mut ignored_keys = BTreeMap::new();
    for result in read {
        let (conversation, unread) = result?;
        conversations.push(conversation);
        for key in unread {
            *ignored_keys.entry(key).or_default() += 1;
        }
    }
    Ok(Source {
        file,
        format,
        conversations,
        ignored_keys,
    })
}

/// One row's text and where it starts.
struct RawRow<'a> {
    text: &'a str,
    line: usize,
    column: usize,
}

fn utf8<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str, DataError> {
    // A byte order mark is no JSON, but some editors write one.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| DataError::NotUtf8 {
        path: path.into(),
        line: bytes[..error.valid_up_to()]
            .split(|&byte| byte == b'\n')
            .count(),
    })
}

/// Cuts a file into the texts of its rows.
fn split<'a>(text: &'a str, path: &Path) -> Result<Vec<RawRow<'a>>, DataError> {
    if text.trim_start().starts_with('[') {
        split_array(text, path)
    } else {
        Ok(split_lines(text))
    }
}

fn split_array<'a>(text: &'a str, path: &Path) -> Result<Vec<RawRow<'a>>, DataError> {
    let raw: Vec<&'a RawValue> =
        serde_json::from_str(text).map_err(|e| DataError::json(path, &e, 1, 1))?;
    // Each raw value is a slice of `text`, in order, so that lines are counted once over.
    let (mut position, mut line, mut line_start) = (0, 1, 0);
    let rows = raw.into_iter().map(|value| {
        let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
        for (offset, byte) in text.as_bytes()[position..start].iter().enumerate() {
            if *byte == b'\n' {
                line += 1;
                line_start = position + offset + 1;
            }
        }
        position = start;
        RawRow {
            text: value.get(),
            line,
            column: start - line_start + 1,
        }
    });
    Ok(rows.collect())
}

fn split_lines(text: &str) -> Vec<RawRow<'_>> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| RawRow {
            text: line,
            line: index + 1,
            column: 1,
        })
        .collect()
}

/// Parses one row; an outer error is about JSON, an inner one about the row.
fn parse(raw: &RawRow, path: &Path) -> Result<Result<Row, RowError>, DataError> {
    match serde_json::from_str::<Row>(raw.text) {
        Ok(row) => Ok(Ok(row)),
        Err(error) => match serde_json::from_str::<serde_json::Value>(raw.text) {
            Ok(value) if !value.is_object() => Ok(Err(RowError::NotAnObject {
                found: json_type(&value),
            })),
            _ => Err(DataError::json(path, &error, raw.line, raw.column)),
        },
    }
}

fn recognise(raw: &RawRow, path: &Path) -> Result<Result<Format, RowError>, DataError> {
    let row = match parse(raw, path)? {
        Ok(row) => row,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Format::of(&row).ok_or_else(|| RowError::NoLayout { keys: row.keys() }))
}

fn conversation(
    raw: &RawRow,
    format: Format,
    origin: Origin,
    path: &Path,
) -> Result<(Conversation, Vec<String>), DataError> {
    let read = parse(raw, path)?.and_then(|mut row| {
        if !row.has(format.spec().mark)
            && let Some(found) = Format::of(&row)
        {
            let keys = row.keys();
            return Err(RowError::OtherLayout {
                format,
                found,
                keys,
            });
        }
        let content = (format.spec().read)(&mut row)?;
        Ok((content, row.unread()?))
    });
    match read {
        Ok((content, unread)) => {
            let mut conversation = Conversation::new(content);
            conversation.origin = origin;
            Ok((conversation, unread))
        }
        Err(error) => Err(DataError::row(origin, error)),
    }
}
