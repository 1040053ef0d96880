//! Rows of blocks of 256 elements: Q4_K, Q5_K and Q6_K.
//!
//! What a block has beside its codes is read for [`ROWS`] rows at a time.

mod one;
mod several;
mod totals;

use std::arch::asm;
use std::arch::x86_64::*;

use simmer_blocks::ggml::BlockType;

use self::several::Several;
use self::totals::Totals;
use super::token::BlockToken;
use super::words::{BLOCK, Words};
use super::{LANES, UNIT, UPPER};
use crate::product::few::codes::ROWS;
use crate::product::few::codes::ggml::half;
use crate::product::few::codes::vector::bytes;

/// Vectors of codes of a block.
pub(super) const UNITS: usize = BLOCK / UNIT;

/// Pairs of rows.
const PAIRS: usize = ROWS / 2;

/// What a block of each row has beside its codes.
struct Heads {
    /// The codes of the scales times 256, eight words for each row: those of the first eight scales, and of the next ones if
    /// there are sixteen.
    scales: [__m512i; 2],
    /// What a code of a scale is multiplied with.
    factors: [f32; ROWS],
    /// What is subtracted for each of eight groups, times the sum of its features: a vector for each pair of rows.
    minima: Option<[__m512; PAIRS]>,
}

/// Tokens that are multiplied with rows of blocks.
trait Multiply {
    type Sums;

    /// The products with rows of blocks that have `GROUPS` scales. `heads` reads what blocks have beside their codes, `unit`
    /// unpacks [`UNIT`] codes of one, which are stored with an offset, into unsigned bytes.
    ///
    /// # Safety
    /// The processor must have the instructions that tokens in fixed point are made for.
    unsafe fn rows<const BYTES: usize, const GROUPS: usize, const OFFSET: i8>(
        self,
        rows: [&[u8]; ROWS],
        heads: impl Fn([&[u8; BYTES]; ROWS]) -> Heads,
        unit: impl Fn(&[u8; BYTES], usize) -> __m512i,
    ) -> Self::Sums;
}

/// `result[row][token] = x[token] · W[row]` for the rows of codes and `T` tokens from one on.
pub(super) fn several<const H: usize, const T: usize>(
    kind: BlockType,
    rows: [&[u8]; ROWS],
    tokens: &Words<H>,
    first: usize,
) -> [[f32; T]; ROWS] {
    multiply(kind, rows, Several(|index| tokens.block::<T>(first, index)))
}

/// `result[row] = token · W[row]` for the rows of codes.
pub(super) fn one<const P: usize>(
    kind: BlockType,
    rows: [&[u8]; ROWS],
    token: &BlockToken<P>,
) -> [[f32; 1]; ROWS] {
    multiply(kind, rows, token)
}

fn multiply<M: Multiply>(kind: BlockType, rows: [&[u8]; ROWS], tokens: M) -> M::Sums {
    // SAFETY: tokens are made for instructions that this processor has.
    unsafe {
        match kind {
            BlockType::Q4_K => q4_k(rows, tokens),
            BlockType::Q5_K => q5_k(rows, tokens),
            BlockType::Q6_K => q6_k(rows, tokens),
            _ => unreachable!("blocks of 256 elements"),
        }
    }
}

/// `d: f16, m: f16, scales and minima: [u6; 16], q: [u4; 256]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q4_k<M: Multiply>(rows: [&[u8]; ROWS], tokens: M) -> M::Sums {
    let unit = |block: &[u8; 144], at| q4_k_unit(block, at);
    // SAFETY: the instructions are enabled here.
    unsafe { tokens.rows::<144, 8, 0>(rows, |blocks| eight(blocks), unit) }
}

/// `d: f16, m: f16, scales and minima: [u6; 16], fifth bits: [u8; 32], q: [u4; 256]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q5_k<M: Multiply>(rows: [&[u8]; ROWS], tokens: M) -> M::Sums {
    let unit = |block: &[u8; 176], at| q5_k_unit(block, at);
    // SAFETY: the instructions are enabled here.
    unsafe { tokens.rows::<176, 8, 0>(rows, |blocks| eight(blocks), unit) }
}

/// `lower bits: [u4; 256], upper bits: [u2; 256], scales: [i8; 16], d: f16`, stored with an offset of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q6_k<M: Multiply>(rows: [&[u8]; ROWS], tokens: M) -> M::Sums {
    let heads = |blocks: [&[u8; 210]; ROWS]| {
        let mut factors = [0.0; ROWS];
        for (factor, block) in factors.iter_mut().zip(blocks) {
            *factor = half(block, 208);
        }
        let codes = sixteen_bytes(blocks, 192);
        let zero = _mm512_setzero_si512();
        Heads {
            scales: [
                _mm512_unpacklo_epi8(zero, codes),
                _mm512_unpackhi_epi8(zero, codes),
            ],
            factors,
            minima: None,
        }
    };
    let unit = |block: &[u8; 210], at| q6_k_unit(block, at);
    // SAFETY: the instructions are enabled here.
    unsafe { tokens.rows::<210, 16, 32>(rows, heads, unit) }
}

/// The codes of a vector of Q4_K: 32 bytes of `q` hold two groups, the first in the lower bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::product) fn q4_k_unit(block: &[u8; 144], at: usize) -> __m512i {
    two_groups(&block[16 + 32 * at..])
}

