//! Where the scales of a quantised matrix are stored.

use std::sync::Arc;

use simmer_blocks::{Absmax, BlocksError, Form, FourBit, Fp8, Fp8Scales, Int8, Rounding};

use crate::TensorInfo;
use crate::mapped::Mapped;
use crate::numbers;
use crate::stored::Piece;

/// Scales, and the tensors of the files that hold them.
#[derive(Debug, Clone)]
pub(crate) enum Scales {
    /// nf4 and fp4 of bitsandbytes.
    FourBit {
        /// `nf4` or `fp4`.
        name: &'static str,
        /// Elements of a block.
        block: usize,
        /// The dtype that was quantised.
        rounding: Rounding,
        /// The value of each code.
        values: Numbers,
        /// The scale of each block.
        absmax: StoredAbsmax,
    },
    /// int8 of bitsandbytes: the largest absolute value of each row.
    Int8(Numbers),
    /// fp8.
    Fp8(Numbers, Shared),
}

/// The scales of blocks of four-bit codes.
#[derive(Debug, Clone)]
pub(crate) enum StoredAbsmax {
    Plain(Numbers),
    /// Double quantisation.
    Nested {
        codes: Piece,
        values: Numbers,
        absmax: Numbers,
        block: usize,
        offset: f32,
    },
}

/// What shares a scale of fp8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    Matrix,
    Rows,
    /// A block of these rows and columns.
    Blocks([usize; 2]),
}

/// A tensor of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    pub(crate) piece: Piece,
    pub(crate) info: TensorInfo,
}

impl Numbers {
    fn read(&self, files: &[Mapped]) -> Arc<[f32]> {
        let bytes = &files[self.piece.file][self.piece.range.clone()];
        numbers::floats(bytes, self.info.dtype).into()
    }

    /// Bytes of what [`Self::read`] returns.
    fn bytes(&self) -> usize {
        self.info.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

impl Scales {
    /// The name of the type.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::FourBit { name, .. } => name,
            Self::Int8(_) => "int8",
            Self::Fp8(..) => "fp8",
        }
    }

    /// The parts of the files that hold them.
    pub(crate) fn pieces(&self) -> Vec<&Piece> {
        match self {
            Self::FourBit { values, absmax, .. } => {
                let mut pieces = vec![&values.piece];
                match absmax {
                    StoredAbsmax::Plain(absmax) => pieces.push(&absmax.piece),
                    StoredAbsmax::Nested {
                        codes,
                        values,
                        absmax,
                        ..
                    } => pieces.extend([codes, &values.piece, &absmax.piece]),
                }
                pieces
            }
            Self::Int8(numbers) | Self::Fp8(numbers, _) => vec![&numbers.piece],
        }
    }

    /// Bytes that they take in memory, where those of a tensor of numbers are in f32. Reads none of them.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::FourBit {
                absmax: StoredAbsmax::Plain(absmax),
                ..
            } => absmax.bytes(),
            Self::FourBit {
                absmax:
                    StoredAbsmax::Nested {
                        codes,
                        values,
                        absmax,
                        ..
                    },
                ..
            } => codes.range.len() + values.bytes() + absmax.bytes(),
            Self::Int8(numbers) | Self::Fp8(numbers, _) => numbers.bytes(),
        };
        bytes as u64
    }

    /// Reads them.
    ///
    /// # Errors
    /// If there are too few of them.
    pub(crate) fn form(
        &self,
        files: &[Mapped],
        [rows, columns]: [usize; 2],
    ) -> Result<Form, BlocksError> {
        Ok(match self {
            Self::FourBit {
                name,
                block,
                rounding,
                values,
                absmax,
            } => {
                let values = values.read(files);
                let mut values =
                    <[f32; 16]>::try_from(&*values).map_err(|_| BlocksError::Length {
                        part: "quant_map",
                        shape: [rows, columns],
                        expected: 16,
                        found: values.len(),
                    })?;
                // bitsandbytes widens fp4 by its bits: the zero with a sign keeps it
                if *name == "fp4" && values[8] == 0.0 {
                    values[8] = -0.0;
                }
                Form::FourBit(FourBit {
                    name,
                    values,
                    block: *block,
                    absmax: absmax.read(files),
                    rounding: *rounding,
                })
            }
            Self::Int8(numbers) => Form::Int8(Int8 {
                row_max: numbers.read(files),
            }),
            Self::Fp8(numbers, shared) => {
                let scales = numbers.read(files);
                Form::Fp8(Fp8 {
                    scales: match shared {
                        Shared::Matrix => {
                            // `fp8::join` checked that there is one
                            Fp8Scales::Matrix(scales.first().copied().unwrap_or(f32::NAN))
                        }
                        Shared::Rows => Fp8Scales::Rows(scales),
                        Shared::Blocks(size) => Fp8Scales::Blocks {
                            size: *size,
                            columns: columns.div_ceil(size[1]),
                            scales,
                        },
                    },
                })
            }
        })
    }
}

impl StoredAbsmax {
    fn read(&self, files: &[Mapped]) -> Absmax {
        match self {
            Self::Plain(absmax) => Absmax::Plain(absmax.read(files)),
            Self::Nested {
                codes,
                values,
                absmax,
                block,
                offset,
            } => Absmax::Nested {
                codes: files[codes.file].bytes(codes.range.clone()),
                values: values.read(files),
                absmax: absmax.read(files),
                block: *block,
                offset: *offset,
            },
        }
    }
}
