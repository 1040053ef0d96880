//! Tall and skinny matrix multiplications, where one dimension is the rank of a low-rank branch.
//!
//! A general matrix multiplication would spend its time packing sides that it uses only once. Here
//! the wide side is read where it lies, and the narrow side stays in registers.
//!
//! Axes: T tokens, F features (wide), r rank (narrow).

use pulp::Simd;

use crate::buffer::buffer;
use crate::simd::vectorised;
use crate::threads;
use crate::tile::{self, Left, Output, Right};

/// Tokens per task.
const TOKENS: usize = 32;

/// Features per task.
const FEATURES: usize = 64;

/// Tokens per block, and ranks per block: the sums of a block stay in registers.
const BLOCK: usize = 4;

/// `low = scale · x aᵀ`.
///
/// # Shapes
/// `x`: `[T, F]`. `a`: `[r, F]`. Result: `[T, r]`.
pub(crate) fn down(x: &[f32], a: &[f32], rank: usize, scale: f32) -> Vec<f32> {
    let features = a.len() / rank;
    let tokens = x.len() / features;
    let mut low = buffer(tokens * rank);
    threads::chunks(&mut low, TOKENS * rank, |task, low| {
        let x = &x[task * TOKENS * features..][..low.len() / rank * features];
        down_block(x, a, rank, scale, low);
    });
    low
}

vectorised! {
    fn down_block(simd, x: &'a [f32], a: &'a [f32], rank: usize, scale: f32, low: &'a mut [f32]) {
        let features = a.len() / rank;
        let rows = x.chunks(BLOCK * features);
        for (x, low) in rows.zip(low.chunks_mut(BLOCK * rank)) {
            for (block, a) in a.chunks(BLOCK * features).enumerate() {
                let [tokens, ranks] = [x.len(), a.len()].map(|length| length / features);
                let mut write = |token: usize, first: usize, sums: &[f32]| {
                    let low = &mut low[token * rank + block * BLOCK + first..];
                    for (low, sum) in low.iter_mut().zip(sums) {
                        *low = sum * scale;
                    }
                };
                if [tokens, ranks] == [BLOCK; 2] {
                    let sums = dots::<_, BLOCK, BLOCK>(simd, x, a, features);
                    for (token, sums) in sums.iter().enumerate() {
                        write(token, 0, sums);
                    }
                    continue;
                }
                for (token, x) in x.chunks_exact(features).enumerate() {
                    if ranks == BLOCK {
                        let [sums] = dots::<_, 1, BLOCK>(simd, x, a, features);
                        write(token, 0, &sums);
                        continue;
                    }
                    for (rank, a) in a.chunks_exact(features).enumerate() {
                        let [sums] = dots::<_, 1, 1>(simd, x, a, features);
                        write(token, rank, &sums);
                    }
                }
            }
        }
    }
}

/// Dot products of `T` rows of `x` with `R` rows of `a`.
#[inline(always)]
fn dots<S: Simd, const T: usize, const R: usize>(
    simd: S,
    x: &[f32],
    a: &[f32],
    features: usize,
) -> [[f32; R]; T] {
    let zero = simd.splat_f32s(0.0);
    let mut sums = [[zero; R]; T];
    let mut xs = [S::as_simd_f32s(&x[..features]).0; T];
    for (token, row) in xs.iter_mut().enumerate() {
        *row = S::as_simd_f32s(&x[token * features..][..features]).0;
    }
    let mut rows = [xs[0]; R];
    for (rank, row) in rows.iter_mut().enumerate() {
        *row = S::as_simd_f32s(&a[rank * features..][..features]).0;
    }
    let vectors = features / S::F32_LANES;
    for i in 0..vectors {
        let mut narrow = [zero; R];
        for (value, row) in narrow.iter_mut().zip(&rows) {
            *value = row[i];
        }
        for (sums, x) in sums.iter_mut().zip(&xs) {
            let x = x[i];
            for (sum, value) in sums.iter_mut().zip(narrow) {
                *sum = simd.mul_add_e_f32s(x, value, *sum);
            }
        }
    }
    let rest = vectors * S::F32_LANES..features;
    let mut result = [[0.0; R]; T];
    for (token, result) in result.iter_mut().enumerate() {
        for (rank, result) in result.iter_mut().enumerate() {
            let x = &x[token * features..][rest.clone()];
            let a = &a[rank * features..][rest.clone()];
            let tail: f32 = x.iter().zip(a).map(|(x, a)| x * a).sum();
            *result = simd.reduce_sum_f32s(sums[token][rank]) + tail;
        }
    }
    result
}

