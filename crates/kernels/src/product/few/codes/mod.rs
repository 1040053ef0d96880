//! Dot products of a few tokens with rows of a quantised weight, computed from its codes.
//!
//! A row of codes is read once, and its elements are never written to memory: codes are unpacked in vector registers,
//! multiplied with the tokens there, and the sum of a group is multiplied with its scale; on AVX-512 the scale is in the
//! table that codes are looked up in. For processors with AVX2; others widen a row first.
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

pub(in crate::product) mod fixed;
mod four_bit;
pub(in crate::product) mod ggml;
mod int8;
mod vector;
mod wide;

use simmer_blocks::ggml::BlockType;
use simmer_blocks::{Form, Quantised};

use self::vector::LANES;
use super::AHEAD;
use crate::product::FEW;

/// Tokens that share the unpacking of a row, if there is more than one.
const TOKENS: usize = 4;

/// Elements of a group: codes that are unpacked together.
const GROUP: usize = 32;

/// Tokens in the form in which the codes of a weight are multiplied.
pub(super) enum Tokens {
    /// In fixed point.
    Fixed(fixed::Tokens),
    /// Numbers, which codes are unpacked to.
    Numbers(Numbers),
}

/// Tokens in the order in which the codes of a weight are unpacked.
pub(super) struct Numbers {
    instructions: Instructions,
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
    /// Vector `v` of sixteen lanes multiplies four bits `4 h + v` of each word, counted from the lowest: lane `8 h + l` is
    /// feature `8 l + (4 h + v ^ 1)` of two groups, because the upper half of a byte is its first element.
    Halves,
}

/// The instructions that unpack codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    Avx2,
    Avx512,
}

impl Instructions {
    /// The best ones of this processor; `None` if it has neither.
    fn best() -> Option<Self> {
        if wide::available() {
            Some(Self::Avx512)
        } else {
            vector::available().then_some(Self::Avx2)
        }
    }
}

/// How the codes of a weight are unpacked; `None` if they are not.
fn order(matrix: &Quantised, with: Instructions) -> Option<(Order, Sums)> {
    let [_, columns] = matrix.shape();
    let wide = with == Instructions::Avx512;
    let order = match matrix.form() {
        Form::Blocks(kind) if wide && wide::takes(*kind) => (Order::Natural, Sums::None),
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
        Form::FourBit(form) if four_bit::takes(form, columns) => {
            let order = if wide { Order::Halves } else { Order::Nibbles };
            (order, Sums::None)
        }
        Form::Int8(_) => (Order::Natural, Sums::None),
        Form::FourBit(_) | Form::Fp8(_) => return None,
    };
    (columns > 0).then_some(order)
}

impl Tokens {
    /// The tokens `x`, `[M, K]`, for the rows of a weight; `None` if its rows have to be widened. `is_bf16`: all are bf16
    /// numbers.
    pub(super) fn new(x: &[f32], is_bf16: bool, matrix: &Quantised) -> Option<Self> {
        let fixed = fixed::Tokens::new(x, is_bf16, matrix).map(Self::Fixed);
        fixed.or_else(|| Numbers::new(x, matrix).map(Self::Numbers))
    }

    /// `result[row][token] = x[token] · W[first + row]`
    ///
    /// # Shapes
    /// `result`: `[rows, M]`, without the tokens that were filled in.
    pub(super) fn dots(&self, matrix: &Quantised, first: usize, result: &mut [f32]) {
        match self {
            Self::Fixed(tokens) => tokens.dots(matrix, first, result),
            Self::Numbers(tokens) => dot_rows(tokens, matrix, first, result),
        }
    }
}

impl Numbers {
    /// The tokens `x`, `[M, K]`; `None` if it is faster to widen rows for so many, or they have to be widened.
    fn new(x: &[f32], matrix: &Quantised) -> Option<Self> {
        let [_, k] = matrix.shape();
        let instructions = Instructions::best()?;
        let most = match (instructions, matrix.form()) {
            (Instructions::Avx512, Form::Int8(_)) => 1,
            (Instructions::Avx512, _) => TOKENS,
            (Instructions::Avx2, _) => FEW,
        };
        if x.len() > most * k {
            return None;
        }
        Self::unpacked_with(instructions, x, matrix)
    }

