//! Parts and elements that are refused.

use std::sync::Arc;

use bytes::Bytes;

use crate::ggml::BlockType;
use crate::{
    Absmax, Encoding, Form, FourBit, FourBitKind, Fp8, Fp8Scales, Int8, NF4, Quantised, Rounding,
};

fn error(shape: [usize; 2], codes: usize, form: Form) -> String {
    let codes = Bytes::from(vec![0; codes]);
    Quantised::new(shape, codes, form).unwrap_err().to_string()
}

fn four_bit(block: usize, absmax: Absmax) -> Form {
    Form::FourBit(FourBit {
        name: "nf4",
        values: NF4,
        block,
        absmax,
        rounding: Rounding::Bf16,
    })
}

fn ones(len: usize) -> Arc<[f32]> {
    vec![1.0; len].into()
}

#[test]
fn parts_that_do_not_fit() {
    let plain = |len| Absmax::Plain(ones(len));
    insta::assert_snapshot!(error([2, 100], 99, four_bit(64, plain(4))),
        @"codes: expected 100 for a matrix of 2 x 100, found 99");
    insta::assert_snapshot!(error([2, 100], 100, four_bit(64, plain(3))),
        @"absmax: expected 4 for a matrix of 2 x 100, found 3");
    insta::assert_snapshot!(error([2, 100], 100, four_bit(48, plain(5))),
        @"nf4: a block of 48 elements; expected 32, 64, 128, 256, 512, 1024, 2048 or 4096");
    insta::assert_snapshot!(error([2, 100], 100, four_bit(0, plain(5))),
        @"nf4: a block of 0 elements; expected 32, 64, 128, 256, 512, 1024, 2048 or 4096");
    insta::assert_snapshot!(error([2, 100], 200, Form::Blocks(BlockType::Q8_0)),
        @"rows of 100 elements are not whole blocks of 32 (Q8_0)");
    insta::assert_snapshot!(error([2, 512], 287, Form::Blocks(BlockType::Q4_K)),
        @"codes: expected 576 for a matrix of 2 x 512, found 287");
    insta::assert_snapshot!(error([3, 5], 15, Form::Int8(Int8 { row_max: ones(2) })),
        @"SCB: expected 3 for a matrix of 3 x 5, found 2");
    let blocks = |size, columns, len| {
        let scales = ones(len);
        let scales = Fp8Scales::Blocks {
            size,
            columns,
            scales,
        };
        Form::Fp8(Fp8 { scales })
    };
    insta::assert_snapshot!(error([130, 256], 130 * 256, blocks([128, 128], 3, 6)),
        @"scales: expected 2 for a matrix of 130 x 256, found 3");
    insta::assert_snapshot!(error([130, 256], 130 * 256, blocks([128, 128], 2, 2)),
        @"scales: expected 4 for a matrix of 130 x 256, found 2");
    insta::assert_snapshot!(error([130, 256], 130 * 256, blocks([128, 0], 2, 2)),
        @"fp8: a block of 0 elements; expected one or more in both directions");
}

#[test]
fn nested_scales_that_do_not_fit() {
    let nested = |codes: usize, values, absmax, block, offset| {
        let absmax = Absmax::Nested {
            codes: vec![0; codes].into(),
            values: ones(values),
            absmax: ones(absmax),
            block,
            offset,
        };
        error([300, 64], 9600, four_bit(64, absmax))
    };
    insta::assert_snapshot!(nested(299, 256, 2, 256, 0.0), @"absmax: expected 300 for a matrix of 300 x 64, found 299");
    insta::assert_snapshot!(nested(300, 255, 2, 256, 0.0),
        @"nested_quant_map: expected 256 for a matrix of 300 x 64, found 255");
    insta::assert_snapshot!(nested(300, 256, 1, 256, 0.0),
        @"nested_absmax: expected 2 for a matrix of 300 x 64, found 1");
    insta::assert_snapshot!(nested(300, 256, 2, 0, 0.0),
        @"nested_absmax: a block of 0 elements; expected one or more");
    insta::assert_snapshot!(nested(300, 256, 2, 256, f32::NAN), @"nested_offset: value 0 is NaN");
}

