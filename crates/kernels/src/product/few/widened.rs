//! Rows that have to be widened, and several tokens: a part of some rows is widened into the first cache, and multiplied with
//! all tokens there.
//!
//! Axes: T tokens and R rows of a tile, K inner dimension (summed over).

use pulp::Simd;

use super::tiles::{ROWS, TOKENS};
use crate::buffer::buffer;
use crate::product::Weight;

/// Features of a row that are widened at a time: with those of the tokens they fit into the first cache.
const PART: usize = 512;

/// `result[row][token] = x[token] · W[first + row]`
///
/// # Shapes
/// `x`: `[M, K]`. `result`: `[rows, M]`.
#[inline(always)]
pub(super) fn widened<S: Simd>(
    simd: S,
    x: &[f32],
    weight: Weight<'_>,
    first: usize,
    result: &mut [f32],
) {
    let k = weight.columns;
    let m = x.len() / k;
    let mut wide = buffer(ROWS * PART);
    let mut sums = vec![[simd.splat_f32s(0.0); ROWS]; m];
    for (group, result) in result.chunks_mut(ROWS * m).enumerate() {
        sums.fill([simd.splat_f32s(0.0); ROWS]);
        let rows = first + group * ROWS..first + group * ROWS + result.len() / m;
        for start in (0..k).step_by(PART) {
            let width = PART.min(k - start);
            let whole = width.next_multiple_of(S::F32_LANES);
            for (row, wide) in rows.clone().zip(wide.chunks_exact_mut(PART)) {
                let (values, rest) = wide[..whole].split_at_mut(width);
                weight.values.widen_chunk(row * k + start, values);
                rest.fill(0.0);
            }
            let part = Part {
                x: &x[start..],
                k,
                wide: &wide,
                width,
            };
            part.add_all(simd, &mut sums);
        }
        for (token, sums) in sums.iter().enumerate() {
            for (row, result) in result.chunks_exact_mut(m).enumerate() {
                result[token] = simd.reduce_sum_f32s(sums[row]);
            }
        }
    }
}

/// Some features of all tokens and of some rows.
#[derive(Clone, Copy)]
struct Part<'a> {
    /// Of each token, `k` numbers apart.
    x: &'a [f32],
    k: usize,
    /// `[R, PART]`, with zeros after the features to whole vectors.
    wide: &'a [f32],
    width: usize,
}

impl Part<'_> {
    /// Adds the products of all tokens and rows, one vector of sums for each.
    #[inline(always)]
    fn add_all<S: Simd>(self, simd: S, sums: &mut [[S::f32s; ROWS]]) {
        let mut token = 0;
        while token < sums.len() {
            let rest = &mut sums[token..];
            token += match rest.len() {
                len if len >= TOKENS[0] && S::REGISTER_COUNT >= 32 => {
                    self.add::<S, { TOKENS[0] }>(simd, token, rest)
                }
                len if len >= TOKENS[1] => self.add::<S, { TOKENS[1] }>(simd, token, rest),
                _ => self.add::<S, 1>(simd, token, rest),
            };
        }
    }

    /// Adds the products of `T` tokens.
    #[inline(always)]
    fn add<S: Simd, const T: usize>(
        self,
        simd: S,
        token: usize,
        sums: &mut [[S::f32s; ROWS]],
    ) -> usize {
        let (mut x, mut rests): ([&[S::f32s]; T], [&[f32]; T]) = ([&[]; T], [&[]; T]);
        for t in 0..T {
            let features = &self.x[(token + t) * self.k..][..self.width];
            (x[t], rests[t]) = S::as_simd_f32s(features);
        }
        let mut w: [&[S::f32s]; ROWS] = [&[]; ROWS];
        for (row, w) in w.iter_mut().enumerate() {
            *w = S::as_simd_f32s(&self.wide[row * PART..][..PART]).0;
        }
        let mut tile = [[simd.splat_f32s(0.0); ROWS]; T];
        tile.copy_from_slice(&sums[..T]);
        let whole = x[0].len();
        for i in 0..whole {
            for t in 0..T {
                for row in 0..ROWS {
                    tile[t][row] = simd.mul_add_e_f32s(x[t][i], w[row][i], tile[t][row]);
                }
            }
        }
        if !rests[0].is_empty() {
            for t in 0..T {
                let x = simd.partial_load_f32s(rests[t]);
                for row in 0..ROWS {
                    tile[t][row] = simd.mul_add_e_f32s(x, w[row][whole], tile[t][row]);
                }
            }
        }
        sums[..T].copy_from_slice(&tile);
        T
    }
}
