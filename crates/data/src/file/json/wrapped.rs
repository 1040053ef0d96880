//! Files that are one object with the rows in a list below one of its keys: `{"data": [{...}, ...]}`.

use std::io::BufRead;

use serde_json::{Map, Value};

use super::super::Fault;
use super::input::Input;
use super::scanner::{Scanner, length};

/// Bytes of a list that are looked at.
const BEGINNING: usize = 1 << 16;

/// Bytes of a key that may name a list of rows.
const MOST_OF_KEY: usize = 256;

/// Keys of rows: an object that has one of them is a row itself.
const OF_ROWS: [&str; 11] = [
    "messages",
    "conversations",
    "conversation",
    "instruction",
    "prompt",
    "text",
    "query",
    "question",
    "input",
    "chosen",
    "instances",
];

/// Keys whose lists of objects belong to a row.
const OF_A_ROW: [&str; 5] = ["tools", "functions", "tool_calls", "history", "choices"];

/// What a JSON file that begins with an object holds.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Shape {
    /// Rows, one after another.
    Rows,
    /// One object, with the rows in the list below this key.
    Wrapped(String),
    /// One object with several lists that may be the rows.
    Several(Vec<String>),
}

/// Looks at the keys of the first object. Only if nothing follows it, it may hold the rows.
pub(in super::super) fn shape(source: impl BufRead) -> Result<Shape, Fault> {
    let mut input = Input::new(source);
    input.skip_mark();
    let mut lists = Vec::new();
    let mut is_row = false;
    let ended = input.members(|input, key| {
        let is_list = input.skip_blanks()? == Some(b'[');
        let beginning = input.value(if is_list { BEGINNING } else { 0 })?;
        is_row |= OF_ROWS.contains(&key.as_str());
        if is_list && holds_rows(&beginning) && !OF_A_ROW.contains(&key.as_str()) {
            lists.push(key);
        }
        Ok(true)
    })?;
    if !ended || is_row || lists.is_empty() || input.skip_blanks()?.is_some() {
        return Ok(Shape::Rows);
    }
    Ok(match <[String; 1]>::try_from(lists) {
        Ok([key]) => Shape::Wrapped(key),
        Err(keys) => Shape::Several(keys),
    })
}

/// Whether a list has an object first, and this is no message of a conversation.
fn holds_rows(list: &[u8]) -> bool {
    let first = list.get(1..).unwrap_or_default().trim_ascii_start();
    if first.first() != Some(&b'{') {
        return false;
    }
    let Some(end) = length(first) else {
        return true;
    };
    let object = serde_json::from_slice::<Map<String, Value>>(&first[..end]);
    object.is_ok_and(|object| {
        let has = |keys: [&str; 2]| keys.iter().any(|key| object.contains_key(*key));
        !(has(["role", "from"]) && (has(["content", "value"]) || object.contains_key("tool_calls")))
    })
}

impl<R: BufRead> Input<R> {
    /// Goes through the keys of an object. `member` is called with each key before its value, which it takes; it returns
    /// whether to go on. The result is whether the object ended; no error of the JSON is reported here.
    pub(super) fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, String) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        if self.skip_blanks()? != Some(b'{') {
            return Ok(false);
        }
        self.take(1)?;
        loop {
            let Some(key) = self.key()? else {
                return Ok(false);
            };
            if self.skip_blanks()? != Some(b':') {
                return Ok(false);
            }
            self.take(1)?;
            if !member(self, key)? {
                return Ok(false);
            }
            match self.skip_blanks()? {
                Some(b',') => self.take(1)?,
                Some(b'}') => {
                    self.take(1)?;
                    return Ok(true);
                }
                _ => return Ok(false),
            }
        }
    }

    /// Takes a key; `None` if there is none, or one that is longer than keys are.
    fn key(&mut self) -> Result<Option<String>, Fault> {
        if self.skip_blanks()? != Some(b'"') {
            return Ok(None);
        }
        let mut scanner = Scanner::default();
        let mut key = Vec::new();
        while key.len() < MOST_OF_KEY {
            let Some(&byte) = self.buffer()?.first() else {
                return Ok(None);
            };
            self.take(1)?;
            scanner.ends_before(byte);
            key.push(byte);
            if !scanner.in_string {
                return Ok(serde_json::from_slice(&key).ok());
            }
        }
        Ok(None)
    }

    /// Takes a value, up to the comma or bracket after it, and returns its first `keep` bytes.
    fn value(&mut self, keep: usize) -> Result<Vec<u8>, Fault> {
        self.skip_blanks()?;
        let mut scanner = Scanner::default();
        let mut kept = Vec::new();
        loop {
            let buffer = self.buffer()?;
            let end = buffer.iter().position(|&byte| scanner.ends_before(byte));
            let count = end.unwrap_or(buffer.len());
            kept.extend_from_slice(&buffer[..count.min(keep - kept.len())]);
            let done = end.is_some() || buffer.is_empty();
            self.take(count)?;
            if done {
                return Ok(kept);
            }
        }
    }

    /// Goes to the first element of the list below a key of the object that follows. Returns whether there is such a list.
    pub(super) fn enter(&mut self, wanted: &str) -> Result<bool, Fault> {
        let mut found = false;
        self.members(|input, key| {
            if key == wanted && input.skip_blanks()? == Some(b'[') {
                input.take(1)?;
                found = true;
                return Ok(false);
            }
            input.value(0)?;
            Ok(true)
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_with_one_list_of_rows_is_told_from_a_row() {
        let rows = |text: &str| shape(text.as_bytes()).unwrap();
        let wrapped = |key: &str| Shape::Wrapped(key.to_owned());
        let row = r#"{"instruction": "a", "output": "b"}"#;
        assert_eq!(
            rows(&format!("\u{FEFF}{{\"data\": [{row}]}}\n")),
            wrapped("data")
        );
        let beside = format!(
            r#"{{"version": "1 [", "n": [1, {{}}], "rows" : [ {row}, {row}], "of": {{"a": [{row}]}} }}"#
        );
        assert_eq!(rows(&beside), wrapped("rows"));
        let several = format!(r#"{{"train": [{row}], "test": [{row}]}}"#);
        let both = vec!["train".to_owned(), "test".to_owned()];
        assert_eq!(rows(&several), Shape::Several(both));
        for text in [
            row.to_owned(),
            String::new(),
            format!("[{row}]"),
            format!("{{\"data\": [{row}]}}\n{{\"data\": []}}"),
            format!("{{\"data\": [{row}"),
            format!("{{\"data\": {row}}}"),
            r#"{"messages": [{"role": "user", "content": "a"}]}"#.to_owned(),
            r#"{"turns": [{"from": "human", "value": "a"}], "tools": [{"type": "function"}]}"#
                .to_owned(),
            format!(r#"{{"instruction": "a", "instances": [{row}]}}"#),
            r#"{"data": ["a"]}"#.to_owned(),
            r#"{"data": []}"#.to_owned(),
        ] {
            assert_eq!(rows(&text), Shape::Rows, "{text}");
        }
    }
}
