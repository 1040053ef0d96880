//! Tensors of the flex backend as slices, and back.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use half::{bf16, f16};

use crate::product::{Side, Values, Weight};

/// Numbers of a task of an element by element loop: enough that a task is worth its start.
const TASK: usize = 1 << 14;

/// Rows of a task, for rows of `width` numbers.
pub(crate) fn rows_of_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// The tensor with its numbers one after another.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The tensor with its numbers one after another, and nothing else in its storage.
pub(crate) fn whole(tensor: FlexTensor) -> FlexTensor {
    let all = tensor.layout().num_elements() * tensor.dtype().size();
    if tensor.is_contiguous() && tensor.bytes().len() == all {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The numbers of a contiguous f32 tensor.
///
/// # Panics
/// On another number type: the model computes in f32.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    let start = tensor.layout().start_offset();
    &tensor.storage::<f32>()[start..start + tensor.layout().num_elements()]
}

/// The numbers of a contiguous tensor of weights, in their stored precision.
///
/// # Panics
/// On a number type that weights are not stored in.
pub(crate) fn stored(tensor: &FlexTensor) -> Values<'_> {
    let start = tensor.layout().start_offset();
    let range = start..start + tensor.layout().num_elements();
    match tensor.dtype() {
        DType::F32 => Values::F32(&tensor.storage::<f32>()[range]),
        DType::BF16 => Values::Bf16(&tensor.storage::<bf16>()[range]),
        DType::F16 => Values::F16(&tensor.storage::<f16>()[range]),
        other => panic!("a weight in {other:?}"),
    }
}

/// A contiguous matrix of weights.
pub(crate) fn weight(tensor: &FlexTensor, side: Side) -> Weight<'_> {
    let [rows, columns] = tensor.layout().shape().dims();
    Weight {
        values: stored(tensor),
        rows,
        columns,
        side,
    }
}

/// A tensor of f32 numbers.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let layout = Layout::contiguous(shape.into());
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}
