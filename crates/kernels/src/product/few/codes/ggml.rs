//! The block types of GGUF files.
//!
//! A block is unpacked group by group into unsigned bytes, whose numbers are multiplied with the tokens before they are
//! scaled. What a code of zero stands for is added by means of the sums of the tokens' features: as a start of the
//! group's sum where it is a multiple of the scale, else from the minima of the block.

use std::arch::asm;
use std::arch::x86_64::*;

use simmer_blocks::ggml::{BlockType, IQ4_NL_VALUES};

use super::Part;
use super::vector::{LANES, both, bytes, numbers, parts, prefetch_block, product, signed, words};
use crate::simd::prefetch;

/// The values of IQ4_NL are this much lower than the unsigned bytes that they are unpacked into.
pub(super) const IQ4_NL_OFFSET: i8 = 127;

/// The values of IQ4_NL as unsigned bytes.
pub(super) const IQ4_NL_BYTES: [u8; 16] = {
    let mut bytes = [0; 16];
    let mut code = 0;
    while code < 16 {
        bytes[code] = IQ4_NL_VALUES[code].wrapping_add(IQ4_NL_OFFSET) as u8;
        code += 1;
    }
    bytes
};

/// Codes of 32 elements in unsigned bytes, and their scale.
#[derive(Clone, Copy)]
struct Group {
    codes: __m256i,
    /// In the lanes of the elements that it is for.
    scale: __m256,
}

/// The sums of some rows, `Σ x w`, for each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dots<const M: usize, const R: usize>(
    kind: BlockType,
    rows: [&[u8]; R],
    tokens: &Part<'_, M>,
) -> [[f32; M]; R] {
    match kind {
        BlockType::Q8_0 => q8_0(rows, tokens),
        BlockType::Q4_0 => q4_0(rows, tokens),
        BlockType::Q4_1 => q4_1(rows, tokens),
        BlockType::Q5_0 => q5_0(rows, tokens),
        BlockType::Q5_1 => q5_1(rows, tokens),
        BlockType::IQ4_NL => iq4_nl(rows, tokens),
        BlockType::Q4_K => q4_k(rows, tokens),
        BlockType::Q5_K => q5_k(rows, tokens),
        BlockType::Q6_K => q6_k(rows, tokens),
    }
}

/// The sums of rows of blocks of `UNITS · GROUPS` groups, one block of each row after another.
///
/// `head` reads the scales of a block, `unit` unpacks some groups. If `OFFSET`, the sum of a group starts with the tokens'
/// sums; else `low` adds what the minima contribute.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn blocks<
    const BYTES: usize,
    const UNITS: usize,
    const GROUPS: usize,
    const OFFSET: bool,
    const M: usize,
    const R: usize,
    H,
>(
    rows: [&[u8]; R],
    tokens: &Part<'_, M>,
    head: impl Fn(&[u8; BYTES]) -> H,
    low: impl Fn(&H, &[f32], __m256) -> __m256,
    unit: impl Fn(&[u8; BYTES], &H, usize) -> [Group; GROUPS],
) -> [[f32; M]; R] {
    let mut totals = [[_mm256_setzero_ps(); M]; R];
    let mut lows = [[_mm256_setzero_ps(); M]; R];
    let rows = parts::<BYTES, R>(rows);
    let count = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let of_block = tokens.sums[0].len().checked_div(count).unwrap_or(0);
    for index in 0..count {
        for (row, (totals, lows)) in rows.iter().zip(totals.iter_mut().zip(&mut lows)) {
            let block = &row[index];
            prefetch_block(block, index, tokens.ahead);
            let head = head(block);
            if !OFFSET {
                for (lows, sums) in lows.iter_mut().zip(&tokens.sums) {
                    *lows = low(&head, &sums[index * of_block..][..of_block], *lows);
                }
            }
            for at in 0..UNITS {
                let first = (index * UNITS + at) * GROUPS;
                let groups = unit(block, &head, at);
                for (group, Group { codes, scale }) in groups.into_iter().enumerate() {
                    let group = first + group;
                    let w = words(codes);
                    for (token, total) in totals.iter_mut().enumerate() {
                        let start = if OFFSET {
                            numbers(&tokens.sums[token][group * LANES..])
                        } else {
                            _mm256_setzero_ps()
                        };
                        let sum = product(&tokens.x[token][group], w, start);
                        *total = _mm256_fmadd_ps(sum, scale, *total);
                    }
                }
            }
        }
    }
    both(totals, lows)
}

/// `d: f16, q: [i8; 32]`
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    let mut totals = [[_mm256_setzero_ps(); M]; R];
    let rows = parts::<34, R>(rows);
    for (index, _) in rows[0].iter().enumerate() {
        for (row, totals) in rows.iter().zip(&mut totals) {
            let block = &row[index];
            prefetch(&block[..], tokens.ahead);
            let scale = _mm256_set1_ps(half(block, 0));
            let w = [
                signed(block, 2),
                signed(block, 10),
                signed(block, 18),
                signed(block, 26),
            ];
            for (x, total) in tokens.x.iter().zip(totals) {
                let sum = product(&x[index], w, _mm256_setzero_ps());
                *total = _mm256_fmadd_ps(sum, scale, *total);
            }
        }
    }
    both(totals, [[_mm256_setzero_ps(); M]; R])
}

