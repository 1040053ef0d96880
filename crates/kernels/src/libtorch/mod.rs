//! Tensors of libtorch, and where it computes.
//!
//! Kernels of a GPU run after the call that asks for them has returned. No operation here waits for
//! one: nothing is read back, and what is copied to the device is copied once a run.

pub(crate) mod aten;

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
