//! Packing of both sides of a matrix multiplication into tiles of bf16 parts.
//!
//! Axes: see [`amx`](super).

use std::arch::x86_64::*;
use std::ops::Range;

use half::{bf16, f16};

use super::{AHEAD, DEPTH, LINES, Line, TILE};
use crate::product::transpose::sixteen;
use crate::product::{Side, Values, Weight};
use crate::simd::prefetch;

/// Number of bf16 parts of an element of a weight.
pub(super) fn parts(values: Values<'_>) -> usize {
    match values {
        Values::Bf16(_) => 1,
        Values::F16(_) => 2,
        Values::F32(_) | Values::Quantised(_) => 3,
    }
}

/// Two rows of tiles of the left side: the three parts of every tile, in the order of use.
pub(super) struct Left {
    /// `[2, steps, 3, 16]`
    lines: Vec<Line>,
}

impl Left {
    pub(super) fn new(steps: usize) -> Self {
        Self {
            lines: crate::buffer::buffer(2 * steps * 3 * LINES),
        }
    }

    /// Packs some tokens of `x`, `[M, K]`, for some steps.
    pub(super) fn pack(&mut self, x: &[f32], k: usize, tokens: Range<usize>, steps: Range<usize>) {
        let size = steps.len() * 3 * LINES;
        for (tile, lines) in self.lines[..2 * size].chunks_exact_mut(size).enumerate() {
            let first = (tokens.start + tile * TILE).min(tokens.end);
            let rows = first..tokens.end.min(first + TILE);
            let depths = steps.start * DEPTH..k.min(steps.end * DEPTH);
            // SAFETY: tiles are used only if `available` has found AVX-512 F and BW.
            unsafe { split_rows(&x[rows.start * k..rows.end * k], k, depths, lines) };
        }
    }

    pub(super) fn tile(&self, tile: usize, steps: usize) -> *const Line {
        self.lines[tile * steps * 3 * LINES..].as_ptr()
    }
}

/// Splits up to sixteen rows into parts, one step after another, and pads them with zeros.
#[target_feature(enable = "avx512f,avx512bw")]
fn split_rows(rows: &[f32], k: usize, depths: Range<usize>, lines: &mut [Line]) {
    let tokens = rows.len() / k;
    for (step, lines) in lines.chunks_exact_mut(3 * LINES).enumerate() {
        let start = depths.start + step * DEPTH;
        let depths = start..depths.end.min(start + DEPTH);
        if tokens < TILE || depths.len() < DEPTH {
            lines.fill(Line([0; DEPTH]));
        }
        for (token, row) in rows.chunks_exact(k).enumerate() {
            let x = &row[depths.clone()];
            if let Some(x) = x.first_chunk() {
                split_step(x, &mut lines[token..]);
            } else {
                let mut padded = [0.0; DEPTH];
                padded[..x.len()].copy_from_slice(x);
                split_step(&padded, &mut lines[token..]);
            }
        }
    }
}

/// Splits 32 values into three lines of parts, which are sixteen lines apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn split_step(x: &[f32; DEPTH], lines: &mut [Line]) {
    // SAFETY: `x` has 32 elements: two vectors of sixteen.
    let [low, high] = unsafe {
        let start = x.as_ptr();
        [_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(TILE))]
    };
    let [low, high] = [split(low), split(high)];
    assert!(lines.len() > 2 * LINES);
    for part in 0..3 {
        store(&mut lines[part * LINES], join(low[part], high[part]));
    }
}

/// The three parts of sixteen values: the upper halves of words, whose sum is the value.
#[inline]
#[target_feature(enable = "avx512f")]
fn split(x: __m512) -> [__m512i; 3] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let first = _mm512_and_si512(_mm512_castps_si512(x), upper);
    let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(first));
    let second = _mm512_and_si512(_mm512_castps_si512(rest), upper);
    let rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(second));
    [first, second, _mm512_castps_si512(rest)]
}

/// The upper halves of 32 words, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn join(low: __m512i, high: __m512i) -> __m512i {
    let low = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(low));
    let high = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(high));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// A part of the right side: one column of tiles after another.
