//! AVX-512 VNNI: codes are multiplied as the bytes that they are, with a token in fixed point.
//!
//! Each group of 32 features has a unit, a power of two, of which its features are whole multiples `t` of 24 bits: as
//! precise as f32 is for the largest feature of a group. `t = 65536 h + 256 m + l` in three signed bytes, and
//! `Σ q t` of four elements is exact in 32 bits, so codes need not be widened to numbers. For one token; more of them
//! share the widening.
//!
//! Axes: K features, R rows.

use std::arch::x86_64::*;

use simmer_blocks::Form;
use simmer_blocks::ggml::BlockType;

use super::super::AHEAD;
use super::GROUP;
use super::ggml::{IQ4_NL_BYTES, IQ4_NL_OFFSET, Scales, half};
use super::vector::{bytes, parts, prefetch_block};
use super::wide::LANES;
use crate::simd::{prefetch, sixteen};

/// Codes of a vector.
const UNIT: usize = 64;

/// Vectors of codes of a block of 256 elements.
const UNITS: usize = 4;

/// `h` is a signed byte: a feature is at most this many units.
const LARGEST: f32 = (127 << 16) as f32;

/// The words of the upper half of a vector.
const UPPER: u32 = 0xffff_0000;

/// Codes of eight bits are multiplied as unsigned bytes, which are this much larger.
const OFFSET: f32 = 128.0;

