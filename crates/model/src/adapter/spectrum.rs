//! Singular values of the product of two thin matrices, without computing the product.
//!
//! `B·Aᵀ = Q_B (R_B R_Aᵀ) Q_Aᵀ`: the matrix between the orthonormal factors is at most r × r. It has the norm and
//! the singular values of the product, and its singular vectors in other bases. All computations are in f64.
//!
//! Axes: r rank, p and q the smaller of a side's length and r.

use serde::Serialize;

/// Two columns whose cosine is below this count as orthogonal.
const ORTHOGONAL: f64 = 1e-14;
/// A dot product of columns below this counts as zero; the largest element of the matrix is 1.
const VANISHED: f64 = 1e-200;
/// Limit for Jacobi's method, which converges quadratically in about ten sweeps.
const MAX_SWEEPS: usize = 60;

/// A matrix as its columns, of equal length.
pub(super) type Columns = Vec<Vec<f64>>;

/// The columns of a row-major matrix `[rows, columns]`.
pub(super) fn columns_of(values: &[f64], columns: usize) -> Columns {
    let column = |at| values.iter().skip(at).step_by(columns).copied().collect();
    (0..columns).map(column).collect()
}

/// The rows of a row-major matrix `[rows, columns]`: the columns of its transpose.
pub(super) fn rows_of(values: &[f64], columns: usize) -> Columns {
    values.chunks(columns.max(1)).map(<[f64]>::to_vec).collect()
}

/// The triangle R of a QR decomposition by Householder reflections, `[min(rows, r), r]`.
pub(super) fn triangle(mut columns: Columns) -> Columns {
    let rows = columns.first().map_or(0, Vec::len);
    let height = rows.min(columns.len());
    for k in 0..height {
        let (done, rest) = columns.split_at_mut(k + 1);
        let pivot = &mut done[k];
        let length = norm(&pivot[k..]);
        if length == 0.0 {
            continue;
        }
        let diagonal = if pivot[k] > 0.0 { -length } else { length };
        pivot[k] -= diagonal;
        let reflected = &pivot[k..];
        let square = dot(reflected, reflected);
        for column in rest {
            let factor = 2.0 * dot(reflected, &column[k..]) / square;
            for (value, direction) in column[k..].iter_mut().zip(reflected) {
                *value -= factor * direction;
            }
        }
        pivot[k..].fill(0.0);
        pivot[k] = diagonal;
    }
    for column in &mut columns {
        column.truncate(height);
    }
    columns
}

/// `L·Rᵀ` of two matrices with the same number of columns.
///
/// # Shapes
/// `[p, r]`, `[q, r]` -> `[p, q]`
pub(super) fn product(left: &[Vec<f64>], right: &[Vec<f64>]) -> Columns {
    let rows = left.first().map_or(0, Vec::len);
    let columns = right.first().map_or(0, Vec::len);
    let mut result = vec![vec![0.0; rows]; columns];
    for (left, right) in left.iter().zip(right) {
        for (column, factor) in result.iter_mut().zip(right) {
            for (sum, value) in column.iter_mut().zip(left) {
                *sum += factor * value;
            }
        }
    }
    result
}

/// Singular values in descending order, and their left singular vectors.
///
/// # Shapes
/// `[p, q]` -> min(p, q) values, and as many columns of length p (zeros if the value is zero)
///
/// Source: one-sided Jacobi, Golub and Van Loan, Matrix Computations, section 8.6.3 of the fourth edition.
pub(super) fn singular(mut columns: Columns) -> (Vec<f64>, Columns) {
    let rows = columns.first().map_or(0, Vec::len);
    let count = rows.min(columns.len());
    let largest = columns
        .iter()
        .flatten()
        .fold(0.0_f64, |most, value| most.max(value.abs()));
    if largest == 0.0 {
        return (vec![0.0; count], vec![vec![0.0; rows]; count]);
    }
    for value in columns.iter_mut().flatten() {
        *value /= largest;
    }
    sweeps(&mut columns, None);
    columns.sort_by(|a, b| norm(b).total_cmp(&norm(a)));
    columns.truncate(count);
    let mut values = Vec::with_capacity(count);
    for column in &mut columns {
        let length = norm(column);
        if length > 0.0 {
            for value in column.iter_mut() {
                *value /= length;
            }
        }
        values.push(length * largest);
    }
    (values, columns)
}

/// Rotates columns until they are orthogonal, and others in the same way, so that the product of the two stays the same.
///
/// # Shapes
/// r columns each
pub(super) fn rotated_together(columns: &mut Columns, others: &mut Columns) {
    sweeps(columns, Some(others));
}

fn sweeps(columns: &mut Columns, mut others: Option<&mut Columns>) {
    for _ in 0..MAX_SWEEPS {
        let mut rotated = false;
        for j in 1..columns.len() {
            let (before, after) = columns.split_at_mut(j);
            for (i, column) in before.iter_mut().enumerate() {
                let Some(turn) = rotation(column, &after[0]) else {
                    continue;
                };
                rotated = true;
                rotate(turn, column, &mut after[0]);
                if let Some(others) = others.as_deref_mut() {
                    let (before, after) = others.split_at_mut(j);
                    rotate(turn, &mut before[i], &mut after[0]);
                }
            }
        }
        if !rotated {
            break;
        }
    }
}

