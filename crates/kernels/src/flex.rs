//! Conversions between tensors of the flex backend and slices.

use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use half::{bf16, f16};

use crate::frozen::WeightOn;
use crate::product::{Numbers, ProductUnit, Rows, Side, Values, Weight, half_unit};
use crate::{buffer::buffer, rounding};

/// Elements per task of an elementwise loop: enough to outweigh the cost of starting a task.
const TASK: usize = 1 << 14;

/// Rows per task, for rows of `width` elements.
pub(crate) fn rows_of_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// The tensor in row-major order, without gaps.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The tensor in row-major order, without gaps and without anything else in its storage.
pub(crate) fn whole(tensor: FlexTensor) -> FlexTensor {
    let all = tensor.layout().num_elements() * tensor.dtype().size();
    if tensor.is_contiguous() && tensor.bytes().len() == all {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The elements of a contiguous f32 tensor.
///
/// # Panics
/// If the tensor has another dtype.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    let start = tensor.layout().start_offset();
    &tensor.storage::<f32>()[start..start + tensor.layout().num_elements()]
}

/// The elements of a contiguous tensor in f32 or bf16.
///
/// # Panics
/// If the tensor has another dtype.
pub(crate) fn numbers(tensor: &FlexTensor) -> Numbers<'_> {
    if is_half(tensor) {
        let start = tensor.layout().start_offset();
        let range = start..start + tensor.layout().num_elements();
        return Numbers::Bf16(&tensor.storage::<bf16>()[range]);
    }
    Numbers::F32(values(tensor))
}

/// Whether a tensor is in bf16.
pub(crate) fn is_half(tensor: &FlexTensor) -> bool {
    tensor.dtype() == DType::BF16
}

/// Whether matrix multiplications of bf16 values are faster than those in f32. Elsewhere activations in bf16 are widened.
pub(crate) fn has_half_products() -> bool {
    half_unit() != ProductUnit::Vector
}

/// The tensor in f32, in row-major order.
pub(crate) fn widened(x: FlexTensor) -> FlexTensor {
    if !is_half(&x) {
        return x;
    }
    let x = contiguous(x);
    let wide = numbers(&x).widened().into_owned();
    tensor(wide, x.layout().shape().clone())
}

/// A tensor in f32, rounded to bf16.
pub(crate) fn narrowed(x: FlexTensor) -> FlexTensor {
    let x = contiguous(x);
    let mut narrow = buffer(values(&x).len());
    rounding::round(values(&x), &mut narrow);
    half_tensor(narrow, x.layout().shape().clone())
}

/// The elements of a contiguous weight, in their stored dtype.
///
/// # Panics
/// If the dtype is not f32, bf16 or f16.
pub(crate) fn stored(tensor: &FlexTensor) -> Values<'_> {
    let start = tensor.layout().start_offset();
    let range = start..start + tensor.layout().num_elements();
    match tensor.dtype() {
        DType::F32 => Values::F32(&tensor.storage::<f32>()[range]),
        DType::BF16 => Values::Bf16(&tensor.storage::<bf16>()[range]),
        DType::F16 => Values::F16(&tensor.storage::<f16>()[range]),
        other => panic!("expected a weight in f32, bf16 or f16, found {other:?}"),
    }
}

/// A weight whose elements are in row-major order, without gaps.
pub(crate) fn held(weight: WeightOn<Flex>) -> WeightOn<Flex> {
    match weight {
        WeightOn::Dense(tensor) => WeightOn::Dense(contiguous(tensor)),
        quantised @ WeightOn::Stored(_) => quantised,
    }
}

/// A weight that is [`held`], for a matrix multiplication from this side.
pub(crate) fn weight(weight: &WeightOn<Flex>, side: Side) -> Weight<'_> {
    let [rows, columns] = weight.shape();
    let values = match weight {
        WeightOn::Dense(tensor) => stored(tensor),
        WeightOn::Stored(weight) => Values::Quantised(Rows {
            matrix: weight.host(),
            first: 0,
        }),
    };
    Weight {
        values,
        rows,
        columns,
        side,
    }
}

/// A tensor of f32 elements in row-major order.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let layout = Layout::contiguous(shape.into());
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}

/// A tensor of bf16 elements in row-major order.
pub(crate) fn half_tensor(values: Vec<bf16>, shape: impl Into<Shape>) -> FlexTensor {
    let layout = Layout::contiguous(shape.into());
    FlexTensor::new(Bytes::from_elems(values), layout, DType::BF16)
}
