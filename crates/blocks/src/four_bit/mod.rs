//! Four-bit codes with a table of 16 values: nf4 and fp4.
//!
//! `w = value(code) · absmax(block)`. Blocks are cut from the flattened matrix, so a block may continue in
//! the next row. The upper four bits of a byte are the first of its two elements; the last byte of an odd
//! number of elements is half used.
//!
//! Source: Dettmers et al. 2023 (QLoRA); bitsandbytes, `functional.py` (`quantize_4bit`).

mod encode;
mod nested;

use std::sync::Arc;

use bytes::Bytes;

pub(crate) use encode::FourBitEncoder;
pub(crate) use nested::absmax_bytes;
pub use nested::nested_values;

use crate::matrix_checks::{finite, length};
use crate::{BlocksError, Rounding};

/// The values of nf4.
#[expect(
    clippy::excessive_precision,
    clippy::unreadable_literal,
    reason = "as published"
)]
pub const NF4: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// The values of fp4: sign, two bits of exponent, one of mantissa, divided by the largest.
pub const FP4: [f32; 16] = [
    0.0,
    0.0625 / 12.0,
    8.0 / 12.0,
    1.0,
    4.0 / 12.0,
    6.0 / 12.0,
    2.0 / 12.0,
    3.0 / 12.0,
    0.0,
    -0.0625 / 12.0,
    -8.0 / 12.0,
    -1.0,
    -4.0 / 12.0,
    -6.0 / 12.0,
    -2.0 / 12.0,
    -3.0 / 12.0,
];

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

/// The two values of each byte of codes.
pub type Pairs = [[f32; 2]; 256];

impl Absmax {
    /// The scale of a block.
    #[inline(always)]
    fn of(&self, block_index: usize) -> f32 {
        let mut scale = [0.0];
        self.fill(block_index, &mut scale);
        scale[0]
    }

    /// The scales of blocks from one on, as many as `out` has.
    #[inline(always)]
    pub fn fill(&self, first: usize, out: &mut [f32]) {
        match self {
            Self::Plain(absmax) => out.copy_from_slice(&absmax[first..first + out.len()]),
            Self::Nested {
                codes,
                values,
                absmax,
                block,
                offset,
            } => {
                let codes = &codes[first..first + out.len()];
                let (mut outer, mut within) = (first / block, first % block);
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = values[usize::from(*code)] * absmax[outer] + offset;
                    within += 1;
                    if within == *block {
                        (outer, within) = (outer + 1, 0);
                    }
                }
            }
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

    /// The two values of each byte of codes.
    pub fn pairs(&self) -> Arc<Pairs> {
        let value = |code: usize| self.values[code];
        Arc::new(std::array::from_fn(|byte| {
            [value(byte >> 4), value(byte & 15)]
        }))
    }

    /// Widens elements of the flattened matrix from `start` on.
    #[inline(always)]
    pub(crate) fn widen(&self, pairs: &Pairs, codes: &[u8], start: usize, out: &mut [f32]) {
        let mut index = start;
        let mut block = start / self.block;
        let mut within = self.block - start % self.block;
        let mut rest = &mut *out;
        while !rest.is_empty() {
            let (part, after) = rest.split_at_mut(within.min(rest.len()));
            let absmax = self.absmax.of(block);
            scaled(pairs, codes, index, absmax, part);
            index += within;
            block += 1;
            within = self.block;
            rest = after;
        }
        self.rounding.round(out);
    }

    pub(crate) fn check(&self, shape: [usize; 2]) -> Result<(), BlocksError> {
        check_block(self.name, self.block)?;
        let blocks = (shape[0] * shape[1]).div_ceil(self.block);
        length("absmax", shape, blocks, self.absmax.len())?;
        finite("quant_map", &self.values)?;
        match &self.absmax {
            Absmax::Plain(absmax) => finite("absmax", absmax),
            Absmax::Nested {
                values,
                absmax,
                block,
                offset,
                ..
            } => {
                if *block == 0 {
                    return Err(BlocksError::Block {
                        part: "nested_absmax",
                        expected: "one or more",
                        found: 0,
                    });
                }
                length("nested_quant_map", shape, 256, values.len())?;
                length(
                    "nested_absmax",
                    shape,
                    blocks.div_ceil(*block),
                    absmax.len(),
                )?;
                finite("nested_quant_map", values)?;
                finite("nested_absmax", absmax)?;
                finite("nested_offset", &[*offset])
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

/// Checks the length of a block.
pub(crate) fn check_block(name: &'static str, block: usize) -> Result<(), BlocksError> {
    if block.is_power_of_two() && (32..=4096).contains(&block) {
        return Ok(());
    }
    Err(BlocksError::Block {
        part: name,
        expected: "32, 64, 128, 256, 512, 1024, 2048 or 4096",
        found: block,
    })
}

/// Widens elements of one block.
#[inline(always)]
fn scaled(pairs: &Pairs, codes: &[u8], start: usize, absmax: f32, out: &mut [f32]) {
    let (head, rest) = out.split_at_mut(start % 2);
    let codes = &codes[start / 2..];
    if let [head] = head {
        *head = pairs[usize::from(codes[0])][1] * absmax;
    }
    let codes = &codes[start % 2..];
    let (whole, tail) = rest.as_chunks_mut::<2>();
    let (codes, last) = codes.split_at(whole.len());
    for (out, &code) in whole.iter_mut().zip(codes) {
        let [first, second] = pairs[usize::from(code)];
        *out = [first * absmax, second * absmax];
    }
    if let [tail] = tail {
        *tail = pairs[usize::from(last[0])][0] * absmax;
    }
}
