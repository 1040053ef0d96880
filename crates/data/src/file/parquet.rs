//! Parquet: rows of typed columns.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::{Content, Fault, MAX_RECORD, decompress, size, twice};
use crate::guarded::guarded;
use crate::stack::deep;

/// The maximum number of list items in a row, with some slack, because pages are counted as a whole.
const MAX_ITEMS: u64 = 1 << 24;
/// The maximum size of the metadata, in bytes: that of a file with a thousand row groups of fifty columns each.
const MAX_METADATA: u32 = 8 << 20;
/// Bytes of stack per byte of metadata: a nested group has at least 5 bytes and takes less than 1100 bytes of stack.
const STACK_PER_BYTE: usize = 256;
/// The maximum nesting of groups; no known writer nests columns so deeply.
const MAX_NESTING: usize = 64;

/// The rows of a Parquet file.
pub(super) struct Records {
    rows: RowIter<'static>,
    /// Rows returned, and rows in total.
    done: u64,
    total: u64,
    /// The size of the file in bytes, and the counter of bytes read: each row counts as an equal share of the file.
    bytes: u64,
    read: Arc<AtomicU64>,
    /// List items that the next row may still have.
    items: Arc<AtomicU64>,
}

impl Records {
    pub(super) fn new(file: File, path: &Path, read: &Arc<AtomicU64>) -> Result<Records, Fault> {
        let bytes = file.metadata().map_err(Fault::Open)?.len();
        let file = decompress::seekable(file, path)?;
        let items = Arc::new(AtomicU64::new(MAX_ITEMS));
        let (rows, total, twice) = decoded(|| rows(file, &items))?;
        if let Some(column) = twice {
            return Err(Fault::Twice(column));
        }
        Ok(Records {
            rows,
            done: 0,
            total,
            bytes,
            read: Arc::clone(read),
            items,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        self.items.store(MAX_ITEMS, Ordering::Relaxed);
        let columns = decoded(|| self.rows.next().map(|row| columns(row?)).transpose())?;
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

/// Any error of reading Parquet.
type Failure = Box<dyn std::error::Error>;

/// Runs decoder code; a panic becomes an error.
fn decoded<T>(read: impl FnOnce() -> Result<T, Failure>) -> Result<T, Fault> {
    match guarded(read) {
        Some(result) => result.map_err(|failure| Fault::Parquet(failure.to_string())),
        None => Err(Fault::Parquet("the file is inconsistent".into())),
    }
}

/// The length of the file's metadata, from its footer `LENGTH PAR1`; `None` if the footer is invalid.
fn metadata_bytes(file: &mut File) -> Option<u32> {
    let mut footer = [0; 8];
    let before = file.seek(SeekFrom::End(-(footer.len() as i64))).ok()?;
    file.read_exact(&mut footer).ok()?;
    let (length, magic) = footer.split_first_chunk()?;
    let length = u32::from_le_bytes(*length);
    (magic == b"PAR1" && u64::from(length) <= before).then_some(length)
}

fn rows(
    mut file: File,
    items: &Arc<AtomicU64>,
) -> Result<(RowIter<'static>, u64, Option<String>), Failure> {
    let metadata = metadata_bytes(&mut file).unwrap_or(0);
    if metadata > MAX_METADATA {
        return Err(
            format!("expected at most {MAX_METADATA} bytes of metadata, found {metadata}").into(),
        );
    }
    // The schema is a tree that the library reads recursively.
    let reader = deep(
        (1 << 20) + STACK_PER_BYTE * metadata as usize,
        || -> ParquetResult<_> {
            let reader = SerializedFileReader::new(file)?;
            let nesting = nesting(reader.metadata().file_metadata().schema());
            if nesting > MAX_NESTING {
                let problem = format!(
                    "expected at most {MAX_NESTING} nested groups of columns, found {nesting}"
                );
                return Err(ParquetError::General(problem));
            }
            Ok(reader)
        },
    );
    let reader = reader.ok_or("the system provides no stack to read it on")??;
    let metadata = reader.metadata().file_metadata();
    let total = metadata.num_rows();
    let twice = duplicate(metadata.schema());
    let reader = Counted {
        inner: reader,
        items: Arc::clone(items),
    };
    // Without a projection, rows have every column.
    let rows = RowIter::from_file_into(Box::new(reader));
    Ok((rows, u64::try_from(total)?, twice))
}

/// The first name that two columns of one group have. The nesting was checked.
fn duplicate(group: &Type) -> Option<String> {
    let Type::GroupType { fields, .. } = group else {
        return None;
    };
    let own = twice(fields.iter().map(|field| field.name()));
    let below = || fields.iter().find_map(|field| duplicate(field));
    own.map(str::to_owned).or_else(below)
}

fn nesting(column: &Type) -> usize {
    let below = match column {
        Type::GroupType { fields, .. } => fields.iter().map(|field| nesting(field)).max(),
        Type::PrimitiveType { .. } => None,
    };
    1 + below.unwrap_or(0)
}

/// A reader that counts list items: a few bytes of a file can encode any number of them.
struct Counted<R> {
    inner: R,
    items: Arc<AtomicU64>,
}

impl FileReader for Counted<SerializedFileReader<File>> {
    fn metadata(&self) -> &ParquetMetaData {
        self.inner.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.inner.num_row_groups()
    }

    fn get_row_group(&self, i: usize) -> ParquetResult<Box<dyn RowGroupReader + '_>> {
        Ok(Box::new(Counted {
            inner: self.inner.get_row_group(i)?,
            items: Arc::clone(&self.items),
        }))
    }

    fn get_row_iter(&self, projection: Option<Type>) -> ParquetResult<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

impl RowGroupReader for Counted<Box<dyn RowGroupReader + '_>> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.inner.metadata()
    }

    fn num_columns(&self) -> usize {
        self.inner.num_columns()
    }

    fn get_column_page_reader(&self, i: usize) -> ParquetResult<Box<dyn PageReader>> {
        let pages = self.inner.get_column_page_reader(i)?;
        let column = self.metadata().schema_descr().column(i);
        if column.max_rep_level() == 0 {
            return Ok(pages);
        }
        Ok(Box::new(Counted {
            inner: pages,
            items: Arc::clone(&self.items),
        }))
    }

    fn get_column_bloom_filter(&self, i: usize) -> Option<&Sbbf> {
        self.inner.get_column_bloom_filter(i)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> ParquetResult<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

impl PageReader for Counted<Box<dyn PageReader>> {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        let page = self.inner.get_next_page()?;
        let values = page.as_ref().map_or(0, Page::num_values);
        let left = self.items.load(Ordering::Relaxed);
        let Some(left) = left.checked_sub(u64::from(values)) else {
            let problem = format!("expected at most {MAX_ITEMS} list items in a row, found more");
            return Err(ParquetError::General(problem));
        };
        self.items.store(left, Ordering::Relaxed);
        Ok(page)
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.inner.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> ParquetResult<bool> {
        self.inner.at_record_boundary()
    }
}

impl Iterator for Counted<Box<dyn PageReader>> {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
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

/// The value of a field. Bytes without a text type become text if they are valid UTF-8; the crate's own JSON conversion
/// would turn them into base64.
fn value(field: Field) -> Result<Value, String> {
    Ok(match field {
        Field::Str(text) => Value::String(text),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => return Err("it has bytes that are not UTF-8".into()),
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
