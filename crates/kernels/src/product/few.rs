//! Products of a few tokens: generation, and rows too short to be worth packing a weight.
//!
//! The time is that of reading the weight, so it is read once, as it is stored, and widened in
//! registers.
//!
//! Axes: M tokens (at most [`FEW`](super::FEW)), K summed features, N result features.

use std::ops::Range;

use half::{bf16, f16};

use super::{Side, Values, Weight};
use crate::buffer::buffer;
use crate::simd::vectorised;
use crate::threads;

/// Weights that one task reads: enough that a task is worth its start.
const TASK: usize = 1 << 16;

/// Lanes of a partial sum. Two vectors of AVX-512, four of AVX2.
const LANES: usize = 32;

/// `y = x · weight`, or `y += x · weight`.
pub(super) fn product(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    match weight.side {
        Side::Transposed => dots(x, weight, y, add),
        Side::Plain => sums(x, weight, y, add),
    }
}

/// `x Wᵀ`: a row of the weight gives one feature of every token.
fn dots(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    let rows = (TASK / k).max(1);
    if m == 1 && !add {
        return threads::chunks(y, rows, |task, y| dot_rows(x, weight, task * rows, y));
    }
    let mut sums = buffer(n * m); // [N, M]
    threads::chunks(&mut sums, rows * m, |task, sums| {
        dot_rows(x, weight, task * rows, sums);
    });
    for (row, sums) in sums.chunks_exact(m).enumerate() {
        for (token, sum) in sums.iter().enumerate() {
            let y = &mut y[token * n + row];
            *y = if add { *y + sum } else { *sum };
        }
    }
}

vectorised! {
    /// `result[row][token] = x[token] · W[first + row]`
    fn dot_rows(_simd, x: &'a [f32], weight: Weight<'a>, first: usize, result: &'a mut [f32]) {
        let k = weight.columns;
        let m = x.len() / k;
        for (row, result) in result.chunks_exact_mut(m).enumerate() {
            let start = (first + row) * k;
            for (x, sum) in x.chunks_exact(k).zip(result) {
                *sum = match weight.values {
                    Values::F32(w) => dot(x, &w[start..start + k], |w| w),
                    Values::Bf16(w) => dot(x, &w[start..start + k], widen),
                    Values::F16(w) => dot(x, &w[start..start + k], f16::to_f32),
                };
            }
        }
    }
}

#[inline(always)]
fn widen(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

#[inline(always)]
fn dot<T: Copy>(x: &[f32], w: &[T], widen: impl Fn(T) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (w, w_rest) = w.as_chunks::<LANES>();
    for (x, w) in x.iter().zip(w) {
        for lane in 0..LANES {
            lanes[lane] = x[lane].mul_add(widen(w[lane]), lanes[lane]);
        }
    }
    let rest: f32 = x_rest.iter().zip(w_rest).map(|(x, w)| x * widen(*w)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// `x W`: a row of the weight adds to every feature. Tasks take columns, each sums in row order.
fn sums(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    let columns = (TASK / k).next_multiple_of(LANES).clamp(1, n);
    let results = threads::map(n.div_ceil(columns), |task| {
        let columns = task * columns..n.min((task + 1) * columns);
        let mut result = vec![0.0; m * columns.len()]; // [M, columns]
        add_rows(x, weight, columns, &mut result);
        result
    });
    for (task, result) in results.iter().enumerate() {
        let width = result.len() / m;
        for (token, sums) in result.chunks_exact(width).enumerate() {
            let start = token * n + task * columns;
            for (y, sum) in y[start..start + width].iter_mut().zip(sums) {
                *y = if add { *y + sum } else { *sum };
            }
        }
    }
}

vectorised! {
    /// `result[token] = x[token] · W[.., columns]`, from zeros
    fn add_rows(
        _simd,
        x: &'a [f32],
        weight: Weight<'a>,
        columns: Range<usize>,
        result: &'a mut [f32],
    ) {
        let [k, n] = weight.inner_outer();
        let width = columns.len();
        for row in 0..k {
            let range = row * n + columns.start..row * n + columns.end;
            for (x, result) in x.chunks_exact(k).zip(result.chunks_exact_mut(width)) {
                match weight.values {
                    Values::F32(w) => axpy(x[row], &w[range.clone()], |w| w, result),
                    Values::Bf16(w) => axpy(x[row], &w[range.clone()], widen, result),
                    Values::F16(w) => axpy(x[row], &w[range.clone()], f16::to_f32, result),
                }
            }
        }
    }
}

#[inline(always)]
fn axpy<T: Copy>(x: f32, w: &[T], widen: impl Fn(T) -> f32, y: &mut [f32]) {
    for (y, w) in y.iter_mut().zip(w) {
        *y = x.mul_add(widen(*w), *y);
    }
}
