//! Transposes in registers: 16 x 16 words with AVX-512, 4 x 4 on any x86-64.

#![allow(
    clippy::wildcard_imports,
    reason = "many intrinsics, whose names are unique and begin with `_mm`"
)]

use std::arch::x86_64::*;

/// Transposes sixteen rows of sixteen words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sixteen(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = *rows;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut quads = pairs;
    for i in 0..4 {
        for j in 0..2 {
            let [a, b] = [pairs[4 * i + j], pairs[4 * i + 2 + j]];
            quads[4 * i + 2 * j] = _mm512_unpacklo_epi64(a, b);
            quads[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    // quads[4 i + c] holds rows 4 i .. 4 i + 4 of columns c, c + 4, c + 8 and c + 12
    let mut columns = quads;
    for c in 0..4 {
        let [a, b, d, e] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
        let low = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        let high = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        let low_next = _mm512_shuffle_i32x4::<0b10_00_10_00>(d, e);
        let high_next = _mm512_shuffle_i32x4::<0b11_01_11_01>(d, e);
        columns[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low_next);
        columns[c + 8] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low_next);
        columns[c + 4] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high_next);
        columns[c + 12] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high_next);
    }
    columns
}

/// Transposes sixteen rows of sixteen words, in blocks of 4 x 4.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn by_fours(rows: &[[f32; 16]; 16]) -> [[f32; 16]; 16] {
    let mut columns = [[0.0; 16]; 16];
    for row in (0..16).step_by(4) {
        for column in (0..16).step_by(4) {
            // no closures here: they would not be compiled for this instruction set
            let mut block = [_mm_setzero_ps(); 4];
            for (block, row) in block.iter_mut().zip(&rows[row..]) {
                *block = _mm_setr_ps(
                    row[column],
                    row[column + 1],
                    row[column + 2],
                    row[column + 3],
                );
            }
            for (i, words) in four(block).into_iter().enumerate() {
                columns[column + i][row..row + 4]
                    .copy_from_slice(&bytemuck::cast::<_, [f32; 4]>(words));
            }
        }
    }
    columns
}

/// Transposes four rows of four words.
#[inline]
#[target_feature(enable = "sse")]
fn four([a, b, c, d]: [__m128; 4]) -> [__m128; 4] {
    let [ab, cd] = [_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d)];
    let [ab_next, cd_next] = [_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d)];
    [
        _mm_movelh_ps(ab, cd),
        _mm_movehl_ps(cd, ab),
        _mm_movelh_ps(ab_next, cd_next),
        _mm_movehl_ps(cd_next, ab_next),
    ]
}