/// `d: f16, q: [u4; 32]`, stored with an offset of 8.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    blocks::<18, 1, 1, true, M, R, _>(
        rows,
        tokens,
        |block| half(block, 0),
        |_, _, low| low,
        |block, d, _| [Group::of(four_bits(&block[2..]), *d)],
    )
}

/// `d: f16, m: f16, q: [u4; 32]`
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_1<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    blocks::<20, 1, 1, false, M, R, _>(
        rows,
        tokens,
        |block| halves(block),
        |[_, m], sums, low| _mm256_fmadd_ps(numbers(sums), _mm256_set1_ps(*m), low),
        |block, [d, _], _| [Group::of(four_bits(&block[4..]), *d)],
    )
}

/// `d: f16, fifth bits: [u1; 32], q: [u4; 32]`, stored with an offset of 16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_0<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    blocks::<22, 1, 1, true, M, R, _>(
        rows,
        tokens,
        |block| half(block, 0),
        |_, _, low| low,
        |block, d, _| [Group::of(five_bits(&block[2..6], &block[6..]), *d)],
    )
}

/// `d: f16, m: f16, fifth bits: [u1; 32], q: [u4; 32]`
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_1<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    blocks::<24, 1, 1, false, M, R, _>(
        rows,
        tokens,
        |block| halves(block),
        |[_, m], sums, low| _mm256_fmadd_ps(numbers(sums), _mm256_set1_ps(*m), low),
        |block, [d, _], _| [Group::of(five_bits(&block[4..8], &block[8..]), *d)],
    )
}

/// `d: f16, q: [u4; 32]`, where a code stands for a value of a table.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn iq4_nl<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    let values = _mm256_broadcastsi128_si256(bytemuck::cast(IQ4_NL_BYTES));
    blocks::<18, 1, 1, true, M, R, _>(
        rows,
        tokens,
        |block| half(block, 0),
        |_, _, low| low,
        |block, d, _| {
            let codes = _mm256_shuffle_epi8(values, four_bits(&block[2..]));
            [Group::of(codes, *d)]
        },
    )
}

/// `d: f16, m: f16, scales and minima: [u6; 16], q: [u4; 256]`
///
/// 32 bytes of `q` hold two groups, the first in the lower bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_k<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    blocks::<144, 4, 2, false, M, R, _>(
        rows,
        tokens,
        |block| Scales::of(block),
        |scales, sums, low| scales.low(sums, low),
        |block, scales, at| {
            let q = two_groups(&block[16 + 32 * at..]);
            [
                Group::of(q[0], scales.groups[2 * at]),
                Group::of(q[1], scales.groups[2 * at + 1]),
            ]
        },
    )
}

/// `d: f16, m: f16, scales and minima: [u6; 16], fifth bits: [u8; 32], q: [u4; 256]`
///
/// As [`q4_k`]; bit `p` of fifth bits `i` belongs to element `i` of group `p`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_k<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    blocks::<176, 4, 2, false, M, R, _>(
        rows,
        tokens,
        |block| Scales::of(block),
        |scales, sums, low| scales.low(sums, low),
        |block, scales, at| {
            let q = two_groups(&block[48 + 32 * at..]);
            let bits = _mm256_srl_epi16(bytes(&block[16..]), _mm_cvtsi32_si128(2 * at as i32));
            let fifth = _mm256_set1_epi8(16);
            let first = _mm256_and_si256(_mm256_slli_epi16::<4>(bits), fifth);
            let second = _mm256_and_si256(_mm256_slli_epi16::<3>(bits), fifth);
            [
                Group::of(_mm256_or_si256(q[0], first), scales.groups[2 * at]),
                Group::of(_mm256_or_si256(q[1], second), scales.groups[2 * at + 1]),
            ]
        },
    )
}

/// `lower bits: [u4; 256], upper bits: [u2; 256], scales: [i8; 16], d: f16`, stored with an offset of 32.
///
/// Each half of the block has 64 bytes of lower bits, for elements `i` and `i + 64`, and 32 bytes of upper bits, for
/// elements `i`, `i + 32`, `i + 64` and `i + 96`. Each scale is for 16 elements, which are in half of the lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q6_k<const M: usize, const R: usize>(rows: [&[u8]; R], tokens: &Part<'_, M>) -> [[f32; M]; R] {
    blocks::<210, 2, 4, true, M, R, _>(
        rows,
        tokens,
        |block| {
            let d = _mm256_set1_ps(half(block, 208));
            [
                _mm256_mul_ps(d, signed(block, 192)),
                _mm256_mul_ps(d, signed(block, 200)),
            ]
        },
        |_, _, low| low,
        |block, scales, at| {
            let first = two_groups(&block[64 * at..]);
            let second = two_groups(&block[64 * at + 32..]);
            let upper = bytes(&block[128 + 32 * at..]);
            let scales = scales[at];
            [
                q6_k_group(first[0], _mm256_slli_epi16::<4>(upper), scales, 0),
                q6_k_group(second[0], _mm256_slli_epi16::<2>(upper), scales, 2),
                q6_k_group(first[1], upper, scales, 4),
                q6_k_group(second[1], _mm256_srli_epi16::<2>(upper), scales, 6),
            ]
        },
    )
}

