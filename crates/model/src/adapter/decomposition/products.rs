//! Products of a weight in f32 with thin matrices and with itself, in f64.
//!
//! Axes: O rows, I columns, n the shorter side, m the longer one, r columns of the thin matrix.

use pulp::Arch;
use rayon::prelude::*;

use super::Matrix;
use crate::adapter::spectrum::{Columns, dot};
use crate::numbers::widen;

/// Columns of a weight that are computed together.
const TOGETHER: usize = 512;
/// Rows of the product of a weight with itself that are computed together: they stay in the cache.
const BLOCK: usize = 8;

/// `W X`.
///
/// # Shapes
/// `[O, I]`, r columns of length I -> r columns of length O
pub(super) fn times(matrix: Matrix<'_>, thin: &Columns) -> Columns {
    let [rows, columns] = matrix.shape;
    let mut products = vec![0.0; rows * thin.len()]; // [O, r]
    products
        .par_chunks_mut(thin.len().max(1))
        .zip(matrix.values.par_chunks(columns.max(1)))
        .for_each_init(
            || vec![0.0; columns],
            |wide, (products, row)| {
                Arch::new().dispatch(|| {
                    widen(row, wide);
                    for (product, column) in products.iter_mut().zip(thin) {
                        *product = dot(wide, column);
                    }
                });
            },
        );
    let column = |at| {
        products
            .iter()
            .skip(at)
            .step_by(thin.len().max(1))
            .copied()
            .collect()
    };
    (0..thin.len()).map(column).collect()
}

/// `Wᵀ X`.
///
/// # Shapes
/// `[O, I]`, r columns of length O -> r columns of length I
pub(super) fn transposed_times(matrix: Matrix<'_>, thin: &Columns) -> Columns {
    let [_, columns] = matrix.shape;
    let parts: Vec<Columns> = (0..columns)
        .into_par_iter()
        .step_by(TOGETHER)
        .map(|first| {
            let width = TOGETHER.min(columns - first);
            let mut sums = vec![vec![0.0; width]; thin.len()];
            let mut wide = vec![0.0; width];
            Arch::new().dispatch(|| {
                for (at, row) in matrix.values.chunks(columns).enumerate() {
                    widen(&row[first..first + width], &mut wide);
                    for (sums, column) in sums.iter_mut().zip(thin) {
                        add_scaled(sums, column[at], &wide);
                    }
                }
            });
            sums
        })
        .collect();
    let joined = |at: usize| parts.iter().flat_map(|part| &part[at]).copied().collect();
    (0..thin.len()).map(joined).collect()
}

/// The product of a weight with its transpose, on its shorter side: both triangles.
///
/// # Shapes
/// `[O, I]` -> `[n, n]`
pub(super) fn gram(matrix: Matrix<'_>) -> Vec<f64> {
    let [rows, columns] = matrix.shape;
    let (n, m) = (rows.min(columns), rows.max(columns));
    let wide = along_the_longer_side(matrix); // [n, m]
    let mut product = vec![0.0; n * n];
    product
        .par_chunks_mut(BLOCK * n.max(1))
        .enumerate()
        .for_each(|(block, sums)| {
            let first = block * BLOCK;
            let height = sums.len() / n;
            Arch::new().dispatch(|| {
                for (at, other) in wide.chunks(m).take(first + height).enumerate() {
                    for row in 0..height {
                        let own = &wide[(first + row) * m..][..m];
                        sums[row * n + at] = dot(own, other);
                    }
                }
            });
        });
    for row in 0..n {
        for column in row + 1..n {
            product[row * n + column] = product[column * n + row];
        }
    }
    product
}

/// The weight in f64 with the longer side contiguous.
fn along_the_longer_side(matrix: Matrix<'_>) -> Vec<f64> {
    let [rows, columns] = matrix.shape;
    if columns >= rows {
        return matrix.values.iter().copied().map(f64::from).collect();
    }
    let mut wide = vec![0.0; rows * columns];
    wide.par_chunks_mut(TOGETHER * rows)
        .enumerate()
        .for_each(|(block, part)| {
            for (at, row) in matrix.values.chunks(columns).enumerate() {
                let row = &row[block * TOGETHER..];
                for (line, value) in part.chunks_mut(rows).zip(row) {
                    line[at] = f64::from(*value);
                }
            }
        });
    wide
}

#[expect(
    clippy::inline_always,
    reason = "compiled with the instructions of the function that it is called in"
)]
#[inline(always)]
pub(super) fn add_scaled(sums: &mut [f64], factor: f64, values: &[f64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += factor * value;
    }
}
