//! Small matrix multiplications on AMX tiles, where they fill whole ones; the rest is multiplied on vectors.
//!
//! Axes: see [`tile`](super).

use std::arch::x86_64::*;

use super::super::tiles::{PANEL, Quad, ROWS, Scratch, multiply};
use super::super::{LANES, Place};
use super::{Sides, transpose_square};
use crate::buffer::buffer;
use crate::product::amx::Tiles;

impl Sides {
    /// # Safety
    /// As [`Sides::all`]. Tiles are permitted.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn on_tiles(&self, m: usize, n: usize) {
        let [rows, words, columns] = [m, self.words, n].map(|length| length - length % LANES);
        // SAFETY: the caller promises all of the multiplication, of which these are parts.
        unsafe {
            if rows * words * columns == 0 {
                return self.all(m, n);
            }
            self.whole_tiles([rows, words, columns]);
            if words < self.words {
                let rest = Self {
                    add: true,
                    ..self.from(0, words, 0)
                };
                rest.all(rows, columns);
            }
            if columns < n {
                self.from(0, 0, columns).all(rows, n - columns);
            }
            if rows < m {
                self.from(rows, 0, 0).all(m - rows, n);
            }
        }
    }

    /// Rows, words and columns that are multiples of sixteen.
    ///
    /// # Safety
    /// As [`Sides::all`]. Tiles are permitted.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn whole_tiles(&self, [rows, words, columns]: [usize; 3]) {
        let _tiles = Tiles::configure();
        // room between the rows, so that they begin in different sets of the cache
        let stride = words + LANES;
        let mut turned: Vec<u32> = buffer(if self.depth == 1 { 0 } else { ROWS * stride });
        let mut scratch = Scratch([0.0; ROWS * PANEL]);
        for row in (0..rows).step_by(ROWS) {
            let high = (rows - row).min(ROWS);
            let left = self.left.wrapping_add(row * self.row);
            let (left, stride) = if self.depth == 1 {
                (left, self.row)
            } else {
                // SAFETY: the caller promises the rows and words of the left side.
                unsafe { self.turn(left, [high, words], &mut turned, stride) };
                (turned.as_ptr(), stride)
            };
            for column in (0..columns).step_by(PANEL) {
                let wide = (columns - column).min(PANEL);
                let right = self.right.wrapping_add(column);
                let shape = [high, wide, words / LANES];
                let quad = Quad::new([left, right], [stride, self.right_depth], shape);
                let sums = Place::new(scratch.0.as_mut_ptr(), PANEL);
                let result = row * self.result_row + column;
                // SAFETY: the caller promises both sides and the result.
                unsafe {
                    multiply(&quad, sums, false);
                    self.finish(&scratch, self.result.wrapping_add(result), [high, wide]);
                }
            }
        }
    }

    /// Copies rows whose words are not adjacent to rows whose words are.
    ///
    /// # Safety
    /// The rows and words can be read from `left` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn turn(
        &self,
        left: *const u32,
        [rows, words]: [usize; 2],
        turned: &mut [u32],
        stride: usize,
    ) {
        assert!(self.row == 1, "words or rows of a left side are adjacent");
        let length = (words - 1) * self.depth + rows;
        // SAFETY: the caller promises these words.
        let left = unsafe { std::slice::from_raw_parts(left, length) };
        for word in (0..words).step_by(LANES) {
            for row in (0..rows).step_by(LANES) {
                let from = &left[word * self.depth + row..];
                let to = &mut turned[row * stride + word..];
                transpose_square(from, self.depth, to, stride, [LANES, LANES]);
            }
        }
    }

    /// Scales the sums of a block, and writes or adds them.
    ///
    /// # Safety
    /// The rows and columns of the result are whole vectors, and nothing else accesses them.
    #[target_feature(enable = "avx512f")]
    unsafe fn finish(&self, sums: &Scratch, result: *mut f32, [rows, columns]: [usize; 2]) {
        let scale = _mm512_set1_ps(self.scale);
        for (row, sums) in sums.0.chunks_exact(PANEL).enumerate().take(rows) {
            for column in (0..columns).step_by(LANES) {
                let at = result.wrapping_add(row * self.result_row + column);
                // SAFETY: the caller promises the vectors of the result.
                unsafe {
                    let sums = _mm512_loadu_ps(sums[column..column + LANES].as_ptr());
                    let value = if self.add {
                        _mm512_fmadd_ps(sums, scale, _mm512_loadu_ps(at))
                    } else {
                        _mm512_mul_ps(sums, scale)
                    };
                    _mm512_storeu_ps(at, value);
                }
            }
        }
    }
}
