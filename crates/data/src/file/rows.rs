//! The rows of a file as they stand there, for those who know their own keys.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Content, Record, Records, files};
use crate::conversation::Origin;
use crate::error::{DataError, RowError, json_type};

/// One row, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct FileRow {
    /// Where it stands.
    pub origin: Origin,
    /// Its keys and values.
    pub fields: Map<String, Value>,
}

/// All rows of a file, of a folder's files, or of those of a pattern.
///
/// `columns` are the names of a CSV file's columns where its first line is a row already.
///
/// # Errors
/// [`DataError`] at the first row that cannot be read, and where there is none.
pub fn rows(path: &Path, columns: Option<&[String]>) -> Result<Vec<FileRow>, DataError> {
    let mut rows = Vec::new();
    for file in files(path)? {
        let before = rows.len();
        let mut records = Records::named(&file, columns, &Arc::default())?;
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
            Err(error) => return Err(DataError::json(&origin.file, &error, origin.line, column)),
        },
    };
    Ok(FileRow { origin, fields })
}
