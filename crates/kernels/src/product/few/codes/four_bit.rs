//! nf4 and fp4: a table of 16 values, and a scale for each block.

use std::arch::x86_64::*;

use simmer_blocks::{FourBit, Rounding};

use super::Part;
use super::vector::{LANES, both, bytes, numbers, parts, product};
use crate::simd::prefetch;

/// Elements that 32 bytes hold.
const UNIT: usize = 64;

/// If rows of `columns` elements are unpacked: they start and end with a block, and blocks are whole units.
pub(super) fn takes(form: &FourBit, columns: usize) -> bool {
    form.block.is_multiple_of(UNIT) && columns.is_multiple_of(form.block)
}

/// `Σ x w` over some rows, for each token; `scales` has those of the blocks of each row.
///
/// The values of a block, rounded as they are when a matrix is widened, are a table in two vectors, from which codes
/// select.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dots<const M: usize, const R: usize>(
    form: &FourBit,
    rows: [&[u8]; R],
    scales: &[f32],
    tokens: &Part<'_, M>,
) -> [[f32; M]; R] {
    let values = [numbers(&form.values), numbers(&form.values[LANES..])];
    let rows = parts::<{ UNIT / 2 }, R>(rows);
    let count = scales.len() / R;
    let units = form.block / UNIT;
    let mut first = [[_mm256_setzero_ps(); M]; R];
    let mut second = first;
    for block in 0..count {
        for (row, codes) in rows.iter().enumerate() {
            let scale = _mm256_set1_ps(scales[row * count + block]);
            let table = [
                round(_mm256_mul_ps(values[0], scale), form.rounding),
                round(_mm256_mul_ps(values[1], scale), form.rounding),
            ];
            for unit in block * units..(block + 1) * units {
                prefetch(&codes[unit], tokens.ahead);
                let w = unpack(table, bytes(&codes[unit]));
                for (token, x) in tokens.x.iter().enumerate() {
                    let [one, other] = [&mut first[row][token], &mut second[row][token]];
                    *one = product(&x[2 * unit], [w[0], w[1], w[2], w[3]], *one);
                    *other = product(&x[2 * unit + 1], [w[4], w[5], w[6], w[7]], *other);
                }
            }
        }
    }
    both(first, second)
}

/// The 64 elements of eight words of codes: element `v` of each word in vector `v`. The upper half of a byte is the
/// first of its two elements.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack(table: [__m256; 2], words: __m256i) -> [__m256; 8] {
    [
        select(
            table,
            _mm256_srli_epi32::<4>(words),
            _mm256_slli_epi32::<24>(words),
        ),
        select(table, words, _mm256_slli_epi32::<28>(words)),
        select(
            table,
            _mm256_srli_epi32::<12>(words),
            _mm256_slli_epi32::<16>(words),
        ),
        select(
            table,
            _mm256_srli_epi32::<8>(words),
            _mm256_slli_epi32::<20>(words),
        ),
        select(
            table,
            _mm256_srli_epi32::<20>(words),
            _mm256_slli_epi32::<8>(words),
        ),
        select(
            table,
            _mm256_srli_epi32::<16>(words),
            _mm256_slli_epi32::<12>(words),
        ),
        select(table, _mm256_srli_epi32::<28>(words), words),
        select(
            table,
            _mm256_srli_epi32::<24>(words),
            _mm256_slli_epi32::<4>(words),
        ),
    ]
}

/// The values of codes: their lower three bits are the lowest bits of `low`, and the fourth is the highest of `fourth`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn select([first, second]: [__m256; 2], low: __m256i, fourth: __m256i) -> __m256 {
    _mm256_blendv_ps(
        _mm256_permutevar8x32_ps(first, low),
        _mm256_permutevar8x32_ps(second, low),
        _mm256_castsi256_ps(fourth),
    )
}

/// Numbers rounded to a dtype, ties to even.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn round(numbers: __m256, rounding: Rounding) -> __m256 {
    match rounding {
        Rounding::F32 => numbers,
        Rounding::Bf16 => round_to_bf16(numbers),
        Rounding::F16 => _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(numbers)),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn round_to_bf16(numbers: __m256) -> __m256 {
    let bits = _mm256_castps_si256(numbers);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    let upper = _mm256_set1_epi32(!0xffff);
    _mm256_castsi256_ps(_mm256_and_si256(_mm256_add_epi32(bits, half), upper))
}
