//! The rows of a file as they are, for callers that know the keys.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Content, Opening, Record, Records, files};
use crate::conversation::Origin;
use crate::error::{DataError, RowError, json_type};

/// One row and its position.
#[derive(Debug, Clone, PartialEq)]
pub struct FileRow {
    /// Its position.
    pub origin: Origin,
    /// Its keys and values.
    pub fields: Map<String, Value>,
}

/// All rows of a file, of a folder's files, or of the files that match a pattern.
///
/// `columns` are the column names of a CSV file without a header.
///
/// # Errors
/// [`DataError`] for the first row that cannot be read, and for a file without rows.
pub fn rows(path: &Path, columns: Option<&[String]>) -> Result<Vec<FileRow>, DataError> {
    let mut rows = Vec::new();
    for file in files(path)? {
        let before = rows.len();
        let opening = Opening {
            columns,
            ..Opening::default()
        };
        let mut records = Records::open_as(&file, opening, &Arc::default())?;
        while let Some(record) = records.next()? {
            rows.push(row(record)?);
        }
        if rows.len() == before {
            return Err(DataError::Empty { path: file });
        }
    }
    Ok(rows)
}

fn row(record: Record) -> Result<FileRow, DataError> {
    let Record { content, origin } = record;
    let fields = match content {
        Content::Columns(columns) => columns.into_iter().collect(),
        Content::Json(text, column) => match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => fields,
            Ok(other) => {
                let found = json_type(&other);
                return Err(DataError::row(origin, RowError::NotAnObject { found }));
            }
            Err(error) => return Err(DataError::json(&origin, &error, &text, column)),
        },
    };
    Ok(FileRow { origin, fields })
}
