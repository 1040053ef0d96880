//! int8 with a scale for each row.

use std::arch::x86_64::*;

use super::vector::{both, parts, product, signed};
use super::{GROUP, Part};
use crate::simd::prefetch;

/// `scale · Σ x q` over some rows, for each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dots<const M: usize, const R: usize>(
    rows: [&[u8]; R],
    scales: [f32; R],
    tokens: &Part<'_, M>,
) -> [[f32; M]; R] {
    let mut even = [[_mm256_setzero_ps(); M]; R];
    let mut odd = even;
    let groups = parts::<GROUP, R>(rows);
    for (group, _) in groups[0].iter().enumerate() {
        for (row, codes) in groups.iter().enumerate() {
            let codes = &codes[group];
            prefetch(&codes[..], tokens.ahead);
            let w = [
                signed(codes, 0),
                signed(codes, 8),
                signed(codes, 16),
                signed(codes, 24),
            ];
            let sums = if group % 2 == 0 {
                &mut even[row]
            } else {
                &mut odd[row]
            };
            for (x, sum) in tokens.x.iter().zip(sums) {
                *sum = product(&x[group], w, *sum);
            }
        }
    }
    let mut results = both(even, odd);
    for (row, results) in results.iter_mut().enumerate() {
        let rest = &rows[row][groups[row].len() * GROUP..];
        for (x, result) in tokens.rest.iter().zip(results) {
            let rest: f32 = x
                .iter()
                .zip(rest)
                .map(|(x, code)| x * f32::from(*code as i8))
                .sum();
            *result = scales[row] * (*result + rest);
        }
    }
    results
}
