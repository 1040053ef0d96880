//! Decompositions of a weight into two thin factors: the largest singular values, exact or randomised, and the first columns
//! of a QR decomposition.
//!
//! The exact one takes the eigenvectors of `W Wᵀ`, or of `Wᵀ W` if that is smaller ([`eigen`]): all sums are in f64, so that the
//! squares cost nothing that a weight in f32 has. Each element is one sum in a fixed order: the results have the same bits
//! with any number of threads.
//!
//! Axes: O rows, I columns, T tokens, n the shorter side, m the longer one, r rank.

mod eigen;
mod products;

use self::products::{gram, times, transposed_times};
use super::spectrum::{Columns, dot, norm, product, rotated_together};
use crate::random::normal;

/// A weight, row after row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// `[O, I]`
    pub(crate) values: &'a [f32],
    /// O and I.
    pub(crate) shape: [usize; 2],
}

/// A matrix by its products with thin ones, so that it need not be formed.
pub(crate) trait Products {
    /// Rows and columns.
    fn shape(&self) -> [usize; 2];

    /// `W X`.
    ///
    /// # Shapes
    /// r columns of length I -> r columns of length O
    fn times(&self, thin: &Columns) -> Columns;

    /// `Wᵀ X`.
    ///
    /// # Shapes
    /// r columns of length O -> r columns of length I
    fn transposed_times(&self, thin: &Columns) -> Columns;
}

impl Products for Matrix<'_> {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn times(&self, thin: &Columns) -> Columns {
        times(*self, thin)
    }

    fn transposed_times(&self, thin: &Columns) -> Columns {
        transposed_times(*self, thin)
    }
}

/// What a weight computes from inputs: `W Xᵀ`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outputs<'a> {
    /// W: `[O, I]`
    pub(crate) weight: Matrix<'a>,
    /// X: `[T, I]`
    pub(crate) inputs: Matrix<'a>,
}

impl Products for Outputs<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.weight.shape[0], self.inputs.shape[0]]
    }

    fn times(&self, thin: &Columns) -> Columns {
        times(self.weight, &transposed_times(self.inputs, thin))
    }

    fn transposed_times(&self, thin: &Columns) -> Columns {
        times(self.inputs, &transposed_times(self.weight, thin))
    }
}

/// The largest singular values of a matrix with their vectors: `Σ σₖ uₖ vₖᵀ` is the best approximation of rank r.
#[derive(Debug, Clone)]
pub(crate) struct Truncated {
    /// u, r columns of length O.
    pub(crate) left: Columns,
    /// σ in descending order.
    pub(crate) values: Vec<f64>,
    /// v, r columns of length I.
    pub(crate) right: Columns,
}

/// The r largest singular values. Vectors of a value that is zero are zero.
pub(crate) fn truncated(matrix: Matrix<'_>, rank: usize) -> Truncated {
    let [rows, columns] = matrix.shape;
    let n = rows.min(columns);
    let vectors = eigen::largest(gram(matrix), n, rank.min(n));
    if columns < rows {
        let left = times(matrix, &vectors);
        of_product(left, vectors)
    } else {
        let right = transposed_times(matrix, &vectors);
        swapped(of_product(right, vectors))
    }
}

/// As [`truncated`], by random projection: `iterations` times a product with the matrix and one with its transpose. The random
/// numbers are those of `stream` and `seed`.
///
/// Source: Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1, as `torch.svd_lowrank` has them.
pub(crate) fn randomised(
    matrix: impl Products,
    rank: usize,
    iterations: usize,
    seed: u64,
    stream: &str,
) -> Truncated {
    let [rows, columns] = matrix.shape();
    // of the transpose if that is the taller one
    let is_tall = rows >= columns;
    let forth = |x: &Columns| {
        orthonormal(if is_tall {
            matrix.times(x)
        } else {
            matrix.transposed_times(x)
        })
    };
    let back = |y: &Columns| {
        if is_tall {
            matrix.transposed_times(y)
        } else {
            matrix.times(y)
        }
    };
    let short = rows.min(columns);
    let rank = rank.min(short);
    let random = normal(seed, stream, short * rank);
    let random: Vec<Vec<f64>> = random
        .chunks(short.max(1))
        .map(|column| column.iter().copied().map(f64::from).collect())
        .collect();
    let mut basis = forth(&random);
    for _ in 0..iterations {
        basis = forth(&orthonormal(back(&basis)));
    }
    let projected = back(&basis);
    // Wᵀ Q = v σ uᵀ, and Q u are the vectors of the longer side
    let found = of_product(projected, basis);
    if is_tall { swapped(found) } else { found }
}