/// If this processor has the instructions.
pub(super) fn available() -> bool {
    super::wide::available()
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// If rows of this form are multiplied so.
pub(super) fn takes(form: &Form, columns: usize) -> bool {
    columns > 0
        && match form {
            Form::Blocks(kind) => match kind {
                BlockType::Q4_K | BlockType::Q5_K | BlockType::Q6_K => true,
                // two blocks at a time
                _ => columns.is_multiple_of(UNIT),
            },
            Form::Int8(_) => true,
            _ => false,
        }
}

/// The features of one token in fixed point.
pub(in crate::product::few) struct Token {
    /// `[K / UNIT, 3, UNIT]`: `h`, `m` and `l`, filled with zeros to whole vectors.
    parts: Vec<[[i8; UNIT]; 3]>,
    /// The units, `[K / scaled]`.
    units: Vec<f32>,
    /// The sums of features, `[K / scaled]`.
    sums: Vec<f32>,
}

/// Three vectors of a token: `h`, `m` and `l` of [`UNIT`] features.
type Parts = [__m512i; 3];

impl Token {
    /// `x`, `[K]`, for rows of this form, which [`takes`] allows.
    pub(super) fn new(x: &[f32], form: &Form) -> Self {
        // Q6_K has a scale for 16 elements
        let scaled = match form {
            Form::Blocks(BlockType::Q6_K) => GROUP / 2,
            _ => GROUP,
        };
        // SAFETY: tokens are made for instructions that this processor has.
        unsafe { in_fixed_point(x, scaled) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn in_fixed_point(x: &[f32], scaled: usize) -> Token {
    let padded = x.len().next_multiple_of(UNIT);
    let mut token = Token {
        parts: Vec::with_capacity(padded / UNIT),
        units: Vec::with_capacity(padded / scaled),
        sums: Vec::with_capacity(padded / scaled),
    };
    for features in x.chunks(UNIT) {
        let mut vector = [0.0; UNIT];
        vector[..features.len()].copy_from_slice(features);
        let mut parts = [[0; UNIT]; 3];
        for (group, features) in vector.as_chunks::<GROUP>().0.iter().enumerate() {
            let (unit, per_unit) = unit(features);
            for (at, features) in features.as_chunks::<LANES>().0.iter().enumerate() {
                let split = split(features, per_unit);
                for (part, split) in parts.iter_mut().zip(split) {
                    part[group * GROUP + at * LANES..][..LANES].copy_from_slice(&split);
                }
            }
            let [first, second] = sums(features);
            if scaled == GROUP {
                token.units.push(unit);
                token.sums.push(first + second);
            } else {
                token.units.extend([unit; 2]);
                token.sums.extend([first, second]);
            }
        }
        token.parts.push(parts);
    }
    token
}

/// The unit of some features, and how many of them one is. NaN if a feature is not finite, so that the product is NaN.
#[inline]
fn unit(features: &[f32; GROUP]) -> (f32, f32) {
    const EXPONENT: u32 = 23;
    let largest = features.iter().fold(0, |all, x| all.max(x.to_bits() << 1)) >> 1;
    if largest >= f32::INFINITY.to_bits() {
        return (f32::NAN, 0.0);
    }
    // largest = 1.m · 2^e is from 2^22 to 2^23 units of 2^(e - 22)
    let Some(exponent) = (largest >> EXPONENT)
        .checked_sub(EXPONENT - 1)
        .filter(|e| *e > 0)
    else {
        return (0.0, 0.0);
    };
    let power = |exponent: u32| f32::from_bits(exponent << EXPONENT);
    let fits = f32::from_bits(largest) * power(254 - exponent) <= LARGEST;
    let exponent = if fits { exponent } else { exponent + 1 };
    (power(exponent), power(254 - exponent))
}

/// The sums of the two halves of a group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sums(features: &[f32; GROUP]) -> [f32; 2] {
    let (halves, _) = features.as_chunks();
    [
        _mm512_reduce_add_ps(sixteen(&halves[0])),
        _mm512_reduce_add_ps(sixteen(&halves[1])),
    ]
}

/// Features in units, as `h`, `m` and `l`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn split(features: &[f32; LANES], per_unit: f32) -> [[i8; LANES]; 3] {
    let t = _mm512_cvtps_epi32(_mm512_mul_ps(sixteen(features), _mm512_set1_ps(per_unit)));
    // the low byte is signed, and what it is too low by is carried
    let carried = _mm512_srai_epi32::<8>(_mm512_add_epi32(t, _mm512_set1_epi32(128)));
    let upper = _mm512_srai_epi32::<8>(_mm512_add_epi32(carried, _mm512_set1_epi32(128)));
    [
        bytemuck::cast(_mm512_cvtepi32_epi8(upper)),
        bytemuck::cast(_mm512_cvtepi32_epi8(carried)),
        bytemuck::cast(_mm512_cvtepi32_epi8(t)),
    ]
}

/// `result[row] = token · W[row]` for the rows of codes from one on.
pub(super) fn dots<const R: usize>(
    form: &Form,
    rows: [&[u8]; R],
    scales: [f32; R],
    token: &Token,
) -> [f32; R] {
    // SAFETY: tokens are made for instructions that this processor has.
    unsafe {
        match form {
            Form::Blocks(kind) => match kind {
                BlockType::Q8_0 => q8_0(rows, token),
                BlockType::Q4_0 => q4_0(rows, token),
                BlockType::Q4_1 => q4_1(rows, token),
                BlockType::Q5_0 => q5_0(rows, token),
                BlockType::Q5_1 => q5_1(rows, token),
                BlockType::IQ4_NL => iq4_nl(rows, token),
                BlockType::Q4_K => q4_k(rows, token),
                BlockType::Q5_K => q5_k(rows, token),
                BlockType::Q6_K => q6_k(rows, token),
            },
            Form::Int8(_) => int8(rows, scales, token),
            _ => unreachable!("tokens in fixed point are made for forms that are taken"),
        }
    }
}

/// `Σ q t` of four neighbouring codes a lane, below 64: exact.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn whole(codes: __m512i, [upper, middle, lower]: Parts) -> __m512 {
    let sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, upper);
    let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(sum), codes, middle);
    let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(sum), codes, lower);
    _mm512_cvtepi32_ps(sum)
}

/// As [`whole`], for all unsigned bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn whole_of_bytes(codes: __m512i, [upper, middle, lower]: Parts) -> __m512 {
    let sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, upper);
    let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(sum), codes, middle);
    let rest = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, lower);
    let sum = _mm512_cvtepi32_ps(sum);
    _mm512_fmadd_ps(sum, _mm512_set1_ps(256.0), _mm512_cvtepi32_ps(rest))
}

