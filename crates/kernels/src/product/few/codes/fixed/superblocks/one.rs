//! Rows of blocks of 256 elements, and one token in bytes.
//!
//! The products of codes and bytes are summed by fours, which fit into 16 bits: `4 · 63 · 128` for Q6_K. Sums are then multiplied
//! with the codes of their scales, and those of a block fit into 32 bits. There is such a sum for each byte of a feature.

use std::arch::x86_64::*;

use super::super::token::BlockToken;
use super::super::words::WORDS;
use super::{Heads, Multiply, Totals, UNITS, add_products};
use crate::product::few::AHEAD;
use crate::product::few::codes::ROWS;
use crate::product::few::codes::vector::{parts, prefetch_block};
use crate::simd::numbers;

impl<const P: usize> Multiply for &BlockToken<P> {
    type Sums = [[f32; 1]; ROWS];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn rows<const BYTES: usize, const GROUPS: usize, const OFFSET: i8>(
        self,
        rows: [&[u8]; ROWS],
        heads: impl Fn([&[u8; BYTES]; ROWS]) -> Heads,
        unit: impl Fn(&[u8; BYTES], usize) -> __m512i,
    ) -> Self::Sums {
        let rows = parts::<BYTES, ROWS>(rows);
        let mut totals = Totals::<1>::none();
        // what the offsets of codes add, in the quarter of each row
        let mut offsets = _mm512_setzero_ps();
        for (index, x) in self.blocks.iter().enumerate() {
            let blocks = [
                &rows[0][index],
                &rows[1][index],
                &rows[2][index],
                &rows[3][index],
            ];
            let heads = heads(blocks);
            let mut scales = heads.scales;
            for scales in &mut scales {
                *scales = _mm512_srai_epi16::<8>(*scales);
            }
            for (row, block) in blocks.into_iter().enumerate() {
                prefetch_block(block, index, AHEAD);
                let mut sums = [_mm512_setzero_si512(); P];
                for (pair, lanes) in const { scales_of_sums(GROUPS) }[row].iter().enumerate() {
                    let scales = scales[pair * GROUPS / 16];
                    let scales = _mm512_permutexvar_epi16(bytemuck::cast(*lanes), scales);
                    let at = [2 * pair, 2 * pair + 1];
                    let codes = [unit(block, at[0]), unit(block, at[1])];
                    for (p, sum) in sums.iter_mut().enumerate() {
                        let mut fours = [_mm512_setzero_si512(); 2];
                        for side in 0..2 {
                            let bytes = bytemuck::cast(x.bytes[at[side]].0[p]);
                            fours[side] = _mm512_dpbusd_epi32(fours[side], codes[side], bytes);
                        }
                        let fours = _mm512_packs_epi32(fours[0], fours[1]);
                        add_products(sum, fours, scales);
                    }
                }
                let mut sum = _mm512_setzero_ps();
                for bytes in sums {
                    let bytes = _mm512_cvtepi32_ps(bytes);
                    sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(256.0), bytes);
                }
                let factor = _mm512_set1_ps(heads.factors[row] * x.unit);
                let [total] = &mut totals.rows[row];
                *total = _mm512_fmadd_ps(sum, factor, *total);
            }
            if OFFSET != 0 {
                let mut sum = _mm512_setzero_ps();
                for words in x.half_sums {
                    let mut products = _mm512_setzero_si512();
                    let (eights, _) = words.as_chunks::<8>();
                    for (eight, scales) in eights.iter().zip(scales) {
                        let eight = _mm512_broadcast_i32x4(bytemuck::cast(*eight));
                        add_products(&mut products, scales, eight);
                    }
                    let products = _mm512_cvtepi32_ps(products);
                    sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(32768.0), products);
                }
                let factors: __m128 = bytemuck::cast(heads.factors);
                let quarter = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
                let factors = _mm512_permutexvar_ps(quarter, _mm512_castps128_ps512(factors));
                let unit = _mm512_set1_ps(x.unit * f32::from(OFFSET));
                offsets = _mm512_fmadd_ps(sum, _mm512_mul_ps(factors, unit), offsets);
            }
            if let Some(of_rows) = heads.minima {
                let sums: __m256d = bytemuck::cast(x.sums);
                let sums = _mm512_castpd_ps(_mm512_broadcast_f64x4(sums));
                for ([total], of_rows) in totals.minima.iter_mut().zip(of_rows) {
                    *total = _mm512_fmadd_ps(of_rows, sums, *total);
                }
            }
        }
        let mut sums = totals.sums();
        let offsets: [[f32; 4]; ROWS] = bytemuck::cast(numbers(offsets));
        for ([sum], offsets) in sums.iter_mut().zip(offsets) {
            *sum -= offsets.iter().sum::<f32>();
        }
        sums
    }
}

/// For each row, pair of vectors of codes and word, the place of its scale in [`Heads::scales`], if a block has so many.
///
/// Four words of each eight are sums of the first vector, the others of the second one.
const fn scales_of_sums(groups: usize) -> [[[i16; WORDS]; UNITS / 2]; ROWS] {
    const OF_ROW: usize = WORDS / ROWS;
    let mut words = [[[0; WORDS]; UNITS / 2]; ROWS];
    let mut all = 0;
    while all < ROWS * UNITS / 2 * WORDS {
        let [row, pair, word] = [
            all / (UNITS / 2 * WORDS),
            all / WORDS % (UNITS / 2),
            all % WORDS,
        ];
        let unit = 2 * pair + word % 8 / 4;
        let four = word / 8 * 4 + word % 4;
        let scale = (64 * unit + 4 * four) * groups / 256;
        words[row][pair][word] = (row * OF_ROW + scale % OF_ROW) as i16;
        all += 1;
    }
    words
}
