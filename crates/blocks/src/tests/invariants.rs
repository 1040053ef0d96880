//! What holds for every matrix.

use proptest::prelude::*;

use super::golden::bits;
use crate::ggml::BlockType;
use crate::{Encoder, Encoding, FourBitKind, Quantised, Rounding};

fn encodings() -> Vec<Encoding> {
    let four_bit = |kind, block, nested, rounding| Encoding::FourBit {
        kind,
        block,
        nested,
        rounding,
    };
    let mut all: Vec<_> = BlockType::ALL.map(Encoding::Blocks).into();
    all.extend([
        Encoding::Int8,
        four_bit(FourBitKind::Nf4, 64, false, Rounding::F32),
        four_bit(FourBitKind::Nf4, 32, true, Rounding::Bf16),
        four_bit(FourBitKind::Nf4, 4096, true, Rounding::F16),
        four_bit(FourBitKind::Fp4, 128, false, Rounding::F32),
    ]);
    all
}

/// Half the largest distance of two neighbouring values, for a block of which the largest absolute value is one
/// and the smallest value is its negative.
fn step(encoding: Encoding) -> f32 {
    match encoding {
        Encoding::Int8 => 0.5 / 127.0,
        Encoding::FourBit { kind, nested, .. } => {
            let step = match kind {
                FourBitKind::Nf4 => 0.152,
                FourBitKind::Fp4 => 1.0 / 6.0,
            };
            // a nested scale is within a sixtieth of the largest distance from the mean
            step + if nested { 1.0 / 60.0 } else { 0.0 }
        }
        Encoding::Blocks(kind) => match kind {
            BlockType::Q8_0 => 0.5 / 127.0,
            // the value opposite to the furthest one has no code
            BlockType::Q4_0 | BlockType::IQ4_NL => 1.0 / 8.0,
            BlockType::Q5_0 => 1.0 / 16.0,
            BlockType::Q4_1 | BlockType::Q4_K => 1.0 / 15.0,
            BlockType::Q5_1 | BlockType::Q5_K => 1.0 / 31.0,
            BlockType::Q6_K => 1.0 / 32.0,
        },
    }
}

#[test]
fn an_encoding_tells_the_bytes_of_its_matrices() {
    for encoding in encodings() {
        // more blocks than share a scale of their scales
        for shape in [[3, 256], [200, 512]] {
            let values = vec![0.5; shape[0] * shape[1]];
            let matrix = Quantised::encode(encoding, shape, &values).unwrap();
            assert_eq!(encoding.bytes(shape), matrix.bytes(), "{encoding:?}");
        }
    }
}

proptest! {
    #[test]
    fn elements_stay_within_half_a_step(
        values in proptest::collection::vec(-1.0f32..1.0, 512),
        scale in prop_oneof![Just(0.1f32), Just(1.0), Just(100.0)],
        encoding in proptest::sample::select(encodings()),
    ) {
        let values: Vec<_> = values.iter().map(|x| x * scale).collect();
        let matrix = Quantised::encode(encoding, [2, 256], &values).unwrap();
        // scales in f16; the sum of all squared errors is small in these types, not the largest error
        let slack = match encoding {
            Encoding::Blocks(BlockType::Q4_K | BlockType::Q5_K) => 1.0 / 15.0,
            Encoding::Blocks(BlockType::Q6_K | BlockType::IQ4_NL) => 1.0 / 20.0,
            _ => 1.0 / 500.0,
        };
        let bound = scale * (step(encoding) + slack);
        for (before, after) in values.iter().zip(matrix.rows(0..2)) {
            prop_assert!((before - after).abs() <= bound, "{before} became {after}, {encoding:?}");
        }
    }

    #[test]
    fn a_part_of_a_row_is_a_part_of_the_widened_row(
        seed in any::<u64>(),
        (start, end) in (0usize..=512, 0usize..=512).prop_map(|(a, b)| (a.min(b), a.max(b))),
        encoding in proptest::sample::select(encodings()),
    ) {
        let values = random(seed, 3 * 512);
        let matrix = Quantised::encode(encoding, [3, 512], &values).unwrap();
        let whole = matrix.rows(0..3);
        for row in 0..3 {
            let mut part = vec![f32::NAN; end - start];
            matrix.widen(row, start, &mut part);
            prop_assert_eq!(bits(&part), bits(&whole[row * 512..][start..end]));
        }
    }

    #[test]
    fn rows_of_any_length_make_up_blocks_of_four_bits(
        seed in any::<u64>(),
        rows in 1usize..8,
        columns in 1usize..100,
        at_once in 1usize..8,
    ) {
        let encoding = Encoding::FourBit {
            kind: FourBitKind::Nf4,
            block: 32,
            nested: false,
            rounding: Rounding::F32,
        };
        let values = random(seed, rows * columns);
        let mut encoder = Encoder::new(encoding, [rows, columns]).unwrap();
        for rows in values.chunks(at_once * columns) {
            encoder.rows(rows).unwrap();
        }
        let parts = encoder.finish().unwrap();
        let flat = Quantised::encode(encoding, [1, rows * columns], &values).unwrap();
        prop_assert_eq!(parts.codes(), flat.codes());
        prop_assert_eq!(bits(&parts.rows(0..rows)), bits(&flat.rows(0..1)));
    }
}

/// Numbers from -1 to 1.
fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}
