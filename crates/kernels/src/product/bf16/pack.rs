//! Packing of the right side of a matrix multiplication, and of a piece of a row, into words of two bf16 values that follow
//! one another in K.
//!
//! Axes: see [`bf16`](super).

use std::arch::x86_64::*;
use std::ops::Range;

use half::bf16;

use super::{LANES, Piece, STEP, STRIDE};
use crate::buffer::buffer;
use crate::product::transpose::sixteen;
use crate::product::{Rows, Side, Values, Weight};
use crate::simd::prefetch;

/// Rows of a weight are prefetched this many rows ahead.
const AHEAD_ROWS: usize = 8;

/// The panels of a packed right side: panel after panel, `[depth, V · 16]` each, where V is the number of vectors that the
/// panel's features fill.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels {
    /// Features of each but the last.
    pub(super) width: usize,
    /// Words of K that are packed.
    pub(super) words: usize,
    /// The same with those that are zeros.
    pub(super) depth: usize,
}

impl Panels {
    /// Writes zeros behind the packed words of the right side.
    pub(super) fn pad(self, features: usize, right: &mut [u32]) {
        if self.depth == self.words {
            return;
        }
        for first in (0..features).step_by(self.width) {
            let stride = (features - first).min(self.width).next_multiple_of(LANES);
            let panel = &mut right[first * self.depth..][..self.depth * stride];
            panel[self.words * stride..].fill(0);
        }
    }

    /// Writes zeros behind the packed words of the left side's rows, and into the rows that are missing.
    pub(super) fn pad_rows(self, missing: Range<usize>, left: &mut [u32]) {
        for (index, row) in left.chunks_exact_mut(STRIDE).enumerate().take(missing.end) {
            let first = if missing.contains(&index) {
                0
            } else {
                self.words
            };
            row[first..self.depth].fill(0);
        }
    }
}

/// Packs a piece of a weight. Features that are missing to a whole vector are zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn pack_right(
    weight: Weight<'_>,
    features: &Range<usize>,
    piece: &Piece,
    panels: Panels,
    right: &mut [u32],
) {
    match (weight.side, weight.values) {
        (Side::Transposed, _) => pack_transposed(weight, features, piece, panels, right),
        (Side::Plain, Values::Quantised(rows)) => {
            let Rows { matrix, first } = rows;
            let size = features.len();
            let mut wide: Vec<f32> = buffer(2 * size);
            for (word, row) in piece.summed.clone().step_by(2).enumerate() {
                let (even, odd) = wide.split_at_mut(size);
                matrix.widen(first + row, features.start, even);
                if row + 1 < piece.summed.end {
                    matrix.widen(first + row + 1, features.start, odd);
                } else {
                    odd.fill(0.0);
                }
                let both = [0, size];
                pack_pair(
                    Values::F32(&wide),
                    both,
                    size,
                    piece.place + word,
                    panels,
                    right,
                );
            }
        }
        (Side::Plain, values) => {
            let columns = weight.columns;
            for (word, row) in piece.summed.clone().step_by(2).enumerate() {
                let start = row * columns + features.start;
                let place = piece.place + word;
                prefetch_rows(values, start, features.len(), columns);
                if row + 1 < piece.summed.end {
                    let both = [start, start + columns];
                    pack_pair(values, both, features.len(), place, panels, right);
                } else {
                    pack_last(values, start, features.len(), place, panels, right);
                }
            }
        }
    }
}

/// Prefetches two rows of a weight that are packed later.
#[inline]
fn prefetch_rows(values: Values<'_>, start: usize, features: usize, columns: usize) {
    match values {
        Values::F32(values) => prefetch_lines::<16, _>(&values[start..], features, columns),
        Values::Bf16(values) => prefetch_lines::<32, _>(&values[start..], features, columns),
        Values::F16(values) => prefetch_lines::<32, _>(&values[start..], features, columns),
        Values::Quantised(_) => {}
    }
}

/// See [`prefetch_rows`]; a cache line has `LINE` elements.
#[inline]
fn prefetch_lines<const LINE: usize, T>(values: &[T], features: usize, columns: usize) {
    for place in (0..features).step_by(LINE) {
        prefetch(&values[place..], AHEAD_ROWS * columns);
        prefetch(&values[place..], (AHEAD_ROWS + 1) * columns);
    }
}

