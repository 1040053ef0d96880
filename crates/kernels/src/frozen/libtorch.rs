//! Frozen weights in tensors of libtorch. A quantised one is widened by ATen's operations, some rows at a time, so that their
//! intermediate tensors stay small.
//!
//! Axes: R rows, C columns, n blocks or groups, b bytes of a block.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::tensor::{DType, TensorData};
use simmer_blocks::ggml::BlockType;
use simmer_blocks::{Absmax, Form, Fp8Scales, Quantised, Rounding, paired_row};
use tch::{Device, Kind, Tensor};

use std::sync::Arc;

use super::fp8::Fp8Weight;
use super::{FrozenForms, StoredWeight};
use crate::libtorch::{bytes, bytes_on, fill, fresh, in_kind, uploaded};

mod ggml;

/// Elements that are widened at a time.
const TOGETHER: usize = 16 << 20;

/// A frozen weight in tensors of libtorch.
pub(crate) enum TorchWeight {
    /// `[R, C]`, f32, bf16 or f16.
    Dense(TchTensor),
    Quantised(Matrix),
    /// For products in fp8.
    Fp8(Arc<Fp8Weight>),
}

impl TorchWeight {
    /// The same weight with each of its tensors replaced, by a copy on another device for instance.
    pub(super) fn with_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(fresh(f(&weight.tensor))),
            Self::Quantised(matrix) => Self::Quantised(matrix.with_tensors(f)),
            Self::Fp8(weight) => Self::Fp8(Arc::new(weight.with_tensors(f))),
        }
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => {
                let size = weight.tensor.size();
                [size[0] as usize, size[1] as usize]
            }
            Self::Quantised(matrix) => matrix.shape,
            Self::Fp8(weight) => weight.shape(),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Dense(weight) => match weight.tensor.kind() {
                Kind::BFloat16 => "bf16",
                Kind::Half => "f16",
                _ => "f32",
            },
            Self::Quantised(matrix) => matrix.kind,
            Self::Fp8(_) => "fp8",
        }
    }

    /// Bytes that a product reads.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Dense(weight) => bytes(&[&weight.tensor]),
            Self::Quantised(matrix) => matrix.bytes,
            Self::Fp8(weight) => weight.bytes(),
        }
    }

    /// All elements in a dtype.
    ///
    /// # Shapes
    /// Result: `[R, C]`.
    pub(super) fn widened(&self, kind: Kind) -> Tensor {
        match self {
            Self::Dense(weight) => in_kind(&weight.tensor, kind),
            Self::Quantised(matrix) => matrix.widened(kind),
            Self::Fp8(weight) => weight.widened(kind),
        }
    }

    /// Some rows in f32.
    ///
    /// # Shapes
    /// `ids`: `[T]`, i64. Result: `[T, C]`.
    pub(super) fn rows(&self, ids: &Tensor) -> Tensor {
        match self {
            Self::Dense(weight) => weight.tensor.index_select(0, ids).to_kind(Kind::Float),
            Self::Quantised(matrix) => matrix.rows(ids),
            Self::Fp8(weight) => weight.rows(ids),
        }
    }
}

/// A quantised matrix in tensors of libtorch.
pub(crate) struct Matrix {
    shape: [usize; 2],
    kind: &'static str,
    bytes: usize,
    /// Bytes, `[rows, bytes of a row]`, or one list where rows are not whole bytes.
    codes: TchTensor,
    form: TorchForm,
    /// The stored row of each row, `[R]`, if they differ.
    order: Option<TchTensor>,
}

enum TorchForm {
    Blocks(BlockType),
    FourBit {
        /// The values of the two codes of a byte, `[256, 2]`.
        table: TchTensor,
        /// The scale of each block, f32.
        absmax: Scales,
        block: usize,
        rounding: Rounding,
    },
    /// Signed bytes; the largest absolute value of each row, `[R, 1]`.
    Int8(TchTensor),
    /// The value of each code, `[256]`, and the scales.
    Fp8 {
        table: TchTensor,
        scales: Fp8Torch,
    },
}

