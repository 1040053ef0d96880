//! AVX-512 VNNI: codes are multiplied as the bytes that they are, with a token in fixed point.
//!
//! Some features share a unit, a power of two, of which they are whole multiples `t`. `Σ q t` of a few elements is exact in 32
//! bits, so codes need not be widened to numbers.
//!
//! - [`token`]: one token is bytes. An f32 token has 24 bits, `t = 65536 h + 256 m + l`: as precise as f32 is for the largest
//!   of the features that share a unit. A bf16 token has 16 bits, `t = 256 h + l`, of which a feature uses eight. For blocks of
//!   32 elements and int8, 32 features share a unit; for Q4_K, Q5_K and Q6_K, the 256 of a block, so that scales are multiplied
//!   as integers too.
//! - [`words`], for Q4_K, Q5_K and Q6_K: several tokens are words of 16 bits, in units of a block. An f32 token has 31 bits,
//!   `t = 32768 h + l`, a bf16 token 16. Several tokens of f32 numbers and other types are multiplied with widened rows.
//!
//! A feature of a bf16 token below 1/128 of the largest one loses bits, and the error is at most 1/32 of that of rounding the
//! largest one to bf16.
//!
//! Axes: M tokens, K features.

mod pairs;
pub(in crate::product) mod superblocks;
mod token;
mod words;

use std::arch::x86_64::*;

use simmer_blocks::ggml::BlockType;
use simmer_blocks::{Form, Quantised};

use self::token::{BlockToken, Token};
use self::words::Words;
use super::super::AHEAD;
use super::wide::LANES;
use super::{CodeRows, GROUP, ROWS, streams};
use crate::simd::prefetch;

/// Most tokens of f32 for which multiplying two words a feature is faster than widening rows.
const MOST_IN_F32: usize = 6;

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

/// Tokens in the form in which the codes of a weight are multiplied.
pub(in crate::product::few) enum Tokens {
    /// A token of f32 numbers.
    Bytes(Token<3>),
    /// A token of bf16 numbers.
    BytesOfHalves(Token<2>),
    /// As [`Bytes`](Self::Bytes), for blocks of 256 elements.
    Blocks(BlockToken<3>),
    /// As [`BytesOfHalves`](Self::BytesOfHalves), for blocks of 256 elements.
    BlocksOfHalves(BlockToken<2>),
    /// Tokens of f32 numbers.
    Words(Words<2>),
    /// Tokens of bf16 numbers.
    WordsOfHalves(Words<1>),
}

impl Tokens {
    /// The tokens `x`, `[M, K]`; `None` if they are not multiplied so. `is_bf16`: all are bf16 numbers.
    pub(super) fn new(x: &[f32], is_bf16: bool, matrix: &Quantised) -> Option<Self> {
        let [_, k] = matrix.shape();
        if !available() || k == 0 {
            return None;
        }
        let form = matrix.form();
        match (x.len() / k, is_bf16) {
            (1, true) if words::takes(form) => Some(Self::BlocksOfHalves(BlockToken::new(x))),
            (1, false) if words::takes(form) => Some(Self::Blocks(BlockToken::new(x))),
            (1, true) if takes(form, k) => Some(Self::BytesOfHalves(Token::new(x))),
            (1, false) if takes(form, k) => Some(Self::Bytes(Token::new(x))),
            (_, true) if words::takes(form) => Some(Self::WordsOfHalves(Words::new(x, k))),
            (..=MOST_IN_F32, false) if words::takes(form) => Some(Self::Words(Words::new(x, k))),
            _ => None,
        }
    }

    /// `result[row][token] = x[token] · W[first + row]`
    ///
    /// # Shapes
    /// `result`: `[rows, M]`.
    pub(super) fn dots(&self, matrix: &Quantised, first: usize, result: &mut [f32]) {
        match self {
            Self::Bytes(token) => dots(token, matrix, first, result),
            Self::BytesOfHalves(token) => dots(token, matrix, first, result),
            Self::Blocks(token) => token.dots(matrix, first, result),
            Self::BlocksOfHalves(token) => token.dots(matrix, first, result),
            Self::Words(tokens) => tokens.dots(matrix, first, result, |left| match left {
                4.. => words::tile::<2, 4>,
                3 => words::tile::<2, 3>,
                2 => words::tile::<2, 2>,
                _ => words::tile::<2, 1>,
            }),
            Self::WordsOfHalves(tokens) => tokens.dots(matrix, first, result, |left| match left {
                8.. => words::tile::<1, 8>,
                4.. => words::tile::<1, 4>,
                3 => words::tile::<1, 3>,
                2 => words::tile::<1, 2>,
                _ => words::tile::<1, 1>,
            }),
        }
    }
}

impl<const P: usize> BlockToken<P> {
    /// `result[row] = token · W[first + row]`
    fn dots(&self, matrix: &Quantised, first: usize, result: &mut [f32]) {
        let Form::Blocks(kind) = matrix.form() else {
            unreachable!("tokens in blocks are made for blocks");
        };
        let all = CodeRows::of(matrix);
        streams(result.len(), |rows| {
            let codes = rows.map(|row| all.row(first + row));
            let sums = superblocks::one(*kind, codes, self);
            for (row, [sum]) in rows.into_iter().zip(sums) {
                result[row] = sum;
            }
        });
    }
}

/// If rows of this form are multiplied with a token in bytes.
fn takes(form: &Form, columns: usize) -> bool {
    match form {
        // two blocks at a time
        Form::Blocks(kind) => kind.block_len() == GROUP && columns.is_multiple_of(UNIT),
        Form::Int8(_) => true,
        _ => false,
    }
}

/// `result[row] = token · W[first + row]`
fn dots<const P: usize>(token: &Token<P>, matrix: &Quantised, first: usize, result: &mut [f32]) {
    let all = CodeRows::of(matrix);
    streams(result.len(), |rows| {
        let codes = rows.map(|row| all.row(first + row));
        let scales = match matrix.form() {
            Form::Int8(form) => {
                rows.map(|row| form.row_max[matrix.stored_row(first + row)] * (1.0 / 127.0))
            }
            _ => [1.0; ROWS],
        };
        let sums = row_dots(matrix.form(), codes, scales, token);
        for (row, sum) in rows.into_iter().zip(sums) {
            result[row] = sum;
        }
    });
}

/// The products of a token with some rows of codes.
fn row_dots<const P: usize>(
    form: &Form,
    rows: [&[u8]; ROWS],
    scales: [f32; ROWS],
    token: &Token<P>,
) -> [f32; ROWS] {
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
                BlockType::Q4_K | BlockType::Q5_K | BlockType::Q6_K => {
                    unreachable!("blocks that are multiplied with words")
                }
            },
            Form::Int8(_) => int8(rows, scales, token),
            _ => unreachable!("tokens in bytes are made for forms that are taken"),
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
fn int8<const P: usize>(rows: [&[u8]; ROWS], scales: [f32; ROWS], token: &Token<P>) -> [f32; ROWS] {
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut totals = [_mm512_setzero_ps(); ROWS];
    for (index, x) in token.bytes.iter().enumerate() {
        let x = vectors(&x.0);
        let units = in_halves(two(&token.units[2 * index..]));
        for row in 0..ROWS {
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
    let mut results = [0.0; ROWS];
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
