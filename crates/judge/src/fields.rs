//! The fields of a row, by JSON pointers such as `/choices/0/turns`.

use serde_json::{Map, Value};
use simmer_data::file::FileRow;

/// A value of a row; `None` if it is missing, null or the pointer is empty.
pub(crate) fn at<'a>(row: &'a FileRow, pointer: &str) -> Option<&'a Value> {
    let mut keys = pointer.split('/').skip(1);
    let first: &Map<String, Value> = &row.fields;
    let mut value = first.get(keys.next()?)?;
    for key in keys {
        value = match value {
            Value::Object(object) => object.get(key)?,
            Value::Array(list) => list.get(key.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    (!value.is_null()).then_some(value)
}

/// A text that is not blank.
pub(crate) fn text<'a>(row: &'a FileRow, pointer: &str) -> Option<&'a str> {
    at(row, pointer)?
        .as_str()
        .filter(|text| !text.trim().is_empty())
}

/// The name of a question: text or a number.
pub(crate) fn id(row: &FileRow, pointers: &[&str]) -> Result<Option<String>, String> {
    for pointer in pointers {
        match at(row, pointer) {
            None => (),
            Some(Value::String(text)) => return Ok(Some(text.clone())),
            Some(Value::Number(number)) => return Ok(Some(number.to_string())),
            Some(other) => {
                return Err(format!(
                    "key `{}`: expected text or a number, found {}",
                    shown(pointer),
                    kind(other)
                ));
            }
        }
    }
    Ok(None)
}

/// A text, or a list of texts.
pub(crate) fn texts(row: &FileRow, pointer: &str) -> Result<Vec<String>, String> {
    let key = shown(pointer);
    let wrong = |found: &str| format!("key `{key}`: expected text, found {found}");
    let value = at(row, pointer).ok_or_else(|| wrong("nothing"))?;
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(wrong(kind(other))),
    };
    match value {
        Value::Array(list) if list.is_empty() => Err(wrong("an empty list")),
        Value::Array(list) => list.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// A pointer as messages show it: `choices[0].turns`.
pub(crate) fn shown(pointer: &str) -> String {
    let mut text = String::new();
    for key in pointer.split('/').skip(1) {
        if key.parse::<usize>().is_ok() {
            text.extend(["[", key, "]"]);
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text += key;
        }
    }
    text
}

/// What a value is, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
