//! Integers beyond 64 bits, which JSON may have and Python keeps; `serde_json` reads them as the nearest float.
//!
//! So such a number is put into an object with one reserved key before the text is parsed: `{"\u{EFFFF}": "12345..."}`. Chat
//! templates get the integer back ([`Exact`]). Finding them costs little: a text has a run of [`LEAST`] digits only if every
//! such run has a digit at a multiple of [`LEAST`].

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr};
use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// The key of an object that stands for an integer; a noncharacter, which no text should contain.
const KEY: &str = "\u{EFFFF}";

/// The digits of the largest `i64`. No integer with fewer is beyond 64 bits.
const LEAST: usize = 19;

/// Parses JSON, with integers beyond 64 bits as objects that [`digits`] knows.
///
/// # Errors
/// As `serde_json::from_str`; the position is that in `json`.
pub(crate) fn from_str<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    match kept(json) {
        Cow::Borrowed(json) => serde_json::from_str(json),
        Cow::Owned(kept) => serde_json::from_str(&kept).or_else(|_| serde_json::from_str(json)),
    }
}

/// The digits of an integer beyond 64 bits, if the value is one.
pub(crate) fn digits(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    let digits = object.get(KEY)?.as_str()?;
    is_long(digits).then_some(digits)
}

/// Whether a text is an integer beyond 64 bits.
fn is_long(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.len() >= LEAST
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
        && text.parse::<i64>().is_err()
        && text.parse::<u64>().is_err()
}

/// The JSON text with integers that would be read as floats in their own form, and `-0` as 0, as Python reads it.
fn kept(json: &str) -> Cow<'_, str> {
    let mut numbers = runs(json.as_bytes());
    numbers.extend(zeros(json));
    let differs = |text: &str| text == "-0" || is_long(text);
    numbers.retain(|number| is_number(json.as_bytes(), number) && differs(&json[number.clone()]));
    if numbers.is_empty() {
        return Cow::Borrowed(json);
    }
    numbers.sort_by_key(|number| number.start);
    let mut strings = Strings::default();
    let (mut out, mut done) = (String::with_capacity(json.len() + 32), 0);
    for number in numbers {
        if strings.contain(json.as_bytes(), number.start) {
            continue;
        }
        let text = &json[number.clone()];
        out.push_str(&json[done..number.start]);
        if text == "-0" {
            out.push('0');
        } else {
            out.extend(["{\"", KEY, "\":\"", text, "\"}"]);
        }
        done = number.end;
    }
    if done == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[done..]);
    Cow::Owned(out)
}

/// The runs of at least [`LEAST`] digits, with the sign before them.
fn runs(json: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut place = LEAST - 1;
    while let Some(byte) = json.get(place) {
        if byte.is_ascii_digit() {
            let digits = |byte: &&u8| byte.is_ascii_digit();
            let before = json[..place].iter().rev().take_while(digits).count();
            let after = json[place..].iter().take_while(digits).count();
            let start = place - before;
            if before + after >= LEAST {
                let sign = start > 0 && json[start - 1] == b'-';
                found.push(start - usize::from(sign)..place + after);
            }
            place += after;
        }
        place += LEAST;
    }
    found
}

/// The places of `-0`.
fn zeros(json: &str) -> impl Iterator<Item = Range<usize>> {
    let places = memchr::memmem::find_iter(json.as_bytes(), b"-0");
    places.map(|place| place..place + 2)
}

/// Whether a number of JSON starts and ends here, if this is not inside a string.
fn is_number(json: &[u8], place: &Range<usize>) -> bool {
    let is_edge = |byte: Option<&u8>, edges: &[u8]| {
        byte.is_none_or(|byte| byte.is_ascii_whitespace() || edges.contains(byte))
    };
    let before = place.start.checked_sub(1).and_then(|at| json.get(at));
    is_edge(before, b"[:,") && is_edge(json.get(place.end), b"]},")
}

/// Follows the strings of a JSON text.
#[derive(Default)]
struct Strings {
    at: usize,
    inside: bool,
}

