//! Tensors and devices of libtorch.
//!
//! A GPU runs a kernel after the call that launched it has returned. No operation of this crate waits
//! for a kernel: none reads results back, and inputs are copied to the device once per packed
//! sequence, from pinned memory.
//!
//! Axes: T tokens, K inner dimension (summed over), N output features.

pub(crate) mod aten;
pub(crate) mod timeline;

use std::ffi::{CStr, c_char};

use burn::backend::libtorch::{LibTorchDevice, TchTensor};
use burn::tensor::Device;
use tch::Tensor;

use crate::profile::{self, Operation};

/// The processor, computing with libtorch.
pub(crate) fn cpu() -> Device {
    LibTorchDevice::Cpu.into()
}

/// An NVIDIA GPU, counted from 0. It must exist: see [`gpus`].
pub(crate) fn gpu(index: usize) -> Device {
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

/// `x · weight` in the dtype of `x`; a weight in another dtype is converted first.
///
/// # Shapes
/// `x`: `[T, K]`. `weight`: `[K, N]`. Result: `[T, N]`.
pub(crate) fn product(x: &Tensor, weight: &Tensor) -> Tensor {
    let [flops, size] = of_product(x, weight);
    let _span = profile::span(Operation::Linear, flops, size);
    x.mm(&weight.to_kind(x.kind()))
}

/// Multiplications and additions of `x · weight`, and its bytes.
pub(crate) fn of_product(x: &Tensor, weight: &Tensor) -> [usize; 2] {
    let tokens = x.size()[0] as usize;
    let out = tokens * weight.size()[1] as usize * x.kind().elt_size_in_bytes();
    [2 * tokens * weight.numel(), bytes(&[x, weight]) + out]
}

/// Copies a tensor in the processor's memory to a device. A copy to a GPU is queued behind earlier
/// work, and the host does not wait for it.
pub(crate) fn uploaded(here: &Tensor, device: tch::Device) -> Tensor {
    if device.is_cuda() {
        here.pin_memory(device)
            .to_device_(device, here.kind(), true, false)
    } else {
        here.to_device(device)
    }
}
