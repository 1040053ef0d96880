//! Arithmetic of a merge: widens rows of weights, adds the change, rounds.

use half::{bf16, f16};
use rayon::prelude::*;

use simmer_checkpoint::Dtype;
use simmer_checkpoint::numbers::Number;

/// The low-rank change of a matrix: `scaling · left · right`.
pub(super) struct LowRankBranch {
    /// `[rows, rank]`
    pub(super) left: Vec<f64>,
    /// `[rank, columns]`
    pub(super) right: Vec<f64>,
    pub(super) rank: usize,
    pub(super) columns: usize,
    pub(super) scaling: f64,
}

impl LowRankBranch {
    /// One row of the change, in f32.
    ///
    /// Every step is a fused multiply-add, one rank after another. With this rounding the sums equal those of
    /// PyTorch's matrix multiplication to the last bit, so that a merge equals PEFT's even if weight and change
    /// cancel. The step is computed in f64, in which the product of two f32 is exact, because not every CPU
    /// has the fused instruction.
    fn row(&self, row: usize, sums: &mut [f32]) {
        sums.fill(0.0);
        for k in 0..self.rank {
            let factor = self.left[row * self.rank + k];
            let right = &self.right[k * self.columns..][..self.columns];
            for (sum, value) in sums.iter_mut().zip(right) {
                *sum = (factor * value + f64::from(*sum)) as f32;
            }
        }
        let scaling = self.scaling as f32;
        for sum in sums {
            *sum *= scaling;
        }
    }
}

/// Statistics of a change over some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Change {
    /// Largest element of the change.
    pub(super) largest: f64,
    /// Largest rounding error of a sum.
    pub(super) error: f64,
    /// The first row in which a finite weight became NaN or infinite.
    pub(super) not_finite: Option<usize>,
    /// Sums of squares.
    pub(super) squares: Squares,
}

/// Sums over elements: `w` the base weight, `d` the change, `m` the stored weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Squares {
    /// `(w + d)²`
    pub(super) sum: f64,
    /// `d²`
    pub(super) change: f64,
    /// `(m - w)²`
    pub(super) stored_change: f64,
    /// `(m - w)·d`
    pub(super) along: f64,
    /// `(m - w - d)²`
    pub(super) error: f64,
}

impl Change {
    /// The statistics of both together.
    pub(super) fn and(self, other: Self) -> Self {
        let (a, b) = (self.squares, other.squares);
        Self {
            largest: self.largest.max(other.largest),
            error: self.error.max(other.error),
            not_finite: self.not_finite.into_iter().chain(other.not_finite).min(),
            squares: Squares {
                sum: a.sum + b.sum,
                change: a.change + b.change,
                stored_change: a.stored_change + b.stored_change,
                along: a.along + b.along,
                error: a.error + b.error,
            },
        }
    }
}

/// Calls a generic function with the Rust type of a dtype. Base models and adapters have no other dtypes: this
/// is checked when they are opened.
macro_rules! with_type {
    ($dtype:expr, $function:ident::<_ $(, $other:ty)?>($($argument:expr),*)) => {
        match $dtype {
            Dtype::F16 => $function::<f16 $(, $other)?>($($argument),*),
            Dtype::BF16 => $function::<bf16 $(, $other)?>($($argument),*),
            _ => $function::<f32 $(, $other)?>($($argument),*),
        }
    };
}

/// Adds the low-rank change to rows of a matrix, starting at row `first`: widens them to f32, adds the change,
/// and rounds the sum once to `to`.
pub(super) fn change_rows(
    rows: &[u8],
    from: Dtype,
    to: Dtype,
    branch: &LowRankBranch,
    first: usize,
) -> (Vec<u8>, Change) {
    with_type!(from, change_from::<_>(rows, to, branch, first))
}

fn change_from<F: Number>(
    rows: &[u8],
    to: Dtype,
    branch: &LowRankBranch,
    first: usize,
) -> (Vec<u8>, Change) {
    with_type!(to, change_between::<_, F>(rows, branch, first))
}

fn change_between<T: Number, F: Number>(
    rows: &[u8],
    branch: &LowRankBranch,
    first: usize,
) -> (Vec<u8>, Change) {
    let columns = branch.columns;
    let mut out = vec![0; rows.len() / F::BYTES * T::BYTES];
    let changes: Vec<Change> = out
        .par_chunks_mut(columns * T::BYTES)
        .zip(rows.par_chunks(columns * F::BYTES))
        .enumerate()
        .map_init(
            || vec![0.0_f32; columns],
            |sums, (row, (out, weights))| {
                let row = first + row;
                branch.row(row, sums);
                let mut change = Change::default();
                let places = out.chunks_exact_mut(T::BYTES);
                let weights = weights.chunks_exact(F::BYTES).map(F::widen);
                for ((place, weight), &delta) in places.zip(weights).zip(&*sums) {
                    let stored = T::narrow(weight + delta, place);
                    let exact = f64::from(weight) + f64::from(delta);
                    let error = f64::from(stored) - exact;
                    change.largest = change.largest.max(delta.abs().into());
                    change.error = change.error.max(error.abs());
                    let moved = f64::from(stored) - f64::from(weight);
                    let delta = f64::from(delta);
                    let squares = &mut change.squares;
                    squares.sum += exact * exact;
                    squares.change += delta * delta;
                    squares.stored_change += moved * moved;
                    squares.along += moved * delta;
                    squares.error += error * error;
                    if !stored.is_finite() && weight.is_finite() {
                        change.not_finite = Some(row);
                    }
                }
                change
            },
        )
        .collect();
    // summed row by row, so that the sums do not depend on the number of threads
    let change = changes.into_iter().fold(Change::default(), Change::and);
    (out, change)
}
