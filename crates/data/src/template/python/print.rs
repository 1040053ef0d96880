//! How Python writes values as text: `str` and `repr`, and `json.dumps`.
//!
//! Lists may contain the same list many times, and be nested deeply. So the output is limited by the template's remaining
//! steps, and the writer keeps its own stack.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::{BYTES_PER_STEP, pay};
use crate::integer::Long;

/// How a value is written.
#[derive(Debug)]
pub(super) enum Style {
    /// Python's `repr`: `{'a': [1, None]}`.
    Repr,
    /// `json.dumps`: `{"a": [1, null]}`.
    Json(Json),
}

/// The arguments of `json.dumps`.
#[derive(Debug)]
pub(super) struct Json {
    /// Whether characters beyond ASCII are escaped.
    pub(super) ensure_ascii: bool,
    /// The indentation of one level; `None`: everything is on one line.
    pub(super) indent: Option<String>,
    /// The text between items.
    pub(super) item: String,
    /// The text between a key and its value.
    pub(super) key: String,
    /// Whether keys are sorted.
    pub(super) sort_keys: bool,
}

/// A float as Python's `repr` writes it: the shortest decimal number that reads as the same float; with an exponent of
/// at least two digits below 1e-4 and from 1e16.
///
/// Source: `float_repr_style` "short" in CPython's `Python/pystrtod.c`.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    // Rust's `Debug` has Python's limits, but writes `1e16` for `1e+16` and `1e-7` for `1e-07`.
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// The float in a value, unless it is an integer or no number.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    (value.is_number() && !value.is_integer())
        .then(|| f64::try_from(value.clone()).ok())
        .flatten()
}

/// The value as text in the given style.
pub(super) fn write(state: &State, value: &Value, style: &Style) -> Result<String, Error> {
    let mut out = Out::of(state);
    let mut open: Vec<Frame> = Vec::new();
    let mut next = Some(value.clone());
    loop {
        if let Some(value) = next.take() {
            match Frame::of(state, &value, style)? {
                Some(frame) => {
                    out.push(frame.brackets.0)?;
                    open.push(frame);
                }
                None => leaf(&mut out, &value, style)?,
            }
        }
        let depth = open.len();
        let Some(frame) = open.last_mut() else {
            return Ok(out.text);
        };
        if let Some(item) = frame.items.next() {
            frame.count += 1;
            if frame.count > 1 {
                out.push(style.item())?;
            }
            style.line(&mut out, depth)?;
            next = Some(frame.enter(&mut out, item?, style)?);
            continue;
        }
        if frame.count > 0 {
            style.line(&mut out, depth - 1)?;
        }
        out.push(frame.closing())?;
        open.pop();
    }
}

impl Style {
    fn item(&self) -> &str {
        match self {
            Style::Repr => ", ",
            Style::Json(json) => &json.item,
        }
    }

    fn key(&self) -> &str {
        match self {
            Style::Repr => ": ",
            Style::Json(json) => &json.key,
        }
    }

    /// Starts a line at this depth, if the style has lines.
    fn line(&self, out: &mut Out, depth: usize) -> Result<(), Error> {
        if let Style::Json(Json {
            indent: Some(indent),
            ..
        }) = self
        {
            out.room(indent.len().saturating_mul(depth).saturating_add(1))?;
            out.push("\n")?;
            for _ in 0..depth {
                out.push(indent)?;
            }
        }
        Ok(())
    }
}

/// A list or dict that is being written.
struct Frame {
    value: Value,
    items: Items,
    count: usize,
    brackets: (&'static str, &'static str),
    dict: bool,
}

/// The items of a list, or the keys of a dict. An item may be the error of a filter that is applied lazily.
type Items = Box<dyn Iterator<Item = Result<Value, Error>>>;

impl Frame {
    /// The frame of a list or dict; `None` for other values.
    fn of(state: &State, value: &Value, style: &Style) -> Result<Option<Frame>, Error> {
        let dict = value.kind() == ValueKind::Map;
        if !(dict || matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)) {
            return Ok(None);
        }
        let items: Items = match style {
            Style::Json(Json {
                sort_keys: true, ..
            }) if dict => Box::new(sorted(state, value)?.into_iter().map(Ok)),
            _ => Box::new(value.try_iter()?.checked()),
        };
        let brackets = match style {
            _ if dict => ("{", "}"),
            Style::Repr if value.is_tuple() => ("(", ")"),
            _ => ("[", "]"),
        };
        Ok(Some(Frame {
            value: value.clone(),
            items,
            count: 0,
            brackets,
            dict,
        }))
    }

    /// Writes the key, if this is a dict, and returns the value to write next.
    fn enter(&self, out: &mut Out, item: Value, style: &Style) -> Result<Value, Error> {
        if !self.dict {
            return Ok(item);
        }
        match style {
            Style::Repr => leaf(out, &item, style)?,
            Style::Json(json) => key(out, &item, json)?,
        }
        out.push(style.key())?;
        self.value.get_item(&item)
    }

    fn closing(&self) -> &'static str {
        match (self.brackets.1, self.count) {
            // A tuple of one item.
            (")", 1) => ",)",
            (bracket, _) => bracket,
        }
    }
}