/// The vectors of each panel with its place: words before it, its vectors, and features before them.
fn bands(features: usize, panels: Panels) -> impl Iterator<Item = Band> {
    let Panels { width, depth, .. } = panels;
    (0..features).step_by(LANES).map(move |first| {
        let panel = first / width;
        let inside = features.min((panel + 1) * width) - panel * width;
        Band {
            first,
            count: LANES.min(features - first),
            start: panel * depth * width + first % width,
            stride: inside.next_multiple_of(LANES),
        }
    })
}

/// A vector of features of a panel.
struct Band {
    /// Its first feature in the task's.
    first: usize,
    /// Its features; the rest of the vector is padding.
    count: usize,
    /// Its first word in the right side.
    start: usize,
    /// Words from one word of K to the next.
    stride: usize,
}

/// Packs two rows of a weight, which follow one another in K and start at `both`, as one word of each feature.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_pair(
    values: Values<'_>,
    both: [usize; 2],
    features: usize,
    place: usize,
    panels: Panels,
    right: &mut [u32],
) {
    if let Values::Bf16(values) = values {
        return pack_halves(values, both, features, place, panels, right);
    }
    for band in bands(features, panels) {
        let even = load_half(values, both[0] + band.first, band.count);
        let odd = load_half(values, both[1] + band.first, band.count);
        let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
        let words = _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd);
        let at = band.start + place * band.stride;
        store(words, &mut right[at..at + LANES]);
    }
}

/// As [`pack_pair`], of values in bf16, which are interleaved 32 at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_halves(
    values: &[bf16],
    both: [usize; 2],
    features: usize,
    place: usize,
    panels: Panels,
    right: &mut [u32],
) {
    let [even, odd] = both.map(|start| &values[start..start + features]);
    // where words of a result are, among the 64 values of two vectors
    let [low, high] = [0, 16].map(interleaving);
    let mut first = 0;
    while first < features {
        let inside = (features - first).min(panels.width);
        let stride = inside.next_multiple_of(LANES);
        let start = first * panels.depth + place * stride;
        let panel = &mut right[start..start + stride];
        let [even, odd] = [even, odd].map(|row| &row[first..first + inside]);
        let rows = even.chunks(STEP).zip(odd.chunks(STEP));
        for ((even, odd), words) in rows.zip(panel.chunks_mut(STEP)) {
            let mask = (u64::MAX >> (64 - even.len())) as u32;
            // SAFETY: the elements behind both rows are masked.
            let [even, odd] = unsafe {
                [even, odd].map(|row| _mm512_maskz_loadu_epi16(mask, row.as_ptr().cast()))
            };
            let (to, rest) = words.split_at_mut(LANES);
            store(_mm512_permutex2var_epi16(even, low, odd), to);
            if !rest.is_empty() {
                store(_mm512_permutex2var_epi16(even, high, odd), rest);
            }
        }
        first += inside;
    }
}

/// The places of the elements from `first` on of two vectors, in turn.
fn interleaving(first: u16) -> __m512i {
    let places: [u16; STEP] = std::array::from_fn(|i| {
        let element = first + (i / 2) as u16;
        if i % 2 == 0 {
            element
        } else {
            element + STEP as u16
        }
    });
    // SAFETY: both types are 512 bits, of which any pattern is valid.
    unsafe { std::mem::transmute::<[u16; STEP], __m512i>(places) }
}

/// As [`pack_pair`], for the last row of an odd K.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_last(
    values: Values<'_>,
    start: usize,
    features: usize,
    place: usize,
    panels: Panels,
    right: &mut [u32],
) {
    for band in bands(features, panels) {
        let even = load_half(values, start + band.first, band.count);
        let at = band.start + place * band.stride;
        store(_mm512_cvtepu16_epi32(even), &mut right[at..at + LANES]);
    }
}

