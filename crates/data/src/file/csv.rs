//! CSV: a header of column names, then rows.

use std::collections::HashSet;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};
use serde_json::Value;

use super::{Content, Fault, MAX_RECORD, decompress};

/// The rows of a CSV file.
pub(super) struct Records {
    reader: Reader<Guarded>,
    columns: Vec<String>,
}

impl Records {
    pub(super) fn open(
        path: &Path,
        delimiter: u8,
        columns: Option<&[String]>,
        read: &Arc<AtomicU64>,
    ) -> Result<Records, Fault> {
        let source = Guarded {
            source: decompress::open(path, read)?,
            allowed: MAX_RECORD,
            end: &[],
            ended: false,
        };
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(source);
        let mut records = Records {
            reader,
            columns: Vec::new(),
        };
        let columns: Vec<String> = if let Some(columns) = columns {
            columns.to_vec()
        } else {
            let header = records.record()?.map(|(header, _)| header);
            header.iter().flatten().map(str::to_owned).collect()
        };
        let mut seen = HashSet::new();
        if let Some(twice) = columns.iter().find(|column| !seen.insert(column.as_str())) {
            let what = format!("duplicate column `{twice}`");
            return Err(Fault::Csv { line: 1, what });
        }
        records.columns = columns;
        Ok(records)
    }

    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        let Some((row, line)) = self.record()? else {
            return Ok(None);
        };
        if row.len() != self.columns.len() {
            let what = format!(
                "expected {} fields as in the header, found {}",
                self.columns.len(),
                row.len()
            );
            return Err(Fault::Csv { line, what });
        }
        let values = row.iter().map(|text| Value::String(text.to_owned()));
        let columns = self.columns.iter().cloned().zip(values);
        Ok(Some((Content::Columns(columns.collect()), line)))
    }

    /// The next record and the line on which it starts. The header is a record.
    fn record(&mut self) -> Result<Option<(StringRecord, usize)>, Fault> {
        let before = self.reader.position().line() as usize;
        self.reader.get_mut().allowed = MAX_RECORD;
        let mut record = StringRecord::new();
        if !self
            .reader
            .read_record(&mut record)
            .map_err(|error| fault(error, before))?
        {
            return Ok(None);
        }
        let line = record.position().map_or(before, |at| at.line() as usize);
        if record.as_slice().len() > MAX_RECORD {
            return Err(Fault::Long { line });
        }
        match record.as_slice().strip_suffix(END.trim_start()) {
            None => {}
            Some("") => return Ok(None),
            Some(_) => {
                let what = "a quoted field that starts in this row has no closing quote".to_owned();
                return Err(Fault::Csv { line, what });
            }
        }
        Ok(Some((record, line)))
    }
}

/// Appended to the end of a file: a row of its own, unless the file ends inside quotes, which the parser does not
/// report.
const END: &str = "\n\0end\0";

/// A reader that fails at a record above the size limit.
struct Guarded {
    source: Box<dyn BufRead + Send>,
    /// Bytes that may be read before the next record must end.
    allowed: usize,
    /// The part of [`END`] that is not read yet.
    end: &'static [u8],
    ended: bool,
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.allowed == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let most = buffer.len().min(self.allowed);
        if !self.ended && most > 0 {
            let count = self.source.read(&mut buffer[..most])?;
            self.allowed -= count;
            if count > 0 {
                return Ok(count);
            }
            self.ended = true;
            self.end = END.as_bytes();
        }
        self.end.read(buffer)
    }
}

fn fault(error: csv::Error, line: usize) -> Fault {
    let line = error.position().map_or(line, |at| at.line() as usize);
    match error.into_kind() {
        ErrorKind::Utf8 { .. } => Fault::Utf8(line),
        ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => Fault::Long { line },
        ErrorKind::Io(error) => Fault::Io(error),
        other => Fault::Csv {
            line,
            what: format!("{other:?}"),
        },
    }
}
