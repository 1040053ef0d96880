//! Vectors of eight lanes: loading, unpacking and summing.

use std::arch::x86_64::*;

use super::GROUP;
use crate::simd::prefetch;

/// Numbers of a vector.
pub(super) const LANES: usize = 8;

/// Bytes that the processor reads at once.
const LINE: usize = 64;

/// If this processor has the instructions that unpacking uses.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// The whole parts of `N` bytes of some rows. A loop, because an array's own `map` is not compiled for these instructions.
#[inline]
pub(super) fn parts<const N: usize, const R: usize>(rows: [&[u8]; R]) -> [&[[u8; N]]; R] {
    let mut parts: [&[[u8; N]]; R] = [&[]; R];
    for (part, row) in parts.iter_mut().zip(rows) {
        *part = row.as_chunks().0;
    }
    parts
}

/// Prefetches what lies `ahead` of a block, which is number `index` of its row: one prefetch for each line, also where blocks
/// are shorter.
#[inline]
pub(super) fn prefetch_block<const BYTES: usize>(block: &[u8; BYTES], index: usize, ahead: usize) {
    if BYTES > LINE || index.is_multiple_of(LINE / BYTES.min(LINE)) {
        for line in (0..BYTES).step_by(LINE) {
            prefetch(&block[line..], ahead);
        }
    }
}

/// The first eight numbers of a slice.
#[inline]
pub(super) fn numbers(numbers: &[f32]) -> __m256 {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(&numbers[..LANES]))
}

/// The first 32 bytes of a slice.
#[inline]
pub(super) fn bytes(bytes: &[u8]) -> __m256i {
    bytemuck::pod_read_unaligned(&bytes[..32])
}

/// Eight signed bytes from a place on, as numbers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn signed(bytes: &[u8], at: usize) -> __m256 {
    let bytes: i64 = bytemuck::pod_read_unaligned(&bytes[at..at + 8]);
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bytes)))
}

/// The 32 bytes of a vector as numbers: byte `v` of each word in vector `v`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn words(bytes: __m256i) -> [__m256; 4] {
    let byte = _mm256_set1_epi32(255);
    [
        _mm256_cvtepi32_ps(_mm256_and_si256(bytes, byte)),
        _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32::<8>(bytes), byte)),
        _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32::<16>(bytes), byte)),
        _mm256_cvtepi32_ps(_mm256_srli_epi32::<24>(bytes)),
    ]
}

/// `start + Σ w x` over a group of features of a token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn product(x: &[f32; GROUP], w: [__m256; 4], start: __m256) -> __m256 {
    let x: [__m256; 4] = bytemuck::cast(*x);
    let sum = _mm256_fmadd_ps(x[0], w[0], start);
    let sum = _mm256_fmadd_ps(x[1], w[1], sum);
    let sum = _mm256_fmadd_ps(x[2], w[2], sum);
    _mm256_fmadd_ps(x[3], w[3], sum)
}

/// The sum of the lanes of two vectors, for each row and token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn both<const M: usize, const R: usize>(
    first: [[__m256; M]; R],
    second: [[__m256; M]; R],
) -> [[f32; M]; R] {
    let mut sums = [[0.0; M]; R];
    for (sums, (first, second)) in sums.iter_mut().zip(first.into_iter().zip(second)) {
        for (sum, (first, second)) in sums.iter_mut().zip(first.into_iter().zip(second)) {
            let vector = _mm256_add_ps(first, second);
            let half = _mm_add_ps(
                _mm256_castps256_ps128(vector),
                _mm256_extractf128_ps::<1>(vector),
            );
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            *sum = _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
        }
    }
    sums
}
