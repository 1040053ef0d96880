//! A weight in its stored dtype, or quantised.
//!
//! Axes: R rows and C columns, as stored; K inner dimension (summed over), N output features.

use half::{bf16, f16};
use simmer_blocks::Quantised;

use super::widen::widen_row;
use crate::rounding::{to_f32, widen_part};

/// Elements in their stored dtype.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    Quantised(Rows<'a>),
}

/// The rows of a quantised matrix from one on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) matrix: &'a Quantised,
    pub(crate) first: usize,
}

/// An element in a stored dtype.
pub(super) trait Number: Copy {
    /// The same value in f32.
    fn widen(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Number for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        to_f32(self)
    }
}

impl Number for f16 {
    /// Has no branch and no call, so that a loop over it is vectorised.
    #[inline(always)]
    fn widen(self) -> f32 {
        /// Difference of the exponents' biases, 127 - 15.
        const BIAS: u32 = 112 << 23;
        /// Smallest exponent of a normal f16; the digits of a subnormal one are added to it.
        const ONE: u32 = 113 << 23;
        let bits = u32::from(self.to_bits());
        let [sign, size] = [(bits & 0x8000) << 16, (bits & 0x7fff) << 13];
        let subnormal = f32::from_bits(size + ONE) - f32::from_bits(ONE);
        let size = if size < 0x400 << 13 {
            subnormal.to_bits()
        } else if size < 0x7c00 << 13 {
            size + BIAS
        } else {
            size + 2 * BIAS // infinity or NaN
        };
        f32::from_bits(sign | size)
    }
}

/// How a weight enters a matrix multiplication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// `x Wᵀ`: K is the number of columns, N the number of rows.
    Transposed,
    /// `x W`: K is the number of rows, N the number of columns.
    Plain,
}

/// A matrix `[R, C]` in row-major order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight<'a> {
    pub(crate) values: Values<'a>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) side: Side,
}

impl<'a> Weight<'a> {
    /// The rows `start..start + rows`.
    pub(crate) fn slab(&self, start: usize, rows: usize) -> Self {
        let range = start * self.columns..(start + rows) * self.columns;
        let values: Values<'a> = match self.values {
            Values::F32(values) => Values::F32(&values[range]),
            Values::Bf16(values) => Values::Bf16(&values[range]),
            Values::F16(values) => Values::F16(&values[range]),
            Values::Quantised(Rows { matrix, first }) => Values::Quantised(Rows {
                matrix,
                first: first + start,
            }),
        };
        Self {
            values,
            rows,
            ..*self
        }
    }

    /// The inner dimension and the output features: `[K, N]`.
    pub(crate) fn inner_outer(&self) -> [usize; 2] {
        match self.side {
            Side::Transposed => [self.columns, self.rows],
            Side::Plain => [self.rows, self.columns],
        }
    }
}

impl Weight<'_> {
    /// Its bytes, as stored.
    pub(crate) fn bytes(&self) -> usize {
        let elements = self.rows * self.columns;
        match self.values {
            Values::F32(_) => 4 * elements,
            Values::Bf16(_) | Values::F16(_) => 2 * elements,
            Values::Quantised(Rows { matrix, .. }) => {
                let [rows, _] = matrix.shape();
                matrix.bytes() / rows.max(1) * self.rows
            }
        }
    }
}

impl Values<'_> {
    /// One element in f32.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> f32 {
        match self {
            Self::F32(values) => values[index],
            Self::Bf16(values) => values[index].to_f32(),
            Self::F16(values) => values[index].to_f32(),
            Self::Quantised(_) => {
                let mut value = [0.0];
                self.widen_chunk(index, &mut value);
                value[0]
            }
        }
    }

    /// Fills `wide` with the elements from `start` on, in f32. Of a quantised matrix they are of one row.
    pub(crate) fn widen_chunk(&self, start: usize, wide: &mut [f32]) {
        use half::slice::HalfFloatSliceExt;
        let range = start..start + wide.len();
        match self {
            Self::F32(values) => wide.copy_from_slice(&values[range]),
            Self::Bf16(values) => widen_part(&values[range], wide),
            Self::F16(values) => values[range].convert_to_f32_slice(wide),
            Self::Quantised(Rows { matrix, first }) => {
                let [_, columns] = matrix.shape();
                widen_row(matrix, first + start / columns, start % columns, wide);
            }
        }
    }
}
