//! AVX-512: what a code stands for is looked up in a table of sixteen numbers that fills one vector.
//!
//! The table of a group has its scale and its minimum in it, so an unpacked weight is the widened one, and nothing has to
//! be added for codes that do not start at zero. The bytes of Q8_0 are converted and scaled. For blocks of 32 elements; the
//! others are unpacked as on AVX2.

use std::arch::x86_64::*;

use simmer_blocks::FourBit;
use simmer_blocks::ggml::{BlockType, IQ4_NL_VALUES};

use super::ggml::{half, halves};
use super::vector::{bytes, parts, prefetch_block};
use super::{GROUP, Part};
use crate::product::widen::four_bit::round;
use crate::simd::{prefetch, sixteen};

/// Numbers of a vector.
pub(super) const LANES: usize = 16;

/// 0 to 15: the table of codes that are their own values.
const COUNT: [f32; LANES] = {
    let mut count = [0.0; LANES];
    let mut at = 0;
    while at < LANES {
        count[at] = at as f32;
        at += 1;
    }
    count
};

/// If this processor has the instructions that unpacking uses here.
pub(super) fn available() -> bool {
    super::vector::available() && is_x86_feature_detected!("avx512f")
}

/// If codes of this type are looked up.
pub(super) fn takes(kind: BlockType) -> bool {
    kind.block_len() == GROUP
}

/// The sums of some rows of blocks, `Σ x w`, for each token.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) fn dots<const M: usize, const R: usize>(
    kind: BlockType,
    rows: [&[u8]; R],
    tokens: &Part<'_, M>,
) -> [[f32; M]; R] {
    match kind {
        BlockType::Q4_0 => q4_0(rows, tokens),
        BlockType::Q4_1 => q4_1(rows, tokens),
        BlockType::Q5_0 => q5_0(rows, tokens),
        BlockType::Q5_1 => q5_1(rows, tokens),
        BlockType::IQ4_NL => iq4_nl(rows, tokens),
        BlockType::Q8_0 => q8_0(rows, tokens),
        BlockType::Q4_K | BlockType::Q5_K | BlockType::Q6_K => {
            unreachable!("types that are unpacked as on AVX2")
        }
    }
}

/// The sums of rows of blocks of one group, one block of each row after another. `unpack` gives the weights of a block.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn blocks<const BYTES: usize, const M: usize, const R: usize>(
    rows: [&[u8]; R],
    tokens: &Part<'_, M>,
    unpack: impl Fn(&[u8; BYTES]) -> [__m512; 2],
) -> [[f32; M]; R] {
    let mut sums = [[[_mm512_setzero_ps(); 2]; M]; R];
    let rows = parts::<BYTES, R>(rows);
    let count = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    for index in 0..count {
        for (row, sums) in rows.iter().zip(&mut sums) {
            let block = &row[index];
            prefetch_block(block, index, tokens.ahead);
            let w = unpack(block);
            for (x, sums) in tokens.x.iter().zip(sums) {
                add::<M>(&x[index], w, sums);
            }
        }
    }
    totals(sums)
}

/// `sums += x w` over a group of features of a token. One token has two sums, which do not wait for each other; for more,
/// there are enough sums anyway.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn add<const M: usize>(x: &[f32; GROUP], w: [__m512; 2], sums: &mut [__m512; 2]) {
    let (x, _) = x.as_chunks::<LANES>();
    for (half, (x, w)) in x.iter().zip(w).enumerate() {
        let sum = &mut sums[if M == 1 { half } else { 0 }];
        *sum = _mm512_fmadd_ps(sixteen(x), w, *sum);
    }
}

/// The sum of the lanes, for each row and token.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn totals<const M: usize, const R: usize>(sums: [[[__m512; 2]; M]; R]) -> [[f32; M]; R] {
    let mut results = [[0.0; M]; R];
    for (results, sums) in results.iter_mut().zip(sums) {
        for (result, [first, second]) in results.iter_mut().zip(sums) {
            *result = _mm512_reduce_add_ps(_mm512_add_ps(first, second));
        }
    }
    results
}

/// `d: f16, q: [i8; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn q8_0<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    blocks::<34, M, R>(rows, tokens, |block| {
        let d = _mm512_set1_ps(half(block, 0));
        let first = _mm512_cvtepi8_epi32(bytemuck::pod_read_unaligned(&block[2..18]));
        let second = _mm512_cvtepi8_epi32(bytemuck::pod_read_unaligned(&block[18..34]));
        [
            _mm512_mul_ps(_mm512_cvtepi32_ps(first), d),
            _mm512_mul_ps(_mm512_cvtepi32_ps(second), d),
        ]
    })
}

/// `d: f16, q: [u4; 32]`, stored with an offset of 8.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn q4_0<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    let values = _mm512_sub_ps(sixteen(&COUNT), _mm512_set1_ps(8.0));
    blocks::<18, M, R>(rows, tokens, |block| {
        let table = _mm512_mul_ps(values, _mm512_set1_ps(half(block, 0)));
        look_up(table, four_bits(&block[2..]))
    })
}

