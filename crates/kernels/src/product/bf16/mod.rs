//! Matrix multiplications of bf16 values with sums in f32, by the instruction `vdpbf16ps`.
//!
//! One instruction multiplies sixteen pairs of neighbours in K and adds both products to sixteen sums in f32, so that a
//! core does twice the work of fused multiply-add in f32. Both sides are packed into words of two values: the right side
//! into panels of [`PANEL`] features, eight rows of the left side beside it. A weight in bf16 is packed as it is stored,
//! without widening.
//!
//! The instruction rounds to nearest, ties to even, after each of the two additions, whatever the processor's mode. It
//! treats subnormal inputs, below 2⁻¹²⁶, as zero, and writes zero for subnormal sums. Values in f32 (a weight's, or a
//! gradient's) are rounded to bf16 when they are packed.
//!
//! Several products with the same result are one sum: `y = Σ xᵢ · weightᵢ`, as if their inner dimensions followed one
//! another. A low-rank branch therefore costs no pass over the result of its own.
//!
//! Source: Intel's instruction set reference, `VDPBF16PS`.
//!
//! Axes: M tokens, K inner dimension (summed over), N output features, W words of K.

#![expect(
    unsafe_code,
    reason = "tasks write disjoint parts of one result, and vectors are loaded and stored by intrinsics"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "the compiler keeps arrays in registers if indices are below a constant; here it does not do so for iterators"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "dozens of intrinsics, whose names are unique and begin with `_mm`"
)]

mod pack;
pub(crate) mod tile;

use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

use half::bf16;

use self::pack::{pack_left, pack_right};
use super::division::Division;
use super::{Sums, Term};
use crate::buffer::buffer;
use crate::simd::prefetch;
use crate::threads;

/// Elements of a vector of f32, and words of one.
const LANES: usize = 16;

/// Vectors of a row of the result that are summed at a time.
const VECTORS: usize = 3;

/// Features per panel.
const PANEL: usize = VECTORS * LANES;

/// Rows of the result that are summed at a time.
const ROWS: usize = 8;

/// Most words of K that are summed before the result is written: eight packed rows of the left side, 25 KiB, stay in the
/// first-level cache. A hidden size up to 1,600 is one part, so that a result in bf16 needs no sums in memory.
const DEPTH: usize = 800;

/// Words from one packed row of the left side to the next. The padding lets rows start in different sets of the cache.
const STRIDE: usize = DEPTH + 16;

/// Words of a task's right side: 512 KiB, half of the second-level cache of processors with this instruction.
const RIGHT: usize = 1 << 17;

/// Panels are prefetched this many words of K ahead.
const AHEAD: usize = 12;

/// Bytes of a cache line, which a vector should not straddle.
const LINE: usize = 64;

/// Whether the processor has the instruction, and the others that packing uses.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16")
    })
}

/// `y = Σ x · weight`, or `y += Σ x · weight`, over some products with the same numbers of tokens and features, neither
/// of them zero. See [`Division`] for the tasks.
pub(super) fn product(terms: &[Term<'_>], m: usize, n: usize, y: Sums<'_>) {
    let depth = depth(terms);
    let fit = (RIGHT / (depth * PANEL)).max(1);
    let division = Division::new([m, n], PANEL, fit, ROWS).in_whole(ROWS);
    let (y, add) = match y {
        Sums::F32 { y, add } => (Output::F32(y.as_mut_ptr()), add),
        Sums::Bf16(y) => (Output::Bf16(y.as_mut_ptr()), false),
    };
    threads::for_each(division.count(), |task| {
        let [tokens, features] = division.part(task);
        let part = Part {
            tokens,
            features,
            depth,
            add,
        };
        // SAFETY: `super::products` calls this only if `available` is true, and has compared the lengths of all sides.
        // No two tasks have the same tokens and features.
        unsafe { multiply(terms, y, n, &part) };
    });
}

/// Words of K in each part but the last. They depend on K alone, so that each result is one sum in a fixed order.
fn depth(terms: &[Term<'_>]) -> usize {
    let words: usize = terms.iter().map(Term::words).sum();
    let parts = words.div_ceil(DEPTH);
    if parts == 1 {
        return words;
    }
    // whole tiles of packing, so that no block of a quantised weight is widened twice
    words.div_ceil(parts).next_multiple_of(LANES).min(DEPTH)
}

/// The result of a multiplication: rows of N elements.
#[derive(Clone, Copy)]
enum Output {
    F32(*mut f32),
    Bf16(*mut bf16),
}

// SAFETY: `product` borrows the result until all tasks have ended, and tasks write disjoint parts.
unsafe impl Sync for Output {}

/// The part of the result that one task computes.
struct Part {
    tokens: Range<usize>,
    features: Range<usize>,
    /// Words of K that are summed before the result is written.
    depth: usize,
    add: bool,
}

/// The part of a term that lies in some words of K.
struct Piece {
    /// Its first word in the packed part.
    place: usize,
    /// Elements of the term's K.
    summed: Range<usize>,
}

/// The words of each term that lie in a part of K.
fn pieces<'a>(
    terms: &'a [Term<'a>],
    words: &Range<usize>,
) -> impl Iterator<Item = (&'a Term<'a>, Piece)> {
    let words = words.clone();
    let mut before = 0;
    terms.iter().filter_map(move |term| {
        let [k, _] = term.weight.inner_outer();
        let first = before;
        before += term.words();
        let [start, end] = [words.start.max(first), words.end.min(before)];
        let piece = Piece {
            place: start - words.start.min(start),
            summed: 2 * start.saturating_sub(first)..k.min(2 * end.saturating_sub(first)),
        };
        (start < end).then_some((term, piece))
    })
}

