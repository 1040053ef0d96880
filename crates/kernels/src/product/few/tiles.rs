//! Tiles of some tokens and some rows: what is read of a row is widened once for the tokens of a tile.
//!
//! Packing the weight costs as much as multiplying it with a few dozen tokens, so it does not pay off for fewer.
//!
//! Axes: T tokens and R rows of a tile, K inner dimension (summed over).

use pulp::Simd;

use super::{AHEAD, Pairs, Rows, Single, numbers, row_words};
use crate::simd::prefetch;

/// Fewest tokens for which tiles are used.
pub(super) const FEWEST: usize = 4;

/// Rows of a tile. Its sums are in `ROWS · tokens` vectors.
pub(super) const ROWS: usize = 4;

/// Tokens of a tile, on processors with 32 vector registers and with 16.
pub(super) const TOKENS: [usize; 2] = [4, 2];

/// Sides of dot products that are computed tile by tile.
pub(super) trait Tile<S: Simd>: Rows<S> {
    /// Dot products of the tokens from one on with some rows. Each is the same sum in tiles of every size.
    ///
    /// # Shapes
    /// Result: `[R, T]`.
    fn tile<const R: usize, const T: usize>(
        self,
        simd: S,
        token: usize,
        rows: [usize; R],
    ) -> [[f32; T]; R];
}

/// `result[row][token] = x[token] · W[row]`
#[inline(always)]
pub(super) fn tiles<S: Simd>(simd: S, sides: impl Tile<S>, result: &mut [f32]) {
    if S::REGISTER_COUNT >= 32 {
        of_tokens::<S, { TOKENS[0] }>(simd, sides, result);
    } else {
        of_tokens::<S, { TOKENS[1] }>(simd, sides, result);
    }
}

/// Reads [`ROWS`] parts of the rows at a time: memory serves several streams faster than one.
#[inline(always)]
fn of_tokens<S: Simd, const T: usize>(simd: S, sides: impl Tile<S>, result: &mut [f32]) {
    let [_, rows] = sides.shape();
    let part = rows / ROWS;
    for row in 0..part {
        let rows = std::array::from_fn::<_, ROWS, _>(|stream| stream * part + row);
        of_rows::<S, ROWS, T>(simd, sides, rows, result);
    }
    for row in part * ROWS..rows {
        of_rows::<S, 1, T>(simd, sides, [row], result);
    }
}

/// The dot products of all tokens with some rows.
#[inline(always)]
fn of_rows<S: Simd, const R: usize, const T: usize>(
    simd: S,
    sides: impl Tile<S>,
    rows: [usize; R],
    result: &mut [f32],
) {
    let [m, _] = sides.shape();
    let whole = m / T * T;
    for token in (0..whole).step_by(T) {
        let sums = sides.tile::<R, T>(simd, token, rows);
        for (row, sums) in rows.into_iter().zip(sums) {
            result[row * m + token..][..T].copy_from_slice(&sums);
        }
    }
    for token in whole..m {
        let sums = sides.tile::<R, 1>(simd, token, rows);
        for (row, [sum]) in rows.into_iter().zip(sums) {
            result[row * m + token] = sum;
        }
    }
}

impl<S: Simd> Tile<S> for Single<'_> {
    #[inline(always)]
    fn tile<const R: usize, const T: usize>(
        self,
        simd: S,
        token: usize,
        rows: [usize; R],
    ) -> [[f32; T]; R] {
        let k = self.k;
        let tokens = std::array::from_fn(|t| token + t);
        let (x, x_rests) = numbers::<S, T>(self.x, k, tokens);
        let (w, w_rests) = numbers::<S, R>(self.w, k, rows);
        let mut sums = [[simd.splat_f32s(0.0); T]; R];
        for i in 0..x[0].len() {
            for r in 0..R {
                prefetch(&w[r][i..], AHEAD / size_of::<S::f32s>());
                for t in 0..T {
                    sums[r][t] = simd.mul_add_e_f32s(x[t][i], w[r][i], sums[r][t]);
                }
            }
        }
        let mut dots = [[0.0; T]; R];
        for r in 0..R {
            for t in 0..T {
                let rest = x_rests[t].iter().zip(w_rests[r]).map(|(x, w)| x * w);
                dots[r][t] = simd.reduce_sum_f32s(sums[r][t]) + rest.sum::<f32>();
            }
        }
        dots
    }
}

impl<S: Simd> Tile<S> for Pairs<'_> {
    #[inline(always)]
    fn tile<const R: usize, const T: usize>(
        self,
        simd: S,
        token: usize,
        rows: [usize; R],
    ) -> [[f32; T]; R] {
        let k = self.k;
        let tokens = std::array::from_fn(|t| token + t);
        let (even, even_rests) = numbers::<S, T>(self.even, k, tokens);
        let (odd, odd_rests) = numbers::<S, T>(self.odd, k, tokens);
        let (words, rests) = row_words::<S, R>(self.words, k, rows);
        let half = simd.splat_u32s(16);
        let upper = simd.splat_u32s(0xffff_0000);
        let mut sums = [[simd.splat_f32s(0.0); T]; R];
        for i in 0..even[0].len() {
            for r in 0..R {
                prefetch(&words[r][i..], AHEAD / size_of::<S::u32s>());
                let words = words[r][i];
                let low = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words, half));
                let high = simd.transmute_f32s_u32s(simd.and_u32s(words, upper));
                for t in 0..T {
                    let sum = simd.mul_add_e_f32s(even[t][i], low, sums[r][t]);
                    sums[r][t] = simd.mul_add_e_f32s(odd[t][i], high, sum);
                }
            }
        }
        let mut dots = [[0.0; T]; R];
        for r in 0..R {
            for t in 0..T {
                let rest = even_rests[t].iter().zip(odd_rests[t]).zip(rests[r]);
                let rest = rest.map(|((even, odd), word)| {
                    even * f32::from_bits(word << 16) + odd * f32::from_bits(word & 0xffff_0000)
                });
                dots[r][t] = simd.reduce_sum_f32s(sums[r][t]) + rest.sum::<f32>();
            }
        }
        dots
    }
}
