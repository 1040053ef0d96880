//! Typed access to the keys of a JSON object.

use std::path::Path;

use serde_json::Value;

use super::rope::RopeTable;
use super::{ConfigError, MAX_SIZE, RopeScaling};

/// Typed access to a JSON object, with errors that name file and key.
pub(crate) struct Keys<'a> {
    pub(crate) json: &'a Value,
    pub(crate) path: &'a Path,
}

impl Keys<'_> {
    pub(crate) fn error(&self, key: &str, expected: &str, found: Option<&Value>) -> ConfigError {
        ConfigError::Key {
            path: self.path.to_owned(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.map_or_else(|| "nothing".to_owned(), Value::to_string),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize, ConfigError> {
        let found = self.get(key);
        found
            .and_then(Value::as_u64)
            .and_then(|value| usize::try_from(value).ok())
            .filter(|value| (1..=MAX_SIZE).contains(value))
            .ok_or_else(|| {
                let large = found.is_some_and(|found| found.as_u64() > Some(MAX_SIZE as u64));
                let most = format!("at most {MAX_SIZE}");
                self.error(key, if large { &most } else { "a positive integer" }, found)
            })
    }

    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        self.get(key).map_or(Ok(default), |_| self.size(key))
    }

    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        let Some(found) = self.get(key) else {
            return Ok(default);
        };
        let number = found.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        number.ok_or_else(|| self.error(key, "a positive number", Some(found)))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        self.flag_or(key, false)
    }

    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let Some(found) = self.get(key) else {
            return Ok(default);
        };
        found
            .as_bool()
            .ok_or_else(|| self.error(key, "true or false", Some(found)))
    }

    /// One id, a list of ids, or none.
    pub(super) fn ids(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let Some(found) = self.get(key) else {
            return Ok(Vec::new());
        };
        let values = match found {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        values
            .iter()
            .map(|value| value.as_u64().and_then(|id| u32::try_from(id).ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| self.error(key, "a token id or a list of them", Some(found)))
    }

    /// The table of the rotary frequencies, and its key: `rope_parameters` of transformers 5, or `rope_scaling` of version 4.
    /// If a file has both, `rope_scaling` is used, and the other is not read at all.
    ///
    /// Source: `convert_rope_params_to_dict` in transformers' `modeling_rope_utils.py`.
    pub(super) fn rope_table(&self) -> (Option<&Value>, &'static str) {
        let old = self.get("rope_scaling");
        // An empty table is none in Python.
        let is_empty = |table: &Value| table.as_object().is_some_and(serde_json::Map::is_empty);
        match (
            self.get("rope_parameters"),
            old.filter(|table| !is_empty(table)),
        ) {
            (_, Some(table)) => (Some(table), "rope_scaling"),
            (table, None) => (table, "rope_parameters"),
        }
    }

    /// Base and scaling of the rotary frequencies: those of the table, or the top-level key `rope_theta`.
    pub(super) fn rope(&self, default_theta: f64) -> Result<(f64, RopeScaling), ConfigError> {
        let (table, name) = self.rope_table();
        let top = self.number_or("rope_theta", default_theta)?;
        let Some(table) = table else {
            return Ok((top, RopeScaling::Default));
        };
        let inner = Keys {
            json: table,
            path: self.path,
        };
        let theta = inner.number_or("rope_theta", top)?;
        let table = RopeTable {
            top: self,
            inner: &inner,
            name,
        };
        let scaling = table.scaling()?;
        Ok((theta, scaling))
    }
}
