//! Blocks of the result on vectors, by the instruction `vdpbf16ps`.
//!
//! Axes: see [`bf16`](super).

use std::arch::x86_64::*;

use super::{After, Block, DEPTH, LANES, Place, STRIDE};
use crate::simd::prefetch;

/// Rows of the result that are summed at a time.
pub(super) const ROWS: usize = 8;

/// Vectors of a row of the result that are summed at a time.
const VECTORS: usize = 3;

/// Features per panel.
pub(super) const PANEL: usize = VECTORS * LANES;

/// Panels are prefetched this many words of K ahead.
const AHEAD: usize = 12;

impl Block<'_> {
    /// # Safety
    /// As [`Block::rows`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn on_vectors(&self, rows: usize) {
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
                let mask = self.mask(v * LANES);
                let mut sum = *sum;
                // SAFETY: the caller promises that the rows can be read and written; lanes behind `width` are masked.
                unsafe {
                    if let Some(Place { start, stride }) = self.before {
                        let before = start.wrapping_add(row * stride + v * LANES);
                        sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, before), sum);
                    }
                    self.after.store([row, v * LANES], mask, sum);
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
pub(super) fn dot(sums: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both types are 512 bits, of which any pattern is valid.
    let [a, b] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([a, b]) };
    _mm512_dpbf16_ps(sums, a, b)
}

/// Multiplies vectors in registers, `turns` times as many as sums fit in them, and returns the number of floating-point
/// operations.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn burn(turns: usize) -> usize {
    /// Independent sums: enough to keep two units with a latency of six cycles busy.
    const SUMS: usize = 12;
    let pairs = _mm512_set1_epi32(std::hint::black_box(0x3f80_3f80));
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..turns {
        for i in 0..SUMS {
            sums[i] = dot(sums[i], pairs, pairs);
        }
    }
    std::hint::black_box(sums);
    turns * SUMS * 2 * 2 * LANES
}
