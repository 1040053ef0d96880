//! Arrow: record batches in a stream, as `datasets` saves them, or in an Arrow file.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, Date32Type, Date64Type, Decimal128Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, Fields, TimeUnit};
use serde_json::{Map, Number, Value};

use super::{Content, Fault, MAX_RECORD, decompress, size, twice};
use crate::guarded::guarded;

/// The first bytes of an Arrow file; a stream has none.
const MAGIC: &[u8] = b"ARROW1";

/// The maximum number of values in a row.
const MAX_VALUES: usize = 1 << 24;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// The rows of an Arrow file.
pub(super) struct Records {
    batches: Batches,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    row: usize,
}

impl Records {
    pub(super) fn new(file: File, path: &Path, read: &Arc<AtomicU64>) -> Result<Records, Fault> {
        let bytes = file.metadata().map_err(Fault::Open)?.len();
        let mut file = decompress::seekable(file, path)?;
        let mut start = Vec::new();
        (&mut file)
            .take(MAGIC.len() as u64)
            .read_to_end(&mut start)
            .and_then(|_| file.seek(SeekFrom::Start(0)))
            .map_err(Fault::Io)?;
        // The batches of a file are in any order, so its bytes are counted as a whole.
        read.fetch_add(bytes, Ordering::Relaxed);
        let (batches, twice) = decoded(|| batches(file, start == MAGIC))?;
        if let Some(column) = twice {
            return Err(Fault::Twice(column));
        }
        Ok(Records {
            batches,
            batch: None,
            row: 0,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        loop {
            if let Some(batch) = &self.batch
                && self.row < batch.num_rows()
            {
                let row = self.row;
                self.row += 1;
                let columns = decoded(|| columns(batch, row))?;
                if columns.iter().map(|(_, value)| size(value)).sum::<usize>() > MAX_RECORD {
                    return Err(Fault::Long { line: 0 });
                }
                return Ok(Some((Content::Columns(columns), 0)));
            }
            let Some(batch) = decoded(|| Ok(self.batches.next().transpose()?))? else {
                return Ok(None);
            };
            self.batch = Some(batch);
            self.row = 0;
        }
    }
}

/// Any error of reading Arrow.
type Failure = Box<dyn std::error::Error>;

/// Runs decoder code; a panic becomes an error.
fn decoded<T>(read: impl FnOnce() -> Result<T, Failure>) -> Result<T, Fault> {
    match guarded(read) {
        Some(result) => result.map_err(|failure| Fault::Arrow(failure.to_string())),
        None => Err(Fault::Arrow("the file is inconsistent".into())),
    }
}

/// The batches, and the first name that two columns of one structure have.
fn batches(file: File, is_file: bool) -> Result<(Batches, Option<String>), Failure> {
    let file = BufReader::with_capacity(1 << 20, file);
    Ok(if is_file {
        let reader = FileReader::try_new(file, None)?;
        let twice = duplicate(reader.schema().fields());
        (Box::new(reader), twice)
    } else {
        let reader = StreamReader::try_new(file, None)?;
        let twice = duplicate(reader.schema().fields());
        (Box::new(reader), twice)
    })
}

fn duplicate(fields: &Fields) -> Option<String> {
    let own = twice(fields.iter().map(|field| field.name().as_str()));
    let below = || {
        fields.iter().find_map(|field| match field.data_type() {
            DataType::Struct(fields) => duplicate(fields),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                match item.data_type() {
                    DataType::Struct(fields) => duplicate(fields),
                    _ => None,
                }
            }
            _ => None,
        })
    };
    own.map(str::to_owned).or_else(below)
}

fn columns(batch: &RecordBatch, row: usize) -> Result<Vec<(String, Value)>, Failure> {
    let mut left = MAX_VALUES;
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    columns
        .map(|(field, column)| {
            let name = field.name();
            let value = value(column, row, &mut left)
                .map_err(|problem| format!("column `{name}`: {problem}"))?;
            Ok((name.clone(), value))
        })
        .collect()
}

/// The value of a row. `left` is the number of values that the whole row may still have.
fn value(array: &dyn Array, row: usize, left: &mut usize) -> Result<Value, String> {
    *left = left
        .checked_sub(1)
        .ok_or_else(|| format!("expected at most {MAX_VALUES} values in a row, found more"))?;
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Binary => text(array.as_binary::<i32>().value(row))?,
        DataType::LargeBinary => text(array.as_binary::<i64>().value(row))?,
        DataType::BinaryView => text(array.as_binary_view().value(row))?,
        DataType::List(_) => list(&*array.as_list::<i32>().value(row), left)?,
        DataType::LargeList(_) => list(&*array.as_list::<i64>().value(row), left)?,
        DataType::FixedSizeList(_, _) => list(&*array.as_fixed_size_list().value(row), left)?,
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let pairs = fields.iter().zip(columns);
            let object: Result<Map<_, _>, String> = pairs
                .map(|(field, column)| Ok((field.name().clone(), value(column, row, left)?)))
                .collect();
            Value::Object(object?)
        }
        DataType::Map(_, _) => entries(&array.as_map().value(row), left)?,
        DataType::Dictionary(key, _) => match &**key {
            DataType::Int8 => entry::<Int8Type>(array, row, left)?,
            DataType::Int16 => entry::<Int16Type>(array, row, left)?,
            DataType::Int32 => entry::<Int32Type>(array, row, left)?,
            DataType::Int64 => entry::<Int64Type>(array, row, left)?,
            DataType::UInt8 => entry::<UInt8Type>(array, row, left)?,
            DataType::UInt16 => entry::<UInt16Type>(array, row, left)?,
            DataType::UInt32 => entry::<UInt32Type>(array, row, left)?,
            _ => entry::<UInt64Type>(array, row, left)?,
        },
        _ => number(array, row)?,
    })
}

