//! Copies of lists to a device.
//!
//! A copy from ordinary memory to a GPU blocks the host until the GPU has finished all earlier work.
//! A copy from pinned memory is queued like a kernel, and the host continues.
//!
//! Axes: N elements.

use burn::tensor::{Device, Int, Tensor, TensorData};

#[cfg(feature = "libtorch")]
use crate::{Capabilities, Memory};

/// Copies integers to a device.
///
/// # Shapes
/// Result: `[N]`.
pub fn upload_ints(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let shape = [values.len()];
    let data = TensorData::new(values, shape);
    #[cfg(feature = "libtorch")]
    if let Memory::Nvidia(gpu) = Capabilities::of(device).memory {
        return to_gpu::ints(data, gpu, device);
    }
    Tensor::from_data(data, device)
}

/// Copies a matrix in f32 to a device.
///
/// # Shapes
/// `values`: `shape`, row after row. Result: `shape`.
pub fn upload_floats(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    let data = TensorData::new(values, shape);
    #[cfg(feature = "libtorch")]
    if let Memory::Nvidia(gpu) = Capabilities::of(device).memory {
        return to_gpu::floats(data, gpu, device);
    }
    Tensor::from_data(data, device)
}

#[cfg(feature = "libtorch")]
mod to_gpu {
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::libtorch::TchTensor;
    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::backend::{
        Autodiff, AutodiffBackend, Backend, Dispatch, LibTorch, backend_extension,
    };
    use burn::tensor::{Device, Int, Tensor, TensorData};

    use crate::libtorch::{cpu, fresh, uploaded};

    pub(super) fn ints(data: TensorData, gpu: usize, device: &Device) -> Tensor<1, Int> {
        let here = Tensor::<1, Int>::from_data(data, &cpu());
        let there = Tensor::from_dispatch(Dispatch::ints_to_gpu(here.into_dispatch(), gpu));
        if device.is_autodiff() {
            there.autodiff()
        } else {
            there
        }
    }

    pub(super) fn floats(data: TensorData, gpu: usize, device: &Device) -> Tensor<2> {
        let here = Tensor::<2>::from_data(data, &cpu());
        let there = Tensor::from_dispatch(Dispatch::floats_to_gpu(here.into_dispatch(), gpu));
        if device.is_autodiff() {
            there.autodiff()
        } else {
            there
        }
    }

    /// Copies from the processor's memory to a GPU, on a backend that supports both.
    #[backend_extension(LibTorch, Autodiff)]
    pub(crate) trait UploadBackend: Backend {
        fn ints_to_gpu(x: IntTensor<Self>, gpu: usize) -> IntTensor<Self>;
        fn floats_to_gpu(x: FloatTensor<Self>, gpu: usize) -> FloatTensor<Self>;
    }

    impl UploadBackend for LibTorch {
        fn ints_to_gpu(x: TchTensor, gpu: usize) -> TchTensor {
            fresh(uploaded(&x.tensor, tch::Device::Cuda(gpu)))
        }

        fn floats_to_gpu(x: TchTensor, gpu: usize) -> TchTensor {
            fresh(uploaded(&x.tensor, tch::Device::Cuda(gpu)))
        }
    }

    impl<B: UploadBackend, C: CheckpointStrategy> UploadBackend for Autodiff<B, C> {
        fn ints_to_gpu(x: IntTensor<Self>, gpu: usize) -> IntTensor<Self> {
            B::ints_to_gpu(x, gpu)
        }

        fn floats_to_gpu(x: FloatTensor<Self>, gpu: usize) -> FloatTensor<Self> {
            Self::from_inner(B::floats_to_gpu(x.into_primitive(), gpu))
        }
    }
}