/// The codes of a vector of Q5_K: as Q4_K; bit `p` of fifth bits `i` belongs to element `i` of group `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::product) fn q5_k_unit(block: &[u8; 176], at: usize) -> __m512i {
    let fifth = _mm512_broadcast_i64x4(bytes(&block[16..]));
    let first = 0x0101_0101_0101_0101 << (2 * at);
    let second = first << 1;
    let bits = _mm512_setr_epi64(first, first, first, first, second, second, second, second);
    let codes = two_groups(&block[48 + 32 * at..]);
    let is_set = _mm512_test_epi8_mask(fifth, bits);
    _mm512_mask_add_epi8(codes, is_set, codes, _mm512_set1_epi8(16))
}

/// The codes of a vector of Q6_K.
///
/// Each half of the block has 64 bytes of lower bits, for elements `i` and `i + 64`, and 32 bytes of upper bits, for
/// elements `i`, `i + 32`, `i + 64` and `i + 96`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::product) fn q6_k_unit(block: &[u8; 210], at: usize) -> __m512i {
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
    let lower = _mm512_and_si512(lower, _mm512_set1_epi8(15));
    // lower | bits & upper
    _mm512_ternarylogic_epi32::<0xf8>(lower, bits, _mm512_set1_epi8(0x30))
}

/// The heads of blocks of Q4_K or Q5_K; see `simmer_blocks` for how their scales and minima are packed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn eight<const BYTES: usize>(blocks: [&[u8; BYTES]; ROWS]) -> Heads {
    const FACTORS: [i32; LANES] = [0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const MINIMA: [i64; 8] = [1, 3, 5, 7, 0, 0, 0, 0];
    let words = sixteen_bytes(blocks, 0);
    // words 1, 2 and 3 of a block: the lower six bits of four scales, those of four minima, and four bits of the others, whose
    // upper two bits are those of the first ones
    let six = _mm512_shuffle_epi32::<0b11_10_11_01>(words);
    let two = _mm512_shuffle_epi32::<0b10_10_01_01>(words);
    let shifts = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 0, 4));
    let lower = _mm512_broadcast_i32x4(_mm_setr_epi32(
        0x3f3f_3f3f,
        0x0f0f_0f0f,
        0x3f3f_3f3f,
        0x0f0f_0f0f,
    ));
    let upper = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x3030_3030, 0, 0x3030_3030));
    let lower = _mm512_and_si512(_mm512_srlv_epi32(six, shifts), lower);
    let codes = _mm512_ternarylogic_epi32::<0xf8>(lower, _mm512_srli_epi32::<2>(two), upper);
    let factors = _mm512_permutexvar_epi32(bytemuck::cast(FACTORS), words);
    let factors = _mm256_cvtph_ps(_mm512_castsi512_si128(factors)); // d and m of each row
    let minima = _mm512_castsi512_si256(_mm512_permutexvar_epi64(bytemuck::cast(MINIMA), codes));
    let zero = _mm512_setzero_si512();
    let scales = _mm512_unpacklo_epi8(zero, codes);
    Heads {
        scales: [scales, scales],
        factors: bytemuck::cast(_mm256_castps256_ps128(_mm256_permutevar8x32_ps(
            factors,
            _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0),
        ))),
        minima: Some([
            minima_of::<1, 3>(_mm256_castsi256_si128(minima), factors),
            minima_of::<5, 7>(_mm256_extracti128_si256::<1>(minima), factors),
        ]),
    }
}

/// The minima of two rows, whose factors have these places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn minima_of<const FIRST: i32, const SECOND: i32>(codes: __m128i, factors: __m256) -> __m512 {
    let [a, b] = [FIRST, SECOND];
    let lanes = _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
    let factors = _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(factors));
    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)), factors)
}

/// The sixteen bytes of each block from a place on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sixteen_bytes<const BYTES: usize>(blocks: [&[u8; BYTES]; ROWS], at: usize) -> __m512i {
    let mut of_row = [_mm_setzero_si128(); ROWS];
    for (row, block) in of_row.iter_mut().zip(blocks) {
        *row = bytemuck::pod_read_unaligned(&block[at..at + 16]);
    }
    let all = _mm512_castsi128_si512(of_row[0]);
    let all = _mm512_inserti32x4::<1>(all, of_row[1]);
    let all = _mm512_inserti32x4::<2>(all, of_row[2]);
    _mm512_inserti32x4::<3>(all, of_row[3])
}

/// The lower and the upper four bits of 32 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn two_groups(q: &[u8]) -> __m512i {
    let both = _mm512_broadcast_i64x4(bytes(q));
    let both = _mm512_mask_srli_epi16::<4>(both, UPPER, both);
    _mm512_and_si512(both, _mm512_set1_epi8(15))
}

/// `sum += Σ w x` of the two words of each lane.
///
/// The compiler takes the intrinsic apart into a product and a sum, and moves them until they do not fit into registers.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_products(sum: &mut __m512i, w: __m512i, x: __m512i) {
    // SAFETY: an instruction of a set that is enabled here, on registers.
    unsafe {
        asm!(
            "vpdpwssd {sum}, {w}, {x}",
            sum = inout(zmm_reg) *sum,
            w = in(zmm_reg) w,
            x = in(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
}
