//! Small matrix multiplications in registers: the blocks of attention and the LoRA matrices.
//!
//! `y = s · l r` or `y += s · l r`. One of the three dimensions is a few dozen at most, so packing
//! either side would not pay off.
//!
//! Axes: m rows, d inner dimension (summed over), n columns.

#![expect(
    clippy::needless_range_loop,
    reason = "the compiler keeps arrays in registers if indices are below a constant; here it does \
              not do so for iterators"
)]

use std::ops::Range;

use pulp::Simd;

/// Rows of the result that are summed in registers at a time, on processors with 32 vector
/// registers and with 16.
const ROWS: [usize; 2] = [8, 4];

/// The left side, with any strides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) values: &'a [f32],
    /// Elements from one row to the next.
    pub(crate) row: usize,
    /// Elements from one inner index to the next.
    pub(crate) depth: usize,
}

/// The right side; its columns are adjacent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Right<'a> {
    pub(crate) values: &'a [f32],
    /// Elements from one inner index to the next.
    pub(crate) depth: usize,
}

/// The result; its columns are adjacent.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    pub(crate) values: &'a mut [f32],
    /// Elements from one row to the next.
    pub(crate) row: usize,
    /// Whether to add to the values that `values` already holds.
    pub(crate) add: bool,
}

/// `y = s · l r` or `y += s · l r`. Each element is one sum in the order of `d`.
///
/// # Shapes
/// `shape`: `[m, d, n]`. `left`: `[m, d]`. `right`: `[d, n]`. `output`: `[m, n]`.
///
/// # Panics
/// If a side is too short for its shape and strides.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(
    simd: S,
    shape: [usize; 3],
    scale: f32,
    left: Left<'_>,
    right: Right<'_>,
    output: Output<'_>,
) {
    let [m, d, n] = shape;
    if m == 0 || n == 0 {
        return;
    }
    if d > 0 {
        let last = (m - 1) * left.row + (d - 1) * left.depth;
        assert!(
            last < left.values.len(),
            "left side of a small matrix multiplication"
        );
        let last = (d - 1) * right.depth + n;
        assert!(
            last <= right.values.len(),
            "right side of a small matrix multiplication"
        );
    }
    let last = (m - 1) * output.row + n;
    assert!(
        last <= output.values.len(),
        "result of a small matrix multiplication"
    );
    let sides = Sides {
        simd,
        scale,
        depth: d,
        left,
        right,
        result: output.values.as_mut_ptr(),
        row: output.row,
        add: output.add,
    };
    let lanes = S::F32_LANES;
    let pairs = n - n % (2 * lanes);
    let whole = n - n % lanes;
    for column in (0..pairs).step_by(2 * lanes) {
        sides.column::<2, false>(m, column..column + 2 * lanes);
    }
    if whole > pairs {
        sides.column::<1, false>(m, pairs..whole);
    }
    if n > whole {
        sides.column::<1, true>(m, whole..n);
    }
}

/// A multiplication whose bounds are checked.
#[derive(Clone, Copy)]
struct Sides<'a, S> {
    simd: S,
    scale: f32,
    depth: usize,
    left: Left<'a>,
    right: Right<'a>,
    result: *mut f32,
    row: usize,
    add: bool,
}

