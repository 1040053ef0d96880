//! Packing of the left side of a matrix multiplication into words of two bf16 values that follow one another in K.
//!
//! Axes: see [`bf16`](super).

use std::arch::x86_64::*;
use std::ops::Range;

use half::bf16;

use super::pack::{both, load, store};
use super::{LANES, Piece, STEP, STRIDE};
use crate::product::{Numbers, Values};
use crate::simd::prefetch;

/// Packs some rows of the left side, `[M, K]`, for a piece of K. An odd K ends with a zero. The same part of the rows that
/// are `ahead` of them is prefetched.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn pack_left(
    x: Numbers<'_>,
    k: usize,
    rows: &Range<usize>,
    ahead: usize,
    piece: &Piece,
    left: &mut [u32],
) {
    let words = piece.summed.len().div_ceil(2);
    for (row, left) in rows.clone().zip(left.chunks_exact_mut(STRIDE)) {
        let left = &mut left[piece.place..][..words];
        let range = row * k + piece.summed.start..row * k + piece.summed.end;
        match x {
            Numbers::F32(x) => round_row(&x[range], ahead * k, left),
            Numbers::Bf16(x) => copy_row(&x[range], ahead * k, left),
        }
    }
}

/// Packs a row in bf16. The row that is `ahead` elements behind it is prefetched.
#[inline]
fn copy_row(row: &[bf16], ahead: usize, left: &mut [u32]) {
    for line in row.chunks(STEP) {
        prefetch(line, ahead);
    }
    if row.len() % 2 == 1 {
        left[row.len() / 2] = 0;
    }
    bytemuck::cast_slice_mut::<u32, bf16>(left)[..row.len()].copy_from_slice(row);
}

/// Packs a row in f32, as [`copy_row`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round_row(row: &[f32], ahead: usize, left: &mut [u32]) {
    for (values, left) in row.chunks(STEP).zip(left.chunks_mut(LANES)) {
        prefetch(values, ahead);
        prefetch(values, ahead + LANES);
        match (values.first_chunk::<STEP>(), left.first_chunk_mut()) {
            // SAFETY: both sides are whole: two vectors of values, and one of words.
            (Some(values), Some(left)) => unsafe {
                let at = values.as_ptr();
                let words = both(_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(LANES)));
                let left: &mut [u32; LANES] = left;
                _mm512_storeu_si512(left.as_mut_ptr().cast(), words);
            },
            _ => store(load(Values::F32(values), 0, values.len()), left),
        }
    }
}
