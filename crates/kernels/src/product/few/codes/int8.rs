//! int8 with a scale for each row.

use std::arch::x86_64::*;

use super::vector::{both, product, signed};
use super::{GROUP, Part};
use crate::simd::prefetch;

/// Codes ahead that are prefetched.
const AHEAD: usize = 1024;

/// `scale · Σ x q` over a row, for each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dots<const M: usize>(codes: &[u8], scale: f32, tokens: &Part<'_, M>) -> [f32; M] {
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    let (groups, rest) = codes.as_chunks::<GROUP>();
    for (group, codes) in groups.iter().enumerate() {
        prefetch(&codes[..], AHEAD);
        let w = [
            signed(codes, 0),
            signed(codes, 8),
            signed(codes, 16),
            signed(codes, 24),
        ];
        for (x, sums) in tokens.x.iter().zip(&mut sums) {
            sums[group % 2] = product(&x[group], w, sums[group % 2]);
        }
    }
    let mut results = both(sums);
    for (x, result) in tokens.rest.iter().zip(&mut results) {
        let rest: f32 = x
            .iter()
            .zip(rest)
            .map(|(x, code)| x * f32::from(*code as i8))
            .sum();
        *result = scale * (*result + rest);
    }
    results
}
