//! Rows of blocks of 32 elements, two of which fill a vector.

use std::arch::x86_64::*;

use super::{OFFSET, Token, in_halves, two, vectors, whole, whole_of_bytes};
use crate::product::few::AHEAD;
use crate::product::few::codes::ROWS;
use crate::product::few::codes::ggml::{IQ4_NL_BYTES, IQ4_NL_OFFSET};
use crate::product::few::codes::vector::{bytes, parts, prefetch_block};

/// The sums of rows of blocks of 32 elements, two of which fill a vector and have `BYTES` bytes.
///
/// `head` gives the scales of the two blocks, and what is added for a feature of one. `unit` unpacks their codes, which are
/// below 64 unless `EIGHT_BITS`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn pairs<const BYTES: usize, const EIGHT_BITS: bool, const P: usize>(
    rows: [&[u8]; ROWS],
    token: &Token<P>,
    head: impl Fn(&[u8; BYTES]) -> [__m128; 2],
    unit: impl Fn(&[u8; BYTES]) -> __m512i,
) -> [f32; ROWS] {
    let rows = parts::<BYTES, ROWS>(rows);
    let mut totals = [_mm512_setzero_ps(); ROWS];
    let mut lows = [_mm_setzero_ps(); ROWS];
    for (index, x) in token.bytes.iter().enumerate() {
        let x = vectors(&x.0);
        let units = two(&token.units[2 * index..]);
        let sums = two(&token.sums[2 * index..]);
        for row in 0..ROWS {
            let blocks = &rows[row][index];
            prefetch_block(blocks, index, AHEAD);
            let [scale, low] = head(blocks);
            lows[row] = _mm_fmadd_ps(low, sums, lows[row]);
            let codes = unit(blocks);
            let sum = if EIGHT_BITS {
                whole_of_bytes(codes, x)
            } else {
                whole(codes, x)
            };
            totals[row] = _mm512_fmadd_ps(sum, in_halves(_mm_mul_ps(scale, units)), totals[row]);
        }
    }
    let mut results = [0.0; ROWS];
    for (row, result) in results.iter_mut().enumerate() {
        let low = _mm_cvtss_f32(lows[row]) + _mm_cvtss_f32(_mm_movehdup_ps(lows[row]));
        *result = _mm512_reduce_add_ps(totals[row]) + low;
    }
    results
}

/// `d: f16, q: [i8; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn q8_0<const P: usize>(rows: [&[u8]; ROWS], token: &Token<P>) -> [f32; ROWS] {
    let offset = _mm512_set1_epi8(i8::MIN);
    pairs::<68, true, P>(
        rows,
        token,
        |blocks| scales(blocks, -OFFSET),
        |blocks| {
            let first = _mm512_castsi256_si512(bytes(&blocks[2..]));
            let codes = _mm512_inserti64x4::<1>(first, bytes(&blocks[36..]));
            _mm512_xor_si512(codes, offset)
        },
    )
}

/// `d: f16, q: [u4; 32]`, stored with an offset of 8.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn q4_0<const P: usize>(rows: [&[u8]; ROWS], token: &Token<P>) -> [f32; ROWS] {
    pairs::<36, false, P>(
        rows,
        token,
        |blocks| scales(blocks, -8.0),
        |blocks| four_bits(&blocks[2..], &blocks[20..]),
    )
}

/// `d: f16, m: f16, q: [u4; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn q4_1<const P: usize>(rows: [&[u8]; ROWS], token: &Token<P>) -> [f32; ROWS] {
    pairs::<40, false, P>(
        rows,
        token,
        |blocks| scales_and_minima(blocks),
        |blocks| four_bits(&blocks[4..], &blocks[24..]),
    )
}

