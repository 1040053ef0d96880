//! Products of a few tokens: generation, and rows too short to be worth packing a weight.
//!
//! The time is that of reading the weight, so it is read once, as it is stored, and widened in
//! registers.
//!
//! Axes: M tokens (at most [`FEW`](super::FEW)), K summed features, N result features.

use std::ops::Range;

use pulp::Simd;

use super::weight::Number;
use super::{Side, Values, Weight};
use crate::buffer::buffer;
use crate::simd::{dot, prefetch, vectorised};
use crate::threads;

/// Weights that one task reads: enough that a task is worth its start.
const TASK: usize = 1 << 15;

/// Features of a task are a multiple of this.
const LANES: usize = 32;

/// Bytes of a row that are asked for before they are needed.
const AHEAD: usize = 1024;

/// Rows that are read at a time.
const STREAMS: usize = 4;

/// `y = x · weight`, or `y += x · weight`.
pub(super) fn product(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    match weight.side {
        Side::Transposed => dots(x, weight, y, add),
        Side::Plain => sums(x, weight, y, add),
    }
}

/// How many of `n` rows of `k` weights a task takes, so that every thread has as many tasks.
fn share(n: usize, k: usize) -> usize {
    let tasks = (n * k).div_ceil(TASK);
    let tasks = tasks.next_multiple_of(rayon::current_num_threads());
    n.div_ceil(tasks)
}

/// `x Wᵀ`: a row of the weight gives one feature of every token.
fn dots(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    let rows = share(n, k);
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
    fn dot_rows(simd, x: &'a [f32], weight: Weight<'a>, first: usize, result: &'a mut [f32]) {
        let k = weight.columns;
        let m = x.len() / k;
        let rows = first * k..first * k + result.len() / m * k;
        match weight.values {
            Values::F32(w) => streams(simd, Single { x, w: &w[rows], k }, result),
            Values::Bf16(w) => {
                let w = &w[rows];
                // two neighbours are one word where rows begin on whole words
                match bytemuck::try_cast_slice(w) {
                    Ok(words) if k.is_multiple_of(2) => {
                        let [even, odd] = deinterleave(x);
                        let pairs = Pairs { even: &even, odd: &odd, words, k: k / 2 };
                        streams(simd, pairs, result);
                    }
                    _ => plain(x, w, k, result),
                }
            }
            Values::F16(w) => plain(x, &w[rows], k, result),
        }
    }
}

/// Even and odd features.
#[inline(always)]
fn deinterleave(x: &[f32]) -> [Vec<f32>; 2] {
    let (pairs, _) = x.as_chunks::<2>();
    [0, 1].map(|i| pairs.iter().map(|pair| pair[i]).collect())
}

/// Dot products of tokens with rows of a weight.
trait Rows<S: Simd>: Copy {
    /// Tokens and rows.
    fn shape(self) -> [usize; 2];

    /// Dot products of a token with some rows.
    fn dots<const N: usize>(self, simd: S, token: usize, rows: [usize; N]) -> [f32; N];
}

/// Goes through the rows in [`STREAMS`] parts, a row of each at a time: the memory serves several
/// streams faster than one.
#[inline(always)]
fn streams<S: Simd>(simd: S, sides: impl Rows<S>, result: &mut [f32]) {
    let [m, rows] = sides.shape();
    let part = rows / STREAMS;
    for row in 0..part {
        for token in 0..m {
            let rows = [row, part + row, 2 * part + row, 3 * part + row];
            let sums = sides.dots(simd, token, rows);
            for (row, sum) in rows.into_iter().zip(sums) {
                result[row * m + token] = sum;
            }
        }
    }
    for row in part * STREAMS..rows {
        for token in 0..m {
            let [sum] = sides.dots(simd, token, [row]);
            result[row * m + token] = sum;
        }
    }
}

/// Rows of f32.
#[derive(Clone, Copy)]
struct Single<'a> {
    x: &'a [f32],
    w: &'a [f32],
    k: usize,
}