enum Scales {
    Plain(TchTensor),
    Nested {
        codes: TchTensor,
        /// `[256]`
        values: TchTensor,
        absmax: TchTensor,
        block: usize,
        offset: f32,
    },
}

enum Fp8Torch {
    Matrix(f32),
    /// `[R, 1]`
    Rows(TchTensor),
    /// `[R / size, C / size]`
    Blocks {
        size: [usize; 2],
        scales: TchTensor,
    },
}

impl Matrix {
    /// Copies a matrix to a device.
    pub(super) fn on(device: Device, matrix: &Quantised) -> Self {
        let place = |tensor: Tensor| fresh(uploaded(&tensor, device));
        let floats = |values: &[f32]| place(Tensor::from_slice(values));
        let [rows, columns] = matrix.shape();
        let codes = bytes_on(&matrix.codes()[..], device);
        let form = match matrix.form() {
            Form::Blocks(kind) => TorchForm::Blocks(*kind),
            Form::FourBit(four_bit) => {
                let absmax = match &four_bit.absmax {
                    Absmax::Plain(absmax) => Scales::Plain(floats(absmax)),
                    Absmax::Nested {
                        codes,
                        values,
                        absmax,
                        block,
                        offset,
                    } => Scales::Nested {
                        codes: fresh(bytes_on(&codes[..], device)),
                        values: floats(values),
                        absmax: floats(absmax),
                        block: *block,
                        offset: *offset,
                    },
                };
                TorchForm::FourBit {
                    table: place(
                        Tensor::from_slice(four_bit.pairs().as_flattened()).view([256, 2]),
                    ),
                    absmax,
                    block: four_bit.block,
                    rounding: four_bit.rounding,
                }
            }
            Form::Int8(int8) => {
                TorchForm::Int8(place(Tensor::from_slice(&int8.row_max).view([-1, 1])))
            }
            Form::Fp8(fp8) => TorchForm::Fp8 {
                table: floats(&std::array::from_fn::<f32, 256, _>(|code| {
                    simmer_blocks::e4m3(code as u8)
                })),
                scales: match &fp8.scales {
                    Fp8Scales::Matrix(scale) => Fp8Torch::Matrix(*scale),
                    Fp8Scales::Rows(scales) => {
                        Fp8Torch::Rows(place(Tensor::from_slice(scales).view([-1, 1])))
                    }
                    Fp8Scales::Blocks {
                        size,
                        columns,
                        scales,
                    } => Fp8Torch::Blocks {
                        size: *size,
                        scales: place(Tensor::from_slice(scales).view([-1, *columns as i64])),
                    },
                },
            },
        };
        let by_rows =
            rows > 0 && matrix.codes().len().is_multiple_of(rows) && !four_bit_across(matrix);
        let codes = if by_rows {
            codes.view([rows as i64, -1])
        } else {
            codes
        };
        let order = matrix.head_of_pairs().map(|head| {
            let order: Vec<i64> = (0..rows).map(|row| paired_row(row, head) as i64).collect();
            place(Tensor::from_slice(&order))
        });
        Self {
            shape: [rows, columns],
            kind: matrix.kind(),
            bytes: matrix.bytes(),
            codes: fresh(codes),
            form,
            order,
        }
    }