pub(super) struct Right {
    /// `[tiles of N, steps, parts, 16]`, with pairs of K interleaved
    lines: Vec<Line>,
    pub(super) parts: usize,
}

impl Right {
    pub(super) fn new(values: Values<'_>) -> Self {
        Self {
            lines: Vec::new(),
            parts: parts(values),
        }
    }

    /// Packs some output features of the weight, for some steps.
    pub(super) fn pack(
        &mut self,
        weight: Weight<'_>,
        features: &Range<usize>,
        steps: Range<usize>,
    ) {
        let [k, _] = weight.inner_outer();
        let parts = self.parts;
        let tiles = features.len().div_ceil(2 * TILE) * 2;
        let count = tiles * steps.len() * parts * LINES;
        if self.lines.len() < count {
            self.lines = crate::buffer::buffer(count);
        }
        let mut tile_at = |tile: usize, step: usize| {
            let first = (features.start + tile * TILE).min(features.end);
            let columns = first..features.end.min(first + TILE);
            let depth = (steps.start + step) * DEPTH;
            let summed = depth..k.min(depth + DEPTH);
            let place = (tile * steps.len() + step) * parts * LINES;
            let lines = &mut self.lines[place..place + parts * LINES];
            // SAFETY: tiles are used only if `available` has found AVX-512 F and BW.
            unsafe { pack_tile(weight, summed, columns, lines) };
        };
        // in memory order: along the rows of the weight
        match weight.side {
            Side::Transposed => {
                (0..tiles).for_each(|tile| (0..steps.len()).for_each(|step| tile_at(tile, step)));
            }
            Side::Plain => {
                (0..steps.len()).for_each(|step| (0..tiles).for_each(|tile| tile_at(tile, step)));
            }
        }
    }

    pub(super) fn tile(&self, tile: usize, steps: usize) -> *const Line {
        self.lines[tile * steps * self.parts * LINES..].as_ptr()
    }
}

/// Packs all parts of one tile.
#[target_feature(enable = "avx512f,avx512bw")]
fn pack_tile(weight: Weight<'_>, summed: Range<usize>, features: Range<usize>, lines: &mut [Line]) {
    if summed.len() < DEPTH || features.len() < TILE {
        return pack_edge(weight, summed, features, lines);
    }
    if let Values::Quantised(_) = weight.values {
        return pack_quantised(weight, summed, features, lines);
    }
    let columns = weight.columns;
    match (weight.values, weight.side) {
        (Values::Bf16(values), Side::Transposed) => {
            // no closures here: they would not be compiled for this instruction set
            let mut rows = [_mm512_setzero_si512(); TILE];
            for (row, words) in rows.iter_mut().enumerate() {
                let start = (features.start + row) * columns + summed.start;
                *words = load_line(&values[start..start + DEPTH]);
                prefetch(&values[start..], AHEAD);
            }
            store_transposed(&rows, lines);
        }
        (values, Side::Transposed) => {
            let parts = parts(values);
            let mut rows = [[_mm512_setzero_si512(); TILE]; 3];
            #[expect(
                clippy::needless_range_loop,
                reason = "`row` also computes an offset into the weight"
            )]
            for row in 0..TILE {
                let start = (features.start + row) * columns + summed.start;
                let low = split(load(values, start));
                let high = split(load(values, start + TILE));
                for part in 0..parts {
                    rows[part][row] = join(low[part], high[part]);
                }
            }
            for (rows, lines) in rows.iter().zip(lines.chunks_exact_mut(LINES)) {
                store_transposed(rows, lines);
            }
        }
        (Values::Bf16(values), Side::Plain) => {
            for (pair, line) in lines.iter_mut().enumerate() {
                let start = (summed.start + 2 * pair) * columns + features.start;
                let even = load_half(&values[start..start + TILE]);
                let odd = load_half(&values[start + columns..start + columns + TILE]);
                prefetch(&values[start..], AHEAD);
                prefetch(&values[start + columns..], AHEAD);
                let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
                store(line, _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd));
            }
        }
        (values, Side::Plain) => {
            let parts = parts(values);
            for pair in 0..TILE {
                let start = (summed.start + 2 * pair) * columns + features.start;
                let even = split(load(values, start));
                let odd = split(load(values, start + columns));
                for part in 0..parts {
                    store(
                        &mut lines[part * LINES + pair],
                        interleave(even[part], odd[part]),
                    );
                }
            }
        }
    }
}

