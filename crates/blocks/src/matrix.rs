//! A quantised matrix.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::four_bit::Pairs;
use crate::ggml::{BlockType, first_infinite, widen};
use crate::{BlocksError, FourBit, Fp8, Int8};

/// A matrix of quantised elements, in the bytes of its file.
#[derive(Clone)]
pub struct Quantised {
    shape: [usize; 2],
    codes: Bytes,
    form: Form,
    /// What the bytes of four-bit codes stand for.
    pairs: Option<Arc<Pairs>>,
    /// Features of a head, if the rows of each head are stored as pairs `(2i, 2i + 1)`; the rows of this
    /// matrix are halves `(i, i + half)`, as Hugging Face stores them.
    paired: Option<usize>,
}

/// How the codes of a matrix become numbers.
#[derive(Debug, Clone)]
pub enum Form {
    /// Rows of blocks that hold their own scales, as in GGUF files.
    Blocks(BlockType),
    /// Two codes a byte, with a scale for each block of the flattened matrix (nf4 and fp4 of bitsandbytes).
    FourBit(FourBit),
    /// A signed byte an element, with a scale for each row.
    Int8(Int8),
    /// Eight-bit floating point, with scales.
    Fp8(Fp8),
}

impl Quantised {
    /// A matrix from its parts.
    ///
    /// # Shapes
    /// `shape`: `[R, C]`.
    ///
    /// # Errors
    /// If the length of a part does not fit the shape, or a scale is not finite.
    pub fn new(shape: [usize; 2], codes: Bytes, form: Form) -> Result<Self, BlocksError> {
        let expected = form.code_bytes(shape)?;
        if codes.len() != expected {
            return Err(BlocksError::Length {
                part: "codes",
                shape,
                expected,
                found: codes.len(),
            });
        }
        form.check(shape)?;
        let pairs = match &form {
            Form::FourBit(four_bit) => Some(four_bit.pairs()),
            Form::Blocks(_) | Form::Int8(_) | Form::Fp8(_) => None,
        };
        Ok(Self {
            shape,
            codes,
            form,
            pairs,
            paired: None,
        })
    }

    /// The same codes, read as a matrix whose heads of `head_dim` rows are stored as pairs.
    #[must_use]
    pub fn paired(mut self, head_dim: usize) -> Self {
        self.paired = Some(head_dim);
        self
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The codes, as stored.
    pub fn codes(&self) -> &Bytes {
        &self.codes
    }

    /// How codes become numbers.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Features of a head, if the rows of each head are stored as pairs.
    pub fn head_of_pairs(&self) -> Option<usize> {
        self.paired
    }

    /// The name of the type, such as `nf4` or `Q4_K`.
    pub fn kind(&self) -> &'static str {
        self.form.name()
    }

    /// Bytes of codes and scales.
    pub fn bytes(&self) -> usize {
        self.codes.len() + self.form.scale_bytes()
    }

    /// The stored row that holds a row of the matrix.
    #[inline]
    pub fn stored_row(&self, row: usize) -> usize {
        match self.paired {
            None => row,
            Some(head) => paired_row(row, head),
        }
    }

    /// Checks the scales that are inside the codes, which [`new`](Self::new) does not read, since a file may be
    /// larger than memory.
    ///
    /// # Errors
    /// If a block has a scale that is NaN or infinite, or a code of fp8 is NaN.
    pub fn check_codes(&self) -> Result<(), BlocksError> {
        let [_, columns] = self.shape;
        let (index, of) = match &self.form {
            Form::Blocks(kind) => (first_infinite(*kind, &self.codes), kind.block_len()),
            Form::Fp8(_) => (self.codes.iter().position(|code| code & 0x7f == 0x7f), 1),
            Form::FourBit(_) | Form::Int8(_) => (None, 1),
        };
        match index {
            None => Ok(()),
            Some(index) => Err(BlocksError::Code {
                kind: self.kind(),
                row: index * of / columns,
                column: index * of % columns,
            }),
        }
    }

    /// Widens the columns from `start` on of a row, as many as `out` has.
    ///
    /// It is inlined, so that a caller that is compiled for vectors gets them here too.
    ///
    /// # Panics
    /// If there is no such row, or it has fewer columns.
    #[inline(always)]
    pub fn widen(&self, row: usize, start: usize, out: &mut [f32]) {
        let [rows, columns] = self.shape;
        assert!(
            row < rows && start + out.len() <= columns,
            "no such row or columns"
        );
        let row = self.stored_row(row);
        let codes = &self.codes[..];
        match &self.form {
            Form::FourBit(four_bit) => {
                if let Some(pairs) = &self.pairs {
                    four_bit.widen(pairs, codes, row * columns + start, out);
                }
            }
            Form::Blocks(kind) => {
                let width = kind.row_bytes(columns);
                widen(*kind, &codes[row * width..][..width], start, out);
            }
            Form::Int8(int8) => int8.widen(&codes[row * columns + start..], row, out),
            Form::Fp8(fp8) => fp8.widen(&codes[row * columns + start..], row, start, out),
        }
    }

    /// Some rows in f32.
    ///
    /// # Shapes
    /// Result: `[rows, C]`, row after row.
    pub fn rows(&self, rows: Range<usize>) -> Vec<f32> {
        let [_, columns] = self.shape;
        let mut out = vec![0.0; rows.len() * columns];
        if columns > 0 {
            for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
                self.widen(row, 0, out);
            }
        }
        out
    }
}

impl fmt::Debug for Quantised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Quantised")
            .field("shape", &self.shape)
            .field("kind", &self.kind())
            .field("paired", &self.paired)
            .finish_non_exhaustive()
    }
}

impl Form {
    /// The name of the type.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Blocks(kind) => kind.name(),
            Self::FourBit(four_bit) => four_bit.name(),
            Self::Int8(_) => "int8",
            Self::Fp8(_) => "fp8",
        }
    }

    fn code_bytes(&self, [rows, columns]: [usize; 2]) -> Result<usize, BlocksError> {
        match self {
            Self::Blocks(kind) if columns % kind.block_len() != 0 => Err(BlocksError::Rows {
                kind: kind.name(),
                columns,
                block: kind.block_len(),
            }),
            Self::Blocks(kind) => Ok(rows.saturating_mul(kind.row_bytes(columns))),
            Self::FourBit(_) => Ok(rows.saturating_mul(columns).div_ceil(2)),
            Self::Int8(_) | Self::Fp8(_) => Ok(rows.saturating_mul(columns)),
        }
    }

    fn check(&self, shape: [usize; 2]) -> Result<(), BlocksError> {
        match self {
            Self::Blocks(_) => Ok(()),
            Self::FourBit(four_bit) => four_bit.check(shape),
            Self::Int8(int8) => int8.check(shape),
            Self::Fp8(fp8) => fp8.check(shape),
        }
    }

    fn scale_bytes(&self) -> usize {
        match self {
            Self::Blocks(_) => 0,
            Self::FourBit(four_bit) => four_bit.scale_bytes(),
            Self::Int8(int8) => int8.scale_bytes(),
            Self::Fp8(fp8) => fp8.scale_bytes(),
        }
    }
}

/// The stored row of a row of a head, where the rows of each head are stored as pairs: row `i` of the first
/// half is the first row of pair `i`, and row `i` of the second half is the second.
///
/// Source: transformers, `convert_llama_weights_to_hf.py` (`permute`).
#[inline]
pub fn paired_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let half = head_dim / 2;
    head * head_dim + within % half * 2 + within / half
}