/// `d: f16, fifth bits: [u1; 32], q: [u4; 32]`, stored with an offset of 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn q5_0<const P: usize>(rows: [&[u8]; ROWS], token: &Token<P>) -> [f32; ROWS] {
    pairs::<44, false, P>(
        rows,
        token,
        |blocks| scales(blocks, -16.0),
        |blocks| {
            let four = four_bits(&blocks[6..], &blocks[28..]);
            with_fifth(four, &blocks[2..], &blocks[24..])
        },
    )
}

/// `d: f16, m: f16, fifth bits: [u1; 32], q: [u4; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn q5_1<const P: usize>(rows: [&[u8]; ROWS], token: &Token<P>) -> [f32; ROWS] {
    pairs::<48, false, P>(
        rows,
        token,
        |blocks| scales_and_minima(blocks),
        |blocks| {
            let four = four_bits(&blocks[8..], &blocks[32..]);
            with_fifth(four, &blocks[4..], &blocks[28..])
        },
    )
}

/// `d: f16, q: [u4; 32]`, where a code stands for a value of a table.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn iq4_nl<const P: usize>(rows: [&[u8]; ROWS], token: &Token<P>) -> [f32; ROWS] {
    let values = _mm512_broadcast_i32x4(bytemuck::cast(IQ4_NL_BYTES));
    pairs::<36, true, P>(
        rows,
        token,
        |blocks| scales(blocks, -f32::from(IQ4_NL_OFFSET)),
        |blocks| _mm512_shuffle_epi8(values, four_bits(&blocks[2..], &blocks[20..])),
    )
}

/// The f16 at the start of two blocks, and the same times what a code of zero stands for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c")]
fn scales(blocks: &[u8], zero: f32) -> [__m128; 2] {
    let [first, second] = [0, blocks.len() / 2].map(|at| word(blocks, at));
    let d = _mm_cvtph_ps(_mm_cvtsi32_si128(
        (u32::from(first) | u32::from(second) << 16) as i32,
    ));
    [d, _mm_mul_ps(d, _mm_set1_ps(zero))]
}

/// The two f16 at the start of each of two blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c")]
fn scales_and_minima(blocks: &[u8]) -> [__m128; 2] {
    // words of a register: an array of them would be written to memory and waited for
    let [first, second]: [u32; 2] =
        [0, blocks.len() / 2].map(|at| bytemuck::pod_read_unaligned(&blocks[at..at + 4]));
    let both = u64::from(first) | u64::from(second) << 32;
    let numbers = _mm_cvtph_ps(_mm_cvtsi64_si128(both as i64));
    let halves = _mm_permute_ps::<0b11_01_10_00>(numbers);
    [halves, _mm_movehl_ps(halves, halves)]
}

/// The codes of two times 16 bytes: byte `i` holds elements `i` (lower bits) and `i + 16` of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
fn four_bits(first: &[u8], second: &[u8]) -> __m512i {
    /// The words of the upper quarter of each half.
    const ODD: u32 = 0xff00_ff00;
    let first: __m128i = bytemuck::pod_read_unaligned(&first[..16]);
    let second: __m128i = bytemuck::pod_read_unaligned(&second[..16]);
    let first = _mm512_castsi256_si512(_mm256_broadcastsi128_si256(first));
    let both = _mm512_inserti64x4::<1>(first, _mm256_broadcastsi128_si256(second));
    let both = _mm512_mask_srli_epi16::<4>(both, ODD, both);
    _mm512_and_si512(both, _mm512_set1_epi8(15))
}

/// Codes with their fifth bits: bit `i` of four bytes belongs to element `i` of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
fn with_fifth(codes: __m512i, first: &[u8], second: &[u8]) -> __m512i {
    let [first, second]: [u32; 2] =
        [first, second].map(|bits| bytemuck::pod_read_unaligned(&bits[..4]));
    let fifth = u64::from(first) | u64::from(second) << 32;
    _mm512_mask_add_epi8(codes, fifth, codes, _mm512_set1_epi8(16))
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    bytemuck::pod_read_unaligned(&bytes[at..at + 2])
}
