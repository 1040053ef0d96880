//! CSV: a header of column names, then rows.

use std::io::BufRead;
use std::path::Path;

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};
use serde_json::Value;

use super::{Content, Fault, MAX_RECORD, decompress};

/// The rows of a CSV file.
pub(super) struct Records {
    reader: Reader<Box<dyn BufRead + Send>>,
    columns: Vec<String>,
}

impl Records {
    pub(super) fn open(path: &Path, delimiter: u8) -> Result<Records, Fault> {
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .from_reader(decompress::open(path)?);
        let header = reader.headers().map_err(|error| fault(error, 1))?;
        let mut columns: Vec<String> = header.iter().map(str::to_owned).collect();
        if let Some(first) = columns.first_mut() {
            *first = first.trim_start_matches('\u{FEFF}').to_owned();
        }
        for (place, column) in columns.iter().enumerate() {
            if columns[..place].contains(column) {
                let what = format!("the column `{column}` is there twice");
                return Err(Fault::Csv { line: 1, what });
            }
        }
        Ok(Records { reader, columns })
    }

    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        let line = self.reader.position().line() as usize;
        let mut row = StringRecord::new();
        if !self
            .reader
            .read_record(&mut row)
            .map_err(|error| fault(error, line))?
        {
            return Ok(None);
        }
        let line = row
            .position()
            .map_or(line, |position| position.line() as usize);
        if row.as_slice().len() > MAX_RECORD {
            return Err(Fault::Long { line });
        }
        let values = row.iter().map(|text| Value::String(text.to_owned()));
        let columns = self.columns.iter().cloned().zip(values);
        Ok(Some((Content::Columns(columns.collect()), line)))
    }
}

fn fault(error: csv::Error, line: usize) -> Fault {
    let at = |position: &Option<csv::Position>| {
        position
            .as_ref()
            .map_or(line, |position| position.line() as usize)
    };
    match error.kind() {
        ErrorKind::Utf8 { pos, .. } => Fault::Utf8(at(pos)),
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => Fault::Csv {
            line: at(pos),
            what: format!("{len} fields, expected {expected_len} as in the header"),
        },
        _ => match error.into_kind() {
            ErrorKind::Io(error) => Fault::Io(error),
            other => Fault::Csv {
                line,
                what: format!("{other:?}"),
            },
        },
    }
}
