//! Rows of blocks of 256 elements, and several tokens in words.
//!
//! A code times the code of its scale fits into a word of 16 bits, which is multiplied with the words of the tokens: so
//! unpacking and scaling are shared by tokens, and the sums of a block are converted once. A lane sums sixteen products of a
//! block in 32 bits, and words of tokens are at most `127 · 256` large:
//!
//! - Q5_K: `31 · 63 · 127 · 256 · 16 < 2^31`; Q4_K has codes of half that size;
//! - Q6_K: `32 · 128 · 127 · 256 · 16 < 2^31`.
//!
//! Axes: T tokens at a time.

use std::arch::x86_64::*;

use super::super::words::{Block, WORDS};
use super::{Heads, Multiply, PAIRS, Totals, UNITS, add_products};
use crate::product::few::AHEAD;
use crate::product::few::codes::ROWS;
use crate::product::few::codes::vector::{parts, prefetch_block};

/// `T` tokens: a function gives the block of an index.
pub(super) struct Several<F>(pub(super) F);

impl<'a, const H: usize, const T: usize, F> Multiply for Several<F>
where
    F: Fn(usize) -> Block<'a, H, T>,
{
    /// `[R, T]`
    type Sums = [[f32; T]; ROWS];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn rows<const BYTES: usize, const GROUPS: usize, const OFFSET: i8>(
        self,
        rows: [&[u8]; ROWS],
        heads: impl Fn([&[u8; BYTES]; ROWS]) -> Heads,
        unit: impl Fn(&[u8; BYTES], usize) -> __m512i,
    ) -> Self::Sums {
        let rows = parts::<BYTES, ROWS>(rows);
        let mut totals = Totals::<T>::none();
        for index in 0..rows[0].len() {
            let x = self.0(index);
            let blocks = [
                &rows[0][index],
                &rows[1][index],
                &rows[2][index],
                &rows[3][index],
            ];
            let heads = heads(blocks);
            // sums of more rows do not fit into registers
            for pair in 0..PAIRS {
                let rows = [2 * pair, 2 * pair + 1];
                for row in rows {
                    prefetch_block(blocks[row], index, AHEAD);
                }
                let mut sums = [[[_mm512_setzero_si512(); H]; T]; 2];
                for at in 0..UNITS {
                    let scales = heads.scales[at * GROUPS / 32];
                    let mut w = [[_mm512_setzero_si512(); 2]; 2];
                    for (row, w) in rows.into_iter().zip(&mut w) {
                        let lanes = const { scales_of_words(GROUPS) }[row][at];
                        let scales = _mm512_permutexvar_epi16(bytemuck::cast(lanes), scales);
                        let codes = unit(blocks[row], at);
                        *w = scaled(_mm512_sub_epi8(codes, _mm512_set1_epi8(OFFSET)), scales);
                    }
                    x.multiply(at, w, &mut sums);
                }
                for (row, sums) in rows.into_iter().zip(sums) {
                    x.scale(heads.factors[row], sums, &mut totals.rows[row]);
                }
            }
            if let Some(minima) = heads.minima {
                for (totals, minima) in totals.minima.iter_mut().zip(minima) {
                    x.multiply_sums(minima, totals);
                }
            }
        }
        totals.sums()
    }
}

impl<const H: usize, const T: usize> Block<'_, H, T> {
    /// Adds the products with the elements of a vector of codes of two rows: the even elements, then the odd ones.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn multiply(&self, at: usize, w: [[__m512i; 2]; 2], sums: &mut [[[__m512i; H]; T]; 2]) {
        for half in 0..2 {
            for token in 0..T {
                for h in 0..H {
                    let x = bytemuck::cast(self.words[token][at][h].0[half]);
                    for (sums, w) in sums.iter_mut().zip(w) {
                        add_products(&mut sums[token][h], w[half], x);
                    }
                }
            }
        }
    }

    /// Adds sums of a row, in the units of the tokens and the row.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn scale(&self, factor: f32, sums: [[__m512i; H]; T], totals: &mut [__m512; T]) {
        for ((units, sums), total) in self.units.iter().zip(sums).zip(totals) {
            for (unit, sum) in units.iter().zip(sums) {
                let sum = _mm512_cvtepi32_ps(sum);
                *total = _mm512_fmadd_ps(sum, _mm512_set1_ps(unit * factor), *total);
            }
        }
    }

    /// Adds the products of minima with the sums of features, for two rows.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn multiply_sums(&self, minima: __m512, totals: &mut [__m512; T]) {
        for (sums, total) in self.sums.iter().zip(totals) {
            let sums: __m256d = bytemuck::cast(**sums);
            let sums = _mm512_castpd_ps(_mm512_broadcast_f64x4(sums));
            *total = _mm512_fmadd_ps(minima, sums, *total);
        }
    }
}

/// Signed bytes times their scales, which are multiplied with 256: the even elements and the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn scaled(codes: __m512i, scales: __m512i) -> [__m512i; 2] {
    // the upper half of (256 q) (256 s) is q s
    let upper = _mm512_set1_epi16(!0xff);
    [
        _mm512_mulhi_epi16(_mm512_slli_epi16::<8>(codes), scales),
        _mm512_mulhi_epi16(_mm512_and_si512(codes, upper), scales),
    ]
}

/// For each row, vector of codes and word, the place of its scale in [`Heads::scales`], if a block has so many.
const fn scales_of_words(groups: usize) -> [[[i16; WORDS]; UNITS]; ROWS] {
    const OF_ROW: usize = WORDS / ROWS;
    let mut words = [[[0; WORDS]; UNITS]; ROWS];
    let mut all = 0;
    while all < ROWS * UNITS * WORDS {
        let [row, element] = [all / (UNITS * WORDS), all % (UNITS * WORDS)];
        let scale = element * groups / (UNITS * WORDS);
        words[row][element / WORDS][element % WORDS] = (row * OF_ROW + scale % OF_ROW) as i16;
        all += 1;
    }
    words
}
