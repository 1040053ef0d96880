//! Small matrix multiplications of bf16 values in registers: the blocks of attention.
//!
//! `y = s · l r` or `y += s · l r`, with sums in f32, as [`tile::multiply`](crate::tile::multiply) in f32. Both sides are
//! words of two values that follow one another in the inner dimension.
//!
//! Axes: m rows, w words of the inner dimension (summed over), n columns.

#[cfg(target_os = "linux")]
mod amx;

use std::arch::x86_64::*;

use half::bf16;

use super::vectors::dot;
use super::{LANES, available, rounded};
use crate::product::transpose::sixteen;
use crate::product::{ProductUnit, half_unit};
use crate::tile::Output;

/// Rows of the result that are summed in registers at a time.
const ROWS: usize = 8;

/// The left side, with any strides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) words: &'a [u32],
    /// Words from one row to the next.
    pub(crate) row: usize,
    /// Words from one inner index to the next.
    pub(crate) depth: usize,
}

/// The right side; its columns are adjacent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Right<'a> {
    pub(crate) words: &'a [u32],
    /// Words from one inner index to the next.
    pub(crate) depth: usize,
}

/// `y = s · l r` or `y += s · l r`. Each element is one sum in the order of `w`.
///
/// # Shapes
/// `shape`: `[m, w, n]`. `left`: `[m, w]`. `right`: `[w, n]`. `output`: `[m, n]`.
///
/// # Panics
/// If a side is too short for its shape and strides, or if the processor lacks the instructions.
pub(crate) fn multiply(
    shape: [usize; 3],
    scale: f32,
    left: Left<'_>,
    right: Right<'_>,
    output: Output<'_>,
) {
    multiply_on(half_unit(), shape, scale, left, right, output);
}

fn multiply_on(
    unit: ProductUnit,
    [m, w, n]: [usize; 3],
    scale: f32,
    left: Left<'_>,
    right: Right<'_>,
    output: Output<'_>,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(available(), "instructions for products of bf16 values");
    if w > 0 {
        let last = (m - 1) * left.row + (w - 1) * left.depth;
        assert!(last < left.words.len(), "left side of a small product");
        let last = (w - 1) * right.depth + n;
        assert!(last <= right.words.len(), "right side of a small product");
    }
    let last = (m - 1) * output.row + n;
    assert!(last <= output.values.len(), "result of a small product");
    let sides = Sides {
        scale,
        words: w,
        left: left.words.as_ptr(),
        row: left.row,
        depth: left.depth,
        right: right.words.as_ptr(),
        right_depth: right.depth,
        result: output.values.as_mut_ptr(),
        result_row: output.row,
        add: output.add,
    };
    // SAFETY: the processor has the instructions, and the assertions bound the last element of each side.
    unsafe {
        match unit {
            #[cfg(target_os = "linux")]
            ProductUnit::Amx => sides.on_tiles(m, n),
            _ => sides.all(m, n),
        }
    }
}

/// A multiplication whose bounds are checked.
#[derive(Clone, Copy)]
struct Sides {
    scale: f32,
    words: usize,
    left: *const u32,
    row: usize,
    depth: usize,
    right: *const u32,
    right_depth: usize,
    result: *mut f32,
    result_row: usize,
    add: bool,
}

impl Sides {
    /// The part of the multiplication from a row, a word and a column on.
    fn from(self, row: usize, word: usize, column: usize) -> Self {
        let left = row * self.row + word * self.depth;
        let right = word * self.right_depth + column;
        let result = row * self.result_row + column;
        Self {
            words: self.words - word,
            left: self.left.wrapping_add(left),
            right: self.right.wrapping_add(right),
            result: self.result.wrapping_add(result),
            ..self
        }
    }