/// The keys of a dict, sorted as Python sorts them: texts by their characters, numbers by size.
fn sorted(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    let mut keys = Vec::new();
    for key in value.try_iter()? {
        pay(state, BYTES_PER_STEP)?;
        keys.push(key);
    }
    let all = |kind: &dyn Fn(&Value) -> bool| keys.iter().all(kind);
    let text = |key: &Value| key.kind() == ValueKind::String;
    let number = |key: &Value| matches!(key.kind(), ValueKind::Number | ValueKind::Bool);
    if keys.len() > 1 && !all(&text) && !all(&number) {
        return Err(wrong("tojson: cannot sort keys of different types"));
    }
    keys.sort();
    Ok(keys)
}

/// A key of an object, which JSON writes as text.
fn key(out: &mut Out, key: &Value, json: &Json) -> Result<(), Error> {
    match (key.as_str(), key.kind()) {
        (Some(text), _) => quoted(out, text, json.ensure_ascii),
        (None, ValueKind::Number | ValueKind::Bool | ValueKind::None) => {
            out.push("\"")?;
            out.push(&scalar(key)?)?;
            out.push("\"")
        }
        (None, kind) => Err(wrong(format!(
            "tojson: keys must be texts, numbers, booleans or none, not {kind}"
        ))),
    }
}

/// Writes a value that is neither list nor dict.
fn leaf(out: &mut Out, value: &Value, style: &Style) -> Result<(), Error> {
    match (value.as_str(), style) {
        (Some(text), Style::Repr) => repr(out, text),
        (Some(text), Style::Json(json)) => quoted(out, text, json.ensure_ascii),
        (None, Style::Json(_)) => out.push(&scalar(value)?),
        (None, Style::Repr) => match as_float(value) {
            Some(number) => out.push(&float(number)),
            None if value.is_undefined() => out.push("Undefined"),
            None if value.kind() == ValueKind::Plain => out.push(&value.to_string()),
            None => out.push(&format!("{value:?}")),
        },
    }
}

/// A number, boolean or none in JSON.
fn scalar(value: &Value) -> Result<String, Error> {
    if let Some(digits) = Long::of(value) {
        return Ok(digits.into());
    }
    Ok(match value.kind() {
        ValueKind::None => "null".into(),
        ValueKind::Bool => value.is_true().to_string(),
        ValueKind::Number => match as_float(value) {
            Some(number) if number.is_nan() => "NaN".into(),
            Some(f64::INFINITY) => "Infinity".into(),
            Some(f64::NEG_INFINITY) => "-Infinity".into(),
            Some(number) => float(number),
            None => value.to_string(),
        },
        // As in Python, where `json.dumps` refuses them.
        kind => return Err(wrong(format!("tojson: a value of type {kind} is not JSON"))),
    })
}

/// A text in JSON.
fn quoted(out: &mut Out, text: &str, ensure_ascii: bool) -> Result<(), Error> {
    out.room(text.len())?;
    let to = &mut out.text;
    to.push('"');
    for character in text.chars() {
        match character {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            '\u{8}' => to.push_str("\\b"),
            '\u{c}' => to.push_str("\\f"),
            ' '..='~' => to.push(character),
            '\u{7f}'.. if !ensure_ascii => to.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(to, "\\u{unit:04x}");
                }
            }
        }
    }
    to.push('"');
    out.room(0)
}

/// A text as Python's `repr` writes it.
fn repr(out: &mut Out, text: &str) -> Result<(), Error> {
    out.room(text.len())?;
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let to = &mut out.text;
    to.push(quote);
    for character in text.chars() {
        match (character, character as u32) {
            ('\\', _) => to.push_str("\\\\"),
            ('\n', _) => to.push_str("\\n"),
            ('\r', _) => to.push_str("\\r"),
            ('\t', _) => to.push_str("\\t"),
            (same, _) if same == quote => to.extend(['\\', quote]),
            (_, 0x20..=0x7e) => to.push(character),
            _ if is_printable(character) => to.push(character),
            (_, code @ ..=0xff) => {
                let _ = write!(to, "\\x{code:02x}");
            }
            (_, code @ ..=0xffff) => {
                let _ = write!(to, "\\u{code:04x}");
            }
            (_, code) => {
                let _ = write!(to, "\\U{code:08x}");
            }
        }
    }
    to.push(quote);
    out.room(0)
}

/// Whether Python's `str.isprintable` holds for a character beyond ASCII: it is no control or format character, no
/// separator, and assigned.
///
/// Rust escapes the same characters, and combining ones at the start of a text, which the letter before them prevents.
fn is_printable(character: char) -> bool {
    let text = String::from_iter(['a', character]);
    text.escape_debug().eq(text.chars())
}

fn wrong(problem: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

/// Text whose length is limited by the template's remaining steps.
struct Out {
    text: String,
    limit: usize,
}

impl Out {
    fn of(state: &State) -> Out {
        let steps = state.fuel_levels().map_or(u64::MAX, |(_, left)| left);
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        Out {
            text: String::new(),
            limit: steps.saturating_mul(BYTES_PER_STEP),
        }
    }

    /// Fails if there is no room for more bytes.
    fn room(&self, more: usize) -> Result<(), Error> {
        if self.text.len().saturating_add(more) > self.limit {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        Ok(())
    }

    fn push(&mut self, text: &str) -> Result<(), Error> {
        self.room(text.len())?;
        self.text.push_str(text);
        Ok(())
    }
}
