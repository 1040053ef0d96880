use proptest::prelude::*;
use simmer_hint::Hint as _;

use super::*;
use crate::gguf::{GgufTensorSpec, GgufWriter};

/// The bytes of a file, written by hand.
#[derive(Clone)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(version: u32, tensors: u64, keys: u64) -> Self {
        Self(MAGIC.to_vec()).u32(version).u64(tensors).u64(keys)
    }

    fn u32(self, x: u32) -> Self {
        self.bytes(&x.to_le_bytes())
    }

    fn u64(self, x: u64) -> Self {
        self.bytes(&x.to_le_bytes())
    }

    fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn tensor(self, name: &str, sizes: &[u64], kind: u32, offset: u64) -> Self {
        let raw = self.text(name).u32(sizes.len() as u32);
        let raw = sizes.iter().fold(raw, |raw, &size| raw.u64(size));
        raw.u32(kind).u64(offset)
    }

    /// Everything before the data, and this many bytes of data.
    fn data(mut self, bytes: usize) -> Self {
        let begin = self.0.len().next_multiple_of(32);
        self.0.resize(begin + bytes, 0);
        self
    }

    fn parse(self) -> Result<Gguf, GgufError> {
        Gguf::parse(self.0.into())
    }

    fn error(self) -> String {
        self.parse().unwrap_err().to_string()
    }
}

#[test]
fn dimensions_are_turned_and_ranges_are_of_the_file() {
    let raw = Raw::new(2, 2, 0)
        .tensor("x", &[3, 2], 0, 0)
        .tensor("y", &[], 0, 32)
        .data(36);
    let end = raw.0.len();
    let gguf = raw.parse().unwrap();
    let x = gguf.tensor("x").unwrap();
    assert_eq!(
        (&x.shape[..], x.range.clone()),
        (&[2, 3][..], end - 36..end - 12)
    );
    assert_eq!(gguf.tensors()[1].range, end - 4..end);
    assert_eq!(gguf.tensor("z"), None);
}