    /// # Safety
    /// All rows, words and columns lie inside the sides, and nothing else accesses the result.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn all(&self, m: usize, n: usize) {
        for column in (0..n).step_by(2 * LANES) {
            let columns = (n - column).min(2 * LANES);
            let mut row = 0;
            // SAFETY: the blocks divide the result, so they lie inside it.
            unsafe {
                while row < m {
                    let rows = (m - row).min(ROWS);
                    match (rows, columns > LANES) {
                        (ROWS, true) => self.block::<ROWS, 2>(row, column, columns),
                        (ROWS, false) => self.block::<ROWS, 1>(row, column, columns),
                        (4.., true) => self.block::<4, 2>(row, column, columns),
                        (4.., false) => self.block::<4, 1>(row, column, columns),
                        (_, true) => self.block::<1, 2>(row, column, columns),
                        (_, false) => self.block::<1, 1>(row, column, columns),
                    }
                    row += match rows {
                        ROWS => ROWS,
                        4.. => 4,
                        _ => 1,
                    };
                }
            }
        }
    }

    /// `M` rows of `V` vectors, of which the last may be a part.
    ///
    /// # Safety
    /// As [`Sides::all`], of these rows and columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn block<const M: usize, const V: usize>(
        &self,
        row: usize,
        column: usize,
        columns: usize,
    ) {
        let mut masks = [u16::MAX; V];
        masks[V - 1] = mask(columns - (V - 1) * LANES);
        let mut sums = [[_mm512_setzero_ps(); V]; M];
        let mut vectors = [_mm512_setzero_si512(); V];
        let left = self.left.wrapping_add(row * self.row);
        let right = self.right.wrapping_add(column);
        for word in 0..self.words {
            for v in 0..V {
                let at = right.wrapping_add(word * self.right_depth + v * LANES);
                // SAFETY: the caller promises the columns of each word; those behind them are masked.
                vectors[v] = unsafe { _mm512_maskz_loadu_epi32(masks[v], at.cast()) };
            }
            for i in 0..M {
                let at = left.wrapping_add(i * self.row + word * self.depth);
                // SAFETY: the caller promises the rows and words of the left side.
                let pair = _mm512_set1_epi32(unsafe { *at }.cast_signed());
                for v in 0..V {
                    sums[i][v] = dot(sums[i][v], pair, vectors[v]);
                }
            }
        }
        let scale = _mm512_set1_ps(self.scale);
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let at = (row + i) * self.result_row + column + v * LANES;
                let at = self.result.wrapping_add(at);
                // SAFETY: the caller promises the rows and columns of the result; those behind them are masked.
                unsafe {
                    let value = if self.add {
                        _mm512_fmadd_ps(*sum, scale, _mm512_maskz_loadu_ps(masks[v], at))
                    } else {
                        _mm512_mul_ps(*sum, scale)
                    };
                    _mm512_mask_storeu_ps(at, masks[v], value);
                }
            }
        }
    }
}

/// The lowest bits of a mask.
fn mask(count: usize) -> u16 {
    ((1_u32 << count.min(LANES)) - 1) as u16
}

/// Rounds rows of `columns` values and pairs each two of them: `words[j / 2]` has `values[j]` in its lower halves and
/// `values[j + 1]` in its upper ones. An odd number of rows ends with zeros.
///
/// # Panics
/// If the result is too short, or if the processor lacks the instructions.
pub(crate) fn paired_rows(values: &[f32], columns: usize, words: &mut [u32]) {
    assert!(available(), "instructions for products of bf16 values");
    let pairs = values.chunks(2 * columns);
    assert!(words.len() >= pairs.len() * columns, "words of pairs");
    for (pair, words) in pairs.zip(words.chunks_exact_mut(columns)) {
        let (even, odd) = pair.split_at(columns);
        for (place, words) in words.chunks_mut(LANES).enumerate() {
            let range = place * LANES..place * LANES + words.len();
            // SAFETY: the processor has the instructions.
            unsafe { round_pair(&even[range.clone()], odd.get(range), words) };
        }
    }
}

/// Rounds up to sixteen values of two rows into words.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round_pair(even: &[f32], odd: Option<&[f32]>, words: &mut [u32]) {
    let mask = mask(words.len());
    // SAFETY: all have as many elements as the mask has bits.
    unsafe {
        let even = rounded(_mm512_maskz_loadu_ps(mask, even.as_ptr()));
        let odd = match odd {
            Some(odd) => rounded(_mm512_maskz_loadu_ps(mask, odd.as_ptr())),
            None => _mm256_setzero_si256(),
        };
        let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
        let both = _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd);
        _mm512_mask_storeu_epi32(words.as_mut_ptr().cast(), mask, both);
    }
}

/// Rounds values to bf16, in order.
///
/// # Panics
/// If the lengths differ, or if the processor lacks the instructions.
pub(crate) fn round(values: &[f32], narrow: &mut [bf16]) {
    assert!(available(), "instructions for products of bf16 values");
    assert_eq!(values.len(), narrow.len(), "values to round");
    for (values, narrow) in values.chunks(LANES).zip(narrow.chunks_mut(LANES)) {
        let mask = mask(values.len());
        // SAFETY: the processor has the instructions, and both have as many elements as the mask has bits.
        unsafe { round_vector(values, narrow, mask) };
    }
}

