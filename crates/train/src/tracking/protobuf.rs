//! Fields of protocol buffers, as event files of TensorBoard and record files of W&B have them.
//!
//! Source: protobuf.dev/programming-guides/encoding.

/// A field of bytes, text or a message.
pub(super) fn bytes(message: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(message, field << 3 | 2);
    varint(message, value.len() as u64);
    message.extend(value);
}

/// A field with a whole number, an enumeration or a truth value; 0 is omitted, as proto3 requires.
pub(super) fn whole(message: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        varint(message, field << 3);
        varint(message, value);
    }
}

/// A field with a double; 0 is omitted.
pub(super) fn double(message: &mut Vec<u8>, field: u64, value: f64) {
    if value != 0.0 {
        varint(message, field << 3 | 1);
        message.extend(value.to_le_bytes());
    }
}

/// A field with a float, written in any case.
pub(super) fn float(message: &mut Vec<u8>, field: u64, value: f32) {
    varint(message, field << 3 | 5);
    message.extend(value.to_le_bytes());
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the encoding's description.
    #[test]
    fn fields_are_those_of_the_standard() {
        let of = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut message = Vec::new();
            write(&mut message);
            message
        };
        assert_eq!(of(&|to| whole(to, 1, 150)), [0x08, 0x96, 0x01]);
        let text = of(&|to| bytes(to, 2, b"testing"));
        assert_eq!(text, b"\x12\x07testing");
        assert_eq!(of(&|to| bytes(to, 17, b"")), [0x8a, 0x01, 0x00]);
        assert!(of(&|to| whole(to, 1, 0)).is_empty());
    }
}