/// The sums of rows of blocks of 256 elements with `GROUPS` scales.
///
/// `head` reads the scales of a block and the minima, which are subtracted; `unit` unpacks [`UNIT`] codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn blocks<const BYTES: usize, const GROUPS: usize, const R: usize>(
    rows: [&[u8]; R],
    token: &Token,
    head: impl Fn(&[u8; BYTES]) -> [__m512; 2],
    unit: impl Fn(&[u8; BYTES], usize) -> __m512i,
) -> [f32; R] {
    let of_unit = GROUPS / UNITS;
    let lanes: __m512i = bytemuck::cast(const { part_of_lane(GROUPS / UNITS) });
    let rows = parts::<BYTES, R>(rows);
    let mut totals = [_mm512_setzero_ps(); R];
    let mut lows = totals;
    for (index, x) in token.parts.chunks_exact(UNITS).enumerate() {
        let units = numbers(&token.units[index * GROUPS..][..GROUPS]);
        let sums = numbers(&token.sums[index * GROUPS..][..GROUPS]);
        let mut scales = [_mm512_setzero_ps(); R];
        for row in 0..R {
            let block = &rows[row][index];
            prefetch_block(block, index, AHEAD);
            let [scale, low] = head(block);
            scales[row] = _mm512_mul_ps(scale, units);
            lows[row] = _mm512_fnmadd_ps(low, sums, lows[row]);
        }
        for (at, x) in x.iter().enumerate() {
            let x = vectors(x);
            let lanes = _mm512_add_epi32(lanes, _mm512_set1_epi32((at * of_unit) as i32));
            for row in 0..R {
                let sum = whole(unit(&rows[row][index], at), x);
                let scale = _mm512_permutexvar_ps(lanes, scales[row]);
                totals[row] = _mm512_fmadd_ps(sum, scale, totals[row]);
            }
        }
    }
    let mut results = [0.0; R];
    for (row, result) in results.iter_mut().enumerate() {
        *result = _mm512_reduce_add_ps(_mm512_add_ps(totals[row], lows[row]));
    }
    results
}

/// `d: f16, m: f16, scales and minima: [u6; 16], q: [u4; 256]`
///
/// 32 bytes of `q` hold two groups, the first in the lower bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q4_k<const R: usize>(rows: [&[u8]; R], token: &Token) -> [f32; R] {
    blocks::<144, 8, R>(
        rows,
        token,
        |block| eight(Scales::of(block)),
        |block, at| two_groups(&block[16 + 32 * at..]),
    )
}

