//! The rows of a task.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use simmer_data::file::{FileRow, rows};
use simmer_data::{DataError, Origin};

use crate::error::EvalError;
use crate::task::{Table, Task};

/// The field that holds the name of a row's file, without its ending.
const FILE: &str = "file";

/// The field that holds the name of the folder of a row's file.
const FOLDER: &str = "folder";

/// The origin of a row, and its fields.
pub(super) type Row = (Origin, Map<String, Value>);

/// The rows of the first of `files` that exists.
pub(super) fn read(task: &Task, files: &[String], folder: &Path) -> Result<Vec<Row>, EvalError> {
    let path = first(task, files, folder)?;
    let rows = rows(&path, task.columns.as_deref())?.into_iter();
    Ok(rows.map(with_file).collect())
}

fn with_file(row: FileRow) -> Row {
    let FileRow { origin, mut fields } = row;
    let stem = origin.file.file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy().into_owned();
    fields.entry(FILE).or_insert(Value::String(stem));
    let folder = origin.file.parent().and_then(Path::file_name);
    let folder = folder.unwrap_or_default().to_string_lossy().into_owned();
    fields.entry(FOLDER).or_insert(Value::String(folder));
    (origin, fields)
}

/// Whether two rows have the same fields, whatever their files.
pub(super) fn same(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let of_row = |(name, _): &(&String, &Value)| *name != FILE && *name != FOLDER;
    one.iter().filter(of_row).eq(other.iter().filter(of_row))
}

/// The first of a task's files that exists, by its path in the folder or by its name alone.
pub(super) fn first(task: &Task, files: &[String], folder: &Path) -> Result<PathBuf, EvalError> {
    let below = files.iter().map(|file| folder.join(file));
    let inside = files.iter().filter_map(|file| {
        let file = Path::new(file);
        let name = file.file_name()?;
        // any file is one of `*.json`: then the folder must be the one of that name
        let says_something = !name.to_string_lossy().starts_with("*.");
        let fits = says_something || file.parent().is_some_and(|parent| folder.ends_with(parent));
        fits.then(|| folder.join(name))
    });
    for path in below.chain(inside) {
        match simmer_data::file::files(&path) {
            Ok(found) if found.iter().all(|file| file.exists()) => return Ok(path),
            Ok(_) | Err(DataError::NoFiles { .. } | DataError::Read { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(EvalError::NoFile {
        name: task.name.clone(),
        folder: folder.to_owned(),
        files: files.to_vec(),
    })
}

/// A row that is part of the task file.
pub(super) fn of_toml(table: &toml::Table) -> Map<String, Value> {
    let fields = table.iter();
    fields
        .filter_map(|(key, value)| Some((key.clone(), serde_json::to_value(value).ok()?)))
        .collect()
}

/// The rows of a table.
pub(super) struct Rows {
    key: String,
    path: PathBuf,
    found: HashMap<String, Map<String, Value>>,
}

impl Rows {
    pub(super) fn by_key(task: &Task, table: &Table, folder: &Path) -> Result<Self, EvalError> {
        let path = first(task, &table.files, folder)?;
        let mut found = HashMap::new();
        for FileRow { origin, fields } in rows(&path, None)? {
            let Some(key) = fields.get(&table.key) else {
                return Err(EvalError::row(
                    &origin,
                    format!("field `{}` is missing", table.key),
                ));
            };
            found.insert(word(key), fields);
        }
        Ok(Self {
            key: table.key.clone(),
            path,
            found,
        })
    }

    pub(super) fn get(&self, key: &Value) -> Result<&Map<String, Value>, String> {
        let Self {
            key: name, path, ..
        } = self;
        let found = self.found.get(&word(key));
        found.ok_or_else(|| format!("{} has no row whose `{name}` is {key}", path.display()))
    }
}

fn word(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
