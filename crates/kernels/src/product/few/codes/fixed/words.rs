//! Tokens in fixed point, in words of 16 bits, for rows of blocks of 256 elements.

use std::arch::x86_64::*;

use simmer_blocks::{Form, Quantised};

use super::token::{group_sums, unit};
use super::{LANES, UNIT, superblocks};
use crate::product::few::codes::{CodeRows, GROUP, streams};
use crate::simd::sixteen;

/// Features of a block of Q4_K, Q5_K or Q6_K, which share a unit.
pub(super) const BLOCK: usize = 256;

/// Words of a vector.
pub(super) const WORDS: usize = 32;

/// Bits by which a word is worth more than the next one of the same feature.
const BITS: u32 = 15;

/// Largest first word of a feature: see [`superblocks`] for why the sums fit.
const LARGEST: u32 = 127 << 8;

/// A word of each of [`UNIT`] features: the even features, then the odd ones. Aligned as a vector is loaded fastest.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Halves(pub(super) [[i16; WORDS]; 2]);

/// The features of a block, as `H` words each.
type Features<const H: usize> = [[Halves; H]; BLOCK / UNIT];

/// The sums of the features of a block that share a minimum.
type Sums = [f32; BLOCK / GROUP];

/// The features of some tokens as `H` signed words each: `Σ 2^(15 (H - 1 - h)) · word h`, in units of a block.
pub(in crate::product::few) struct Words<const H: usize> {
    /// `[M, K / BLOCK]`
    blocks: Vec<Features<H>>,
    /// What each of the words is worth, `[M, K / BLOCK]`.
    units: Vec<[f32; H]>,
    /// `[M, K / BLOCK]`
    sums: Vec<Sums>,
    /// K.
    features: usize,
}

/// A block of some tokens.
#[derive(Clone, Copy)]
pub(super) struct Block<'a, const H: usize, const T: usize> {
    pub(super) words: [&'a Features<H>; T],
    pub(super) units: [[f32; H]; T],
    pub(super) sums: [&'a Sums; T],
}

/// If the weight has blocks of 256 elements.
pub(super) fn takes(form: &Form) -> bool {
    matches!(form, Form::Blocks(kind) if kind.block_len() == BLOCK)
}

impl<const H: usize> Words<H> {
    /// The tokens `x`, `[M, K]`, for a weight that is taken.
    pub(super) fn new(x: &[f32], features: usize) -> Self {
        let none = [[Halves([[0; WORDS]; 2]); H]; BLOCK / UNIT];
        let mut words = Self {
            blocks: vec![none; x.len() / BLOCK],
            units: Vec::with_capacity(x.len() / BLOCK),
            sums: Vec::with_capacity(x.len() / BLOCK),
            features,
        };
        // SAFETY: tokens are made for instructions that this processor has.
        unsafe { words.fill(x) };
        words
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn fill(&mut self, x: &[f32]) {
        let worth = |h: usize| (1_u32 << (BITS * (H - 1 - h) as u32)) as f32;
        for (block, words) in x.as_chunks::<BLOCK>().0.iter().zip(&mut self.blocks) {
            let (unit, per_unit) = unit(block, LARGEST as f32 * worth(0));
            self.units.push(std::array::from_fn(|h| unit * worth(h)));
            for (features, words) in block.as_chunks::<UNIT>().0.iter().zip(words) {
                *words = split(features, per_unit);
            }
            self.sums.push(group_sums(block));
        }
    }

    /// A block of `T` tokens from one on.
    #[inline]
    pub(super) fn block<const T: usize>(&self, first: usize, index: usize) -> Block<'_, H, T> {
        let at = |token| (first + token) * (self.features / BLOCK) + index;
        let mut all = Block {
            words: [&self.blocks[at(0)]; T],
            units: [[0.0; H]; T],
            sums: [&self.sums[at(0)]; T],
        };
        for token in 0..T {
            all.words[token] = &self.blocks[at(token)];
            all.units[token] = self.units[at(token)];
            all.sums[token] = &self.sums[at(token)];
        }
        all
    }

    /// `result[row][token] = x[token] · W[first + row]`. Some tokens at a time are multiplied with all rows: `tile` is given
    /// how many are left, and selects a function for some of them.
    ///
    /// # Shapes
    /// `result`: `[rows, M]`.
    pub(super) fn dots(
        &self,
        matrix: &Quantised,
        first: usize,
        result: &mut [f32],
        tile: impl Fn(usize) -> Tile<H>,
    ) {
        let count = self.units.len() * BLOCK / self.features;
        let mut token = 0;
        while token < count {
            token += tile(count - token)(self, token, matrix, first, result);
        }
    }
}

/// The products of some tokens from one on with rows of a weight from one on. Gives the number of these tokens.
pub(super) type Tile<const H: usize> = fn(&Words<H>, usize, &Quantised, usize, &mut [f32]) -> usize;

/// A [`Tile`] of `T` tokens.
pub(super) fn tile<const H: usize, const T: usize>(
    tokens: &Words<H>,
    token: usize,
    matrix: &Quantised,
    first: usize,
    result: &mut [f32],
) -> usize {
    let Form::Blocks(kind) = matrix.form() else {
        unreachable!("tokens in words are made for blocks");
    };
    let count = tokens.units.len() * BLOCK / tokens.features;
    let all = CodeRows::of(matrix);
    streams(result.len() / count, |rows| {
        let codes = rows.map(|row| all.row(first + row));
        let sums = superblocks::several::<H, T>(*kind, codes, tokens, token);
        for (row, sums) in rows.into_iter().zip(sums) {
            result[row * count + token..][..T].copy_from_slice(&sums);
        }
    });
    T
}

/// Features in units, as words, the most significant ones first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn split<const H: usize>(features: &[f32; UNIT], per_unit: f32) -> [Halves; H] {
    let mut words = [[[0_i16; LANES]; UNIT / LANES]; H];
    for (at, features) in features.as_chunks::<LANES>().0.iter().enumerate() {
        let scaled = _mm512_mul_ps(sixteen(features), _mm512_set1_ps(per_unit));
        let mut units = _mm512_cvtps_epi32(scaled);
        for (h, words) in words.iter_mut().enumerate().rev() {
            // a word is signed, and what it is too low by is carried
            let carried = _mm512_add_epi32(units, _mm512_set1_epi32(1 << (BITS - 1)));
            let upper = _mm512_srai_epi32::<BITS>(carried);
            let rest = _mm512_sub_epi32(units, _mm512_slli_epi32::<BITS>(upper));
            let word = if h == 0 { units } else { rest };
            words[at] = bytemuck::cast(_mm512_cvtepi32_epi16(word));
            units = upper;
        }
    }
    let mut halves = [Halves([[0; WORDS]; 2]); H];
    for (halves, words) in halves.iter_mut().zip(words) {
        let [first, second]: [__m512i; 2] = bytemuck::cast(words);
        for (parity, half) in halves.0.iter_mut().enumerate() {
            let from: [i16; WORDS] = std::array::from_fn(|at| (2 * at + parity) as i16);
            let from: __m512i = bytemuck::cast(from);
            *half = bytemuck::cast(_mm512_permutex2var_epi16(first, from, second));
        }
    }
    halves
}
