//! Quantisation of a matrix.

use bytes::Bytes;
use pulp::Arch;
use rayon::prelude::*;

use crate::four_bit::{FourBitEncoder, absmax_bytes};
use crate::ggml::{BlockType, encode, first_not_finite};
use crate::int8::encode_row;
use crate::{BlocksError, FP4, Form, Int8, NF4, Quantised, Rounding};

/// How a matrix is to be quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// To a type of ggml.
    Blocks(BlockType),
    /// To nf4 or fp4 of bitsandbytes.
    FourBit {
        /// The values.
        kind: FourBitKind,
        /// Elements of a block.
        block: usize,
        /// Whether the scales of the blocks are quantised once more (double quantisation).
        nested: bool,
        /// The dtype of the matrix, which widened values are rounded to.
        rounding: Rounding,
    },
    /// To int8 with a scale for each row.
    Int8,
}

/// The values of four-bit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FourBitKind {
    /// Quantiles of the normal distribution.
    Nf4,
    /// Floating point.
    Fp4,
}

impl FourBitKind {
    /// `nf4` or `fp4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nf4 => "nf4",
            Self::Fp4 => "fp4",
        }
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Nf4, Self::Fp4]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// The value of each code.
    pub fn values(self) -> [f32; 16] {
        match self {
            Self::Nf4 => NF4,
            Self::Fp4 => FP4,
        }
    }
}

impl Encoding {
    /// The name of the type, such as `nf4` or `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocks(kind) => kind.name(),
            Self::FourBit { kind, .. } => kind.name(),
            Self::Int8 => "int8",
        }
    }

    /// Bytes of codes and scales of a matrix.
    ///
    /// # Shapes
    /// `shape`: `[R, C]`, with rows of whole blocks for the types of ggml.
    pub fn bytes(self, [rows, columns]: [usize; 2]) -> usize {
        let elements = rows * columns;
        match self {
            Self::Blocks(kind) => rows * kind.row_bytes(columns),
            Self::FourBit { block, nested, .. } => {
                let blocks = elements.div_ceil(block);
                elements.div_ceil(2) + absmax_bytes(blocks, nested)
            }
            Self::Int8 => elements + rows * size_of::<f32>(),
        }
    }
}

/// Quantises a matrix whose rows come in parts, so that they need not be in memory at once in f32.
///
/// Each part is quantised on all threads of rayon's pool; parts of a megabyte or more keep them busy.
#[derive(Debug)]
pub struct Encoder {
    encoding: Encoding,
    shape: [usize; 2],
    /// Elements so far.
    elements: usize,
    codes: Codes,
}

#[derive(Debug)]
enum Codes {
    Blocks(BlockType, Vec<u8>),
    FourBit(Box<FourBitEncoder>),
    Int8(Vec<u8>, Vec<f32>),
}

impl Encoder {
    /// An encoder of a matrix.
    ///
    /// # Shapes
    /// `shape`: `[R, C]`.
    ///
    /// # Errors
    /// If rows cannot be cut into blocks of the type, or there are no blocks of the length.
    pub fn new(encoding: Encoding, shape: [usize; 2]) -> Result<Self, BlocksError> {
        let [rows, columns] = shape;
        let codes = match encoding {
            Encoding::Blocks(kind) if columns % kind.block_len() != 0 => {
                return Err(BlocksError::Rows {
                    kind: kind.name(),
                    columns,
                    block: kind.block_len(),
                });
            }
            Encoding::Blocks(kind) => {
                Codes::Blocks(kind, Vec::with_capacity(rows * kind.row_bytes(columns)))
            }
            Encoding::FourBit {
                kind,
                block,
                nested,
                rounding,
            } => {
                crate::four_bit::check_block(kind.name(), block)?;
                let elements = rows * columns;
                let encoder = FourBitEncoder::new(kind, block, nested, rounding, elements);
                Codes::FourBit(Box::new(encoder))
            }
            Encoding::Int8 => {
                Codes::Int8(Vec::with_capacity(rows * columns), Vec::with_capacity(rows))
            }
        };
        Ok(Self {
            encoding,
            shape,
            elements: 0,
            codes,
        })
    }

    /// Quantises the next rows.
    ///
    /// # Errors
    /// If the elements are not whole rows, there are more than the matrix has, or one is not finite or larger
    /// than the type can hold. The encoder is then of no further use.
    pub fn rows(&mut self, values: &[f32]) -> Result<(), BlocksError> {
        let [rows, columns] = self.shape;
        let after = self.elements + values.len();
        if after > rows * columns || (columns > 0 && !values.len().is_multiple_of(columns)) {
            return Err(self.wrong_length(after));
        }
        let unfit = |index: usize| BlocksError::Element {
            kind: self.encoding.name(),
            index: self.elements + index,
            value: values[index],
        };
        if let Some(index) = first_not_finite(values) {
            return Err(unfit(index));
        }
        match &mut self.codes {
            Codes::Blocks(kind, codes) => {
                let before = codes.len();
                codes.resize(before + kind.row_bytes(values.len()), 0);
                encode(*kind, values, &mut codes[before..]).map_err(|error| match error {
                    BlocksError::Element { index, .. } => unfit(index),
                    other => other,
                })?;
            }
            Codes::FourBit(encoder) => encoder.push(values),
            Codes::Int8(codes, row_max) => int8_rows(values, columns, codes, row_max),
        }
        self.elements = after;
        Ok(())
    }

    /// The quantised matrix.
    ///
    /// # Errors
    /// If rows are missing.
    pub fn finish(self) -> Result<Quantised, BlocksError> {
        let [rows, columns] = self.shape;
        if self.elements != rows * columns {
            return Err(self.wrong_length(self.elements));
        }
        let (codes, form): (Bytes, _) = match self.codes {
            Codes::Blocks(kind, codes) => (codes.into(), Form::Blocks(kind)),
            Codes::FourBit(encoder) => {
                let (four_bit, codes) = encoder.finish();
                (codes, Form::FourBit(four_bit))
            }
            Codes::Int8(codes, row_max) => {
                let row_max = row_max.into();
                (codes.into(), Form::Int8(Int8 { row_max }))
            }
        };
        Quantised::new(self.shape, codes, form)
    }

    fn wrong_length(&self, found: usize) -> BlocksError {
        let [rows, columns] = self.shape;
        BlocksError::Length {
            part: "elements",
            shape: self.shape,
            expected: rows * columns,
            found,
        }
    }
}

impl Quantised {
    /// Quantises a matrix.
    ///
    /// # Shapes
    /// `values`: `[R, C]`, row after row.
    ///
    /// # Errors
    /// As [`Encoder`].
    pub fn encode(
        encoding: Encoding,
        shape: [usize; 2],
        values: &[f32],
    ) -> Result<Self, BlocksError> {
        let mut encoder = Encoder::new(encoding, shape)?;
        encoder.rows(values)?;
        encoder.finish()
    }
}

fn int8_rows(values: &[f32], columns: usize, codes: &mut Vec<u8>, row_max: &mut Vec<f32>) {
    if columns == 0 {
        return;
    }
    let (codes_before, rows_before) = (codes.len(), row_max.len());
    codes.resize(codes_before + values.len(), 0);
    row_max.resize(rows_before + values.len() / columns, 0.0);
    let arch = Arch::new();
    values
        .par_chunks_exact(columns)
        .zip(codes[codes_before..].par_chunks_exact_mut(columns))
        .zip(&mut row_max[rows_before..])
        .for_each(|((row, codes), max)| {
            *max = arch.dispatch(
                #[inline(always)]
                || encode_row(row, codes),
            );
        });
}
