//! The skinny products of a low-rank path, where one dimension is the rank.
//!
//! A general product spends its time packing sides that are used once; here the wide side streams
//! past and the narrow one stays in registers.
//!
//! Axes: T tokens, F features (wide), r rank (narrow).

use pulp::{Arch, Simd, WithSimd};

use crate::buffer::buffer;
use crate::threads;
use crate::tile::{self, Left, Output, Right};

/// Tokens of a task.
const TOKENS: usize = 32;

/// Features of a task.
const FEATURES: usize = 64;

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
        Arch::new().dispatch(Down {
            x,
            a,
            rank,
            scale,
            low,
        });
    });
    low
}

struct Down<'a> {
    x: &'a [f32],
    a: &'a [f32],
    rank: usize,
    scale: f32,
    low: &'a mut [f32],
}

impl WithSimd for Down<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        const BLOCK: usize = 4;
        let features = self.a.len() / self.rank;
        for (x, low) in self
            .x
            .chunks(BLOCK * features)
            .zip(self.low.chunks_mut(BLOCK * self.rank))
        {
            for (block, a) in self.a.chunks(BLOCK * features).enumerate() {
                let [tokens, ranks] = [x.len(), a.len()].map(|length| length / features);
                let mut write = |token: usize, rank: usize, value: f32| {
                    low[token * self.rank + block * BLOCK + rank] = value * self.scale;
                };
                if [tokens, ranks] == [BLOCK; 2] {
                    let sums = dots::<S, BLOCK, BLOCK>(simd, x, a, features);
                    for (token, sums) in sums.iter().enumerate() {
                        for (rank, sum) in sums.iter().enumerate() {
                            write(token, rank, *sum);
                        }
                    }
                    continue;
                }
                for token in 0..tokens {
                    for rank in 0..ranks {
                        let x = &x[token * features..][..features];
                        let a = &a[rank * features..][..features];
                        let [[sum]] = dots::<S, 1, 1>(simd, x, a, features);
                        write(token, rank, sum);
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

/// `y += scale · low wide`.
///
/// # Shapes
/// `low`: `[T, r]`. `wide`: `[r, F]`. `y`: `[T, F]`.
pub(crate) fn up(low: &[f32], wide: &[f32], rank: usize, scale: f32, y: &mut [f32]) {
    let features = wide.len() / rank;
    threads::chunks(y, TOKENS * features, |task, y| {
        Arch::new().dispatch(Small {
            shape: [y.len() / features, rank, features],
            scale,
            left: Left {
                values: &low[task * TOKENS * rank..],
                row: rank,
                depth: 1,
            },
            right: Right {
                values: wide,
                depth: features,
            },
            output: Output {
                values: y,
                row: features,
                add: true,
            },
        });
    });
}

/// `wide = scale · lowᵀ x`: every sum in the order of the tokens.
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
        Arch::new().dispatch(Small {
            shape: [rank, tokens, width],
            scale,
            left: Left {
                values: low,
                row: 1,
                depth: rank,
            },
            right: Right {
                values: &x[start..],
                depth: features,
            },
            output: Output {
                values: &mut part,
                row: width,
                add: false,
            },
        });
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

struct Small<'a> {
    shape: [usize; 3],
    scale: f32,
    left: Left<'a>,
    right: Right<'a>,
    output: Output<'a>,
}

impl WithSimd for Small<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        tile::multiply(
            simd,
            self.shape,
            self.scale,
            self.left,
            self.right,
            self.output,
        );
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

    /// Small integers, whose sums are exact in any order.
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
            up(&low, &wide, r, 2.0, &mut y);
            for i in 0..t {
                for k in 0..r {
                    let sum: f32 = (0..f).map(|j| x[i * f + j] * wide[k * f + j]).sum();
                    prop_assert_eq!(product[i * r + k], 2.0 * sum);
                }
                for j in 0..f {
                    let sum: f32 = (0..r).map(|k| low[i * r + k] * wide[k * f + j]).sum();
                    prop_assert_eq!(y[i * f + j], x[i * f + j] + 2.0 * sum);
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