/// Packs rows of a weight, each a feature: squares of sixteen features and sixteen words are transposed in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_transposed(
    weight: Weight<'_>,
    features: &Range<usize>,
    piece: &Piece,
    panels: Panels,
    right: &mut [u32],
) {
    let columns = weight.columns;
    let mut wide = [0.0; LANES * STEP];
    for band in bands(features.len(), panels) {
        let rows = features.start + band.first..features.start + band.first + band.count;
        for start in piece.summed.clone().step_by(STEP) {
            let count = STEP.min(piece.summed.end - start);
            let mut square = [_mm512_setzero_si512(); LANES];
            match weight.values {
                Values::Bf16(values) if rows.len() == LANES && count == STEP => {
                    let values = &values[rows.start * columns + start..];
                    load_square(values, columns, &mut square);
                }
                Values::Quantised(Rows { matrix, first }) => {
                    for (row, words) in rows.clone().zip(square.iter_mut()) {
                        let wide = &mut wide[..count];
                        matrix.widen(first + row, start, wide);
                        *words = load(Values::F32(wide), 0, count);
                    }
                }
                values => {
                    for (row, words) in rows.clone().zip(square.iter_mut()) {
                        *words = load(values, row * columns + start, count);
                    }
                }
            }
            let word = piece.place + (start - piece.summed.start) / 2;
            let at = band.start + word * band.stride;
            let places = right[at..].chunks_mut(band.stride);
            let all = sixteen(&square);
            for (words, place) in all.iter().take(count.div_ceil(2)).zip(places) {
                store(*words, &mut place[..LANES]);
            }
        }
    }
}

/// Loads sixteen rows of 32 elements, which are `columns` apart, and prefetches what follows them.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_square(values: &[bf16], columns: usize, square: &mut [__m512i; LANES]) {
    assert!(
        values.len() >= (LANES - 1) * columns + STEP,
        "rows of a weight"
    );
    for (row, words) in square.iter_mut().enumerate() {
        // SAFETY: the assertion bounds the last row.
        *words = unsafe { _mm512_loadu_si512(values.as_ptr().add(row * columns).cast()) };
        prefetch(&values[row * columns..], 8 * STEP);
    }
}

/// Loads up to 32 elements in bf16; the rest is zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn load(values: Values<'_>, start: usize, count: usize) -> __m512i {
    let range = start..start + count;
    let mask = (u64::MAX >> (64 - count)) as u32;
    match values {
        // SAFETY: slicing has checked the range, and the elements behind it are masked.
        Values::Bf16(values) => unsafe {
            _mm512_maskz_loadu_epi16(mask, values[range].as_ptr().cast())
        },
        // SAFETY: as above; an address behind the range is not read.
        Values::F32(values) => unsafe {
            let at = values[range].as_ptr();
            let low = _mm512_maskz_loadu_ps(mask as u16, at);
            let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, at.wrapping_add(LANES));
            both(low, high)
        },
        Values::F16(_) => {
            let [low, high] = [count.min(LANES), count.saturating_sub(LANES)];
            both(
                widened(values, start, low),
                widened(values, start + LANES, high),
            )
        }
        Values::Quantised(_) => unreachable!("rows of quantised matrices are widened before"),
    }
}

/// Loads up to sixteen elements in bf16; the rest is zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn load_half(values: Values<'_>, start: usize, count: usize) -> __m256i {
    match values {
        // SAFETY: slicing has checked the range, and the elements behind it are masked.
        Values::Bf16(values) => unsafe {
            let at = values[start..start + count].as_ptr();
            _mm256_maskz_loadu_epi16(mask(count), at.cast())
        },
        values => super::rounded(widened(values, start, count)),
    }
}

/// Up to sixteen elements of f32 or f16 in f32; the rest is zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widened(values: Values<'_>, start: usize, count: usize) -> __m512 {
    if count == 0 {
        return _mm512_setzero_ps();
    }
    let range = start..start + count;
    match values {
        // SAFETY: slicing has checked the range, and the elements behind it are masked.
        Values::F32(values) => unsafe {
            _mm512_maskz_loadu_ps(mask(count), values[range].as_ptr())
        },
        // SAFETY: as above.
        Values::F16(values) => unsafe {
            let at = values[range].as_ptr();
            _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(count), at.cast()))
        },
        Values::Bf16(_) | Values::Quantised(_) => {
            unreachable!("bf16 is not widened, and rows of quantised matrices are widened before")
        }
    }
}

/// The lowest bits of a mask.
fn mask(count: usize) -> u16 {
    (u32::MAX >> (32 - count)) as u16
}

/// 32 values in bf16, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn both(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both types are 512 bits, of which any pattern is valid.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Stores the first words of a vector, as many as there are places.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(words: __m512i, places: &mut [u32]) {
    // SAFETY: the lanes behind the places are masked.
    unsafe { _mm512_mask_storeu_epi32(places.as_mut_ptr().cast(), mask(places.len()), words) };
}
