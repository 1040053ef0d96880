//! Tensors and devices of libtorch.
//!
//! A GPU runs a kernel after the call that launched it has returned. No operation of this crate waits
//! for a kernel: none reads results back, and inputs are copied to the device once per packed
//! sequence, from pinned memory.

mod ahead;
pub(crate) mod aten;
mod copy;
pub(crate) mod cuda;
mod event;
pub(crate) mod graph;
mod group;
mod nccl;
mod product;
mod thread;
pub(crate) mod timeline;

use std::ffi::{CStr, c_char};

use burn::backend::LibTorch;
use burn::backend::libtorch::{LibTorchDevice, TchTensor};
use burn::tensor::Device;
use tch::{Kind, Tensor};

pub(crate) use self::ahead::{Arrival, copies_ahead, queued_copy};
pub(crate) use self::copy::{Slabs, bytes_on, copy_queued, fill, shared_memory, uploaded, wait};
pub use self::group::{ProcessGroup, Rendezvous, Transfer};
pub use self::nccl::{Communicator, Nccl};
pub(crate) use self::product::{
    add_product_with, in_kind, product_beside, product_with, scaled_product, scaled_product_into,
    wide_product,
};
use crate::frozen::WeightOn;

/// The processor, computing with libtorch.
pub(crate) fn cpu() -> Device {
    thread::without_autograd();
    LibTorchDevice::Cpu.into()
}

/// An NVIDIA GPU, counted from 0. It must exist: see [`gpus`].
pub(crate) fn gpu(index: usize) -> Device {
    thread::without_autograd();
    LibTorchDevice::Cuda(index).into()
}

/// Whether this libtorch is built with CUDA.
pub(crate) const HAS_CUDA: bool = cfg!(libtorch_cuda);

/// Number of NVIDIA GPUs that libtorch can use; `None` if this libtorch is built without CUDA.
pub(crate) fn gpus() -> Option<usize> {
    HAS_CUDA.then(|| usize::try_from(tch::Cuda::device_count()).unwrap_or(0))
}

/// A tensor that shares its memory with no other.
pub(crate) fn fresh(tensor: Tensor) -> TchTensor {
    TchTensor::new(tensor)
}

/// The error message that a C++ function of this folder wrote to its buffer.
fn said(room: &[c_char]) -> String {
    let room = CStr::from_bytes_until_nul(bytemuck::cast_slice(room));
    room.unwrap_or_default().to_string_lossy().into_owned()
}

/// Total size of tensors in bytes.
pub(crate) fn bytes(tensors: &[&Tensor]) -> usize {
    let bytes = |of: &&Tensor| of.numel() * of.kind().elt_size_in_bytes();
    tensors.iter().map(bytes).sum()
}

/// A weight in a dtype.
///
/// # Shapes
/// Result: `[R, C]`.
pub(crate) fn weight_in(weight: &WeightOn<LibTorch>, kind: Kind) -> Tensor {
    match weight {
        WeightOn::Dense(weight) => in_kind(&weight.tensor, kind),
        WeightOn::Stored(weight) => weight.torch_widened(kind),
    }
}

/// Bytes of a weight, as stored.
pub(crate) fn stored_bytes(weight: &WeightOn<LibTorch>) -> usize {
    match weight {
        WeightOn::Dense(weight) => bytes(&[&weight.tensor]),
        WeightOn::Stored(weight) => weight.bytes(),
    }
}