/// `d: f16, m: f16, scales and minima: [u6; 16], fifth bits: [u8; 32], q: [u4; 256]`
///
/// As [`q4_k`]; bit `p` of fifth bits `i` belongs to element `i` of group `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q5_k<const R: usize>(rows: [&[u8]; R], token: &Token) -> [f32; R] {
    let sixteens = _mm512_set1_epi8(16);
    blocks::<176, 8, R>(
        rows,
        token,
        |block| eight(Scales::of(block)),
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
fn q6_k<const R: usize>(rows: [&[u8]; R], token: &Token) -> [f32; R] {
    let [four, upper] = [_mm512_set1_epi8(15), _mm512_set1_epi8(0x30)];
    blocks::<210, 16, R>(
        rows,
        token,
        |block| {
            let d = half(block, 208);
            let codes: __m128i = bytemuck::pod_read_unaligned(&block[192..208]);
            let codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
            let scales = _mm512_mul_ps(codes, _mm512_set1_ps(d));
            [scales, _mm512_mul_ps(scales, _mm512_set1_ps(32.0))]
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

/// The sums of rows of blocks of 32 elements, two of which fill a vector and have `BYTES` bytes.
///
/// `head` gives the scales of the two blocks, and what is added for a feature of one. `unit` unpacks their codes, which are
/// below 64 unless `EIGHT_BITS`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn pairs<const BYTES: usize, const EIGHT_BITS: bool, const R: usize>(
    rows: [&[u8]; R],
    token: &Token,
    head: impl Fn(&[u8; BYTES]) -> [__m128; 2],
    unit: impl Fn(&[u8; BYTES]) -> __m512i,
) -> [f32; R] {
    let rows = parts::<BYTES, R>(rows);
    let mut totals = [_mm512_setzero_ps(); R];
    let mut lows = [_mm_setzero_ps(); R];
    for (index, x) in token.parts.iter().enumerate() {
        let x = vectors(x);
        let units = two(&token.units[2 * index..]);
        let sums = two(&token.sums[2 * index..]);
        for row in 0..R {
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
    let mut results = [0.0; R];
    for (row, result) in results.iter_mut().enumerate() {
        let low = _mm_cvtss_f32(lows[row]) + _mm_cvtss_f32(_mm_movehdup_ps(lows[row]));
        *result = _mm512_reduce_add_ps(totals[row]) + low;
    }
    results
}

/// `d: f16, q: [i8; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q8_0<const R: usize>(rows: [&[u8]; R], token: &Token) -> [f32; R] {
    let offset = _mm512_set1_epi8(i8::MIN);
    pairs::<68, true, R>(
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
fn q4_0<const R: usize>(rows: [&[u8]; R], token: &Token) -> [f32; R] {
    pairs::<36, false, R>(
        rows,
        token,
        |blocks| scales(blocks, -8.0),
        |blocks| four_bits(&blocks[2..], &blocks[20..]),
    )
}

/// `d: f16, m: f16, q: [u4; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q4_1<const R: usize>(rows: [&[u8]; R], token: &Token) -> [f32; R] {
    pairs::<40, false, R>(
        rows,
        token,
        |blocks| scales_and_minima(blocks),
        |blocks| four_bits(&blocks[4..], &blocks[24..]),
    )
}

/// `d: f16, fifth bits: [u1; 32], q: [u4; 32]`, stored with an offset of 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q5_0<const R: usize>(rows: [&[u8]; R], token: &Token) -> [f32; R] {
    pairs::<44, false, R>(
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
fn q5_1<const R: usize>(rows: [&[u8]; R], token: &Token) -> [f32; R] {
    pairs::<48, false, R>(
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
fn iq4_nl<const R: usize>(rows: [&[u8]; R], token: &Token) -> [f32; R] {
    let values = _mm512_broadcast_i32x4(bytemuck::cast(IQ4_NL_BYTES));
    pairs::<36, true, R>(
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
    let [first, second]: [[i16; 2]; 2] =
        [0, blocks.len() / 2].map(|at| bytemuck::pod_read_unaligned(&blocks[at..at + 4]));
    let halves = _mm_cvtph_ps(bytemuck::cast([
        first[0], second[0], first[1], second[1], 0, 0, 0, 0,
    ]));
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

/// Signed bytes with a scale for each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn int8<const R: usize>(rows: [&[u8]; R], scales: [f32; R], token: &Token) -> [f32; R] {
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut totals = [_mm512_setzero_ps(); R];
    for (index, x) in token.parts.iter().enumerate() {
        let x = vectors(x);
        let units = in_halves(two(&token.units[2 * index..]));
        for row in 0..R {
            let codes = &rows[row][index * UNIT..];
            prefetch(codes, AHEAD);
            let codes: __m512i = if let Some(codes) = codes.first_chunk::<UNIT>() {
                bytemuck::cast(*codes)
            } else {
                let mut whole = [0; UNIT];
                whole[..codes.len()].copy_from_slice(codes);
                bytemuck::cast(whole)
            };
            let sum = whole_of_bytes(_mm512_xor_si512(codes, offset), x);
            totals[row] = _mm512_fmadd_ps(sum, units, totals[row]);
        }
    }
    let low = OFFSET * token.sums.iter().sum::<f32>();
    let mut results = [0.0; R];
    for (row, result) in results.iter_mut().enumerate() {
        *result = scales[row] * (_mm512_reduce_add_ps(totals[row]) - low);
    }
    results
}

/// The lower and the upper four bits of 32 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn two_groups(q: &[u8]) -> __m512i {
    let both = _mm512_broadcast_i64x4(bytes(q));
    let both = _mm512_mask_srli_epi16::<4>(both, UPPER, both);
    _mm512_and_si512(both, _mm512_set1_epi8(15))
}

/// For each lane, which of `parts` parts of a vector it is in.
const fn part_of_lane(parts: usize) -> [i32; LANES] {
    let mut lanes = [0; LANES];
    let mut lane = 0;
    while lane < LANES {
        lanes[lane] = (lane * parts / LANES) as i32;
        lane += 1;
    }
    lanes
}

/// The first number in the lower eight lanes, the second in the upper ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn in_halves(two: __m128) -> __m512 {
    const LANE: [i32; LANES] = part_of_lane(2);
    _mm512_permutexvar_ps(bytemuck::cast(LANE), _mm512_castps128_ps512(two))
}

/// Scales and minima of eight groups, in the lower lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn eight(scales: Scales) -> [__m512; 2] {
    [
        _mm512_zextps256_ps512(bytemuck::cast(scales.scales)),
        _mm512_zextps256_ps512(scales.minima),
    ]
}

/// Eight or sixteen numbers; lanes beyond are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn numbers(numbers: &[f32]) -> __m512 {
    match numbers.first_chunk::<LANES>() {
        Some(numbers) => sixteen(numbers),
        None => _mm512_zextps256_ps512(super::vector::numbers(numbers)),
    }
}

/// The first two numbers of a slice; lanes beyond are zero.
#[inline]
fn two(numbers: &[f32]) -> __m128 {
    bytemuck::cast([numbers[0], numbers[1], 0.0, 0.0])
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    bytemuck::pod_read_unaligned(&bytes[at..at + 2])
}

#[inline]
fn vectors(parts: &[[i8; UNIT]; 3]) -> Parts {
    bytemuck::cast(*parts)
}