/// Q and R of the first r columns of Q and rows of R in `W = Q R`.
///
/// # Shapes
/// r columns of length O, and r of length I.
pub(crate) fn first_of_qr(matrix: Matrix<'_>, rank: usize) -> [Columns; 2] {
    let [_, columns] = matrix.shape;
    let first = (0..rank).map(|at| {
        let column = matrix.values.iter().skip(at).step_by(columns);
        column.copied().map(f64::from).collect()
    });
    let q = orthonormal(first.collect());
    let mut r = transposed_times(matrix, &q);
    for (at, row) in r.iter_mut().enumerate() {
        // R is a triangle
        row[..at].fill(0.0);
    }
    [q, r]
}

/// The singular values of `B Aᵀ`, given as columns, without forming it.
///
/// # Shapes
/// R columns of length O, and R of length I
pub(crate) fn of_factors(b: &Columns, a: &Columns) -> Truncated {
    let [left, right] = [b, a].map(|columns| orthonormal(columns.clone()));
    // coordinates of the columns in these bases
    let within = |basis: &Columns, columns: &Columns| -> Columns {
        let coordinates = |column: &Vec<f64>| basis.iter().map(|of| dot(of, column)).collect();
        columns.iter().map(coordinates).collect()
    };
    let middle = product(&within(&left, b), &within(&right, a));
    let unit = |at| {
        let mut column = vec![0.0; middle.len()];
        column[at] = 1.0;
        column
    };
    let small = of_product(middle.clone(), (0..middle.len()).map(unit).collect());
    let outside = |basis: &Columns, columns: Columns| -> Columns {
        let combined = |weights: Vec<f64>| {
            let mut sum = vec![0.0; basis.first().map_or(0, Vec::len)];
            for (weight, direction) in weights.iter().zip(basis) {
                for (sum, value) in sum.iter_mut().zip(direction) {
                    *sum += weight * value;
                }
            }
            sum
        };
        columns.into_iter().map(combined).collect()
    };
    Truncated {
        left: outside(&left, small.left),
        values: small.values,
        right: outside(&right, small.right),
    }
}

/// The decomposition of `Y Vᵀ` with orthonormal columns V: `σ u` are the columns of Y, rotated until they are orthogonal.
fn of_product(mut product: Columns, mut vectors: Columns) -> Truncated {
    rotated_together(&mut product, &mut vectors);
    let mut order: Vec<usize> = (0..product.len()).collect();
    let lengths: Vec<f64> = product.iter().map(|column| norm(column)).collect();
    order.sort_by(|a, b| lengths[*b].total_cmp(&lengths[*a]));
    let unit = |at: &usize| {
        let length = lengths[*at];
        let factor = if length > 0.0 { length.recip() } else { 0.0 };
        product[*at].iter().map(|value| value * factor).collect()
    };
    Truncated {
        left: order.iter().map(unit).collect(),
        values: order.iter().map(|at| lengths[*at]).collect(),
        right: order.iter().map(|at| vectors[*at].clone()).collect(),
    }
}

fn swapped(of: Truncated) -> Truncated {
    Truncated {
        left: of.right,
        right: of.left,
        ..of
    }
}

/// Columns made orthonormal, one after another; each is projected twice, which is enough for f64. One that depends on those
/// before it is replaced by a unit vector.
///
/// Source: Giraud, Langou and Rozložník 2005.
fn orthonormal(columns: Columns) -> Columns {
    let mut done: Columns = Vec::with_capacity(columns.len());
    for column in columns {
        let length = norm(&column);
        let rows = column.len();
        let mut candidate = independent(column, &done, length);
        let mut next = 0;
        while candidate.is_none() && next < rows {
            let mut unit = vec![0.0; rows];
            unit[next] = 1.0;
            candidate = independent(unit, &done, 1.0);
            next += 1;
        }
        done.push(candidate.unwrap_or_else(|| vec![0.0; rows]));
    }
    done
}

/// A share of a column's length below which the rest of it is rounding.
const DEPENDENT: f64 = 1e-10;

/// A column without its parts along others, of length 1; `None` if nothing of it remains.
fn independent(mut column: Vec<f64>, others: &Columns, length: f64) -> Option<Vec<f64>> {
    for _ in 0..2 {
        for other in others {
            let along = dot(&column, other);
            for (value, direction) in column.iter_mut().zip(other) {
                *value -= along * direction;
            }
        }
    }
    let rest = norm(&column);
    if rest <= DEPENDENT * length || rest == 0.0 {
        return None;
    }
    for value in &mut column {
        *value /= rest;
    }
    Some(column)
}

#[cfg(test)]
mod tests;