/// The value of a row of numbers or times.
fn number(array: &dyn Array, row: usize) -> Result<Value, String> {
    let float = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
    Ok(match array.data_type() {
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(row).into()),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, _) => array
            .as_primitive::<Decimal128Type>()
            .value_as_string(row)
            .into(),
        DataType::Date32 => time(array.as_primitive::<Date32Type>().value_as_date(row)),
        DataType::Date64 => time(array.as_primitive::<Date64Type>().value_as_datetime(row)),
        DataType::Timestamp(unit, _) => time(match unit {
            TimeUnit::Second => array
                .as_primitive::<TimestampSecondType>()
                .value_as_datetime(row),
            TimeUnit::Millisecond => array
                .as_primitive::<TimestampMillisecondType>()
                .value_as_datetime(row),
            TimeUnit::Microsecond => array
                .as_primitive::<TimestampMicrosecondType>()
                .value_as_datetime(row),
            TimeUnit::Nanosecond => array
                .as_primitive::<TimestampNanosecondType>()
                .value_as_datetime(row),
        }),
        other => return Err(format!("values of type {other} are not read")),
    })
}

fn time(time: Option<impl ToString>) -> Value {
    time.map_or(Value::Null, |time| Value::String(time.to_string()))
}

/// Bytes without a text type are text if they are valid UTF-8, as in Parquet.
fn text(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes);
    text.map(Value::from)
        .map_err(|_| "it has bytes that are not UTF-8".to_owned())
}

fn list(items: &dyn Array, left: &mut usize) -> Result<Value, String> {
    let items = (0..items.len()).map(|row| value(items, row, left));
    Ok(Value::Array(items.collect::<Result<_, _>>()?))
}

/// A map with texts as keys is an object.
fn entries(entries: &dyn Array, left: &mut usize) -> Result<Value, String> {
    let entries = entries.as_struct();
    let mut object = Map::new();
    for row in 0..entries.len() {
        let Value::String(key) = value(entries.column(0), row, left)? else {
            return Err("a map has keys that are not text".into());
        };
        object.insert(key, value(entries.column(1), row, left)?);
    }
    Ok(Value::Object(object))
}

/// The value that a row of a dictionary refers to.
fn entry<K: ArrowDictionaryKeyType>(
    array: &dyn Array,
    row: usize,
    left: &mut usize,
) -> Result<Value, String> {
    let dictionary = array.as_dictionary::<K>();
    match dictionary.key(row) {
        Some(key) => value(dictionary.values(), key, left),
        None => Ok(Value::Null),
    }
}
