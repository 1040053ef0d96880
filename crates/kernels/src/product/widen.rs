//! Rows of a quantised matrix in f32.
//!
//! Most types are widened by plain loops of `simmer_blocks`, which the compiler vectorises. Four-bit codes stand for values
//! of a table, which it does not: here the table, multiplied with the scale of a block, is in vector registers, and codes
//! select from it.

#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "the instructions that look values up are selected when the program runs"
    )
)]

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
    if let simmer_blocks::Form::FourBit(form) = matrix.form() {
        let [rows, columns] = matrix.shape();
        assert!(
            row < rows && start + out.len() <= columns,
            "no such row or columns"
        );
        let first = matrix.stored_row(row) * columns + start;
        let codes = &matrix.codes()[..];
        // SAFETY: on x86-64 pulp has vectors of sixteen f32 only for AVX-512, and of eight for AVX2 with FMA, so the
        // processor has the instructions.
        match S::F32_LANES {
            16 => return unsafe { four_bit::by_sixteen(form, codes, first, out) },
            8 => return unsafe { four_bit::by_eight(form, codes, first, out) },
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

/// Four-bit codes: nf4 and fp4.
#[cfg(target_arch = "x86_64")]
mod four_bit {
    #![allow(
        clippy::wildcard_imports,
        reason = "a dozen intrinsics, whose names are unique and begin with `_mm`"
    )]

    use std::arch::x86_64::*;

    use simmer_blocks::FourBit;

    use crate::simd::{numbers, sixteen};

    /// Elements that are looked up at a time, and the bytes that hold their codes.
    const STEP: usize = 16;
    const BYTES: usize = STEP / 2;

    /// Scales that are read at a time.
    const SCALES: usize = 16;

    /// Widens elements of the flattened matrix from `first` on.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn by_sixteen(form: &FourBit, codes: &[u8], first: usize, out: &mut [f32]) {
        let shifts = _mm512_set1_epi64(4);
        parts(form, codes, first, out, |table, codes| {
            let table = sixteen(table);
            // a byte in both halves of 64 bits; the upper four bits are the first of its two elements
            let bytes = _mm512_cvtepu8_epi64(_mm_cvtsi64_si128(i64::from_le_bytes(*codes)));
            let both = _mm512_or_si512(_mm512_slli_epi64::<32>(bytes), bytes);
            numbers(_mm512_permutexvar_ps(
                _mm512_srlv_epi32(both, shifts),
                table,
            ))
        });
    }

    /// As [`by_sixteen`], from two halves of the table.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn by_eight(form: &FourBit, codes: &[u8], first: usize, out: &mut [f32]) {
        let shifts = _mm256_set1_epi64x(4);
        parts(form, codes, first, out, |table, codes| {
            let table: [__m256; 2] = bytemuck::cast(*table);
            let mut found = [_mm256_setzero_ps(); 2];
            for (found, codes) in found.iter_mut().zip(codes.as_chunks::<{ BYTES / 2 }>().0) {
                let bytes = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(i32::from_le_bytes(*codes)));
                let both = _mm256_or_si256(_mm256_slli_epi64::<32>(bytes), bytes);
                let index = _mm256_srlv_epi32(both, shifts);
                // the fourth bit of the code, as the sign of a number, selects the half
                let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
                *found = _mm256_blendv_ps(
                    _mm256_permutevar8x32_ps(table[0], index),
                    _mm256_permutevar8x32_ps(table[1], index),
                    upper,
                );
            }
            bytemuck::cast(found)
        });
    }

    /// Widens elements from `first` on, block by block. `look_up` gives the values of the codes of eight bytes.
    #[inline(always)]
    fn parts(
        form: &FourBit,
        codes: &[u8],
        first: usize,
        out: &mut [f32],
        look_up: impl Fn(&[f32; 16], &[u8; BYTES]) -> [f32; STEP],
    ) {
        let mut scales = [0.0; SCALES];
        let mut index = first;
        let mut rest = out;
        while !rest.is_empty() {
            let start = index / form.block;
            let blocks = (index + rest.len()).div_ceil(form.block) - start;
            let scales = &mut scales[..blocks.min(SCALES)];
            form.absmax.fill(start, scales);
            for scale in scales {
                let mut table = form.values.map(|value| value * *scale);
                form.rounding.round(&mut table);
                let length = (form.block - index % form.block).min(rest.len());
                let (part, after) = rest.split_at_mut(length);
                of_block(&table, codes, index, part, &look_up);
                index += length;
                rest = after;
            }
        }
    }

    /// Widens elements of one block, from `index` on.
    #[inline(always)]
    fn of_block(
        table: &[f32; 16],
        codes: &[u8],
        index: usize,
        out: &mut [f32],
        look_up: impl Fn(&[f32; 16], &[u8; BYTES]) -> [f32; STEP],
    ) {
        let (head, rest) = out.split_at_mut(index % 2);
        if let [head] = head {
            *head = table[usize::from(codes[index / 2] & 15)];
        }
        let codes = &codes[index.div_ceil(2)..];
        let (steps, tail) = rest.as_chunks_mut::<STEP>();
        let (whole, _) = codes.as_chunks::<BYTES>();
        for (out, codes) in steps.iter_mut().zip(whole) {
            *out = look_up(table, codes);
        }
        for (at, out) in tail.iter_mut().enumerate() {
            let byte = codes[steps.len() * BYTES + at / 2];
            *out = table[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })];
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
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
            let start = start % columns;
            let length = length.min(columns - start);
            for row in 0..rows {
                let [mut found, mut truth] = [vec![f32::NAN; length], vec![0.0; length]];
                widen_row(&matrix, row, start, &mut found);
                matrix.widen(row, start, &mut truth);
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&found), bits(&truth));
            }
        }
    }
}