/// `y += low wide`.
///
/// # Shapes
/// `low`: `[T, r]`. `wide`: `[r, F]`. `y`: `[T, F]`.
pub(crate) fn up(low: &[f32], wide: &[f32], rank: usize, y: &mut [f32]) {
    let features = wide.len() / rank;
    threads::chunks(y, TOKENS * features, |task, y| {
        let shape = [y.len() / features, rank, features];
        let left = Left {
            values: &low[task * TOKENS * rank..],
            row: rank,
            depth: 1,
        };
        let right = Right {
            values: wide,
            depth: features,
        };
        let output = Output {
            values: y,
            row: features,
            add: true,
        };
        small(shape, 1.0, left, right, output);
    });
}

/// `y += low bᵀ`. For a few tokens, `b` is not transposed first.
///
/// # Shapes
/// `low`: `[T, r]`. `b`: `[F, r]`. `y`: `[T, F]`.
pub(crate) fn up_transposed(low: &[f32], b: &[f32], rank: usize, y: &mut [f32]) {
    if low.len() < BLOCK * rank {
        add_rows(low, b, rank, y);
    } else {
        up(low, &transposed(b, rank), rank, y);
    }
}

vectorised! {
    fn add_rows(_simd, low: &'a [f32], b: &'a [f32], rank: usize, y: &'a mut [f32]) {
        let rows = low.chunks_exact(rank).zip(y.chunks_exact_mut(b.len() / rank));
        for (low, y) in rows {
            for (y, b) in y.iter_mut().zip(b.chunks_exact(rank)) {
                let mut sum = 0.0;
                for (low, b) in low.iter().zip(b) {
                    sum = low.mul_add(*b, sum);
                }
                *y += sum;
            }
        }
    }
}

/// `wide = scale · lowᵀ x`. Every sum is in the order of the tokens.
///
/// # Shapes
/// `low`: `[T, r]`. `x`: `[T, F]`. Result: `[r, F]`.
pub(crate) fn outer(low: &[f32], x: &[f32], rank: usize, scale: f32) -> Vec<f32> {
    let tokens = low.len() / rank;
    let features = x.len() / tokens.max(1);
    let tasks = threads::map(features.div_ceil(FEATURES), |task| {
        let start = task * FEATURES;
        let width = FEATURES.min(features - start);
        let mut part = buffer(rank * width); // [r, width]
        let left = Left {
            values: low,
            row: 1,
            depth: rank,
        };
        let right = Right {
            values: &x[start..],
            depth: features,
        };
        let output = Output {
            values: &mut part,
            row: width,
            add: false,
        };
        small([rank, tokens, width], scale, left, right, output);
        part
    });
    let mut wide = buffer(rank * features);
    for (task, part) in tasks.iter().enumerate() {
        let width = part.len() / rank;
        for (row, part) in part.chunks_exact(width).enumerate() {
            wide[row * features + task * FEATURES..][..width].copy_from_slice(part);
        }
    }
    wide
}

vectorised! {
    /// See [`tile::multiply`].
    fn small(
        simd,
        shape: [usize; 3],
        scale: f32,
        left: Left<'a>,
        right: Right<'a>,
        output: Output<'a>,
    ) {
        tile::multiply(simd, shape, scale, left, right, output);
    }
}

/// The transpose of a matrix with `columns` columns.
pub(crate) fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    let mut result = buffer(matrix.len());
    for (row, values) in matrix.chunks_exact(columns).enumerate() {
        for (column, value) in values.iter().enumerate() {
            result[column * rows + row] = *value;
        }
    }
    result
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "sums of small integers are exact")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Small integers: their sums are exact in any order.
    fn numbers(length: usize, step: usize) -> Vec<f32> {
        (0..length).map(|i| (i * step % 11) as f32 - 5.0).collect()
    }

    proptest! {
        #[test]
        fn each_equals_its_sums(t in 1_usize..70, f in 1_usize..90, r in 1_usize..11) {
            let (x, low, wide) = (numbers(t * f, 7), numbers(t * r, 3), numbers(r * f, 5));
            let product = down(&x, &wide, r, 2.0);
            let gradient = outer(&low, &x, r, 2.0);
            let mut y = x.clone();
            up(&low, &wide, r, &mut y);
            let mut same = x.clone();
            up_transposed(&low, &transposed(&wide, f), r, &mut same);
            prop_assert_eq!(&same, &y);
            for i in 0..t {
                for k in 0..r {
                    let sum: f32 = (0..f).map(|j| x[i * f + j] * wide[k * f + j]).sum();
                    prop_assert_eq!(product[i * r + k], 2.0 * sum);
                }
                for j in 0..f {
                    let sum: f32 = (0..r).map(|k| low[i * r + k] * wide[k * f + j]).sum();
                    prop_assert_eq!(y[i * f + j], x[i * f + j] + sum);
                }
            }
            for k in 0..r {
                for j in 0..f {
                    let sum: f32 = (0..t).map(|i| low[i * r + k] * x[i * f + j]).sum();
                    prop_assert_eq!(gradient[k * f + j], 2.0 * sum);
                }
            }
            prop_assert_eq!(transposed(&transposed(&wide, f), r), wide);
        }
    }
}