impl<S: Simd> Rows<S> for Single<'_> {
    #[inline(always)]
    fn shape(self) -> [usize; 2] {
        [self.x.len() / self.k, self.w.len() / self.k]
    }

    #[inline(always)]
    fn dots<const N: usize>(self, simd: S, token: usize, rows: [usize; N]) -> [f32; N] {
        let k = self.k;
        let (x, x_rest) = S::as_simd_f32s(&self.x[token * k..][..k]);
        let mut vectors = [x; N];
        let mut rests = [x_rest; N];
        for n in 0..N {
            (vectors[n], rests[n]) = S::as_simd_f32s(&self.w[rows[n] * k..][..k]);
        }
        let mut sums = [simd.splat_f32s(0.0); N];
        for i in 0..x.len() {
            for n in 0..N {
                prefetch(&vectors[n][i..], AHEAD / size_of::<S::f32s>());
                sums[n] = simd.mul_add_e_f32s(x[i], vectors[n][i], sums[n]);
            }
        }
        let mut dots = [0.0; N];
        for n in 0..N {
            let rest = x_rest.iter().zip(rests[n]).map(|(x, w)| x * w);
            dots[n] = simd.reduce_sum_f32s(sums[n]) + rest.sum::<f32>();
        }
        dots
    }
}

/// Rows of bf16, as words of two: the lower half is the even feature.
#[derive(Clone, Copy)]
struct Pairs<'a> {
    even: &'a [f32],
    odd: &'a [f32],
    words: &'a [u32],
    /// Words of a row.
    k: usize,
}

impl<S: Simd> Rows<S> for Pairs<'_> {
    #[inline(always)]
    fn shape(self) -> [usize; 2] {
        [self.even.len() / self.k, self.words.len() / self.k]
    }

    #[inline(always)]
    fn dots<const N: usize>(self, simd: S, token: usize, rows: [usize; N]) -> [f32; N] {
        let k = self.k;
        let (even, even_rest) = S::as_simd_f32s(&self.even[token * k..][..k]);
        let (odd, odd_rest) = S::as_simd_f32s(&self.odd[token * k..][..k]);
        let (first, first_rest) = S::as_simd_u32s(&self.words[rows[0] * k..][..k]);
        let mut vectors = [first; N];
        let mut rests = [first_rest; N];
        for n in 1..N {
            (vectors[n], rests[n]) = S::as_simd_u32s(&self.words[rows[n] * k..][..k]);
        }
        let half = simd.splat_u32s(16);
        let upper = simd.splat_u32s(0xffff_0000);
        let mut evens = [simd.splat_f32s(0.0); N];
        let mut odds = evens;
        for i in 0..even.len() {
            for n in 0..N {
                prefetch(&vectors[n][i..], AHEAD / size_of::<S::u32s>());
                let words = vectors[n][i];
                let low = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words, half));
                let high = simd.transmute_f32s_u32s(simd.and_u32s(words, upper));
                evens[n] = simd.mul_add_e_f32s(even[i], low, evens[n]);
                odds[n] = simd.mul_add_e_f32s(odd[i], high, odds[n]);
            }
        }
        let mut dots = [0.0; N];
        for n in 0..N {
            let rest = even_rest.iter().zip(odd_rest).zip(rests[n]);
            let rest = rest.map(|((even, odd), word)| {
                even * f32::from_bits(word << 16) + odd * f32::from_bits(word & 0xffff_0000)
            });
            dots[n] = simd.reduce_sum_f32s(simd.add_f32s(evens[n], odds[n])) + rest.sum::<f32>();
        }
        dots
    }
}

/// Dot products of weights that have no fast form here: in f16, and in bf16 of odd rows.
#[inline(always)]
fn plain<T: Number>(x: &[f32], w: &[T], k: usize, result: &mut [f32]) {
    let m = x.len() / k;
    let mut wide = vec![0.0; k];
    for (row, result) in w.chunks_exact(k).zip(result.chunks_exact_mut(m)) {
        for (wide, value) in wide.iter_mut().zip(row) {
            *wide = value.widen();
        }
        for (x, sum) in x.chunks_exact(k).zip(result) {
            *sum = dot(x, &wide);
        }
    }
}

/// `x W`: a row of the weight adds to every feature. Tasks take columns, each sums in row order.
fn sums(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    let columns = share(n, k).next_multiple_of(LANES).min(n);
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
                    Values::F32(w) => axpy(x[row], &w[range.clone()], result),
                    Values::Bf16(w) => axpy(x[row], &w[range.clone()], result),
                    Values::F16(w) => axpy(x[row], &w[range.clone()], result),
                }
            }
        }
    }
}

#[inline(always)]
fn axpy<T: Number>(x: f32, w: &[T], y: &mut [f32]) {
    for (y, w) in y.iter_mut().zip(w) {
        *y = x.mul_add(w.widen(), *y);
    }
}