/// `d: f16, m: f16, q: [u4; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn q4_1<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    let values = sixteen(&COUNT);
    blocks::<20, M, R>(rows, tokens, |block| {
        let [d, m] = halves(block);
        let table = _mm512_fmadd_ps(values, _mm512_set1_ps(d), _mm512_set1_ps(m));
        look_up(table, four_bits(&block[4..]))
    })
}

/// `d: f16, fifth bits: [u1; 32], q: [u4; 32]`, stored with an offset of 16.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn q5_0<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    let upper = sixteen(&COUNT);
    let lower = _mm512_sub_ps(upper, _mm512_set1_ps(16.0));
    blocks::<22, M, R>(rows, tokens, |block| {
        let d = _mm512_set1_ps(half(block, 0));
        let tables = [_mm512_mul_ps(lower, d), _mm512_mul_ps(upper, d)];
        let fifth = bytemuck::pod_read_unaligned(&block[2..6]);
        look_up_five(tables, four_bits(&block[6..]), fifth)
    })
}

/// `d: f16, m: f16, fifth bits: [u1; 32], q: [u4; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn q5_1<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    let lower = sixteen(&COUNT);
    let upper = _mm512_add_ps(lower, _mm512_set1_ps(16.0));
    blocks::<24, M, R>(rows, tokens, |block| {
        let [d, m] = halves(block);
        let [d, m] = [_mm512_set1_ps(d), _mm512_set1_ps(m)];
        let tables = [_mm512_fmadd_ps(lower, d, m), _mm512_fmadd_ps(upper, d, m)];
        let fifth = bytemuck::pod_read_unaligned(&block[4..8]);
        look_up_five(tables, four_bits(&block[8..]), fifth)
    })
}

/// `d: f16, q: [u4; 32]`, where a code stands for a value of a table.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn iq4_nl<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    let mut values = [0.0; LANES];
    for (value, byte) in values.iter_mut().zip(IQ4_NL_VALUES) {
        *value = f32::from(byte);
    }
    let values = sixteen(&values);
    blocks::<18, M, R>(rows, tokens, |block| {
        let table = _mm512_mul_ps(values, _mm512_set1_ps(half(block, 0)));
        look_up(table, four_bits(&block[2..]))
    })
}

/// Codes whose lower four bits count, a word each: byte `i` of 16 holds elements `i` (lower bits) and `i + 16`.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn four_bits(codes: &[u8]) -> [__m512i; 2] {
    let words = _mm512_cvtepu8_epi32(bytemuck::pod_read_unaligned(&codes[..LANES]));
    [words, _mm512_srli_epi32::<4>(words)]
}

/// The values of codes of four bits.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn look_up(table: __m512, codes: [__m512i; 2]) -> [__m512; 2] {
    [
        _mm512_permutexvar_ps(codes[0], table),
        _mm512_permutexvar_ps(codes[1], table),
    ]
}

/// The values of codes of five bits: bit `i` of `fifth` belongs to element `i`, and selects one of two tables.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn look_up_five(tables: [__m512; 2], codes: [__m512i; 2], fifth: u32) -> [__m512; 2] {
    let [lower, upper] = tables;
    let [first, second] = [fifth as u16, (fifth >> 16) as u16];
    let values = look_up(lower, codes);
    [
        _mm512_mask_permutexvar_ps(values[0], first, codes[0], upper),
        _mm512_mask_permutexvar_ps(values[1], second, codes[1], upper),
    ]
}

/// Elements that 32 bytes of nf4 or fp4 hold.
const UNIT: usize = 64;

/// `Σ x w` over some rows of nf4 or fp4, for each token; `scales` has those of the blocks of each row.
///
/// The table of a block has its values rounded as they are when a matrix is widened. See
/// [`Order::Halves`](super::Order::Halves) for the order of the tokens' features.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) fn four_bit<const M: usize, const R: usize>(
    form: &FourBit,
    rows: [&[u8]; R],
    scales: &[f32],
    tokens: &Part<'_, M>,
) -> [[f32; M]; R] {
    let rows = parts::<{ UNIT / 2 }, R>(rows);
    let count = scales.len() / R;
    let units = form.block / UNIT;
    let values = sixteen(&form.values);
    let shifts = _mm512_set_epi32(16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0);
    let mut sums = [[[_mm512_setzero_ps(); 2]; M]; R];
    for block in 0..count {
        for (row, (codes, sums)) in rows.iter().zip(&mut sums).enumerate() {
            let scale = _mm512_set1_ps(scales[row * count + block]);
            let table = round(_mm512_mul_ps(values, scale), form.rounding);
            for unit in block * units..(block + 1) * units {
                let codes = &codes[unit];
                prefetch(&codes[..], tokens.ahead);
                let words = _mm512_broadcast_i64x4(bytes(codes));
                let words = _mm512_srlv_epi32(words, shifts);
                let first = look_up(table, [words, _mm512_srli_epi32::<4>(words)]);
                let shifted = [
                    _mm512_srli_epi32::<8>(words),
                    _mm512_srli_epi32::<12>(words),
                ];
                let second = look_up(table, shifted);
                for (x, sums) in tokens.x.iter().zip(sums.iter_mut()) {
                    add::<M>(&x[2 * unit], first, sums);
                    add::<M>(&x[2 * unit + 1], second, sums);
                }
            }
        }
    }
    totals(sums)
}