    fn with_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        let f = &mut |x: &TchTensor| fresh(f(&x.tensor));
        Self {
            codes: f(&self.codes),
            form: self.form.with_tensors(f),
            order: self.order.as_ref().map(&mut *f),
            ..*self
        }
    }

    /// All elements in a dtype.
    ///
    /// # Shapes
    /// Result: `[R, C]`.
    pub(super) fn widened(&self, kind: Kind) -> Tensor {
        let [rows, columns] = self.shape;
        let options = (kind, self.codes.tensor.device());
        if self.codes.tensor.dim() == 1 {
            let all = self.flat().view([rows as i64, columns as i64]);
            return self.ordered(all).to_kind(kind);
        }
        let wide = Tensor::empty([rows as i64, columns as i64], options);
        let together = (TOGETHER / columns.max(1)).max(1);
        for start in (0..rows).step_by(together) {
            let count = together.min(rows - start) as i64;
            let start = start as i64;
            let ids = Tensor::arange_start(start, start + count, (Kind::Int64, options.1));
            wide.narrow(0, start, count).copy_(&self.rows(&ids));
        }
        wide
    }

    fn ordered(&self, stored: Tensor) -> Tensor {
        match &self.order {
            None => stored,
            Some(order) => stored.index_select(0, &order.tensor),
        }
    }

    /// Some rows in f32.
    ///
    /// # Shapes
    /// `ids`: `[T]`, i64. Result: `[T, C]`.
    fn rows(&self, ids: &Tensor) -> Tensor {
        if self.codes.tensor.dim() == 1 {
            let [rows, columns] = self.shape;
            let all = self.flat().view([rows as i64, columns as i64]);
            return self.ordered(all).index_select(0, ids);
        }
        let stored = match &self.order {
            None => ids.shallow_clone(),
            Some(order) => order.tensor.index_select(0, ids),
        };
        let codes = self.codes.tensor.index_select(0, &stored); // [T, bytes of a row]
        let columns = self.shape[1] as i64;
        let count = ids.size()[0];
        match &self.form {
            TorchForm::Blocks(kind) => {
                let blocks = codes.view([-1, kind.block_bytes() as i64]);
                ggml::widened(*kind, &blocks).view([count, columns])
            }
            TorchForm::FourBit {
                table,
                absmax,
                block,
                rounding,
            } => {
                let blocks_of_row = columns / *block as i64;
                let within = Tensor::arange(blocks_of_row, (Kind::Int64, stored.device()));
                let blocks = stored.unsqueeze(1) * blocks_of_row + within; // [T, blocks of a row]
                let wide = looked_up(&table.tensor, &codes); // [T · bytes, 2]
                let scales = absmax.of(&blocks.flatten(0, -1)).unsqueeze(1);
                let wide = wide.view([-1, *block as i64]) * scales;
                rounded(wide, *rounding).view([count, columns])
            }
            TorchForm::Int8(scales) => {
                let wide = codes.view_dtype(Kind::Int8).to_kind(Kind::Float);
                let wide = wide * scales.tensor.index_select(0, &stored);
                wide * f64::from(1.0_f32 / 127.0)
            }
            TorchForm::Fp8 { table, scales } => {
                let wide = looked_up(&table.tensor, &codes).view([count, columns]);
                match scales {
                    Fp8Torch::Matrix(scale) => wide * f64::from(*scale),
                    Fp8Torch::Rows(scales) => wide * scales.tensor.index_select(0, &stored),
                    Fp8Torch::Blocks { size, scales } => {
                        let block = stored.floor_divide_scalar(size[0] as i64);
                        let scales = scales.tensor.index_select(0, &block); // [T, C / size]
                        let scales = scales.repeat_interleave_self_int(size[1] as i64, 1, None);
                        wide * scales.narrow(1, 0, columns)
                    }
                }
            }
        }
    }

    /// All elements in stored order, of a matrix in four bits whose rows are not whole blocks.
    fn flat(&self) -> Tensor {
        let TorchForm::FourBit {
            table,
            absmax,
            block,
            rounding,
        } = &self.form
        else {
            unreachable!("only matrices in four bits have blocks across rows");
        };
        let elements = (self.shape[0] * self.shape[1]) as i64;
        let wide = looked_up(&table.tensor, &self.codes.tensor).flatten(0, -1);
        let wide = wide.narrow(0, 0, elements);
        let blocks = (elements as usize).div_ceil(*block) as i64;
        let blocks = Tensor::arange(blocks, (Kind::Int64, wide.device()));
        let scales = absmax.of(&blocks);
        let scales = scales.repeat_interleave_self_int(*block as i64, 0, None);
        rounded(wide * scales.narrow(0, 0, elements), *rounding)
    }
}