#[test]
fn other_formats_are_named() {
    insta::assert_snapshot!(Raw(b"ggjt\x03\0\0\0".to_vec()).error(),
        @r#"not a GGUF file: it starts with "ggjt", expected "GGUF""#);
    insta::assert_snapshot!(Raw(b"GG".to_vec()).error(),
        @r#"not a GGUF file: it starts with "GG", expected "GGUF""#);
    insta::assert_snapshot!(Raw::new(1, 0, 0).error(),
        @"GGUF version 1 is not supported; 2 and 3 are");
    insta::assert_snapshot!(Raw::new(3 << 24, 0, 0).error(), @"big-endian GGUF is not supported");
    insta::assert_snapshot!(Raw(b"GGUF\x03\0\0\0".to_vec()).error(),
        @"header: truncated: 8 more bytes are needed, the file has 0");
    insta::assert_snapshot!(Raw::new(3, 1 << 40, 0).error(),
        @"the header has 1099511627776 tensors; at most 65536 are supported");
    insta::assert_snapshot!(Raw::new(3, 0, u64::MAX).error(),
        @"the header has 18446744073709551615 metadata keys; at most 65536 are supported");
}

#[test]
fn metadata_that_is_wrong_is_named() {
    let key = |name: &str| Raw::new(3, 0, 1).text(name);
    insta::assert_snapshot!(Raw::new(3, 0, 1).u64(u64::MAX).error(),
        @"metadata key 0: truncated: 18446744073709551615 more bytes are needed, the file has 0");
    insta::assert_snapshot!(Raw::new(3, 0, 1).u64(1).bytes(&[0xFF]).error(),
        @"metadata key 0: not valid UTF-8");
    insta::assert_snapshot!(key("k").u32(13).error(),
        @"metadata key `k`: unknown value type 13");
    insta::assert_snapshot!(key("k").u32(8).u64(5).bytes(b"text").error(),
        @"metadata key `k`: truncated: 5 more bytes are needed, the file has 4");
    insta::assert_snapshot!(key("k").u32(7).bytes(&[2]).error(),
        @"metadata key `k`: boolean: expected 0 or 1, found 2");
    insta::assert_snapshot!(key("k").u32(9).u32(10).u64(1 << 61).error(),
        @"metadata key `k`: truncated: 18446744073709551615 more bytes are needed, the file has 0");
    insta::assert_snapshot!(key("k").u32(9).u32(8).u64(1 << 61).u64(0).error(),
        @"metadata key `k`: truncated: 8 more bytes are needed, the file has 0");
    let nested = (0..5).fold(key("k").u32(9), |raw, _| raw.u32(9).u64(1));
    insta::assert_snapshot!(nested.error(),
        @"metadata key `k`: arrays nested more than 4 deep");
    let twice = Raw::new(3, 0, 2)
        .text("k")
        .u32(4)
        .u32(1)
        .text("k")
        .u32(4)
        .u32(1);
    insta::assert_snapshot!(twice.error(), @"duplicate metadata key `k`");
    let aligned = |raw: Raw| raw.error();
    insta::assert_snapshot!(aligned(key("general.alignment").u32(4).u32(48)),
        @"`general.alignment`: expected a power of two up to 65536, found 48");
    insta::assert_snapshot!(aligned(key("general.alignment").u32(10).u64(1 << 40)),
        @"`general.alignment`: expected a power of two up to 65536, found 1099511627776");
}

#[test]
fn tensors_that_are_wrong_are_named() {
    let one = |sizes: &[u64], kind, offset| Raw::new(3, 1, 0).tensor("x", sizes, kind, offset);
    insta::assert_snapshot!(one(&[1; 5], 0, 0).error(),
        @"tensor `x`: expected at most 4 dimensions, found 5");
    insta::assert_snapshot!(one(&[1 << 32, 1 << 32], 0, 0).error(),
        @"tensor `x`: F32 [4294967296, 4294967296] is not a valid shape (F32 has 1 element per block)");
    insta::assert_snapshot!(one(&[33, 2], 8, 0).error(),
        @"tensor `x`: Q8_0 [2, 33] is not a valid shape (Q8_0 has 32 elements per block)");
    insta::assert_snapshot!(one(&[32], 99, 0).error(), @"tensor `x`: unknown type 99");
    insta::assert_snapshot!(one(&[32], 31, 0).error(),
        @"tensor `x`: Q4_0_4_4 (type 31) is no longer part of ggml");
    insta::assert_snapshot!(one(&[1], 0, 4).data(8).error(),
        @"tensor `x`: its offset 4 is not a multiple of the alignment 32");
    insta::assert_snapshot!(one(&[3], 0, 0).data(11).error(),
        @"truncated: tensor `x` ends at byte 76, but the file has 75 bytes");
    insta::assert_snapshot!(one(&[1], 0, u64::MAX - 31).data(8).error(),
        @"truncated: tensor `x` ends at byte 18446744073709551615, but the file has 72 bytes");
    let two = |offset| {
        let raw = Raw::new(3, 2, 0).tensor("y", &[1], 0, offset);
        raw.tensor("x", &[9], 0, 0).data(100)
    };
    insta::assert_snapshot!(two(32).error(),
        @"tensor `y` starts at byte 128, but tensor `x` ends at byte 132: they overlap");
    assert!(two(64).parse().is_ok());
    let twice = Raw::new(3, 2, 0)
        .tensor("x", &[1], 0, 0)
        .tensor("x", &[1], 0, 32);
    insta::assert_snapshot!(twice.data(64).error(), @"duplicate tensor `x`");
    insta::assert_snapshot!(Raw::new(3, 1, 0).text("x").u32(4).u64(1).error(),
        @"tensor `x`: truncated: 8 more bytes are needed, the file has 0");
}

#[test]
fn a_cut_file_says_what_to_do() {
    let file = valid();
    for len in 0..file.len() {
        let error = Gguf::parse(Bytes::copy_from_slice(&file[..len])).unwrap_err();
        assert!(error.hint().is_some(), "{error}");
    }
}

fn valid() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("tokens", Array::strings(["a", "bc"]));
    metadata.set("scores", Array::floats(&[0.5, -1.0]));
    metadata.set("count", Value::U64(3));
    metadata.set("flag", true);
    let spec = |name: &str, shape: &[usize], kind| GgufTensorSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
        kind,
    };
    let tensors = vec![
        spec("x", &[2, 32], GgmlType::Q8_0),
        spec("y", &[4], GgmlType::F32),
    ];
    let mut writer = GgufWriter::new(Vec::new(), &metadata, tensors).unwrap();
    writer.append(&[1; 68]).unwrap();
    writer.append(&[2; 16]).unwrap();
    let mut file = writer.finish().unwrap();
    // the padding of the last tensor may be missing
    file.truncate(file.len() - 16);
    file
}

/// Checks that all tensors are inside the file, and that every value can be read.
fn check(file: Vec<u8>) {
    let len = file.len();
    let Ok(gguf) = Gguf::parse(file.into()) else {
        return;
    };
    for tensor in gguf.tensors() {
        assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= len);
        let bytes = tensor.kind.tensor_bytes(&tensor.shape).unwrap();
        assert_eq!(tensor.range.len() as u64, bytes);
    }
    let metadata = gguf.metadata();
    for (key, value) in metadata.iter() {
        assert!(value.to_string().len() < 1000);
        if let Ok(Some(texts)) = metadata.strings(key) {
            let Value::Array(array) = value else {
                panic!("strings from {value}")
            };
            assert_eq!(texts.len(), array.len());
        }
        let _ = (
            metadata.floats(key),
            metadata.integers(key),
            metadata.size(key),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_never_does_harm(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut file = valid();
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        check(file.clone());
        file.truncate(cut.index(file.len()));
        check(file);
    }

    #[test]
    fn numbers_of_any_size_do_no_harm(at in any::<proptest::sample::Index>(), number in any::<u64>(), bits in 0u32..64) {
        let mut file = valid();
        let at = at.index(file.len() - 8);
        file[at..at + 8].copy_from_slice(&(number >> bits).to_le_bytes());
        check(file);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400), counts in any::<[u8; 2]>()) {
        let raw = Raw::new(3, counts[0].into(), counts[1].into()).bytes(&bytes);
        check(raw.0);
        check(bytes);
    }
}