impl<S: Simd> Sides<'_, S> {
    /// All rows of some columns: `V` vectors, or less than one vector if `PART` is set.
    #[inline(always)]
    fn column<const V: usize, const PART: bool>(self, rows: usize, columns: Range<usize>) {
        let mut row = 0;
        if S::REGISTER_COUNT >= 32 {
            while row + ROWS[0] <= rows {
                self.block::<{ ROWS[0] }, V, PART>(row, columns.clone());
                row += ROWS[0];
            }
        }
        while row + ROWS[1] <= rows {
            self.block::<{ ROWS[1] }, V, PART>(row, columns.clone());
            row += ROWS[1];
        }
        while row < rows {
            self.block::<1, V, PART>(row, columns.clone());
            row += 1;
        }
    }

    /// `M` rows of some columns; see [`Self::column`].
    #[inline(always)]
    #[expect(
        unsafe_code,
        reason = "`multiply` checks all bounds once, so that no load or store needs a check of its own"
    )]
    fn block<const M: usize, const V: usize, const PART: bool>(
        self,
        row: usize,
        columns: Range<usize>,
    ) {
        let simd = self.simd;
        let part = if PART { columns.len() } else { 0 };
        let mut sums = [[simd.splat_f32s(0.0); V]; M];
        let left = self.left.values.as_ptr().wrapping_add(row * self.left.row);
        let right = self.right.values.as_ptr().wrapping_add(columns.start);
        for d in 0..self.depth {
            let mut vectors = [simd.splat_f32s(0.0); V];
            for v in 0..V {
                let at = right.wrapping_add(d * self.right.depth + v * S::F32_LANES);
                // SAFETY: `multiply` has checked that every row, inner index and column of the
                // shape lies inside its side.
                vectors[v] = unsafe { load(simd, at, part) };
            }
            for i in 0..M {
                let at = left.wrapping_add(i * self.left.row + d * self.left.depth);
                // SAFETY: `multiply` has checked the last row and inner index of the left side.
                let factor = simd.splat_f32s(unsafe { *at });
                for v in 0..V {
                    sums[i][v] = simd.mul_add_e_f32s(factor, vectors[v], sums[i][v]);
                }
            }
        }
        let scale = simd.splat_f32s(self.scale);
        let result = self.result.wrapping_add(row * self.row + columns.start);
        for i in 0..M {
            for v in 0..V {
                let at = result.wrapping_add(i * self.row + v * S::F32_LANES);
                // SAFETY: `multiply` has checked the last row and column of the result, which it
                // borrows mutably for the whole multiplication.
                unsafe {
                    let value = if self.add {
                        simd.mul_add_e_f32s(sums[i][v], scale, load(simd, at, part))
                    } else {
                        simd.mul_f32s(sums[i][v], scale)
                    };
                    store(simd, at, part, value);
                }
            }
        }
    }
}

/// Loads a vector; if `part` is not zero, only its first `part` elements.
///
/// # Safety
/// That many elements can be read from `at` on.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "reads without a bounds check, for `Sides::block`"
)]
unsafe fn load<S: Simd>(simd: S, at: *const f32, part: usize) -> S::f32s {
    // SAFETY: the caller promises that the elements can be read, and any bit pattern is an f32.
    unsafe {
        if part == 0 {
            at.cast::<S::f32s>().read_unaligned()
        } else {
            simd.partial_load_f32s(std::slice::from_raw_parts(at, part))
        }
    }
}

/// Stores a vector; if `part` is not zero, only its first `part` elements.
///
/// # Safety
/// That many elements can be written from `at` on, and nothing else accesses them meanwhile.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "writes without a bounds check, for `Sides::block`"
)]
unsafe fn store<S: Simd>(simd: S, at: *mut f32, part: usize, value: S::f32s) {
    // SAFETY: the caller promises that the elements can be written and are not shared.
    unsafe {
        if part == 0 {
            at.cast::<S::f32s>().write_unaligned(value);
        } else {
            simd.partial_store_f32s(std::slice::from_raw_parts_mut(at, part), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::vectorised;
    use proptest::prelude::*;

    vectorised! {
        fn product(
            simd,
            shape: [usize; 3],
            left: &'a [f32],
            right: &'a [f32],
            result: &'a mut [f32],
            transposed: bool,
        ) {
            let [m, d, n] = shape;
            let [row, depth] = if transposed { [1, m] } else { [d, 1] };
            let left = Left { values: left, row, depth };
            let right = Right { values: right, depth: n };
            let output = Output { values: result, row: n, add: true };
            multiply(simd, shape, 0.5, left, right, output);
        }
    }

    proptest! {
        #[test]
        fn equals_the_sums(m in 1_usize..20, d in 0_usize..20, n in 1_usize..80, transposed: bool) {
            // small integers: every sum is exact in any order
            let left: Vec<f32> = (0..m * d).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
            let right: Vec<f32> = (0..d * n).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
            let mut result = vec![1.0; m * n];
            product([m, d, n], &left, &right, &mut result, transposed);
            for i in 0..m {
                for j in 0..n {
                    let factor = |k| if transposed { left[k * m + i] } else { left[i * d + k] };
                    let sum: f32 = (0..d).map(|k| factor(k) * right[k * n + j]).sum();
                    prop_assert_eq!(result[i * n + j].to_bits(), (1.0 + 0.5 * sum).to_bits());
                }
            }
        }
    }
}
