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
            for (row, wide) in rows.clone().zip(wide.chunks_exact_mut(PART)) {
                weight
                    .values
                    .widen_chunk(row * k + start, &mut wide[..width]);
            }
            let part = Part {
                x: &x[start..],
                k,
                wide: &wide,
                width,
            };
            part.add_all(simd, &mut sums);
        }
        // as in a tile of numbers, so that sums have the same bits
        let rest = k % S::F32_LANES;
        let after = (k - 1) % PART + 1;
        for (token, sums) in sums.iter().enumerate() {
            let x = &x[(token + 1) * k - rest..][..rest];
            for (row, result) in result.chunks_exact_mut(m).enumerate() {
                let wide = &wide[row * PART..][after - rest..after];
                let rest = x.iter().zip(wide).map(|(x, w)| x * w);
                result[token] = simd.reduce_sum_f32s(sums[row]) + rest.sum::<f32>();
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
    /// `[R, PART]`
    wide: &'a [f32],
    width: usize,
}

impl Part<'_> {
    /// Adds the products of all tokens and rows, one vector of sums for each, without the features after whole vectors.
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
        let mut x: [&[S::f32s]; T] = [&[]; T];
        for (t, x) in x.iter_mut().enumerate() {
            let features = &self.x[(token + t) * self.k..][..self.width];
            *x = S::as_simd_f32s(features).0;
        }
        let mut w: [&[S::f32s]; ROWS] = [&[]; ROWS];
        for (row, w) in w.iter_mut().enumerate() {
            *w = S::as_simd_f32s(&self.wide[row * PART..][..PART]).0;
        }
        let mut tile = [[simd.splat_f32s(0.0); ROWS]; T];
        tile.copy_from_slice(&sums[..T]);
        for i in 0..x[0].len() {
            for t in 0..T {
                for row in 0..ROWS {
                    tile[t][row] = simd.mul_add_e_f32s(x[t][i], w[row][i], tile[t][row]);
                }
            }
        }
        sums[..T].copy_from_slice(&tile);
        T
    }
}
