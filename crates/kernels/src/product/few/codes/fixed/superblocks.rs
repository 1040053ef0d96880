//! Rows of blocks of 256 elements: Q4_K, Q5_K and Q6_K.
//!
//! For a token of 16 bits the codes of scales are multiplied as integers, and the sums of a block are converted once. They fit into
//! 32 bits. A lane sums four products `q h` or `q l` at a time, `|l| <= 128`, in 16 bits:
//!
//! - Q5_K: `4 · 31 · 127 = 15748`, and twice that for each vector of 64 codes, times a scale of six bits and 256, four times:
//!   `2 · 15748 · 63 · 256 · 4 < 2^31`; Q4_K has codes of half that size;
//! - Q6_K: `4 · 63 · 128 = 32256`, and `|h| <= 32`: `2 · 4 · 63 · 32 · 128 · 256 · 4 < 2^31`.

use std::arch::x86_64::*;

use super::{LANES, Token, UNIT, UPPER, part_of_lane, vectors, whole};
use crate::product::few::AHEAD;
use crate::product::few::codes::ggml::{Scales, half};
use crate::product::few::codes::vector::{self, bytes, parts, prefetch_block};
use crate::simd::sixteen;

/// Vectors of codes of a block.
const UNITS: usize = 4;

/// Halves of 16 bits in a vector.
const HALVES: usize = 2 * LANES;

/// What a block has beside its codes.
#[derive(Clone, Copy)]
struct Head {
    /// The codes of up to sixteen scales.
    codes: __m256i,
    /// What a code of a scale is multiplied with.
    scale: f32,
    /// What is subtracted for each scale, times the sum of its features.
    minima: __m512,
}

/// The sums of rows of blocks with `GROUPS` scales. `head` reads what a block has beside its codes, `unit` unpacks [`UNIT`]
/// codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn blocks<const BYTES: usize, const GROUPS: usize, const P: usize, const R: usize>(
    rows: [&[u8]; R],
    token: &Token<P>,
    head: impl Fn(&[u8; BYTES]) -> Head,
    unit: impl Fn(&[u8; BYTES], usize) -> __m512i,
) -> [f32; R] {
    let rows = parts::<BYTES, R>(rows);
    let none = Head {
        codes: _mm256_setzero_si256(),
        scale: 0.0,
        minima: _mm512_setzero_ps(),
    };
    let mut totals = [_mm512_setzero_ps(); R];
    let mut lows = totals;
    for (index, x) in token.bytes.as_chunks::<UNITS>().0.iter().enumerate() {
        let sums = numbers(&token.sums[index * GROUPS..][..GROUPS]);
        let mut heads = [none; R];
        for row in 0..R {
            let block = &rows[row][index];
            prefetch_block(block, index, AHEAD);
            heads[row] = head(block);
            lows[row] = _mm512_fnmadd_ps(heads[row].minima, sums, lows[row]);
        }
        let unit = |row: usize, at| unit(&rows[row][index], at);
        if P == 2 {
            add_whole::<GROUPS, P, R>(x, token.units[index], heads, unit, &mut totals);
        } else {
            let units = numbers(&token.units[index * GROUPS..][..GROUPS]);
            add_scaled::<GROUPS, P, R>(x, units, heads, unit, &mut totals);
        }
    }
    let mut results = [0.0; R];
    for (row, result) in results.iter_mut().enumerate() {
        *result = _mm512_reduce_add_ps(_mm512_add_ps(totals[row], lows[row]));
    }
    results
}

/// Adds the products of a block, whose scales are multiplied as numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_scaled<const GROUPS: usize, const P: usize, const R: usize>(
    x: &[[[i8; UNIT]; P]; UNITS],
    units: __m512,
    heads: [Head; R],
    unit: impl Fn(usize, usize) -> __m512i,
    totals: &mut [__m512; R],
) {
    let lanes: __m512i = bytemuck::cast(const { part_of_lane(GROUPS / UNITS) });
    let mut scales = [_mm512_setzero_ps(); R];
    for (scales, head) in scales.iter_mut().zip(heads) {
        let codes = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(head.codes));
        let scaled = _mm512_mul_ps(codes, _mm512_set1_ps(head.scale));
        *scales = _mm512_mul_ps(scaled, units);
    }
    for (at, x) in x.iter().enumerate() {
        let x = vectors(x);
        let first = (at * GROUPS / UNITS) as i32;
        let lanes = _mm512_add_epi32(lanes, _mm512_set1_epi32(first));
        for (row, total) in totals.iter_mut().enumerate() {
            let sum = whole(unit(row, at), x);
            let scale = _mm512_permutexvar_ps(lanes, scales[row]);
            *total = _mm512_fmadd_ps(sum, scale, *total);
        }
    }
}

/// Adds the products of a block, whose scales are multiplied as integers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_whole<const GROUPS: usize, const P: usize, const R: usize>(
    x: &[[[i8; UNIT]; P]; UNITS],
    x_unit: f32,
    heads: [Head; R],
    unit: impl Fn(usize, usize) -> __m512i,
    totals: &mut [__m512; R],
) {
    let halves: __m512i = bytemuck::cast(const { scale_of_half(GROUPS / UNITS) });
    let mut scales = [_mm512_setzero_si512(); R];
    for (scales, head) in scales.iter_mut().zip(heads) {
        let upper = _mm512_castsi256_si512(_mm256_slli_epi16::<8>(head.codes));
        *scales = _mm512_inserti64x4::<1>(upper, head.codes);
    }
    let mut sums = [_mm512_setzero_si512(); R];
    for (at, x) in x.iter().enumerate() {
        let x = vectors(x);
        let first = (at * GROUPS / UNITS) as i16;
        let halves = _mm512_add_epi16(halves, _mm512_set1_epi16(first));
        for (row, sum) in sums.iter_mut().enumerate() {
            let codes = unit(row, at);
            let upper = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, x[0]);
            let lower = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, x[1]);
            let scale = _mm512_permutexvar_epi16(halves, scales[row]);
            *sum = _mm512_dpwssd_epi32(*sum, _mm512_packs_epi32(upper, lower), scale);
        }
    }
    for (row, total) in totals.iter_mut().enumerate() {
        let scale = _mm512_set1_ps(heads[row].scale * x_unit);
        *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[row]), scale, *total);
    }
}