/// Computes the part of a task.
///
/// # Safety
/// The processor has the instructions of [`available`]. The part lies inside the result, and no other task writes it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn multiply(terms: &[Term<'_>], y: Output, n: usize, part: &Part) {
    let Part {
        tokens,
        features,
        depth,
        add,
    } = part;
    if tokens.is_empty() {
        return;
    }
    let words: usize = terms.iter().map(Term::words).sum();
    let size = features.len().div_ceil(PANEL) * depth * PANEL;
    let mut right: Vec<u32> = buffer(size + LINE / size_of::<u32>());
    let aligned = right.as_ptr().align_offset(LINE);
    let right = &mut right[aligned..][..size];
    let mut left: Vec<u32> = buffer(ROWS * STRIDE);
    // a result in bf16 is summed here, if it has several parts
    let wide = features.len();
    let several = *depth < words && matches!(y, Output::Bf16(_));
    let mut sums: Vec<f32> = buffer(if several { tokens.len() * wide } else { 0 });
    for start in (0..words).step_by(*depth) {
        let summed = start..words.min(start + depth);
        for (term, piece) in pieces(terms, &summed) {
            pack_right(term.weight, features, &piece, summed.len(), right);
        }
        for first in tokens.clone().step_by(ROWS) {
            let rows = first..tokens.end.min(first + ROWS);
            for (term, piece) in pieces(terms, &summed) {
                pack_left(
                    term.x,
                    term.weight.inner_outer()[0],
                    &rows,
                    &piece,
                    &mut left,
                );
            }
            let sums = sums
                .as_mut_ptr()
                .wrapping_add((first - tokens.start) * wide);
            for (index, panel) in right.chunks(summed.len() * PANEL).enumerate() {
                let feature = features.start + index * PANEL;
                if feature >= features.end {
                    break;
                }
                let at = first * n + feature;
                let (before, after) = match y {
                    Output::F32(y) => {
                        let place = Place::new(y.wrapping_add(at), n);
                        ((*add || start > 0).then_some(place), After::F32(place))
                    }
                    Output::Bf16(y) => {
                        let place = Place::new(sums.wrapping_add(index * PANEL), wide);
                        let last = summed.end == words;
                        let after = if last {
                            After::Bf16(y.wrapping_add(at), n)
                        } else {
                            After::F32(place)
                        };
                        ((start > 0).then_some(place), after)
                    }
                };
                let block = Block {
                    left: &left,
                    panel,
                    depth: summed.len(),
                    width: PANEL.min(features.end - feature),
                    before,
                    after,
                };
                // SAFETY: both sides are packed for `depth` words, and the rows and features of the block belong to
                // this task.
                unsafe { block.run(rows.len()) };
            }
        }
    }
}

/// An address in f32, and the elements from one row to the next.
#[derive(Clone, Copy)]
struct Place {
    start: *mut f32,
    stride: usize,
}

impl Place {
    fn new(start: *mut f32, stride: usize) -> Self {
        Self { start, stride }
    }
}

/// Where sums go.
#[derive(Clone, Copy)]
enum After {
    F32(Place),
    Bf16(*mut bf16, usize),
}

