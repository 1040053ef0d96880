//! AVX-512 VNNI: codes are multiplied as the bytes that they are, with a token in fixed point.
//!
//! Some features share a unit, a power of two, of which they are whole multiples `t`. `Σ q t` of four elements is exact in 32
//! bits, so codes need not be widened to numbers. For one token; more of them share the widening.
//!
//! - An f32 token has 24 bits, and a unit for 32 features: as precise as f32 is for the largest feature of a group.
//!   `t = 65536 h + 256 m + l` in three signed bytes.
//! - A bf16 token has 16 bits, `t = 256 h + l`, of which a feature uses eight. For Q4_K, Q5_K and Q6_K the unit is that of the 256
//!   features of a block, so that scales are multiplied as integers too. A feature below 1/128 of the largest one loses
//!   bits, and the error is at most 1/32 of that of rounding the largest one to bf16 (1/16 for Q6_K, which has 14 bits).
//!
//! Axes: K features, R rows.

mod pairs;
mod superblocks;
mod token;

use std::arch::x86_64::*;

use simmer_blocks::Form;
use simmer_blocks::ggml::BlockType;

pub(super) use self::token::Token;

use super::super::AHEAD;
use super::wide::LANES;
use crate::simd::prefetch;

/// Codes of a vector.
const UNIT: usize = 64;

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

/// `result[row] = token · W[row]` for the rows of codes from one on.
pub(super) fn dots<const P: usize, const R: usize>(
    form: &Form,
    rows: [&[u8]; R],
    scales: [f32; R],
    token: &Token<P>,
) -> [f32; R] {
    // SAFETY: tokens are made for instructions that this processor has.
    unsafe {
        match form {
            Form::Blocks(kind) => match kind {
                BlockType::Q8_0 => pairs::q8_0(rows, token),
                BlockType::Q4_0 => pairs::q4_0(rows, token),
                BlockType::Q4_1 => pairs::q4_1(rows, token),
                BlockType::Q5_0 => pairs::q5_0(rows, token),
                BlockType::Q5_1 => pairs::q5_1(rows, token),
                BlockType::IQ4_NL => pairs::iq4_nl(rows, token),
                BlockType::Q4_K => superblocks::q4_k(rows, token),
                BlockType::Q5_K => superblocks::q5_k(rows, token),
                BlockType::Q6_K => superblocks::q6_k(rows, token),
            },
            Form::Int8(_) => int8(rows, scales, token),
            _ => unreachable!("tokens in fixed point are made for forms that are taken"),
        }
    }
}

/// `Σ q t` of four neighbouring codes a lane: exact for codes below 64, and for all bytes if `t` has 16 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn whole<const P: usize>(codes: __m512i, token: [__m512i; P]) -> __m512 {
    let mut sum = _mm512_setzero_si512();
    for bytes in token {
        sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(sum), codes, bytes);
    }
    _mm512_cvtepi32_ps(sum)
}

/// As [`whole`], for all unsigned bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn whole_of_bytes<const P: usize>(codes: __m512i, token: [__m512i; P]) -> __m512 {
    let Some((lower, [first, second])) = token.split_last().filter(|_| P == 3) else {
        return whole(codes, token);
    };
    let sum = whole(codes, [*first, *second]);
    let rest = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, *lower);
    _mm512_fmadd_ps(sum, _mm512_set1_ps(256.0), _mm512_cvtepi32_ps(rest))
}

/// Signed bytes with a scale for each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn int8<const P: usize, const R: usize>(
    rows: [&[u8]; R],
    scales: [f32; R],
    token: &Token<P>,
) -> [f32; R] {
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut totals = [_mm512_setzero_ps(); R];
    for (index, x) in token.bytes.iter().enumerate() {
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

/// The first two numbers of a slice; lanes beyond are zero.
#[inline]
fn two(numbers: &[f32]) -> __m128 {
    bytemuck::cast([numbers[0], numbers[1], 0.0, 0.0])
}

#[inline]
fn vectors<const P: usize>(bytes: &[[i8; UNIT]; P]) -> [__m512i; P] {
    bytemuck::cast(*bytes)
}