impl TorchForm {
    fn with_tensors(&self, f: &mut dyn FnMut(&TchTensor) -> TchTensor) -> Self {
        match self {
            Self::Blocks(kind) => Self::Blocks(*kind),
            Self::FourBit {
                table,
                absmax,
                block,
                rounding,
            } => Self::FourBit {
                table: f(table),
                absmax: absmax.with_tensors(f),
                block: *block,
                rounding: *rounding,
            },
            Self::Int8(scales) => Self::Int8(f(scales)),
            Self::Fp8 { table, scales } => Self::Fp8 {
                table: f(table),
                scales: match scales {
                    Fp8Torch::Matrix(scale) => Fp8Torch::Matrix(*scale),
                    Fp8Torch::Rows(scales) => Fp8Torch::Rows(f(scales)),
                    Fp8Torch::Blocks { size, scales } => Fp8Torch::Blocks {
                        size: *size,
                        scales: f(scales),
                    },
                },
            },
        }
    }
}

/// Whether rows of a matrix in four bits are not whole blocks and bytes.
fn four_bit_across(matrix: &Quantised) -> bool {
    match matrix.form() {
        Form::FourBit(four_bit) => !matrix.shape()[1].is_multiple_of(four_bit.block),
        _ => false,
    }
}

impl Scales {
    fn with_tensors(&self, f: &mut dyn FnMut(&TchTensor) -> TchTensor) -> Self {
        match self {
            Self::Plain(absmax) => Self::Plain(f(absmax)),
            Self::Nested {
                codes,
                values,
                absmax,
                block,
                offset,
            } => Self::Nested {
                codes: f(codes),
                values: f(values),
                absmax: f(absmax),
                block: *block,
                offset: *offset,
            },
        }
    }

    /// The scales of some blocks.
    ///
    /// # Shapes
    /// `blocks`, result: `[n]`.
    fn of(&self, blocks: &Tensor) -> Tensor {
        match self {
            Self::Plain(absmax) => absmax.tensor.index_select(0, blocks),
            Self::Nested {
                codes,
                values,
                absmax,
                block,
                offset,
            } => {
                let wide = looked_up(&values.tensor, &codes.tensor.index_select(0, blocks));
                let outer = blocks.floor_divide_scalar(*block as i64);
                wide * absmax.tensor.index_select(0, &outer) + f64::from(*offset)
            }
        }
    }
}

/// The entries of a table for bytes.
///
/// # Shapes
/// `table`: `[256, ...]`. Result: `[bytes, ...]`.
fn looked_up(table: &Tensor, codes: &Tensor) -> Tensor {
    table.index_select(0, &codes.flatten(0, -1).to_kind(Kind::Int))
}

fn rounded(wide: Tensor, rounding: Rounding) -> Tensor {
    match rounding {
        Rounding::F32 => wide,
        Rounding::Bf16 => wide.to_kind(Kind::BFloat16).to_kind(Kind::Float),
        Rounding::F16 => wide.to_kind(Kind::Half).to_kind(Kind::Float),
    }
}

/// The dtype of a dense weight.
///
/// # Panics
/// If it is not f32, bf16 or f16.
pub(super) fn kind(data: &TensorData) -> Kind {
    match data.dtype() {
        DType::F32 => Kind::Float,
        DType::BF16 => Kind::BFloat16,
        DType::F16 => Kind::Half,
        other => panic!("weights have a dtype of floating point, found {other:?}"),
    }
}

/// A dense matrix on a device, in its dtype.
///
/// # Panics
/// As [`kind`].
pub(super) fn dense_on(device: Device, data: &TensorData) -> Tensor {
    let [rows, columns]: [usize; 2] = data.shape().dims();
    let there = Tensor::empty([rows as i64, columns as i64], (kind(data), device));
    fill(&there, data.as_bytes());
    there
}

impl FrozenForms for LibTorch {
    fn widened_weight(weight: &StoredWeight, _: &Self::Device) -> TchTensor {
        fresh(weight.torch_widened(Kind::Float))
    }

    fn widened_rows(weight: &StoredWeight, rows: TchTensor) -> TchTensor {
        let rows = rows.tensor.to_kind(Kind::Int64);
        fresh(weight.torch_rows(&rows))
    }
}
