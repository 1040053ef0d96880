//! The low-rank product in the form in which a merge adds it to a weight.

use super::{MergedRows, Stored, factors};

/// A low-rank change of a matrix: `scale · left · right`.
pub(super) struct LowRankChange {
    /// `[rows, rank]`
    left: Vec<f64>,
    /// `[rank, columns]`
    right: Vec<f64>,
    rank: usize,
    columns: usize,
    scale: f64,
}

impl LowRankChange {
    /// B·A of a linear module.
    pub(super) fn of_linear(stored: &Stored<'_>) -> Self {
        let [a, b] = factors(false).map(|tensor| (stored.values)(tensor));
        Self {
            left: b,
            right: a,
            rank: stored.rank,
            columns: stored.shape[1],
            scale: stored.scale,
        }
    }

    /// B·A - B₀·A₀ of a linear module: `[B, -B₀] [A; A₀]`.
    pub(super) fn since_start(stored: &Stored<'_>) -> Self {
        let Some(start) = stored.factors else {
            return Self::of_linear(stored);
        };
        let (now, rank) = (Self::of_linear(stored), stored.rank);
        let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<f64>>();
        let rows = now.left.chunks(rank).zip(start.b.chunks(rank));
        let rows = rows.flat_map(|(b, start)| {
            let start = start.iter().map(|value| -f64::from(*value));
            b.iter().copied().chain(start)
        });
        Self {
            left: rows.collect(),
            right: [now.right, wide(&start.a)].concat(),
            rank: 2 * rank,
            ..now
        }
    }

    /// (B·A)ᵀ of an embedding.
    pub(super) fn of_embedding(stored: &Stored<'_>) -> Self {
        let [a, b] = factors(true).map(|tensor| (stored.values)(tensor));
        let ([rows, columns], rank) = (stored.shape, stored.rank);
        Self {
            left: transposed(&a, rank, rows),
            right: transposed(&b, columns, rank),
            rank,
            columns,
            scale: stored.scale,
        }
    }

    /// One row of the change, each element an f32.
    ///
    /// Every step is a fused multiply-add, one rank after another. With this rounding the sums equal those of
    /// PyTorch's matrix multiplication to the last bit, so that a merge equals PEFT's even if weight and change
    /// cancel. The step is computed in f64, in which the product of two f32 is exact, because not every CPU
    /// has the fused instruction.
    pub(super) fn row(&self, row: usize, sums: &mut [f64]) {
        sums.fill(0.0);
        for k in 0..self.rank {
            let factor = self.left[row * self.rank + k];
            let right = &self.right[k * self.columns..][..self.columns];
            for (sum, value) in sums.iter_mut().zip(right) {
                *sum = f64::from((factor * value + *sum) as f32);
            }
        }
        let scale = self.scale as f32;
        for sum in sums {
            *sum = f64::from(*sum as f32 * scale);
        }
    }
}

impl MergedRows for LowRankChange {
    fn row(&self, row: usize, old: &[f32], new: &mut [f64]) {
        self.row(row, new);
        for (new, old) in new.iter_mut().zip(old) {
            *new += f64::from(*old);
        }
    }
}

/// `[rows, columns]` -> `[columns, rows]`
fn transposed(matrix: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column]))
        .collect()
}
