//! Tensors of libtorch, and where it computes.
//!
//! Kernels of a GPU run after the call that asks for them has returned. No operation here waits for
//! one: nothing is read back, and what is copied to the device is copied once a run, from pinned memory.

pub(crate) mod aten;
pub(crate) mod timeline;

use std::ffi::{CStr, c_char};

use burn::backend::DispatchDevice;
use burn::backend::libtorch::{LibTorchDevice, TchTensor};
use burn::tensor::Device;
use tch::Tensor;

use crate::profile::{self, Operation};

/// The processor, with libtorch's kernels.
pub fn cpu() -> Device {
    LibTorchDevice::Cpu.into()
}

/// An NVIDIA GPU, the first being 0. It has to be there: see [`gpus`].
pub fn gpu(index: usize) -> Device {
    LibTorchDevice::Cuda(index).into()
}

/// Number of NVIDIA GPUs that libtorch can use; `None` where this libtorch can use none.
pub fn gpus() -> Option<usize> {
    cfg!(libtorch_cuda).then(|| usize::try_from(tch::Cuda::device_count()).unwrap_or(0))
}

/// A tensor whose memory no other shares.
pub(crate) fn fresh(tensor: Tensor) -> TchTensor {
    TchTensor::new(tensor)
}

/// The number of a GPU; `None` of other devices.
pub(crate) fn gpu_of(device: &Device) -> Option<usize> {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::LibTorch(LibTorchDevice::Cuda(index)) => Some(*index),
        _ => None,
    }
}

/// What a function of this folder's C++ left in the room for it.
fn said(room: &[c_char]) -> String {
    let room = CStr::from_bytes_until_nul(bytemuck::cast_slice(room));
    room.unwrap_or_default().to_string_lossy().into_owned()
}

/// Bytes of tensors together.
pub(crate) fn bytes(tensors: &[&Tensor]) -> usize {
    let bytes = |of: &&Tensor| of.numel() * of.kind().elt_size_in_bytes();
    tensors.iter().map(bytes).sum()
}

/// A product with a weight, in the numbers of `x`, `[T, N]`: a weight in others is widened or narrowed for it.
///
/// # Shapes
/// `x`: `[T, K]`. `weight`: `[K, N]`.
pub(crate) fn product(x: &Tensor, weight: &Tensor) -> Tensor {
    let [flops, size] = of_product(x, weight);
    let _span = profile::span(Operation::Linear, flops, size);
    x.mm(&weight.to_kind(x.kind()))
}

/// Multiplications and additions of a product, and its bytes.
pub(crate) fn of_product(x: &Tensor, weight: &Tensor) -> [usize; 2] {
    let tokens = x.size()[0] as usize;
    let out = tokens * weight.size()[1] as usize * x.kind().elt_size_in_bytes();
    [2 * tokens * weight.numel(), bytes(&[x, weight]) + out]
}

/// A tensor of the processor on another device. To a GPU the copy takes its turn behind what was asked for
/// before, and nobody waits for it.
pub(crate) fn uploaded(here: &Tensor, device: tch::Device) -> Tensor {
    if device.is_cuda() {
        here.pin_memory(device)
            .to_device_(device, here.kind(), true, false)
    } else {
        here.to_device(device)
    }
}