impl Strings {
    /// Whether `place` is inside a string. Places must come in order.
    fn contain(&mut self, json: &[u8], place: usize) -> bool {
        while let Some(rest) = json.get(self.at..place).filter(|rest| !rest.is_empty()) {
            let Some(next) = memchr::memchr2(b'"', b'\\', rest) else {
                self.at = place;
                break;
            };
            if rest[next] == b'"' {
                self.inside = !self.inside;
                self.at += next + 1;
            } else {
                // The character after it is escaped.
                self.at += next + 2;
            }
        }
        self.inside
    }
}

/// A value that is serialised with its integers beyond 64 bits as integers.
pub(crate) struct Exact<'v>(pub(crate) &'v Value);

impl Serialize for Exact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(digits) = digits(self.0) {
            return match (digits.parse::<i128>(), digits.parse::<u128>()) {
                (Ok(number), _) => serializer.serialize_i128(number),
                (_, Ok(number)) => serializer.serialize_u128(number),
                // Only minijinja's serializer takes its own values as they are; for others this is a text.
                _ => minijinja::Value::from_object(Long(digits.into())).serialize(serializer),
            };
        }
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(Exact)),
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, &Exact(value))?;
                }
                map.end()
            }
            other => other.serialize(serializer),
        }
    }
}

/// An integer beyond 128 bits in a template. It is printed; templates cannot calculate with it.
#[derive(Debug)]
pub(crate) struct Long(String);

impl Long {
    /// The digits of such an integer.
    pub(crate) fn of(value: &minijinja::Value) -> Option<&str> {
        value
            .downcast_object_ref::<Long>()
            .map(|long| long.0.as_str())
    }
}

impl Object for Long {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn integer(digits: &str) -> Value {
        json!({ KEY: digits })
    }

    #[test]
    fn integers_keep_their_digits() {
        let read = |text: &str| from_str::<Value>(text).unwrap();
        for digits in [
            "18446744073709551616",
            "-9223372036854775809",
            "12345678901234567890123456789012345678901234567890",
        ] {
            assert_eq!(read(digits), integer(digits));
            assert_eq!(super::digits(&read(digits)), Some(digits));
            let text = format!(r#"{{"a": [1,{digits}, {{"b" :{digits}}}], "c": "x\",{digits},"}}"#);
            let expected = json!({
                "a": [1, integer(digits), {"b": integer(digits)}], "c": format!("x\",{digits},"),
            });
            assert_eq!(read(&text), expected);
        }
        // What fits, floats, and digits in strings are read as always.
        for text in [
            "[18446744073709551615, -9223372036854775808, 9223372036854775807]",
            "[12345678901234567890.5, 0.12345678901234567890123, 12345678901234567890123e5, 1e-0, -0.0, -0e1]",
            r#"["12345678901234567890123", ", 12345678901234567890123,", "\\", "a\":-0,"]"#,
            r#"{"12345678901234567890123": 20240101, "-0": "2024-01-05"}"#,
        ] {
            assert_eq!(read(text), serde_json::from_str::<Value>(text).unwrap());
            assert!(matches!(kept(text), Cow::Borrowed(_)), "{text}");
        }
        assert_eq!(read("[-0, -0]"), json!([0, 0]));
    }

    #[test]
    fn errors_are_at_the_place_in_the_text() {
        let text = "[12345678901234567890123, }";
        let error = from_str::<Value>(text).unwrap_err();
        assert_eq!((error.line(), error.column()), (1, 27));
        // A number does not start with 0.
        assert!(from_str::<Value>("[012345678901234567890123]").is_err());
    }

    proptest! {
        /// Wherever an integer stands, it is found.
        #[test]
        fn integers_are_found(before in "[a-z0-9 \\\\\"é]{0,30}", digits in "-?[1-9][0-9]{20,60}", after in 0..3_usize) {
            let text = serde_json::to_string(&before).unwrap();
            let spaces = " ".repeat(after);
            let read: Value = from_str(&format!("[{text},{spaces}{digits}{spaces}]")).unwrap();
            prop_assert_eq!(read, json!([before, integer(&digits)]));
        }
    }
}
