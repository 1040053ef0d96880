//! The eigenvectors of the largest eigenvalues of a symmetric matrix.
//!
//! Householder reflections make it tridiagonal, bisection finds the largest eigenvalues of that, inverse iteration their
//! vectors, and the reflections take these back. A vector is made orthogonal to all those before it, so that equal
//! eigenvalues get different ones.
//!
//! Source: Golub and Van Loan, Matrix Computations, fourth edition, sections 8.3.1, 8.4.1 and 8.2.2; LAPACK `dstebz` and
//! `dstein`.

use pulp::Arch;
use rayon::prelude::*;

use super::products::add_scaled;
use crate::adapter::spectrum::{Columns, dot, norm};
use crate::random::unit;

/// Rows from which on a step of the reduction is divided among threads.
const FEW_ROWS: usize = 128;
/// Bisections: each halves an interval that begins as wide as the spectrum.
const BISECTIONS: usize = 64;
/// Elements below this count as zero; the largest one of the matrix is 1. What rounding leaves of zeros is rounded again and
/// again, until its square underflows.
const NEGLIGIBLE: f64 = 1e-30;
/// Inverse iterations. The first one mostly suffices.
const ITERATIONS: usize = 3;

/// A tridiagonal matrix, and the reflections that it comes from.
struct Tridiagonal {
    /// `[n]`
    diagonal: Vec<f64>,
    /// `[n - 1]`
    beside: Vec<f64>,
    /// `[n, n]`: row k has the vector of reflection k from column k + 1 on.
    reflections: Vec<f64>,
    /// The factor 2 / vᵀv of each reflection; 0 if there is none.
    factors: Vec<f64>,
}

/// The eigenvectors of the `count` largest eigenvalues.
///
/// # Shapes
/// `[n, n]` -> `count` columns of length n
pub(super) fn largest(mut matrix: Vec<f64>, n: usize, count: usize) -> Columns {
    let largest = matrix
        .iter()
        .fold(0.0_f64, |most, value| most.max(value.abs()));
    if largest == 0.0 || n == 1 {
        let unit = |at| (0..n).map(|row| f64::from(u8::from(row == at))).collect();
        return (0..count).map(unit).collect();
    }
    for value in &mut matrix {
        *value /= largest;
    }
    let reduced = Tridiagonal::of(matrix, n);
    let values: Vec<f64> = (0..count)
        .into_par_iter()
        .map(|place| reduced.eigenvalue(place))
        .collect();
    let mut vectors: Columns = Vec::with_capacity(count);
    for (place, value) in values.iter().enumerate() {
        let vector = reduced.eigenvector(*value, place as u64, &vectors);
        vectors.push(vector);
    }
    vectors
        .par_iter_mut()
        .for_each(|vector| reduced.take_back(vector));
    vectors
}

impl Tridiagonal {
    /// Each pass over the matrix applies one reflection and multiplies by the vector of the next.
    fn of(mut matrix: Vec<f64>, n: usize) -> Self {
        let mut diagonal = vec![0.0; n];
        let mut beside = vec![0.0; n - 1];
        let mut factors = vec![0.0; n];
        // the update v wᵀ + w vᵀ that is due
        let (mut v, mut w) = (vec![0.0; n], vec![0.0; n]);
        for k in 0..n {
            let row = &mut matrix[k * n..(k + 1) * n];
            update(&mut row[k..], v[k], &w[k..], w[k], &v[k..]);
            diagonal[k] = row[k];
            if k + 1 == n {
                break;
            }
            let (next, factor, off) = reflection(&row[k + 1..]);
            beside[k] = off;
            factors[k] = factor;
            row[k + 1..].copy_from_slice(&next);
            let product = pass(&mut matrix[(k + 1) * n..], n, k + 1, [&v, &w], &next);
            v[k] = 0.0;
            w[k] = 0.0;
            let along = factor * dot(&product, &next);
            for (at, (v, w)) in v[k + 1..].iter_mut().zip(&mut w[k + 1..]).enumerate() {
                *v = next[at];
                *w = factor * product[at] - along * factor / 2.0 * next[at];
            }
        }
        Self {
            diagonal,
            beside,
            reflections: matrix,
            factors,
        }
    }

    /// The number of eigenvalues below `x`.
    fn below(&self, x: f64) -> usize {
        let mut count = 0;
        let mut pivot = 1.0_f64;
        for (at, diagonal) in self.diagonal.iter().enumerate() {
            let off = if at == 0 { 0.0 } else { self.beside[at - 1] };
            let before = if pivot == 0.0 {
                f64::MIN_POSITIVE
            } else {
                pivot
            };
            pivot = diagonal - x - off * off / before;
            count += usize::from(pivot < 0.0);
        }
        count
    }

    /// A bound of all eigenvalues (Gershgorin).
    fn bound(&self) -> f64 {
        let off = |at: usize| self.beside.get(at).map_or(0.0, |value| value.abs());
        let rows = self.diagonal.iter().enumerate();
        let rows =
            rows.map(|(at, value)| value.abs() + off(at) + at.checked_sub(1).map_or(0.0, off));
        rows.fold(0.0, f64::max)
    }