/// Cosine and sine of the rotation after which two columns are orthogonal; `None` if they are.
fn rotation(a: &[f64], b: &[f64]) -> Option<[f64; 2]> {
    let (alpha, beta, gamma) = (dot(a, a), dot(b, b), dot(a, b));
    if gamma.abs() <= ORTHOGONAL * (alpha * beta).sqrt() + VANISHED {
        return None;
    }
    let zeta = (beta - alpha) / (2.0 * gamma);
    let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    Some([cosine, cosine * tangent])
}

/// Rotates two columns in their plane.
fn rotate([cosine, sine]: [f64; 2], a: &mut [f64], b: &mut [f64]) {
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
    }
}

/// Dot product. Eight partial sums, so that the compiler can vectorise it.
#[expect(
    clippy::inline_always,
    reason = "compiled with the instructions of the function that it is called in"
)]
#[inline(always)]
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a_blocks, a_rest) = a.as_chunks::<8>();
    let (b_blocks, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for k in 0..8 {
            sums[k] += a[k] * b[k];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// Euclidean norm of a vector, or Frobenius norm of a matrix's elements.
pub(super) fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

/// The singular values of an update s·B·A.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spectrum {
    /// In descending order; as many as the rank, or as the smaller side if that is less.
    pub singular_values: Vec<f64>,
    /// Frobenius norm: the root of the sum of their squares.
    pub norm: f64,
    /// `exp(-Σ pᵢ ln pᵢ)` with `pᵢ = σᵢ / Σ σ`; 0 for a zero update. It is the rank if all singular values are equal,
    /// and 1 if only one is not zero.
    ///
    /// Source: Roy and Vetterli, The effective rank, EUSIPCO 2007.
    pub effective_rank: f64,
    /// `Σ σᵢ² / σ₁²`; 0 for a zero update.
    pub stable_rank: f64,
}

impl Spectrum {
    /// From the singular values in descending order.
    pub(super) fn new(singular_values: Vec<f64>) -> Self {
        let largest = singular_values.first().copied().unwrap_or(0.0);
        let scaled: Vec<f64> = singular_values
            .iter()
            .map(|value| if largest > 0.0 { value / largest } else { 0.0 })
            .collect();
        let (sum, square): (f64, f64) = (scaled.iter().sum(), dot(&scaled, &scaled));
        let shares = scaled.iter().map(|value| value / sum);
        let entropy: f64 = shares
            .filter(|share| *share > 0.0)
            .map(|share| -share * share.ln())
            .sum();
        Self {
            norm: largest * square.sqrt(),
            effective_rank: if largest > 0.0 { entropy.exp() } else { 0.0 },
            stable_rank: square,
            singular_values,
        }
    }

    /// The largest singular value; 0 if there is none.
    pub fn largest(&self) -> f64 {
        self.singular_values.first().copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Columns> {
        prop::collection::vec(prop::collection::vec(-2.0..2.0, rows), columns)
    }

    fn square(columns: &[Vec<f64>]) -> f64 {
        columns.iter().map(|column| dot(column, column)).sum()
    }

    proptest! {
        /// For sides longer and shorter than the rank.
        #[test]
        fn the_small_matrix_has_the_products_norm(
            (b, a) in (1..9_usize, 1..9_usize, 1..6_usize)
                .prop_flat_map(|(out, inner, rank)| (matrix(out, rank), matrix(inner, rank))),
        ) {
            let whole = product(&b, &a);
            let [left, right] = [b, a].map(triangle);
            let small = product(&left, &right);
            let (values, vectors) = singular(small.clone());
            // sums of at most 6 products of values up to 2, in f64, in another order
            let bound = 1e-12;
            prop_assert!((square(&whole) - square(&small)).abs() <= bound * (1.0 + square(&whole)));
            let sum: f64 = values.iter().map(|value| value * value).sum();
            prop_assert!((square(&whole) - sum).abs() <= bound * (1.0 + sum));
            prop_assert!(values.is_sorted_by(|a, b| a >= b));
            // the vectors are orthonormal, and eigenvectors of the matrix times its transpose
            let back = |vector: &[f64]| norm(&small.iter().map(|c| dot(c, vector)).collect::<Vec<_>>());
            for (value, vector) in values.iter().zip(&vectors) {
                prop_assert!((back(vector) - value).abs() <= bound * (1.0 + values[0]), "{values:?}");
            }
        }
    }

    #[test]
    fn ranks_of_known_spectra() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        let equal = Spectrum::new(vec![3.0; 4]);
        assert!(close(equal.effective_rank, 4.0) && close(equal.norm, 6.0));
        assert!(close(equal.stable_rank, 4.0));
        let one = Spectrum::new(vec![2.0, 0.0]);
        assert_eq!(
            (one.effective_rank, one.stable_rank, one.norm),
            (1.0, 1.0, 2.0)
        );
        let zero = Spectrum::new(vec![0.0, 0.0]);
        assert_eq!(
            (zero.effective_rank, zero.stable_rank, zero.norm),
            (0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn columns_that_repeat_have_no_second_value() {
        let (values, _) = singular(vec![vec![1.0, 2.0, 2.0]; 3]);
        assert!((values[0] - 27.0_f64.sqrt()).abs() < 1e-14);
        assert!(values[1..].iter().all(|value| *value < 1e-15));
    }
}