/// # Safety
/// Both sides have as many elements as the mask has bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn round_vector(values: &[f32], narrow: &mut [bf16], mask: u16) {
    // SAFETY: the caller promises the lengths.
    unsafe {
        let values = _mm512_maskz_loadu_ps(mask, values.as_ptr());
        _mm256_mask_storeu_epi16(narrow.as_mut_ptr().cast(), mask, rounded(values));
    }
}

/// The transpose of a matrix of words with `columns` columns.
///
/// # Panics
/// If the processor lacks the instructions.
pub(crate) fn transposed(words: &[u32], columns: usize) -> Vec<u32> {
    assert!(available(), "instructions for products of bf16 values");
    let rows = words.len() / columns;
    let mut result = crate::buffer::buffer(words.len());
    for row in (0..rows).step_by(LANES) {
        for column in (0..columns).step_by(LANES) {
            let shape = [(rows - row).min(LANES), (columns - column).min(LANES)];
            // SAFETY: the processor has the instructions.
            unsafe {
                transpose_square(
                    &words[row * columns + column..],
                    columns,
                    &mut result[column * rows + row..],
                    rows,
                    shape,
                );
            }
        }
    }
    result
}

/// Transposes up to sixteen rows of up to sixteen words.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn transpose_square(
    words: &[u32],
    columns: usize,
    result: &mut [u32],
    rows: usize,
    shape: [usize; 2],
) {
    let mut square = [_mm512_setzero_si512(); LANES];
    for (row, vector) in square.iter_mut().enumerate().take(shape[0]) {
        let words = &words[row * columns..][..shape[1]];
        // SAFETY: the row has as many words as the mask has bits.
        *vector = unsafe { _mm512_maskz_loadu_epi32(mask(shape[1]), words.as_ptr().cast()) };
    }
    for (column, vector) in sixteen(&square).iter().enumerate().take(shape[1]) {
        let place = &mut result[column * rows..][..shape[0]];
        // SAFETY: the place has as many words as the mask has bits.
        unsafe { _mm512_mask_storeu_epi32(place.as_mut_ptr().cast(), mask(shape[0]), *vector) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_sums(m in 1_usize..70, d in 1_usize..110, n in 1_usize..80, across: bool, add: bool) {
            if !available() {
                return Ok(());
            }
            // small integers: every sum is exact in any order
            let left: Vec<f32> = (0..m * d).map(|i| (i * 7 % 11) as f32 - 5.0).collect(); // [d, m]
            let right: Vec<f32> = (0..d * n).map(|i| (i * 5 % 13) as f32 - 6.0).collect(); // [d, n]
            let w = d.div_ceil(2);
            let [mut left_words, mut right_words] = [vec![0; w * m], vec![0; w * n]];
            paired_rows(&left, m, &mut left_words);
            paired_rows(&right, n, &mut right_words);
            let turned = transposed(&left_words, m); // [m, w]
            let left_side = if across {
                Left { words: &left_words, row: 1, depth: m }
            } else {
                Left { words: &turned, row: w, depth: 1 }
            };
            let tiles = crate::product::amx_available().then_some(ProductUnit::Amx);
            for unit in std::iter::once(ProductUnit::Bf16).chain(tiles) {
                let mut result = vec![1.0; m * n];
                let output = Output { values: &mut result, row: n, add };
                let right_side = Right { words: &right_words, depth: n };
                multiply_on(unit, [m, w, n], 0.5, left_side, right_side, output);
                for i in 0..m {
                    for j in 0..n {
                        let sum: f32 = (0..d).map(|k| left[k * m + i] * right[k * n + j]).sum();
                        let sum = f32::from(u8::from(add)) + 0.5 * sum;
                        prop_assert_eq!(result[i * n + j].to_bits(), sum.to_bits(), "{:?} {} {}", unit, i, j);
                    }
                }
            }
            let mut narrow = vec![bf16::ZERO; left.len()];
            round(&left, &mut narrow);
            prop_assert!(narrow.iter().zip(&left).all(|(narrow, x)| narrow.to_f32().to_bits() == x.to_bits()));
        }
    }
}