/// Some rows of a panel of the result.
struct Block<'a> {
    left: &'a [u32],
    panel: &'a [u32],
    /// Words of K.
    depth: usize,
    /// Features of the panel that are part of the result; the rest is padding.
    width: usize,
    /// The sums of the parts before.
    before: Option<Place>,
    after: After,
}

impl Block<'_> {
    /// # Safety
    /// As [`Block::rows`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn run(&self, rows: usize) {
        // SAFETY: the caller promises the same.
        unsafe {
            match self.width.div_ceil(LANES) {
                1 => self.of_vectors::<1>(rows),
                2 => self.of_vectors::<2>(rows),
                _ => self.of_vectors::<VECTORS>(rows),
            }
        }
    }

    /// # Safety
    /// As [`Block::rows`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn of_vectors<const V: usize>(&self, rows: usize) {
        // SAFETY: the caller promises the same.
        unsafe {
            match rows {
                1 => self.rows::<1, V>(),
                2 => self.rows::<2, V>(),
                3 => self.rows::<3, V>(),
                4 => self.rows::<4, V>(),
                5 => self.rows::<5, V>(),
                6 => self.rows::<6, V>(),
                7 => self.rows::<7, V>(),
                _ => self.rows::<ROWS, V>(),
            }
        }
    }

    /// Prefetches the result, which is then there when the sums are.
    #[inline]
    fn prefetch_result<const M: usize, const V: usize>(&self) {
        for row in 0..M {
            for v in 0..V {
                match self.after {
                    After::F32(Place { start, stride }) => {
                        prefetch_at(start.wrapping_add(row * stride + v * LANES).cast());
                    }
                    After::Bf16(start, stride) => {
                        prefetch_at(start.wrapping_add(row * stride + v * LANES).cast());
                    }
                }
            }
        }
    }

    /// `M` rows of `V` vectors of features.
    ///
    /// # Safety
    /// `M` rows of `left` and the panel are packed for `depth` words. `width` elements of `M` rows can be read from
    /// `before` and written to `after`, and no other thread accesses them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn rows<const M: usize, const V: usize>(&self) {
        assert!(self.panel.len() >= self.depth * V * LANES && self.left.len() >= M * STRIDE);
        assert!(self.depth <= DEPTH);
        self.prefetch_result::<M, V>();
        let mut sums = [[_mm512_setzero_ps(); V]; M];
        let mut features = [_mm512_setzero_si512(); V];
        let left = self.left.as_ptr();
        for (depth, words) in self
            .panel
            .chunks_exact(V * LANES)
            .take(self.depth)
            .enumerate()
        {
            for v in 0..V {
                prefetch(&words[v * LANES..], AHEAD * V * LANES);
                // SAFETY: a chunk has `V` vectors of words.
                features[v] = unsafe { _mm512_loadu_si512(words.as_ptr().add(v * LANES).cast()) };
            }
            for row in 0..M {
                // SAFETY: the assertions bound the row and the word.
                let word = unsafe { *left.add(row * STRIDE + depth) };
                let x = _mm512_set1_epi32(word.cast_signed());
                for v in 0..V {
                    sums[row][v] = dot(sums[row][v], x, features[v]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let lanes = self.width.saturating_sub(v * LANES).min(LANES);
                let mask = ((1_u32 << lanes) - 1) as u16;
                let mut sum = *sum;
                // SAFETY: the caller promises that the rows can be read and written; lanes behind `width` are masked.
                unsafe {
                    if let Some(Place { start, stride }) = self.before {
                        let before = start.wrapping_add(row * stride + v * LANES);
                        sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, before), sum);
                    }
                    match self.after {
                        After::F32(Place { start, stride }) => {
                            let after = start.wrapping_add(row * stride + v * LANES);
                            _mm512_mask_storeu_ps(after, mask, sum);
                        }
                        After::Bf16(start, stride) => {
                            let after = start.wrapping_add(row * stride + v * LANES);
                            _mm256_mask_storeu_epi16(after.cast(), mask, rounded(sum));
                        }
                    }
                }
            }
        }
    }
}

/// Prefetches an address.
#[inline]
fn prefetch_at(address: *const i8) {
    // SAFETY: a prefetch is a hint. It reads nothing, and any address is allowed.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

/// Adds the products of sixteen pairs to sixteen sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot(sums: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both types are 512 bits, of which any pattern is valid.
    let [a, b] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([a, b]) };
    _mm512_dpbf16_ps(sums, a, b)
}

/// Sixteen values in bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(values: __m512) -> __m256i {
    // SAFETY: both types are 256 bits, of which any pattern is valid.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values)) }
}
