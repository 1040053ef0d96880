//! nf4, fp4, int8 and fp8 as bitsandbytes and torch have them.

use half::{bf16, f16};

use super::golden::{Golden, bits};
use crate::{
    Absmax, Encoder, Encoding, Form, FourBit, FourBitKind, Fp8, Fp8Scales, Int8, Quantised,
    Rounding, nested_values,
};

/// The rows that were widened.
const WIDENED: std::ops::Range<usize> = 13..17;
const KINDS: [(FourBitKind, usize); 4] = [
    (FourBitKind::Nf4, 64),
    (FourBitKind::Nf4, 32),
    (FourBitKind::Nf4, 4096),
    (FourBitKind::Fp4, 64),
];

fn nested(golden: &Golden, name: &str) -> Absmax {
    Absmax::Nested {
        codes: golden.bytes(&format!("{name}.nested.codes")),
        values: golden.f32("nested_quant_map"),
        absmax: golden.f32(&format!("{name}.nested.absmax")),
        block: 256,
        offset: golden.f32(&format!("{name}.nested.offset"))[0],
    }
}

#[test]
fn four_bits_widen_as_bitsandbytes_widens_them() {
    let golden = Golden::read();
    for (kind, block) in KINDS {
        let name = format!("{}.{block}", kind.name());
        let widened = |absmax, rounding| {
            let form = Form::FourBit(FourBit {
                name: kind.name(),
                values: kind.values(),
                block,
                absmax,
                rounding,
            });
            let codes = golden.bytes(&format!("{name}.codes"));
            let matrix = Quantised::new(golden.shape("source"), codes, form).unwrap();
            matrix.rows(WIDENED)
        };
        let plain = || Absmax::Plain(golden.f32(&format!("{name}.absmax")));
        let as_bf16 = |bits| bf16::from_bits(bits).to_f32();
        let f32s = golden.f32(&format!("{name}.f32"));
        // one of fp4's zeros has a sign in one kernel of bitsandbytes and none in another
        assert_eq!(widened(plain(), Rounding::F32), *f32s, "{name}");
        let bf16s = golden.half(&format!("{name}.bf16"), as_bf16);
        assert_eq!(widened(plain(), Rounding::Bf16), bf16s, "{name}");
        let f16s = golden.half(&format!("{name}.f16"), |bits| f16::from_bits(bits).to_f32());
        assert_eq!(widened(plain(), Rounding::F16), f16s, "{name}");
        let bf16s = golden.half(&format!("{name}.nested.bf16"), as_bf16);
        assert_eq!(
            widened(nested(&golden, &name), Rounding::Bf16),
            bf16s,
            "{name}"
        );
    }
}

#[test]
fn four_bits_are_those_of_bitsandbytes() {
    let golden = Golden::read();
    let (source, shape) = (golden.f32("source"), golden.shape("source"));
    for (kind, block) in KINDS {
        for double in [false, true] {
            let encoding = Encoding::FourBit {
                kind,
                block,
                nested: double,
                rounding: Rounding::F32,
            };
            let name = format!("{}.{block}", kind.name());
            let matrix = Quantised::encode(encoding, shape, &source).unwrap();
            assert_eq!(
                matrix.codes(),
                &golden.bytes(&format!("{name}.codes")),
                "{name}"
            );
            let Form::FourBit(four_bit) = matrix.form() else {
                panic!("not in four bits");
            };
            match (&four_bit.absmax, nested(&golden, &name)) {
                (Absmax::Plain(found), _) => {
                    assert_eq!(found, &golden.f32(&format!("{name}.absmax")), "{name}");
                }
                (
                    Absmax::Nested {
                        codes,
                        absmax,
                        offset,
                        ..
                    },
                    Absmax::Nested {
                        codes: codes_there,
                        absmax: absmax_there,
                        offset: offset_there,
                        ..
                    },
                ) => {
                    assert_eq!(offset.to_bits(), offset_there.to_bits(), "{name}");
                    assert_eq!(absmax, &absmax_there, "{name}");
                    assert_eq!(codes, &codes_there, "{name}");
                }
                (Absmax::Nested { .. }, Absmax::Plain(_)) => unreachable!(),
            }
        }
    }
}

#[test]
fn values_of_nested_codes_are_those_of_bitsandbytes() {
    assert_eq!(
        bits(&nested_values()),
        bits(&Golden::read().f32("nested_quant_map"))
    );
}

#[test]
fn blocks_continue_in_the_next_row() {
    let golden = Golden::read();
    let (source, shape) = (golden.f32("odd.source"), golden.shape("odd.source"));
    let encoding = Encoding::FourBit {
        kind: FourBitKind::Nf4,
        block: 64,
        nested: false,
        rounding: Rounding::F32,
    };
    let mut encoder = Encoder::new(encoding, shape).unwrap();
    for row in source.chunks(shape[1]) {
        encoder.rows(row).unwrap();
    }
    let matrix = encoder.finish().unwrap();
    assert_eq!(matrix.codes(), &golden.bytes("odd.codes"));
    let Form::FourBit(FourBit {
        absmax: Absmax::Plain(absmax),
        ..
    }) = matrix.form()
    else {
        panic!("no plain absmax");
    };
    assert_eq!(absmax, &golden.f32("odd.absmax"));
    assert_eq!(bits(&matrix.rows(0..3)), bits(&golden.f32("odd.f32")));
}

#[test]
fn rows_of_int8_are_those_of_bitsandbytes() {
    let golden = Golden::read();
    let (source, shape) = (golden.f32("source"), golden.shape("source"));
    let matrix = Quantised::encode(Encoding::Int8, shape, &source).unwrap();
    let Form::Int8(Int8 { row_max }) = matrix.form() else {
        panic!("not int8");
    };
    assert_eq!(row_max, &golden.f32("int8.scb"));
    assert_eq!(matrix.codes(), &golden.bytes("int8.codes"));
    assert_eq!(bits(&matrix.rows(WIDENED)), bits(&golden.f32("int8.f32")));
}

#[test]
fn fp8_widens_as_in_torch() {
    let golden = Golden::read();
    let every = golden.f32("e4m3");
    for (code, expected) in (0..=u8::MAX).zip(every.iter()) {
        let found = crate::fp8::e4m3(code);
        assert_eq!(found.is_nan(), expected.is_nan());
        assert!(
            found.is_nan() || found.to_bits() == expected.to_bits(),
            "{code}"
        );
    }
    let shape = golden.shape("fp8.codes");
    let blocks = golden.f32("fp8.blocks.scales");
    for (name, scales) in [
        ("fp8.matrix.f32", Fp8Scales::Matrix(blocks[0])),
        (
            "fp8.rows.f32",
            Fp8Scales::Rows(golden.f32("fp8.rows.scales")),
        ),
        (
            "fp8.blocks.f32",
            Fp8Scales::Blocks {
                size: [4, 8],
                columns: 3,
                scales: blocks.clone(),
            },
        ),
    ] {
        let form = Form::Fp8(Fp8 { scales });
        let matrix = Quantised::new(shape, golden.bytes("fp8.codes"), form).unwrap();
        assert_eq!(
            bits(&matrix.rows(0..shape[0])),
            bits(&golden.f32(name)),
            "{name}"
        );
    }
}
