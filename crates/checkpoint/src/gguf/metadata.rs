//! Metadata: keys and values, in the order of the file.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use simmer_files::size::counted;

use super::GgufError;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "names of numeric types")]
pub enum ValueKind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueKind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// Bytes of one value, if the type has a fixed size.
    pub(super) fn bytes(self) -> Option<usize> {
        Some(match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::String | Self::Array => return None,
        })
    }
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "names of numeric types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Self::F32(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<Array> for Value {
    fn from(value: Array) -> Self {
        Self::Array(value)
    }
}

impl Value {
    pub(super) fn kind(&self) -> ValueKind {
        match self {
            Self::U8(_) => ValueKind::U8,
            Self::I8(_) => ValueKind::I8,
            Self::U16(_) => ValueKind::U16,
            Self::I16(_) => ValueKind::I16,
            Self::U32(_) => ValueKind::U32,
            Self::I32(_) => ValueKind::I32,
            Self::F32(_) => ValueKind::F32,
            Self::Bool(_) => ValueKind::Bool,
            Self::String(_) => ValueKind::String,
            Self::Array(_) => ValueKind::Array,
            Self::U64(_) => ValueKind::U64,
            Self::I64(_) => ValueKind::I64,
            Self::F64(_) => ValueKind::F64,
        }
    }

    fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::U8(x) => Some(x.into()),
            Self::U16(x) => Some(x.into()),
            Self::U32(x) => Some(x.into()),
            Self::U64(x) => Some(x),
            Self::I8(x) => x.try_into().ok(),
            Self::I16(x) => x.try_into().ok(),
            Self::I32(x) => x.try_into().ok(),
            Self::I64(x) => x.try_into().ok(),
            _ => None,
        }
    }
}

/// A short form for messages.
impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(x) => write!(out, "{x}"),
            Self::I8(x) => write!(out, "{x}"),
            Self::U16(x) => write!(out, "{x}"),
            Self::I16(x) => write!(out, "{x}"),
            Self::U32(x) => write!(out, "{x}"),
            Self::I32(x) => write!(out, "{x}"),
            Self::F32(x) => write!(out, "{x}"),
            Self::Bool(x) => write!(out, "{x}"),
            Self::U64(x) => write!(out, "{x}"),
            Self::I64(x) => write!(out, "{x}"),
            Self::F64(x) => write!(out, "{x}"),
            Self::String(text) => {
                let shown: String = text.chars().take(60).collect();
                let more = if shown.len() < text.len() { "..." } else { "" };
                write!(out, "{shown:?}{more}")
            }
            Self::Array(array) => {
                write!(out, "{} of {:?}", counted(array.len, "value"), array.kind)
            }
        }
    }
}

/// Values of one type, encoded as in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    pub(super) kind: ValueKind,
    pub(super) len: usize,
    /// The reader has checked that they hold `len` values of this type.
    pub(super) bytes: Bytes,
}

impl Array {
    /// An array of strings.
    pub fn strings<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Self {
        let mut bytes = Vec::new();
        let mut len = 0;
        for value in values {
            let value = value.as_ref();
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            bytes.extend_from_slice(value.as_bytes());
            len += 1;
        }
        Self {
            kind: ValueKind::String,
            len,
            bytes: bytes.into(),
        }
    }

    /// An array of f32.
    pub fn floats(values: &[f32]) -> Self {
        Self {
            kind: ValueKind::F32,
            len: values.len(),
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// An array of 32-bit integers.
    pub fn integers(values: &[i32]) -> Self {
        Self {
            kind: ValueKind::I32,
            len: values.len(),
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// An array of booleans.
    pub fn flags(values: &[bool]) -> Self {
        Self {
            kind: ValueKind::Bool,
            len: values.len(),
            bytes: values.iter().map(|&flag| u8::from(flag)).collect(),
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of each string; `None` if these are not strings.
    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = match self.kind {
            ValueKind::String => &self.bytes,
            _ => &[],
        };
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk()?;
            let (text, after) = after.split_at_checked(u64::from_le_bytes(*len) as usize)?;
            rest = after;
            Some(text)
        })
    }

    /// The integers, of any width; `None` if these are not integers.
    fn whole_numbers(&self) -> Option<Vec<i64>> {
        let read = |of: fn(&[u8]) -> i64, width: usize| {
            Some(self.bytes.chunks_exact(width).map(of).collect())
        };
        match self.kind {
            ValueKind::U8 => read(|x| x[0].into(), 1),
            ValueKind::I8 => read(|x| (x[0] as i8).into(), 1),
            ValueKind::U16 => read(|x| u16::from_le_bytes([x[0], x[1]]).into(), 2),
            ValueKind::I16 => read(|x| i16::from_le_bytes([x[0], x[1]]).into(), 2),
            ValueKind::U32 => read(|x| u32::from_le_bytes([x[0], x[1], x[2], x[3]]).into(), 4),
            ValueKind::I32 => read(|x| i32::from_le_bytes([x[0], x[1], x[2], x[3]]).into(), 4),
            _ => None,
        }
    }
}

/// The metadata of a file.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    places: HashMap<String, usize>,
}

impl Metadata {
    /// Empty metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// All keys with their values, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets a key. A new key is appended; an existing one keeps its place.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        if let Some(&place) = self.places.get(&key) {
            self.entries[place].1 = value;
        } else {
            self.places.insert(key.clone(), self.entries.len());
            self.entries.push((key, value));
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.places.get(key).map(|&place| &self.entries[place].1)
    }

    /// A string.
    ///
    /// # Errors
    /// If the key has another type.
    pub fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A boolean.
    ///
    /// # Errors
    /// If the key has another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// An integer of any width that is not negative.
    ///
    /// # Errors
    /// If the key has another type, or a negative value.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer from 0", Value::unsigned)
    }

