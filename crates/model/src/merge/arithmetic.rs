//! Arithmetic of a merge: widens rows of weights, lets the adapter change them, rounds.

use half::{bf16, f16};
use rayon::prelude::*;

use simmer_checkpoint::Dtype;
use simmer_checkpoint::numbers::Number;

use crate::adapter::kind::MergedRows;

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

/// Merges an adapter into rows of a matrix, starting at row `first`: widens them to f32, computes the new ones, and
/// rounds these once to `to`.
pub(super) fn change_rows(
    rows: &[u8],
    from: Dtype,
    to: Dtype,
    merged: &dyn MergedRows,
    columns: usize,
    first: usize,
) -> (Vec<u8>, Change) {
    with_type!(from, change_from::<_>(rows, to, merged, columns, first))
}

fn change_from<F: Number>(
    rows: &[u8],
    to: Dtype,
    merged: &dyn MergedRows,
    columns: usize,
    first: usize,
) -> (Vec<u8>, Change) {
    with_type!(to, change_between::<_, F>(rows, merged, columns, first))
}

fn change_between<T: Number, F: Number>(
    rows: &[u8],
    merged: &dyn MergedRows,
    columns: usize,
    first: usize,
) -> (Vec<u8>, Change) {
    let mut out = vec![0; rows.len() / F::BYTES * T::BYTES];
    let changes: Vec<Change> = out
        .par_chunks_mut(columns * T::BYTES)
        .zip(rows.par_chunks(columns * F::BYTES))
        .enumerate()
        .map_init(
            || (vec![0.0_f32; columns], vec![0.0_f64; columns]),
            |(old, new), (row, (out, weights))| {
                let row = first + row;
                for (old, weight) in old.iter_mut().zip(weights.chunks_exact(F::BYTES)) {
                    *old = F::widen(weight);
                }
                merged.row(row, old, new);
                let mut change = Change::default();
                let places = out.chunks_exact_mut(T::BYTES);
                for ((place, &weight), &exact) in places.zip(&*old).zip(&*new) {
                    let stored = T::narrow(exact as f32, place);
                    let delta = exact - f64::from(weight);
                    let error = f64::from(stored) - exact;
                    change.largest = change.largest.max(delta.abs());
                    change.error = change.error.max(error.abs());
                    let moved = f64::from(stored) - f64::from(weight);
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
