//! Dot products of a few tokens with rows of a quantised weight, computed from its codes.
//!
//! A row of codes is read once, and its elements are never written to memory: codes are unpacked in vector registers,
//! multiplied with the tokens there, and the sum of a group is multiplied with its scale. For processors with AVX2;
//! others widen a row first.
//!
//! Axes: M tokens, K inner dimension (summed over), R rows: four tokens of a row at a time, or four rows of one token.

#![expect(
    unsafe_code,
    reason = "the instructions that unpack codes are selected when the program runs"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "dozens of intrinsics, whose names are unique and begin with `_mm`"
)]

mod four_bit;
mod ggml;
mod int8;
mod vector;

use simmer_blocks::ggml::BlockType;
use simmer_blocks::{Form, Quantised};

use self::vector::LANES;

/// Tokens that share the unpacking of a row, if there is more than one.
const TOKENS: usize = 4;

/// Elements of a group: codes that are unpacked together.
const GROUP: usize = 32;

/// Tokens in the order in which the codes of a weight are unpacked.
pub(super) struct Tokens {
    /// `[M, K]`; M is one, or filled with zeros to a multiple of [`TOKENS`].
    x: Vec<f32>,
    /// What the smallest code of a group stands for is multiplied with these, `[M, ..]`; see [`Sums`].
    sums: Vec<f32>,
    /// Number of tokens, without those that were filled in.
    count: usize,
    k: usize,
}

/// Sums of the features of a group, for types whose codes do not start at zero.
#[derive(Clone, Copy)]
enum Sums {
    None,
    /// For each group, `factor ·` the sum of the features that a lane multiplies: `LANES` numbers a group.
    Lanes {
        factor: f32,
    },
    /// For each group, the sum of its features.
    Groups,
}

/// The place that a feature has in a vector of the tokens.
#[derive(Clone, Copy)]
enum Order {
    /// A vector multiplies neighbouring features.
    Natural,
    /// Vector `v` multiplies byte `v` of each word of four: lane `l` is feature `4 l + v` of a group.
    Bytes,
    /// Vector `v` multiplies element `v` of each word of eight: lane `l` is feature `8 l + v` of two groups.
    Nibbles,
}

/// How the codes of a weight are unpacked; `None` if they are not, here or on this processor.
fn order(matrix: &Quantised) -> Option<(Order, Sums)> {
    let [_, columns] = matrix.shape();
    let order = match matrix.form() {
        Form::Blocks(kind) => match kind {
            BlockType::Q8_0 => (Order::Natural, Sums::None),
            BlockType::Q4_0 => (Order::Bytes, Sums::Lanes { factor: -8.0 }),
            BlockType::Q5_0 => (Order::Bytes, Sums::Lanes { factor: -16.0 }),
            BlockType::Q6_K => (Order::Bytes, Sums::Lanes { factor: -32.0 }),
            BlockType::IQ4_NL => {
                let factor = -f32::from(ggml::IQ4_NL_OFFSET);
                (Order::Bytes, Sums::Lanes { factor })
            }
            BlockType::Q4_1 | BlockType::Q5_1 => (Order::Bytes, Sums::Lanes { factor: 1.0 }),
            BlockType::Q4_K | BlockType::Q5_K => (Order::Bytes, Sums::Groups),
        },
        Form::FourBit(form) if four_bit::takes(form, columns) => (Order::Nibbles, Sums::None),
        Form::Int8(_) => (Order::Natural, Sums::None),
        Form::FourBit(_) | Form::Fp8(_) => return None,
    };
    (columns > 0 && vector::available()).then_some(order)
}

impl Tokens {
    /// The tokens `x`, `[M, K]`, for the rows of a weight; `None` if its rows have to be widened.
    pub(super) fn new(x: &[f32], matrix: &Quantised) -> Option<Self> {
        let (order, sums) = order(matrix)?;
        let [_, k] = matrix.shape();
        let tokens = x.len() / k;
        let rows = if tokens == 1 {
            1
        } else {
            tokens.next_multiple_of(TOKENS)
        };
        let mut x = x.to_vec();
        x.resize(rows * k, 0.0);
        match order {
            Order::Natural => {}
            Order::Bytes => reorder::<{ 4 * LANES }>(&mut x),
            Order::Nibbles => reorder::<{ 8 * LANES }>(&mut x),
        }
        Some(Self {
            sums: sums.of(&x),
            x,
            count: tokens,
            k,
        })
    }

    /// `result[row][token] = x[token] · W[first + row]`
    ///
    /// # Shapes
    /// `result`: `[rows, M]`, without the tokens that were filled in.
    pub(super) fn dots(&self, matrix: &Quantised, first: usize, result: &mut [f32]) {
        // SAFETY: `order` has found the instructions on this processor, else there are no tokens.
        unsafe { dot_rows(self, matrix, first, result) }
    }