    /// A size: an integer, or an array with the same integer for each layer.
    ///
    /// # Errors
    /// If the key has another type, or different integers.
    pub fn size(&self, key: &str) -> Result<Option<usize>, GgufError> {
        self.typed(key, "an integer from 0, the same for each layer", |value| {
            let size = match value {
                Value::Array(array) => {
                    let sizes = array.whole_numbers()?;
                    let first = *sizes.first()?;
                    let same = sizes.iter().all(|&size| size == first);
                    same.then_some(first)?.try_into().ok()?
                }
                one => one.unsigned()?,
            };
            // below this limit, the product of two sizes does not overflow
            usize::try_from(size).ok().filter(|&size| size < 1 << 31)
        })
    }

    /// A number. An f32 becomes the shortest decimal that rounds to it: 1e-5, not 9.999999747378752e-6.
    ///
    /// # Errors
    /// If the key has another type, or is not finite.
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a finite number", |value| {
            let number = match *value {
                Value::F32(x) => x.to_string().parse().ok()?,
                Value::F64(x) => x,
                ref other => other.unsigned()? as f64,
            };
            number.is_finite().then_some(number)
        })
    }

    /// An array of strings.
    ///
    /// # Errors
    /// If the key has another type, or a string is not UTF-8.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>, GgufError> {
        let Some(array) = self.array(key, ValueKind::String, "an array of strings")? else {
            return Ok(None);
        };
        let text = |(index, text): (usize, &[u8])| {
            let text = std::str::from_utf8(text);
            text.map(str::to_owned).map_err(|_| GgufError::Key {
                key: format!("{key}[{index}]"),
                expected: "UTF-8".to_owned(),
                found: "other bytes".to_owned(),
            })
        };
        array
            .texts()
            .enumerate()
            .map(text)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An array of f32.
    ///
    /// # Errors
    /// If the key has another type.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        let array = self.array(key, ValueKind::F32, "an array of F32")?;
        let float = |x: &[u8; 4]| f32::from_le_bytes(*x);
        Ok(array.map(|array| array.bytes.as_chunks().0.iter().map(float).collect()))
    }

    /// An array of integers of up to 32 bits.
    ///
    /// # Errors
    /// If the key has another type.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        self.typed(key, "an array of integers", |value| match value {
            Value::Array(array) => array.whole_numbers(),
            _ => None,
        })
    }

    /// An array of booleans.
    ///
    /// # Errors
    /// If the key has another type.
    pub fn flags(&self, key: &str) -> Result<Option<Vec<bool>>, GgufError> {
        let array = self.array(key, ValueKind::Bool, "an array of true and false")?;
        Ok(array.map(|array| array.bytes.iter().map(|&byte| byte != 0).collect()))
    }

    fn array(
        &self,
        key: &str,
        kind: ValueKind,
        expected: &str,
    ) -> Result<Option<&Array>, GgufError> {
        self.typed(key, expected, |value| match value {
            Value::Array(array) if array.kind == kind => Some(array),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let read = read(value).ok_or_else(|| GgufError::Key {
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: value.to_string(),
        });
        read.map(Some)
    }
}

/// The value of a required key.
pub(super) fn required<T>(key: &str, value: Option<T>) -> Result<T, GgufError> {
    value.ok_or_else(|| GgufError::Key {
        key: key.to_owned(),
        expected: "a value".to_owned(),
        found: "nothing".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_access_names_the_key_and_both_types() {
        let mut metadata = Metadata::new();
        metadata.set("a", Value::I32(-1));
        metadata.set("b", Array::strings(["x", "yz", ""]));
        metadata.set("c", 1e-5f32);
        metadata.set("d", Array::integers(&[4, 4, 4]));
        metadata.set("e", Array::integers(&[4, 2]));
        assert_eq!(metadata.strings("b").unwrap().unwrap(), ["x", "yz", ""]);
        assert_eq!(metadata.number("c").unwrap(), Some(1e-5));
        assert_eq!(metadata.size("d").unwrap(), Some(4));
        assert_eq!(metadata.string("f").unwrap(), None);
        let message = |error: GgufError| error.to_string();
        insta::assert_snapshot!(message(metadata.unsigned("a").unwrap_err()),
            @"`a`: expected an integer from 0, found -1");
        insta::assert_snapshot!(message(metadata.floats("b").unwrap_err()),
            @"`b`: expected an array of F32, found 3 values of String");
        insta::assert_snapshot!(message(metadata.flag("c").unwrap_err()),
            @"`c`: expected true or false, found 0.00001");
        insta::assert_snapshot!(message(metadata.size("e").unwrap_err()),
            @"`e`: expected an integer from 0, the same for each layer, found 2 values of I32");
        insta::assert_snapshot!(message(required::<()>("f", None).unwrap_err()),
            @"`f`: expected a value, found nothing");
    }

    #[test]
    fn a_key_keeps_its_place() {
        let mut metadata = Metadata::new();
        metadata.set("a", 1);
        metadata.set("b", 2);
        metadata.set("a", 3);
        let entries: Vec<_> = metadata.iter().collect();
        assert_eq!(entries, [("a", &Value::U32(3)), ("b", &Value::U32(2))]);
    }
}
