//! Matrix multiplications for a few tokens, as in generation: packing the weight would not pay off.
//!
//! Reading the weight takes most of the time. It is therefore read once, in its stored dtype or quantised, and
//! widened in registers, from [`tiles::FEWEST`] tokens on in [`tiles`]; what cannot be, is widened into the cache.
//!
//! Axes: M tokens (at most [`few`](super::few)), K inner dimension (summed over), N output features.

#[cfg(target_arch = "x86_64")]
pub(super) mod codes;
mod tiles;
mod widened;

use std::ops::Range;

use pulp::Simd;

use self::tiles::{Tile, tiles};
use self::widened::widened;
use super::{Numbers, Side, Values, Weight};
use crate::buffer::buffer;
use crate::simd::{dot, prefetch, vectorised};
use crate::threads;

/// Bytes of the weight per task: enough for long sequential reads, and few enough that no thread
/// waits long for another thread's last task.
const TASK: usize = 1 << 18;

/// The number of columns per task is a multiple of this.
const LANES: usize = 32;

/// Rows are prefetched this many bytes ahead.
const AHEAD: usize = 1024;

/// Rows that are read at a time, on processors with 32 vector registers and with 16.
const STREAMS: [usize; 2] = [8, 4];

/// `y = x · weight`, or `y += x · weight`.
pub(super) fn product(x: Numbers<'_>, weight: Weight<'_>, y: &mut [f32], add: bool) {
    match weight.side {
        Side::Transposed => dots(x, weight, y, add),
        Side::Plain => sums(&x.widened(), weight, y, add),
    }
}

/// Rows or columns per task, for `n` of them in so many bytes, so that all threads get the same number of tasks.
fn share(n: usize, bytes: usize) -> usize {
    let tasks = bytes.div_ceil(TASK);
    let tasks = tasks.next_multiple_of(rayon::current_num_threads());
    n.div_ceil(tasks)
}

/// `x Wᵀ`: each row of the weight gives one output feature of every token.
fn dots(x: Numbers<'_>, weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    let rows = share(n, weight.bytes()).next_multiple_of(STREAMS[0]);
    #[cfg(target_arch = "x86_64")]
    let is_bf16 = matches!(x, Numbers::Bf16(_));
    let x = &x.widened();
    let x = Tokens {
        x,
        halves: words(weight).map(|_| deinterleave(x)),
        #[cfg(target_arch = "x86_64")]
        unpacked: match weight.values {
            Values::Quantised(rows) => codes::Tokens::new(x, is_bf16, rows.matrix),
            _ => None,
        },
    };
    if m == 1 && !add {
        return threads::chunks(y, rows, |task, y| dot_rows(&x, weight, task * rows, y));
    }
    let mut sums = buffer(n * m); // [N, M]
    threads::chunks(&mut sums, rows * m, |task, sums| {
        dot_rows(&x, weight, task * rows, sums);
    });
    for (row, sums) in sums.chunks_exact(m).enumerate() {
        for (token, sum) in sums.iter().enumerate() {
            let y = &mut y[token * n + row];
            *y = if add { *y + sum } else { *sum };
        }
    }
}

/// The left side of the dot products.
struct Tokens<'a> {
    /// `[M, K]`
    x: &'a [f32],
    /// Even and odd features, `[M, K/2]` each, if the weight is read in words.
    halves: Option<[Vec<f32>; 2]>,
    /// In the order in which codes are unpacked, if the weight is quantised and its codes are.
    #[cfg(target_arch = "x86_64")]
    unpacked: Option<codes::Tokens>,
}

/// A weight in bf16 as words of two neighbouring elements; `None` if rows do not start on whole words
/// or the dtype is another one.
fn words(weight: Weight<'_>) -> Option<&[u32]> {
    match weight.values {
        Values::Bf16(w) if weight.columns.is_multiple_of(2) => bytemuck::try_cast_slice(w).ok(),
        _ => None,
    }
}

/// `result[row][token] = x[token] · W[first + row]`
fn dot_rows(x: &Tokens<'_>, weight: Weight<'_>, first: usize, result: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(tokens), Values::Quantised(rows)) = (&x.unpacked, weight.values) {
        return tokens.dots(rows.matrix, rows.first + first, result);
    }
    widened_dot_rows(x, weight, first, result);
}

fn deinterleave(x: &[f32]) -> [Vec<f32>; 2] {
    let (pairs, _) = x.as_chunks::<2>();
    [0, 1].map(|i| pairs.iter().map(|pair| pair[i]).collect())
}