#[test]
fn scales_that_are_not_finite() {
    let absmax = Absmax::Plain([1.0, f32::NAN].into());
    insta::assert_snapshot!(error([2, 64], 64, four_bit(64, absmax)), @"absmax: value 1 is NaN");
    let row_max = [f32::INFINITY, 1.0].into();
    insta::assert_snapshot!(error([2, 4], 8, Form::Int8(Int8 { row_max })), @"SCB: value 0 is inf");
    let scales = Fp8Scales::Rows([1.0, f32::NEG_INFINITY].into());
    insta::assert_snapshot!(error([2, 4], 8, Form::Fp8(Fp8 { scales })), @"scales: value 1 is -inf");
}

#[test]
fn scales_inside_blocks_that_are_not_finite() {
    let check = |codes: Vec<u8>, shape, form| {
        let matrix = Quantised::new(shape, codes.into(), form).unwrap();
        matrix.check_codes()
    };
    let mut q4_k = vec![0; 4 * 144];
    let form = || Form::Blocks(BlockType::Q4_K);
    assert_eq!(check(q4_k.clone(), [2, 512], form()), Ok(()));
    q4_k[3 * 144 + 3] = 0x7e;
    insta::assert_snapshot!(check(q4_k, [2, 512], form()).unwrap_err(),
        @"stored row 1, column 256: Q4_K with a scale or value that is NaN or infinite");
    let scales = Fp8Scales::Matrix(1.0);
    insta::assert_snapshot!(check(vec![0, 1, 2, 3, 0xff, 5], [2, 3], Form::Fp8(Fp8 { scales })).unwrap_err(),
        @"stored row 1, column 1: fp8 with a scale or value that is NaN or infinite");
}

#[test]
fn elements_that_cannot_be_quantised() {
    let nf4 = Encoding::FourBit {
        kind: FourBitKind::Nf4,
        block: 64,
        nested: false,
        rounding: Rounding::F32,
    };
    let error = |encoding, index: usize, value| {
        let mut values = vec![0.0; 512];
        values[index] = value;
        let error = Quantised::encode(encoding, [2, 256], &values).unwrap_err();
        error.to_string()
    };
    insta::assert_snapshot!(error(nf4, 77, f32::NAN), @"element 77 is NaN, which nf4 cannot hold");
    insta::assert_snapshot!(error(Encoding::Int8, 511, f32::INFINITY), @"element 511 is inf, which int8 cannot hold");
    insta::assert_snapshot!(error(Encoding::Blocks(BlockType::Q4_K), 300, f32::NEG_INFINITY),
        @"element 300 is -inf, which Q4_K cannot hold");
    insta::assert_snapshot!(error(Encoding::Blocks(BlockType::Q6_K), 300, -1e9),
        @"element 300 is -1000000000, which Q6_K cannot hold");
    insta::assert_snapshot!(error(Encoding::Blocks(BlockType::Q4_1), 300, -70000.0),
        @"element 300 is -70000, which Q4_1 cannot hold");
    let short = |encoding, shape, len| {
        let error = Quantised::encode(encoding, shape, &vec![0.0; len]).unwrap_err();
        error.to_string()
    };
    insta::assert_snapshot!(short(nf4, [2, 100], 100), @"elements: expected 200 for a matrix of 2 x 100, found 100");
    insta::assert_snapshot!(short(nf4, [2, 100], 50), @"elements: expected 200 for a matrix of 2 x 100, found 50");
    insta::assert_snapshot!(short(nf4, [2, 100], 300), @"elements: expected 200 for a matrix of 2 x 100, found 300");
    insta::assert_snapshot!(short(Encoding::Blocks(BlockType::Q5_K), [2, 576], 1152),
        @"rows of 576 elements are not whole blocks of 256 (Q5_K)");
}
