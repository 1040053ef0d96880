use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::gguf::{Gguf, Metadata};

/// Files written by the Python package gguf.
struct Golden {
    file: Bytes,
    gguf: Gguf,
}

impl Golden {
    fn open() -> Self {
        let path = "/../../tests/goldens/gguf/blocks.gguf";
        let path = format!("{}{path}", env!("CARGO_MANIFEST_DIR"));
        let file = Bytes::from(std::fs::read(path).unwrap());
        let gguf = Gguf::parse(file.clone()).unwrap();
        Self { file, gguf }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        &self.file[self.gguf.tensor(name).unwrap().range.clone()]
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        let (numbers, _) = self.bytes(name).as_chunks();
        numbers.iter().map(|&x| f32::from_le_bytes(x)).collect()
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_type_widens_to_the_bits_of_the_python_package() {
    let golden = Golden::open();
    for &kind in &DECODED[3..] {
        let name = kind.name().to_lowercase();
        let expected = golden.numbers(&format!("{name}.numbers"));
        let mut found = vec![0.0; expected.len()];
        dequantize(kind, golden.bytes(&format!("{name}.blocks")), &mut found).unwrap();
        assert_eq!(bits(&found), bits(&expected), "{kind}");
    }
}

#[test]
fn numbers_become_the_bytes_of_the_python_package() {
    let golden = Golden::open();
    let source = golden.numbers("source");
    for (kind, name) in [
        (GgmlType::F32, "source"),
        (GgmlType::F16, "source.f16"),
        (GgmlType::BF16, "source.bf16"),
        (GgmlType::Q8_0, "source.q8_0"),
    ] {
        // existing contents are kept
        let mut found = vec![7];
        quantize(kind, &source, &mut found).unwrap();
        assert_eq!(found[1..], *golden.bytes(name), "{kind}");
    }
}

#[test]
fn metadata_of_the_python_package_reads() {
    let golden = Golden::open();
    let metadata: &Metadata = golden.gguf.metadata();
    assert_eq!(
        metadata.string("general.architecture").unwrap(),
        Some("llama")
    );
    assert_eq!(metadata.unsigned("test.u64").unwrap(), Some(1 << 40));
    assert_eq!(
        metadata.unsigned("test.i8").unwrap_err().to_string(),
        "`test.i8`: expected an integer from 0, found -5"
    );
    assert_eq!(metadata.number("test.f64").unwrap(), Some(0.1));
    assert_eq!(metadata.flag("test.bool").unwrap(), Some(true));
    assert_eq!(
        metadata.strings("test.texts").unwrap().unwrap(),
        ["a", "\u{2581}b", ""]
    );
    assert_eq!(
        metadata.integers("test.integers").unwrap().unwrap(),
        [1, -2, 3]
    );
    assert_eq!(golden.gguf.tensor("q4_k.numbers").unwrap().shape, [4, 512]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut numbers = [0.0; 32];
    insta::assert_snapshot!(dequantize(GgmlType::Q2_K, &[], &mut []).unwrap_err(),
        @"Q2_K (type 10) is not supported; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K and IQ4_NL are");
    insta::assert_snapshot!(dequantize(GgmlType::Q8_0, &[0; 33], &mut numbers).unwrap_err(),
        @"Q8_0: 33 bytes for 32 elements; a block is 32 elements in 34 bytes");
    let mut out = vec![1];
    let mut refuse = |kind, value| {
        numbers[5] = value;
        quantize(kind, &numbers, &mut out).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refuse(GgmlType::F16, -65520.0),
        @"element 5 is -65520, which F16 cannot hold");
    insta::assert_snapshot!(refuse(GgmlType::BF16, f32::MAX),
        @"element 5 is 340282350000000000000000000000000000000, which BF16 cannot hold");
    insta::assert_snapshot!(refuse(GgmlType::Q8_0, f32::NAN),
        @"element 5 is NaN, which Q8_0 cannot hold");
    insta::assert_snapshot!(refuse(GgmlType::Q4_K, 0.0),
        @"Q4_K: 0 bytes for 32 elements; a block is 256 elements in 144 bytes");
    insta::assert_snapshot!(refuse(GgmlType::Q4_1, f32::NEG_INFINITY),
        @"element 5 is -inf, which Q4_1 cannot hold");
    insta::assert_snapshot!(refuse(GgmlType::Q8_1, 0.0),
        @"Q8_1 (type 9) is not supported; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K and IQ4_NL are");
    assert_eq!(out, [1]);
}

#[test]
fn numbers_that_are_not_finite_stay_so_in_plain_types() {
    for kind in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
        let numbers = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let (mut bytes, mut back) = (Vec::new(), [0.0; 3]);
        quantize(kind, &numbers, &mut bytes).unwrap();
        dequantize(kind, &bytes, &mut back).unwrap();
        assert_eq!(back[..2], numbers[..2]);
        assert!(back[2].is_nan());
    }
}

proptest! {
    #[test]
    fn what_was_rounded_once_rounds_to_itself(
        numbers in proptest::collection::vec(-1e4f32..1e4, 96),
        // the other types are tested in simmer-blocks
        kind in proptest::sample::select(&ENCODED[..4]),
    ) {
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        let mut rounded = vec![0.0; numbers.len()];
        quantize(kind, &numbers, &mut once).unwrap();
        dequantize(kind, &once, &mut rounded).unwrap();
        let step = match kind {
            GgmlType::Q8_0 => 1e4 / 254.0 + 1e4 / 2048.0,
            GgmlType::BF16 => 1e4 / 256.0,
            _ => 1e4 / 2048.0,
        };
        for (before, after) in numbers.iter().zip(&rounded) {
            prop_assert!((before - after).abs() <= step);
        }
        if kind != GgmlType::Q8_0 {
            quantize(kind, &rounded, &mut twice).unwrap();
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn any_bytes_widen(seed in any::<u64>(), kind in proptest::sample::select(DECODED)) {
        let mut state = seed;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let bytes: Vec<u8> = (0..2 * kind.block_bytes()).map(|_| byte()).collect();
        let mut together = vec![0.0; 2 * kind.block_len()];
        let mut apart = together.clone();
        dequantize(kind, &bytes, &mut together).unwrap();
        for (bytes, out) in bytes.chunks(kind.block_bytes()).zip(apart.chunks_mut(kind.block_len())) {
            dequantize(kind, bytes, out).unwrap();
        }
        prop_assert_eq!(bits(&together), bits(&apart));
    }
}