/// Widens a tile of a quantised matrix, and packs it as one in f32.
#[target_feature(enable = "avx512f,avx512bw")]
fn pack_quantised(
    weight: Weight<'_>,
    summed: Range<usize>,
    features: Range<usize>,
    lines: &mut [Line],
) {
    let (rows, columns) = match weight.side {
        Side::Transposed => (features, summed),
        Side::Plain => (summed, features),
    };
    let mut wide = [0.0; TILE * DEPTH];
    for (row, wide) in rows.clone().zip(wide.chunks_exact_mut(columns.len())) {
        let start = row * weight.columns + columns.start;
        weight.values.widen_chunk(start, wide);
    }
    let tile = Weight {
        values: Values::F32(&wide),
        rows: rows.len(),
        columns: columns.len(),
        side: weight.side,
    };
    pack_tile(tile, 0..DEPTH, 0..TILE, lines);
}

/// Packs a tile that the weight does not fill, one element at a time.
fn pack_edge(weight: Weight<'_>, summed: Range<usize>, features: Range<usize>, lines: &mut [Line]) {
    lines.fill(Line([0; DEPTH]));
    for (column, feature) in features.enumerate() {
        for (depth, inner) in summed.clone().enumerate() {
            let index = match weight.side {
                Side::Transposed => feature * weight.columns + inner,
                Side::Plain => inner * weight.columns + feature,
            };
            let mut rest = weight.values.get(index);
            for lines in lines.chunks_exact_mut(LINES) {
                let part = rest.to_bits() & 0xffff_0000;
                rest -= f32::from_bits(part);
                lines[depth / 2].0[2 * column + depth % 2] = (part >> 16) as u16;
            }
        }
    }
}

/// Loads sixteen elements of a weight and widens them to f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: Values<'_>, start: usize) -> __m512 {
    let range = start..start + TILE;
    match values {
        // SAFETY: slicing has checked the range, whose sixteen elements are read.
        Values::F32(values) => unsafe { _mm512_loadu_ps(values[range].as_ptr()) },
        Values::Bf16(values) => {
            let bits = load_half(&values[range]);
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
        }
        Values::F16(values) => _mm512_cvtph_ps(load_half(&values[range])),
        Values::Quantised(_) => unreachable!("tiles of quantised matrices are widened before"),
    }
}

/// Loads sixteen elements of 16 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_half<T: Half>(values: &[T]) -> __m256i {
    assert_eq!(values.len(), TILE);
    // SAFETY: sixteen elements of 16 bits are the 32 bytes that are read.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// A dtype of 16 bits.
trait Half: Copy {}

impl Half for bf16 {}
impl Half for f16 {}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_line(values: &[bf16]) -> __m512i {
    assert_eq!(values.len(), DEPTH);
    // SAFETY: 32 elements of 16 bits are the 64 bytes that are read.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(line: &mut Line, words: __m512i) {
    // SAFETY: a line has 64 bytes and is aligned to 64.
    unsafe { _mm512_store_si512(std::ptr::from_mut(line).cast(), words) };
}

/// The upper halves of two rows, interleaved: `even₀ odd₀ even₁ odd₁ …`
#[inline]
#[target_feature(enable = "avx512f")]
fn interleave(even: __m512i, odd: __m512i) -> __m512i {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    _mm512_or_si512(_mm512_srli_epi32::<16>(even), _mm512_and_si512(odd, upper))
}

/// Transposes sixteen rows of words and stores them.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_transposed(rows: &[__m512i; TILE], lines: &mut [Line]) {
    for (line, column) in lines.iter_mut().zip(sixteen(rows)) {
        store(line, column);
    }
}