vectorised! {
    /// `result[row][token] = x[token] · W[first + row]`
    fn widened_dot_rows(simd, x: &'a Tokens<'a>, weight: Weight<'a>, first: usize, result: &'a mut [f32]) {
        let k = weight.columns;
        let m = x.x.len() / k;
        let rows = first..first + result.len() / m;
        match (weight.values, &x.halves, words(weight)) {
            (Values::F32(w), ..) => {
                let w = &w[rows.start * k..rows.end * k];
                several(simd, Single { x: x.x, w, k }, result);
            }
            (_, Some([even, odd]), Some(words)) => {
                let k = k / 2;
                let words = &words[rows.start * k..rows.end * k];
                several(simd, Pairs { even, odd, words, k }, result);
            }
            _ if m > 1 => widened(simd, x.x, weight, first, result),
            _ => {
                let mut wide = buffer(k);
                for (row, sum) in rows.zip(result) {
                    weight.values.widen_chunk(row * k, &mut wide);
                    *sum = dot(simd, x.x, &wide);
                }
            }
        }
    }
}

/// Dot products of tokens with rows of a weight.
trait Rows<S: Simd>: Copy {
    /// Numbers of tokens and rows.
    fn shape(self) -> [usize; 2];

    /// Dot products of one token with some rows.
    fn dots<const N: usize>(self, simd: S, token: usize, rows: [usize; N]) -> [f32; N];
}

/// The dot products of all tokens with all rows.
#[inline(always)]
fn several<S: Simd>(simd: S, sides: impl Tile<S>, result: &mut [f32]) {
    let [m, _] = sides.shape();
    if m >= tiles::FEWEST {
        tiles(simd, sides, result);
    } else {
        streams(simd, sides, result);
    }
}

/// Divides the rows into as many parts as there are streams, and reads one row of each part at a time:
/// memory serves several streams faster than one.
#[inline(always)]
fn streams<S: Simd>(simd: S, sides: impl Rows<S>, result: &mut [f32]) {
    if S::REGISTER_COUNT >= 32 {
        parts::<S, { STREAMS[0] }>(simd, sides, result);
    } else {
        parts::<S, { STREAMS[1] }>(simd, sides, result);
    }
}

#[inline(always)]
fn parts<S: Simd, const N: usize>(simd: S, sides: impl Rows<S>, result: &mut [f32]) {
    let [m, rows] = sides.shape();
    let part = rows / N;
    for row in 0..part {
        for token in 0..m {
            let rows = std::array::from_fn::<_, N, _>(|stream| stream * part + row);
            let sums = sides.dots(simd, token, rows);
            for (row, sum) in rows.into_iter().zip(sums) {
                result[row * m + token] = sum;
            }
        }
    }
    for row in part * N..rows {
        for token in 0..m {
            let [sum] = sides.dots(simd, token, [row]);
            result[row * m + token] = sum;
        }
    }
}

/// Some rows of `k` numbers as vectors, and what is left of each.
#[inline(always)]
fn numbers<S: Simd, const N: usize>(
    all: &[f32],
    k: usize,
    rows: [usize; N],
) -> ([&[S::f32s]; N], [&[f32]; N]) {
    let (mut vectors, mut rests): ([&[_]; N], [&[_]; N]) = ([&[]; N], [&[]; N]);
    for n in 0..N {
        (vectors[n], rests[n]) = S::as_simd_f32s(&all[rows[n] * k..][..k]);
    }
    (vectors, rests)
}

/// As [`numbers`], of words.
#[inline(always)]
fn row_words<S: Simd, const N: usize>(
    all: &[u32],
    k: usize,
    rows: [usize; N],
) -> ([&[S::u32s]; N], [&[u32]; N]) {
    let (mut vectors, mut rests): ([&[_]; N], [&[_]; N]) = ([&[]; N], [&[]; N]);
    for n in 0..N {
        (vectors[n], rests[n]) = S::as_simd_u32s(&all[rows[n] * k..][..k]);
    }
    (vectors, rests)
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
        let (vectors, rests) = numbers::<S, N>(self.w, k, rows);
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

/// Rows of bf16 as words of two elements: the lower half is the even feature.
#[derive(Clone, Copy)]
struct Pairs<'a> {
    even: &'a [f32],
    odd: &'a [f32],
    words: &'a [u32],
    /// Words per row.
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
        let (vectors, rests) = row_words::<S, N>(self.words, k, rows);
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

/// `x W`: each row of the weight contributes to every output feature. A task takes some columns and
/// sums in the order of the rows.
fn sums(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    let columns = share(n, weight.bytes()).next_multiple_of(LANES).min(n);
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
    /// `result[token] += x[token] · W[.., columns]`
    fn add_rows(
        _simd,
        x: &'a [f32],
        weight: Weight<'a>,
        columns: Range<usize>,
        result: &'a mut [f32],
    ) {
        let [k, n] = weight.inner_outer();
        let mut wide = buffer(columns.len());
        for row in 0..k {
            weight.values.widen_chunk(row * n + columns.start, &mut wide);
            for (x, result) in x.chunks_exact(k).zip(result.chunks_exact_mut(wide.len())) {
                for (sum, w) in result.iter_mut().zip(&wide) {
                    *sum = x[row].mul_add(*w, *sum);
                }
            }
        }
    }
}
