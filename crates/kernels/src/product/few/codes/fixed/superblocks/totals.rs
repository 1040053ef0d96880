//! Sums of the products of some tokens with some rows.

use std::arch::x86_64::*;

use super::PAIRS;
use crate::product::few::codes::ROWS;

/// The sums of `T` tokens.
pub(super) struct Totals<const T: usize> {
    pub(super) rows: [[__m512; T]; ROWS],
    /// Of the minima: a vector for each pair of rows, half for each.
    pub(super) minima: [[__m512; T]; PAIRS],
}

impl<const T: usize> Totals<T> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn none() -> Self {
        Self {
            rows: [[_mm512_setzero_ps(); T]; ROWS],
            minima: [[_mm512_setzero_ps(); T]; PAIRS],
        }
    }

    /// The sum of each row and token.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
    pub(super) fn sums(&self) -> [[f32; T]; ROWS] {
        let mut result = [[0.0; T]; ROWS];
        for token in 0..T {
            let mut sums = [_mm_setzero_ps(); ROWS];
            for (row, sum) in sums.iter_mut().enumerate() {
                let [lower, upper] = halves(self.rows[row][token]);
                let minima = halves(self.minima[row / 2][token])[row % 2];
                let half = _mm256_sub_ps(_mm256_add_ps(lower, upper), minima);
                let quarter = _mm256_extractf128_ps::<1>(half);
                *sum = _mm_add_ps(_mm256_castps256_ps128(half), quarter);
            }
            let first = _mm_hadd_ps(sums[0], sums[1]);
            let all = _mm_hadd_ps(first, _mm_hadd_ps(sums[2], sums[3]));
            let all: [f32; ROWS] = bytemuck::cast(all);
            for (row, sum) in result.iter_mut().zip(all) {
                row[token] = sum;
            }
        }
        result
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(vector: __m512) -> [__m256; 2] {
    let doubles = _mm512_castps_pd(vector);
    [
        _mm256_castpd_ps(_mm512_castpd512_pd256(doubles)),
        _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(doubles)),
    ]
}
