//! Eight-bit floating point, e4m3 without infinities: sign, four bits of exponent, three of mantissa.
//!
//! `w = value(code) · scale`, with a scale for the whole matrix, a row, or a block of rows and columns.
//!
//! Source: Micikevicius et al. 2022 (FP8 Formats for Deep Learning).

use std::sync::Arc;

use crate::BlocksError;
use crate::matrix_checks::{finite, length};

/// Scales of a matrix in fp8.
#[derive(Debug, Clone)]
pub struct Fp8 {
    /// The scales.
    pub scales: Fp8Scales,
}

/// What shares a scale.
#[derive(Debug, Clone)]
pub enum Fp8Scales {
    /// The whole matrix.
    Matrix(f32),
    /// A row, `[R]`.
    Rows(Arc<[f32]>),
    /// A block, `[R / size[0], C / size[1]]`, both rounded up.
    Blocks {
        /// Rows and columns of a block.
        size: [usize; 2],
        /// Blocks of columns.
        columns: usize,
        /// Row after row.
        scales: Arc<[f32]>,
    },
}

/// The value of a code; NaN for the two codes without a number.
#[inline(always)]
pub fn e4m3(code: u8) -> f32 {
    let [sign, size] = [u32::from(code & 0x80) << 24, u32::from(code & 0x7f)];
    // the exponent's bias is 7, that of an f32 is 127; processors are slow with subnormal f32
    let normal = (size << 20) + ((127 - 7) << 23);
    let subnormal = (size as f32 * f32::from_bits((127 - 9) << 23)).to_bits();
    let value = if size < 0x08 { subnormal } else { normal };
    let nan = if size == 0x7f { 0x7fc0_0000 } else { 0 };
    f32::from_bits(sign | value | nan)
}

impl Fp8 {
    /// Widens codes of a stored row from a column on.
    #[inline(always)]
    pub(crate) fn widen(&self, codes: &[u8], row: usize, start: usize, out: &mut [f32]) {
        for (out, code) in out.iter_mut().zip(codes) {
            *out = e4m3(*code);
        }
        match &self.scales {
            Fp8Scales::Matrix(scale) => scaled(out, *scale),
            Fp8Scales::Rows(scales) => scaled(out, scales[row]),
            Fp8Scales::Blocks {
                size,
                columns,
                scales,
            } => {
                let scales = &scales[row / size[0] * columns..];
                let mut column = start;
                let mut rest = out;
                while !rest.is_empty() {
                    let within = (size[1] - column % size[1]).min(rest.len());
                    let (part, after) = rest.split_at_mut(within);
                    scaled(part, scales[column / size[1]]);
                    column += within;
                    rest = after;
                }
            }
        }
    }

    pub(crate) fn check(&self, shape: [usize; 2]) -> Result<(), BlocksError> {
        const PART: &str = "scales";
        match &self.scales {
            Fp8Scales::Matrix(scale) => finite(PART, &[*scale]),
            Fp8Scales::Rows(scales) => {
                length(PART, shape, shape[0], scales.len())?;
                finite(PART, scales)
            }
            Fp8Scales::Blocks {
                size,
                columns,
                scales,
            } => {
                if size.contains(&0) {
                    return Err(BlocksError::Block {
                        part: "fp8",
                        expected: "one or more in both directions",
                        found: 0,
                    });
                }
                length(PART, shape, shape[1].div_ceil(size[1]), *columns)?;
                length(
                    PART,
                    shape,
                    shape[0].div_ceil(size[0]) * columns,
                    scales.len(),
                )?;
                finite(PART, scales)
            }
        }
    }

    pub(crate) fn scale_bytes(&self) -> usize {
        match &self.scales {
            Fp8Scales::Matrix(_) => size_of::<f32>(),
            Fp8Scales::Rows(scales) | Fp8Scales::Blocks { scales, .. } => size_of_val(&**scales),
        }
    }
}

#[inline(always)]
fn scaled(values: &mut [f32], scale: f32) {
    for value in values {
        *value *= scale;
    }
}
