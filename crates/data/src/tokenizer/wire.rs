//! The wire format of Protocol Buffers, as far as `tokenizer.model` needs it: a message is a sequence of numbered
//! fields.
//!
//! Nothing is allocated here: a field that is text or a message is a slice of the file.

use simmer_hint::Hint;

/// A message that is truncated or malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}, {left} bytes before the end of the message")]
pub struct Malformed {
    what: &'static str,
    left: usize,
}

impl Hint for Malformed {
    fn hint(&self) -> Option<String> {
        None
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// Integers, booleans, enumerations.
    Varint(u64),
    /// Floats and fixed integers of four bytes.
    Fixed32(u32),
    /// Fixed integers and doubles of eight bytes.
    Fixed64,
    /// Text, bytes, messages.
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order of the file.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed {
            what,
            left: self.rest.len(),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let split = usize::try_from(length).ok();
        match split.and_then(|at| self.rest.split_at_checked(at)) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(self.malformed("a field is longer than its message")),
        }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.malformed("a number has more than ten bytes"))
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            _ => return Err(self.malformed("a field has an unknown wire type")),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Result<(u64, Value<'_>), Malformed>> {
        Fields::of(bytes).collect()
    }

    #[test]
    fn fields_of_every_kind() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: 150
            0x12, 0x02, b'h', b'i', // 2: "hi"
            0x1D, 0, 0, 0x80, 0x3F, // 3: 1.0 as f32
            0x21, 0, 0, 0, 0, 0, 0, 0, 0, // 4: eight bytes
        ];
        let fields: Result<Vec<_>, _> = Fields::of(&bytes).collect();
        assert_eq!(
            fields.unwrap(),
            [
                (1, Value::Varint(150)),
                (2, Value::Bytes(b"hi")),
                (3, Value::Fixed32(1.0f32.to_bits())),
                (4, Value::Fixed64),
            ]
        );
    }

    #[test]
    fn broken_messages_end_with_one_error() {
        for (bytes, what) in [
            (
                &[0x08][..],
                "a field is longer than its message, 0 bytes before the end of the message",
            ),
            (
                &[
                    0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 1,
                ],
                "a field is longer than its message, 1 bytes before the end of the message",
            ),
            (
                &[0xFF; 11],
                "a number has more than ten bytes, 1 bytes before the end of the message",
            ),
            (
                &[0x0B, 0],
                "a field has an unknown wire type, 1 bytes before the end of the message",
            ),
        ] {
            let fields = read(bytes);
            assert_eq!(fields.len(), 1);
            assert_eq!(fields[0].unwrap_err().to_string(), what);
        }
    }
}