/// `d: f16, m: f16, scales and minima: [u6; 16], q: [u4; 256]`
///
/// 32 bytes of `q` hold two groups, the first in the lower bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn q4_k<const P: usize, const R: usize>(rows: [&[u8]; R], token: &Token<P>) -> [f32; R] {
    blocks::<144, 8, P, R>(
        rows,
        token,
        |block| eight(block),
        |block, at| two_groups(&block[16 + 32 * at..]),
    )
}

/// `d: f16, m: f16, scales and minima: [u6; 16], fifth bits: [u8; 32], q: [u4; 256]`
///
/// As [`q4_k`]; bit `p` of fifth bits `i` belongs to element `i` of group `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn q5_k<const P: usize, const R: usize>(rows: [&[u8]; R], token: &Token<P>) -> [f32; R] {
    let sixteens = _mm512_set1_epi8(16);
    blocks::<176, 8, P, R>(
        rows,
        token,
        |block| eight(block),
        |block, at| {
            let fifth = _mm512_broadcast_i64x4(bytes(&block[16..]));
            let first = 0x0101_0101_0101_0101 << (2 * at);
            let second = first << 1;
            let bits =
                _mm512_setr_epi64(first, first, first, first, second, second, second, second);
            let codes = two_groups(&block[48 + 32 * at..]);
            _mm512_mask_add_epi8(codes, _mm512_test_epi8_mask(fifth, bits), codes, sixteens)
        },
    )
}

/// `lower bits: [u4; 256], upper bits: [u2; 256], scales: [i8; 16], d: f16`, stored with an offset of 32.
///
/// Each half of the block has 64 bytes of lower bits, for elements `i` and `i + 64`, and 32 bytes of upper bits, for
/// elements `i`, `i + 32`, `i + 64` and `i + 96`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn q6_k<const P: usize, const R: usize>(rows: [&[u8]; R], token: &Token<P>) -> [f32; R] {
    let [four, upper] = [_mm512_set1_epi8(15), _mm512_set1_epi8(0x30)];
    blocks::<210, 16, P, R>(
        rows,
        token,
        |block| {
            let scale = half(block, 208);
            let codes: __m128i = bytemuck::pod_read_unaligned(&block[192..208]);
            let numbers = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
            let scales = _mm512_mul_ps(numbers, _mm512_set1_ps(scale));
            Head {
                codes: _mm256_cvtepi8_epi16(codes),
                scale,
                minima: _mm512_mul_ps(scales, _mm512_set1_ps(32.0)),
            }
        },
        |block, at| {
            let [part, is_second] = [at / 2, at % 2];
            let lower: __m512i = bytemuck::pod_read_unaligned(&block[64 * part..64 * part + 64]);
            let bits = _mm512_broadcast_i64x4(bytes(&block[128 + 32 * part..]));
            let [lower, bits] = if is_second == 0 {
                let shifted = _mm512_slli_epi16::<4>(bits);
                [lower, _mm512_mask_slli_epi16::<2>(shifted, UPPER, bits)]
            } else {
                let shifted = _mm512_mask_srli_epi16::<2>(bits, UPPER, bits);
                [_mm512_srli_epi16::<4>(lower), shifted]
            };
            let lower = _mm512_and_si512(lower, four);
            // lower | bits & upper
            _mm512_ternarylogic_epi32::<0xf8>(lower, bits, upper)
        },
    )
}

/// The head of a block of Q4_K or Q5_K.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn eight(block: &[u8]) -> Head {
    let scales = Scales::of(block);
    let codes = _mm_set_epi64x(0, i64::from_le_bytes(scales.codes));
    Head {
        codes: _mm256_cvtepi8_epi16(codes),
        scale: scales.factor,
        minima: _mm512_zextps256_ps512(scales.minima),
    }
}

/// The lower and the upper four bits of 32 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn two_groups(q: &[u8]) -> __m512i {
    let both = _mm512_broadcast_i64x4(bytes(q));
    let both = _mm512_mask_srli_epi16::<4>(both, UPPER, both);
    _mm512_and_si512(both, _mm512_set1_epi8(15))
}

/// For each half of 16 bits, the place of its scale: the first four of each eight are sums of upper bytes, whose scales times
/// 256 are the first sixteen.
const fn scale_of_half(groups: usize) -> [i16; HALVES] {
    let mut halves = [0; HALVES];
    let mut half = 0;
    while half < HALVES {
        let is_lower = half % 8 >= 4;
        halves[half] = (half * groups / HALVES + if is_lower { LANES } else { 0 }) as i16;
        half += 1;
    }
    halves
}

/// Eight or sixteen numbers; lanes beyond are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn numbers(numbers: &[f32]) -> __m512 {
    match numbers.first_chunk::<LANES>() {
        Some(numbers) => sixteen(numbers),
        None => _mm512_zextps256_ps512(vector::numbers(numbers)),
    }
}
