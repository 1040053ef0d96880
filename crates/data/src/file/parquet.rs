//! Parquet: rows of typed columns.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Value};

use super::{Content, Fault, MAX_RECORD, decompress, size};

/// The rows of a Parquet file.
pub(super) struct Records {
    rows: RowIter<'static>,
    /// Rows handed out, of how many.
    done: u64,
    total: u64,
    /// Bytes of the file, and how many of them the rows so far stand for.
    bytes: u64,
    read: Arc<AtomicU64>,
}

impl Records {
    pub(super) fn open(path: &Path, read: &Arc<AtomicU64>) -> Result<Records, Fault> {
        let bytes = path.metadata().map_err(Fault::Open)?.len();
        let file = decompress::seekable(path)?;
        let (rows, total) = guarded(|| rows(file))?;
        Ok(Records {
            rows,
            done: 0,
            total,
            bytes,
            read: Arc::clone(read),
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        let columns = guarded(|| self.rows.next().map(|row| columns(row?)).transpose())?;
        let Some(columns) = columns else {
            return Ok(None);
        };
        if columns.iter().map(|(_, value)| size(value)).sum::<usize>() > MAX_RECORD {
            return Err(Fault::Long { line: 0 });
        }
        let part = |rows: u64| {
            (u128::from(self.bytes) * u128::from(rows) / u128::from(self.total.max(1))) as u64
        };
        let more = part(self.done + 1) - part(self.done);
        self.read.fetch_add(more, Ordering::Relaxed);
        self.done += 1;
        Ok(Some((Content::Columns(columns), 0)))
    }
}

/// What reading Parquet can fail with.
type Failure = Box<dyn std::error::Error>;

/// Runs a piece of the decoder, which panics at some of the files that are none.
fn guarded<T>(read: impl FnOnce() -> Result<T, Failure>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|failure| Fault::Parquet(failure.to_string())),
        Err(_) => Err(Fault::Parquet("its parts do not fit together".into())),
    }
}

fn rows(file: File) -> Result<(RowIter<'static>, u64), Failure> {
    let reader = SerializedFileReader::new(file)?;
    let total = reader.metadata().file_metadata().num_rows();
    // The schema as it is: every column is there.
    let rows = RowIter::from_file_into(Box::new(reader));
    Ok((rows, u64::try_from(total)?))
}

fn columns(row: Row) -> Result<Vec<(String, Value)>, Failure> {
    row.into_columns()
        .into_iter()
        .map(|(name, field)| {
            let value = value(field).map_err(|problem| format!("column `{name}`: {problem}"))?;
            Ok((name, value))
        })
        .collect()
}

/// The value of a field. Bytes that no type calls text are text all the same, where they can be: the crate's own JSON would
/// make letters and digits of them that nobody wrote.
fn value(field: Field) -> Result<Value, String> {
    Ok(match field {
        Field::Str(text) => Value::String(text),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => return Err("it holds bytes that are no UTF-8".into()),
        },
        Field::Group(row) => Value::Object(object(row.into_columns())?),
        Field::ListInternal(list) => {
            let items = list.elements().iter().cloned().map(value);
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        other => other.to_json_value(),
    })
}

fn object(columns: Vec<(String, Field)>) -> Result<Map<String, Value>, String> {
    let pairs = columns.into_iter();
    pairs
        .map(|(name, field)| Ok((name, value(field)?)))
        .collect()
}
