//! Vectors of eight lanes: loading, unpacking and summing.

use std::arch::x86_64::*;

use super::GROUP;

/// Numbers of a vector.
pub(super) const LANES: usize = 8;

/// If this processor has the instructions that unpacking uses.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
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

/// The sum of the lanes of each vector.
#[inline]
pub(super) fn sums<const M: usize>(vectors: [__m256; M]) -> [f32; M] {
    vectors.map(|vector| {
        let [a, b, c, d, e, f, g, h]: [f32; 8] = bytemuck::cast(vector);
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    })
}

/// The sums of two vectors for each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn both<const M: usize>(vectors: [[__m256; 2]; M]) -> [f32; M] {
    let mut added = [_mm256_setzero_ps(); M];
    for (added, [first, second]) in added.iter_mut().zip(vectors) {
        *added = _mm256_add_ps(first, second);
    }
    sums(added)
}