    /// The eigenvalue with `place` larger ones.
    fn eigenvalue(&self, place: usize) -> f64 {
        let wanted = self.diagonal.len() - place; // so many are below any larger number
        let bound = self.bound();
        let (mut low, mut high) = (-bound, bound);
        for _ in 0..BISECTIONS {
            let middle = f64::midpoint(low, high);
            if self.below(middle) < wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::midpoint(low, high)
    }

    /// The eigenvector of a value, orthogonal to others.
    fn eigenvector(&self, value: f64, place: u64, others: &Columns) -> Vec<f64> {
        let solver = Solver::of(self, value);
        let mut vector: Vec<f64> = (0..self.diagonal.len() as u64)
            .map(|row| unit(place, row) - 0.5)
            .collect();
        for _ in 0..ITERATIONS {
            solver.solve(&mut vector);
            scale_to_one(&mut vector);
            for _ in 0..2 {
                for other in others {
                    let along = dot(&vector, other);
                    add_scaled(&mut vector, -along, other);
                }
            }
            scale_to_one(&mut vector);
        }
        vector
    }

    /// Turns a vector of the tridiagonal matrix into one of the matrix that it was.
    fn take_back(&self, vector: &mut [f64]) {
        let n = self.diagonal.len();
        Arch::new().dispatch(|| {
            for k in (0..n - 1).rev() {
                let direction = &self.reflections[k * n + k + 1..(k + 1) * n];
                let rest = &mut vector[k + 1..];
                let along = self.factors[k] * dot(rest, direction);
                add_scaled(rest, -along, direction);
            }
        });
    }
}

/// The vector v of a reflection that leaves only the first element of a row, its factor 2 / vᵀv, and that element.
fn reflection(row: &[f64]) -> (Vec<f64>, f64, f64) {
    let mut vector = row.to_vec();
    let rest = norm(&row[1..]);
    if rest <= NEGLIGIBLE {
        return (vec![0.0; row.len()], 0.0, row[0]);
    }
    let length = rest.hypot(row[0]);
    let off = if row[0] > 0.0 { -length } else { length };
    vector[0] -= off;
    // vᵀv = 2 length (length + |row[0]|)
    let factor = (length * (length + row[0].abs())).recip();
    (vector, factor, off)
}

/// Applies an update to the rows from `first` on, and multiplies them by `next`; columns before `first` are done.
fn pass(
    rows: &mut [f64],
    n: usize,
    first: usize,
    [v, w]: [&Vec<f64>; 2],
    next: &[f64],
) -> Vec<f64> {
    let mut product = vec![0.0; n - first];
    rows.par_chunks_mut(n)
        .zip(&mut product)
        .enumerate()
        .with_min_len(FEW_ROWS)
        .for_each(|(at, (row, product))| {
            let at = first + at;
            Arch::new().dispatch(|| {
                let row = &mut row[first..];
                update(row, v[at], &w[first..], w[at], &v[first..]);
                *product = dot(row, next);
            });
        });
    product
}

#[expect(
    clippy::inline_always,
    reason = "compiled with the instructions of the function that it is called in"
)]
#[inline(always)]
fn update(row: &mut [f64], v: f64, others_w: &[f64], w: f64, others_v: &[f64]) {
    for ((value, other_w), other_v) in row.iter_mut().zip(others_w).zip(others_v) {
        *value -= v * other_w + w * other_v;
    }
}

fn scale_to_one(vector: &mut [f64]) {
    let most = vector
        .iter()
        .fold(0.0_f64, |most, value| most.max(value.abs()));
    if most == 0.0 || !most.is_finite() {
        return;
    }
    for value in vector.iter_mut() {
        *value /= most;
    }
    let length = norm(vector);
    for value in vector {
        *value /= length;
    }
}

/// `T - λ`, as the factors of its elimination with pivots.
struct Solver {
    /// Each row after the elimination: its pivot and the two elements beside it.
    rows: Vec<[f64; 3]>,
    /// For each row, whether it changed places with the next one, and by which factor it was subtracted from that.
    steps: Vec<(bool, f64)>,
}

impl Solver {
    fn of(of: &Tridiagonal, value: f64) -> Self {
        let n = of.diagonal.len();
        let off = |at: usize| of.beside.get(at).copied().unwrap_or(0.0);
        let least = of.bound().max(f64::MIN_POSITIVE) * f64::EPSILON;
        let mut rows = Vec::with_capacity(n);
        let mut steps = Vec::with_capacity(n);
        let mut current = [of.diagonal[0] - value, off(0), 0.0];
        for at in 0..n {
            if at + 1 == n {
                rows.push(pivoted(current, least));
                break;
            }
            let below = [off(at), of.diagonal[at + 1] - value, off(at + 1)];
            let swap = below[0].abs() > current[0].abs();
            let (pivot, other) = if swap {
                (below, current)
            } else {
                (pivoted(current, least), below)
            };
            let factor = other[0] / pivot[0];
            current = [
                other[1] - factor * pivot[1],
                other[2] - factor * pivot[2],
                0.0,
            ];
            rows.push(pivot);
            steps.push((swap, factor));
        }
        Self { rows, steps }
    }

    fn solve(&self, vector: &mut [f64]) {
        for (at, (swap, factor)) in self.steps.iter().enumerate() {
            if *swap {
                vector.swap(at, at + 1);
            }
            vector[at + 1] -= factor * vector[at];
        }
        for at in (0..vector.len()).rev() {
            let [pivot, first, second] = self.rows[at];
            let known = |by: usize| vector.get(at + by).copied().unwrap_or(0.0);
            vector[at] = (vector[at] - first * known(1) - second * known(2)) / pivot;
        }
    }
}

/// A row whose pivot is not smaller than `least`.
fn pivoted(row: [f64; 3], least: f64) -> [f64; 3] {
    let pivot = if row[0].abs() < least {
        least.copysign(row[0])
    } else {
        row[0]
    };
    [pivot, row[1], row[2]]
}