/// A group of Q6_K: its upper bits are bits 4 and 5 of `upper`, and its two scales start at `first`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q6_k_group(lower: __m256i, upper: __m256i, scales: __m256, first: i32) -> Group {
    let upper = _mm256_and_si256(upper, _mm256_set1_epi8(0x30));
    let halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    let lanes = _mm256_add_epi32(_mm256_set1_epi32(first), halves);
    Group {
        codes: _mm256_or_si256(lower, upper),
        scale: _mm256_permutevar8x32_ps(scales, lanes),
    }
}

impl Group {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn of(codes: __m256i, scale: f32) -> Self {
        let scale = _mm256_set1_ps(scale);
        Self { codes, scale }
    }
}

/// The scales and minima of a block of Q4_K or Q5_K.
#[derive(Clone, Copy)]
pub(in crate::product) struct Scales {
    /// What the codes of each group are multiplied with.
    pub(in crate::product) groups: [f32; 8],
    pub(in crate::product) minima: __m256,
}

impl Scales {
    /// Reads them from the first 16 bytes of a block; see `simmer_blocks` for how they are packed.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::product) fn of(block: &[u8]) -> Self {
        const FOUR: u32 = 0x0f0f_0f0f;
        const SIX: u32 = 0x3f3f_3f3f;
        const TWO: u32 = 0x0303_0303;
        let [d, m] = halves(block);
        let [a, b, c]: [u32; 3] = bytemuck::pod_read_unaligned(&block[4..16]);
        let scales = [a & SIX, c & FOUR | (a >> 6 & TWO) << 4];
        let minima = [b & SIX, c >> 4 & FOUR | (b >> 6 & TWO) << 4];
        Self {
            groups: bytemuck::cast(scaled(scales, d)),
            minima: scaled(minima, m),
        }
    }

    /// Subtracts the minima of the groups times the sums of their features.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn low(&self, sums: &[f32], low: __m256) -> __m256 {
        _mm256_fnmadd_ps(self.minima, numbers(sums), low)
    }
}

/// Eight six-bit codes times a number.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scaled(codes: [u32; 2], by: f32) -> __m256 {
    let codes: [u8; 8] = bytemuck::cast(codes);
    _mm256_mul_ps(signed(&codes, 0), _mm256_set1_ps(by))
}

/// The f16 at a byte offset of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::product) fn half(block: &[u8], at: usize) -> f32 {
    let bits: u16 = bytemuck::pod_read_unaligned(&block[at..at + 2]);
    let mut bits = i32::from(bits);
    // SAFETY: does nothing. Without it the compiler inserts the bits from memory into a vector register, for which the
    // processor waits for the last value of that register: a sum that is not ready.
    unsafe { asm!("/* {0:e} */", inout(reg) bits, options(pure, nomem, nostack, preserves_flags)) };
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
}

/// The two f16 at the start of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn halves(block: &[u8]) -> [f32; 2] {
    let bits: i32 = bytemuck::pod_read_unaligned(&block[..4]);
    let halves = _mm_cvtph_ps(_mm_cvtsi32_si128(bits));
    [
        _mm_cvtss_f32(halves),
        _mm_cvtss_f32(_mm_movehdup_ps(halves)),
    ]
}

/// The codes of 16 bytes: byte `i` holds elements `i` (lower bits) and `i + 16` (upper bits).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn four_bits(bytes: &[u8]) -> __m256i {
    let bytes: __m128i = bytemuck::pod_read_unaligned(&bytes[..16]);
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// As [`four_bits`]; bit `i` of the fifth bits belongs to element `i`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn five_bits(fifth: &[u8], four: &[u8]) -> __m256i {
    let fifth = _mm256_set1_epi32(bytemuck::pod_read_unaligned(&fifth[..4]));
    // byte i holds the byte that its bit is in
    let place: [u8; 32] = std::array::from_fn(|i| (i / 8) as u8);
    let place = _mm256_shuffle_epi8(fifth, bytemuck::cast(place));
    let bit: [u8; 32] = std::array::from_fn(|i| 1 << (i % 8));
    let bit: __m256i = bytemuck::cast(bit);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(place, bit), bit);
    _mm256_or_si256(four_bits(four), _mm256_and_si256(set, _mm256_set1_epi8(16)))
}

/// The lower and the upper four bits of 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn two_groups(q: &[u8]) -> [__m256i; 2] {
    let q = bytes(q);
    let four = _mm256_set1_epi8(15);
    [
        _mm256_and_si256(q, four),
        _mm256_and_si256(_mm256_srli_epi16::<4>(q), four),
    ]
}