    /// The tokens `x`, `[M, K]`, for instructions that this processor has; `None` if the rows have to be widened.
    fn unpacked_with(instructions: Instructions, x: &[f32], matrix: &Quantised) -> Option<Self> {
        let (order, sums) = order(matrix, instructions)?;
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
            Order::Bytes => reorder::<{ 4 * LANES }>(&mut x, by_lane::<{ 4 * LANES }>),
            Order::Nibbles => reorder::<{ 8 * LANES }>(&mut x, by_lane::<{ 8 * LANES }>),
            Order::Halves => reorder::<{ 4 * wide::LANES }>(&mut x, by_half),
        }
        Some(Self {
            instructions,
            sums: sums.of(&x),
            x,
            count: tokens,
            k,
        })
    }

    /// `M` tokens from one on, and how far ahead codes are prefetched.
    #[inline]
    fn part<const M: usize>(&self, first: usize, ahead: usize) -> Part<'_, M> {
        let of_token = self.sums.len() / (self.x.len() / self.k);
        let mut part = Part {
            instructions: self.instructions,
            ahead,
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

/// Puts each `N` features into another order, `from` says from where; rows are whole such parts, or their codes are not
/// unpacked.
fn reorder<const N: usize>(x: &mut [f32], from: impl Fn(usize) -> usize) {
    for features in x.as_chunks_mut::<N>().0 {
        let before = *features;
        *features = std::array::from_fn(|at| before[from(at)]);
    }
}

/// Lane `l` of vector `v` is feature `N / LANES · l + v`.
fn by_lane<const N: usize>(at: usize) -> usize {
    at % LANES * (N / LANES) + at / LANES
}

/// See [`Order::Halves`].
fn by_half(at: usize) -> usize {
    let [vector, lane] = [at / wide::LANES, at % wide::LANES];
    let [half, word] = [lane / 8, lane % 8];
    8 * word + ((4 * half + vector) ^ 1)
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
    instructions: Instructions,
    /// Codes are prefetched this many bytes ahead: where the rows continue that are read after these.
    ahead: usize,
    /// `[M, K / GROUP, GROUP]`
    x: [&'a [[f32; GROUP]]; M],
    /// The features after the last whole group.
    rest: [&'a [f32]; M],
    sums: [&'a [f32]; M],
}

/// Rows of one token that are read together: sums of several rows do not wait for each other, and memory serves several
/// streams faster than one.
const ROWS: usize = 4;

/// See [`Tokens::dots`].
fn dot_rows(tokens: &Numbers, matrix: &Quantised, first: usize, result: &mut [f32]) {
    let mut scales = Vec::new();
    if tokens.count == 1 {
        let part = tokens.part::<1>(0, AHEAD);
        return streams(result.len(), |rows| {
            let all = rows.map(|row| first + row);
            let dots = row_dots::<1, ROWS>(matrix, all, &part, &mut scales);
            for (row, [sum]) in rows.into_iter().zip(dots) {
                result[row] = sum;
            }
        });
    }
    if tokens.instructions == Instructions::Avx512 {
        return streams(result.len() / tokens.count, |rows| {
            let all = rows.map(|row| first + row);
            for token in (0..tokens.count).step_by(TOKENS) {
                let part = tokens.part(token, AHEAD);
                let dots = row_dots::<TOKENS, ROWS>(matrix, all, &part, &mut scales);
                for (row, sums) in rows.into_iter().zip(dots) {
                    let result = &mut result[row * tokens.count..][..tokens.count];
                    for (result, sum) in result[token..].iter_mut().zip(sums) {
                        *result = sum;
                    }
                }
            }
        });
    }
    let [rows, _] = matrix.shape();
    let of_row = matrix.codes().len() / rows;
    for (row, result) in result.chunks_exact_mut(tokens.count).enumerate() {
        for (part, result) in result.chunks_mut(TOKENS).enumerate() {
            let part = tokens.part(part * TOKENS, AHEAD.max(of_row));
            let [sums] = row_dots::<TOKENS, 1>(matrix, [first + row], &part, &mut scales);
            result.copy_from_slice(&sums[..result.len()]);
        }
    }
}

/// Divides rows into [`ROWS`] parts, and takes one row of each at a time; then the rows that are left, the last one more than
/// once.
fn streams(count: usize, mut take: impl FnMut([usize; ROWS])) {
    let part = count / ROWS;
    for row in 0..part {
        take(std::array::from_fn(|stream| stream * part + row));
    }
    if part * ROWS < count {
        take(std::array::from_fn(|left| {
            (part * ROWS + left).min(count - 1)
        }));
    }
}

/// The rows of codes of a matrix.
#[derive(Clone, Copy)]
struct CodeRows<'a> {
    matrix: &'a Quantised,
    codes: &'a [u8],
    /// Bytes of a row.
    width: usize,
}

impl<'a> CodeRows<'a> {
    fn of(matrix: &'a Quantised) -> Self {
        let [rows, _] = matrix.shape();
        let codes = &matrix.codes()[..];
        Self {
            matrix,
            codes,
            width: codes.len() / rows,
        }
    }

    fn row(self, row: usize) -> &'a [u8] {
        &self.codes[self.matrix.stored_row(row) * self.width..][..self.width]
    }
}

/// The products of some tokens with some rows. `scales` is a buffer.
fn row_dots<const M: usize, const R: usize>(
    matrix: &Quantised,
    rows: [usize; R],
    tokens: &Part<'_, M>,
    scales: &mut Vec<f32>,
) -> [[f32; M]; R] {
    let [_, columns] = matrix.shape();
    let codes = &matrix.codes()[..];
    let stored = rows.map(|row| matrix.stored_row(row));
    let bytes = |width: usize| stored.map(|row| &codes[row * width..][..width]);
    let wide = tokens.instructions == Instructions::Avx512;
    match matrix.form() {
        Form::Blocks(kind) => {
            let rows = bytes(kind.row_bytes(columns));
            // SAFETY: tokens are made for instructions that this processor has.
            unsafe {
                if wide && wide::takes(*kind) {
                    wide::dots(*kind, rows, tokens)
                } else {
                    ggml::dots(*kind, rows, tokens)
                }
            }
        }
        Form::FourBit(form) => {
            let count = columns / form.block;
            scales.resize(R * count, 0.0);
            for (row, scales) in stored.iter().zip(scales.chunks_exact_mut(count)) {
                form.absmax.fill(row * count, scales);
            }
            let rows = bytes(columns / 2);
            // SAFETY: as above.
            unsafe {
                if wide {
                    wide::four_bit(form, rows, scales, tokens)
                } else {
                    four_bit::dots(form, rows, scales, tokens)
                }
            }
        }
        Form::Int8(form) => {
            let scales = stored.map(|row| form.row_max[row] * (1.0 / 127.0));
            // SAFETY: as above.
            unsafe { int8::dots(bytes(columns), scales, tokens) }
        }
        Form::Fp8(_) => unreachable!("rows in fp8 are widened"),
    }
}

#[cfg(test)]
mod tests;
