//! Four-bit codes with a table of 16 values: nf4 and fp4.
//!
//! `w = value(code) · absmax(block)`. Blocks are cut from the flattened matrix, so a block may continue in
//! the next row. The upper four bits of a byte are the first of its two elements.
//!
//! Source: Dettmers et al. 2023 (QLoRA); bitsandbytes, `functional.py` (`quantize_4bit`).

use std::sync::Arc;

use bytes::Bytes;

use crate::matrix_checks::{finite, length};
use crate::{BlocksError, Rounding};

/// The table and the scales of a matrix in four bits.
#[derive(Debug, Clone)]
pub struct FourBit {
    /// `nf4` or `fp4`.
    pub name: &'static str,
    /// The value of each code.
    pub values: [f32; 16],
    /// Elements of a block.
    pub block: usize,
    /// The scale of each block.
    pub absmax: Absmax,
    /// The dtype that widened values are rounded to.
    pub rounding: Rounding,
}

/// The largest absolute value of each block.
#[derive(Debug, Clone)]
pub enum Absmax {
    /// In f32.
    Plain(Arc<[f32]>),
    /// Quantised once more (double quantisation): `values[code] · absmax(block of codes) + offset`.
    Nested {
        /// A code for each block.
        codes: Bytes,
        /// The value of each code, `[256]`.
        values: Arc<[f32]>,
        /// The scale of each block of codes.
        absmax: Arc<[f32]>,
        /// Codes of a block.
        block: usize,
        /// The mean of the scales, which was subtracted.
        offset: f32,
    },
}

impl Absmax {
    /// The scale of a block.
    #[inline(always)]
    pub fn of(&self, block_index: usize) -> f32 {
        match self {
            Self::Plain(absmax) => absmax[block_index],
            Self::Nested {
                codes,
                values,
                absmax,
                block,
                offset,
            } => values[usize::from(codes[block_index])] * absmax[block_index / block] + offset,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Plain(absmax) => absmax.len(),
            Self::Nested { codes, .. } => codes.len(),
        }
    }
}

impl FourBit {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Widens elements of the flattened matrix from `start` on.
    #[inline(always)]
    pub(crate) fn widen(&self, codes: &[u8], start: usize, out: &mut [f32]) {
        let mut index = start;
        let mut rest = &mut *out;
        while !rest.is_empty() {
            let within = (self.block - index % self.block).min(rest.len());
            let (part, after) = rest.split_at_mut(within);
            let absmax = self.absmax.of(index / self.block);
            for (out, index) in part.iter_mut().zip(index..) {
                let byte = codes[index / 2];
                let code = if index % 2 == 0 { byte >> 4 } else { byte & 15 };
                *out = self.values[usize::from(code)] * absmax;
            }
            index += within;
            rest = after;
        }
        self.rounding.round(out);
    }

    pub(crate) fn check(&self, shape: [usize; 2]) -> Result<(), BlocksError> {
        let blocks = (shape[0] * shape[1]).div_ceil(self.block);
        length("absmax", shape, blocks, self.absmax.len())?;
        match &self.absmax {
            Absmax::Plain(absmax) => finite("absmax", absmax),
            Absmax::Nested {
                values,
                absmax,
                block,
                ..
            } => {
                length("nested_quant_map", shape, 256, values.len())?;
                length(
                    "nested_absmax",
                    shape,
                    blocks.div_ceil(*block),
                    absmax.len(),
                )?;
                finite("nested_quant_map", values)?;
                finite("nested_absmax", absmax)
            }
        }
    }

    pub(crate) fn scale_bytes(&self) -> usize {
        match &self.absmax {
            Absmax::Plain(absmax) => size_of_val(&**absmax),
            Absmax::Nested {
                codes,
                values,
                absmax,
                ..
            } => codes.len() + size_of_val(&**values) + size_of_val(&**absmax),
        }
    }
}
