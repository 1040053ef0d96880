//! Tensors of libtorch, and where it computes.
//!
//! Kernels of a GPU run after the call that asks for them has returned. No operation here waits for
//! one: nothing is read back, and what is copied to the device is copied once a run, from pinned memory.

pub(crate) mod aten;

use burn::backend::DispatchDevice;
use burn::backend::libtorch::{LibTorchDevice, TchTensor};
use burn::tensor::Device;
use tch::Tensor;

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
