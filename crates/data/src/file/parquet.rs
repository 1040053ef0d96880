//! Parquet: rows of typed columns.

use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use serde_json::Value;

use super::{Content, Fault, decompress};

/// The rows of a Parquet file.
pub(super) struct Records {
    rows: RowIter<'static>,
}

impl Records {
    pub(super) fn open(path: &Path) -> Result<Records, Fault> {
        let wrong = |error: parquet::errors::ParquetError| Fault::Parquet(error.to_string());
        let file = decompress::seekable(path)?;
        let reader: Box<dyn FileReader> = Box::new(SerializedFileReader::new(file).map_err(wrong)?);
        // The schema as it is: every column is there.
        let rows = RowIter::from_file_into(reader);
        Ok(Records { rows })
    }

    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        let Some(row) = self.rows.next() else {
            return Ok(None);
        };
        let row = row.map_err(|error| Fault::Parquet(error.to_string()))?;
        let columns = row.into_columns().into_iter();
        let columns: Vec<(String, Value)> = columns
            .map(|(name, field)| (name, field.to_json_value()))
            .collect();
        Ok(Some((Content::Columns(columns), 0)))
    }
}
