//! A weight as it lies in memory.
//!
//! Axes: R rows, C columns, as stored.

use half::{bf16, f16};

use crate::simd::vectorised;

/// Numbers in their stored precision.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

/// A number in a stored precision.
pub(super) trait Number: Copy {
    /// The same number in f32.
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
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Number for f16 {
    /// Without a branch or a call, so that a loop over it becomes vector instructions.
    #[inline(always)]
    fn widen(self) -> f32 {
        /// What the exponents' biases differ by, 127 - 15.
        const BIAS: u32 = 112 << 23;
        /// An exponent of one, to which subnormal digits are added.
        const ONE: u32 = 113 << 23;
        let bits = u32::from(self.to_bits());
        let [sign, size] = [(bits & 0x8000) << 16, (bits & 0x7fff) << 13];
        let subnormal = f32::from_bits(size + ONE) - f32::from_bits(ONE);
        let size = if size < 0x400 << 13 {
            subnormal.to_bits()
        } else if size < 0x7c00 << 13 {
            size + BIAS
        } else {
            size + 2 * BIAS // infinity, or not a number
        };
        f32::from_bits(sign | size)
    }
}

/// Which product a weight enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// `x Wᵀ`: K is the columns, N the rows.
    Transposed,
    /// `x W`: K is the rows, N the columns.
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
    /// Some of its rows.
    pub(crate) fn slab(&self, start: usize, rows: usize) -> Self {
        let range = start * self.columns..(start + rows) * self.columns;
        let values: Values<'a> = match self.values {
            Values::F32(values) => Values::F32(&values[range]),
            Values::Bf16(values) => Values::Bf16(&values[range]),
            Values::F16(values) => Values::F16(&values[range]),
        };
        Self {
            values,
            rows,
            ..*self
        }
    }

    /// Summed and resulting features: `[K, N]`.
    pub(crate) fn inner_outer(&self) -> [usize; 2] {
        match self.side {
            Side::Transposed => [self.columns, self.rows],
            Side::Plain => [self.rows, self.columns],
        }
    }
}

impl Values<'_> {
    /// Bytes of one number.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::F32(_) => 4,
            Self::Bf16(_) | Self::F16(_) => 2,
        }
    }

    /// One number.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> f32 {
        match self {
            Self::F32(values) => values[index],
            Self::Bf16(values) => values[index].to_f32(),
            Self::F16(values) => values[index].to_f32(),
        }
    }

    /// Numbers from `start` on, in f32.
    pub(crate) fn widen_chunk(&self, start: usize, wide: &mut [f32]) {
        use half::slice::HalfFloatSliceExt;
        let range = start..start + wide.len();
        match self {
            Self::F32(values) => wide.copy_from_slice(&values[range]),
            Self::Bf16(values) => widen_bf16(&values[range], wide),
            Self::F16(values) => values[range].convert_to_f32_slice(wide),
        }
    }
}

vectorised! {
    fn widen_bf16(_simd, values: &'a [bf16], wide: &'a mut [f32]) {
        for (wide, value) in wide.iter_mut().zip(values) {
            *wide = value.widen();
        }
    }
}