    /// `M` tokens from one on.
    #[inline]
    fn part<const M: usize>(&self, first: usize) -> Part<'_, M> {
        let of_token = self.sums.len() / (self.x.len() / self.k);
        let mut part = Part {
            x: [&[]; M],
            rest: [&[]; M],
            sums: [&[]; M],
        };
        for token in 0..M {
            let x = &self.x[(first + token) * self.k..][..self.k];
            (part.x[token], part.rest[token]) = x.as_chunks();
            part.sums[token] = &self.sums[(first + token) * of_token..][..of_token];
        }
        part
    }
}

/// Lane `l` of vector `v` becomes feature `N / LANES · l + v` of each `N` features; rows are whole such parts, or their
/// codes are not unpacked.
fn reorder<const N: usize>(x: &mut [f32]) {
    for features in x.as_chunks_mut::<N>().0 {
        let before = *features;
        *features = std::array::from_fn(|i| before[i % LANES * (N / LANES) + i / LANES]);
    }
}

impl Sums {
    /// The sums of tokens whose features are in the order of unpacking, except for those by group, which have the same
    /// value in every order.
    fn of(self, x: &[f32]) -> Vec<f32> {
        let (groups, _) = x.as_chunks::<GROUP>();
        match self {
            Self::None => Vec::new(),
            Self::Groups => groups.iter().map(|group| group.iter().sum()).collect(),
            Self::Lanes { factor } => {
                let mut sums = Vec::with_capacity(x.len() / GROUP * LANES);
                for group in groups {
                    let lane = |at| {
                        group[at]
                            + group[at + LANES]
                            + group[at + 2 * LANES]
                            + group[at + 3 * LANES]
                    };
                    sums.extend(std::array::from_fn::<_, LANES, _>(|at| factor * lane(at)));
                }
                sums
            }
        }
    }
}

/// Some tokens, and their sums.
#[derive(Clone, Copy)]
struct Part<'a, const M: usize> {
    /// `[M, K / GROUP, GROUP]`
    x: [&'a [[f32; GROUP]]; M],
    /// The features after the last whole group.
    rest: [&'a [f32]; M],
    sums: [&'a [f32]; M],
}

/// Rows of one token that are read together: sums of several rows do not wait for each other.
const ROWS: usize = 4;

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows(tokens: &Tokens, matrix: &Quantised, first: usize, result: &mut [f32]) {
    let mut scales = Vec::new();
    if tokens.count == 1 {
        let part = tokens.part::<1>(0);
        let (whole, rest) = result.as_chunks_mut::<ROWS>();
        let mut first = first;
        for result in whole {
            let sums = row_dots::<1, ROWS>(matrix, first, &part, &mut scales);
            for (result, [sum]) in result.iter_mut().zip(sums) {
                *result = sum;
            }
            first += ROWS;
        }
        for (row, result) in rest.iter_mut().enumerate() {
            [[*result]] = row_dots::<1, 1>(matrix, first + row, &part, &mut scales);
        }
        return;
    }
    for (row, result) in result.chunks_exact_mut(tokens.count).enumerate() {
        for (part, result) in result.chunks_mut(TOKENS).enumerate() {
            let part = tokens.part(part * TOKENS);
            let [sums] = row_dots::<TOKENS, 1>(matrix, first + row, &part, &mut scales);
            result.copy_from_slice(&sums[..result.len()]);
        }
    }
}

/// The products of some tokens with `R` rows from one on. `scales` is a buffer.
#[target_feature(enable = "avx2,fma,f16c")]
fn row_dots<const M: usize, const R: usize>(
    matrix: &Quantised,
    first: usize,
    tokens: &Part<'_, M>,
    scales: &mut Vec<f32>,
) -> [[f32; M]; R] {
    let [_, columns] = matrix.shape();
    let codes = &matrix.codes()[..];
    let mut stored = [0; R];
    for (row, stored) in stored.iter_mut().enumerate() {
        *stored = matrix.stored_row(first + row);
    }
    let bytes = |width: usize| {
        let mut rows: [&[u8]; R] = [&[]; R];
        for (bytes, row) in rows.iter_mut().zip(stored) {
            *bytes = &codes[row * width..][..width];
        }
        rows
    };
    match matrix.form() {
        Form::Blocks(kind) => ggml::dots(*kind, bytes(kind.row_bytes(columns)), tokens),
        Form::FourBit(form) => {
            let count = columns / form.block;
            scales.resize(R * count, 0.0);
            for (row, scales) in stored.iter().zip(scales.chunks_exact_mut(count)) {
                form.absmax.fill(row * count, scales);
            }
            four_bit::dots(form, bytes(columns / 2), scales, tokens)
        }
        Form::Int8(form) => {
            let mut scales = [0.0; R];
            for (scale, row) in scales.iter_mut().zip(stored) {
                *scale = form.row_max[row] * (1.0 / 127.0);
            }
            int8::dots(bytes(columns), scales, tokens)
        }
        Form::Fp8(_) => unreachable!("rows in fp8 are widened"),
    }
}
