//! Rows of a quantised matrix in f32.
//!
//! `simmer_blocks` has plain loops for all types, which the compiler vectorises as far as it can. The loops here give the same
//! bits: for AVX-512 and four or five bits, the table of what codes stand for, with the scale of a group, is in vector
//! registers, and codes select from it.

#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "the instructions that look values up are selected when the program runs"
    )
)]
#![allow(
    clippy::wildcard_imports,
    reason = "dozens of intrinsics, whose names are unique and begin with `_mm`"
)]

#[cfg(target_arch = "x86_64")]
pub(super) mod four_bit;
#[cfg(target_arch = "x86_64")]
mod ggml;
#[cfg(target_arch = "x86_64")]
mod superblocks;

use pulp::Simd;
use simmer_blocks::Quantised;

use crate::simd::vectorised;

/// Widens the columns from `start` on of a row, as many as `out` has.
#[inline(always)]
pub(super) fn widen<S: Simd>(
    _simd: S,
    matrix: &Quantised,
    row: usize,
    start: usize,
    out: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    {
        use simmer_blocks::Form;

        let [rows, columns] = matrix.shape();
        assert!(
            row < rows && start + out.len() <= columns,
            "no such row or columns"
        );
        let codes = &matrix.codes()[..];
        let row = matrix.stored_row(row);
        let first = row * columns + start;
        // SAFETY: on x86-64 pulp has vectors of sixteen f32 only for AVX-512 (F, BW and VL) with F16C, and of eight for AVX2
        // with FMA, so the processor has the instructions.
        match (matrix.form(), S::F32_LANES) {
            (Form::FourBit(form), 16) => {
                return unsafe { four_bit::by_sixteen(form, codes, first, out) };
            }
            (Form::FourBit(form), 8) => {
                return unsafe { four_bit::by_eight(form, codes, first, out) };
            }
            (Form::Blocks(kind), 16) => {
                let width = kind.row_bytes(columns);
                let codes = &codes[row * width..][..width];
                return unsafe { ggml::by_sixteen(*kind, codes, start, out) };
            }
            _ => {}
        }
    }
    matrix.widen(row, start, out);
}

vectorised! {
    /// Widens the columns from `start` on of a row of a quantised matrix, as many as `wide` has.
    pub(crate) fn widen_row(
        simd,
        matrix: &'a Quantised,
        row: usize,
        start: usize,
        wide: &'a mut [f32],
    ) {
        widen(simd, matrix, row, start, wide);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use simmer_blocks::ggml::BlockType;
    use simmer_blocks::{Absmax, Form, FourBit, NF4, Rounding};

    use super::*;

    proptest! {
        /// Values looked up in registers are those of the plain loop, at every start and end of a part of a row.
        #[test]
        fn values_looked_up_are_those_of_the_plain_loop(
            columns in 1_usize..400,
            start in 0_usize..400,
            length in 0_usize..400,
            nested: bool,
            rounding in prop::sample::select(vec![Rounding::F32, Rounding::Bf16, Rounding::F16]),
        ) {
            let rows = 3;
            let count = rows * columns;
            let noise = |count: usize| (0..count as u64).map(|at| (crate::mix(at) >> 24) as u8).collect::<Vec<u8>>();
            let scales = |count: usize| (0..count).map(|at| 0.01 + at as f32 / 99.0).collect::<Arc<[f32]>>();
            let blocks = count.div_ceil(32);
            let absmax = if nested {
                Absmax::Nested {
                    codes: noise(blocks).into(),
                    values: scales(256),
                    absmax: scales(blocks.div_ceil(5)),
                    block: 5,
                    offset: 0.25,
                }
            } else {
                Absmax::Plain(scales(blocks))
            };
            let form = FourBit { name: "nf4", values: NF4, block: 32, absmax, rounding };
            let matrix = Quantised::new([rows, columns], noise(count.div_ceil(2)).into(), Form::FourBit(form)).unwrap();
            assert_as_by_the_plain_loop(&matrix, start, length);
        }
    }

    proptest! {
        /// As above, for the types of GGUF files.
        #[test]
        fn blocks_are_widened_as_by_the_plain_loop(
            kind in prop::sample::select(BlockType::ALL.to_vec()),
            blocks in 1_usize..4,
            start in 0_usize..1000,
            length in 0_usize..1000,
        ) {
            let [rows, columns] = [3, blocks * kind.block_len()];
            let byte = |at: u64| (crate::mix(at) >> 24) as u8 & 0xbf; // f16 that are moderate numbers
            let codes: Vec<u8> = (0..(rows * kind.row_bytes(columns)) as u64).map(byte).collect();
            let matrix = Quantised::new([rows, columns], codes.into(), Form::Blocks(kind)).unwrap();
            assert_as_by_the_plain_loop(&matrix, start, length);
        }
    }

    /// Asserts that a part of each row is widened to the same bits.
    fn assert_as_by_the_plain_loop(matrix: &Quantised, start: usize, length: usize) {
        let [rows, columns] = matrix.shape();
        let start = start % columns;
        let length = length.min(columns - start);
        for row in 0..rows {
            let [mut found, mut truth] = [vec![f32::NAN; length], vec![0.0; length]];
            widen_row(matrix, row, start, &mut found);
            matrix.widen(row, start, &mut truth);
            assert_eq!(bits(&found), bits(&truth), "row {row}");
        }
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }
}
