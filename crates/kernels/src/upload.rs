//! Copies of lists and weights to a device.
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

/// Copies a weight to a device in its dtype. On libtorch's devices all threads read it, and a GPU fetches its parts
/// from pinned memory meanwhile; on `cpu` it stays where it is, mapped from its file for instance.
pub fn upload_weight<const D: usize>(data: TensorData, device: &Device) -> Tensor<D> {
    let dtype = data.dtype();
    #[cfg(feature = "libtorch")]
    if crate::backends::torch_device(device).is_some() && dtype.is_float() {
        return to_gpu::weight(data, device);
    }
    Tensor::from_data(data, (device, dtype))
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

    use crate::libtorch::{cpu, fill, fresh, uploaded};

    pub(super) fn weight<const D: usize>(data: TensorData, device: &Device) -> Tensor<D> {
        let shape: [usize; D] = data.shape().dims();
        let there = Tensor::<D>::empty(shape, (&device.clone().inner(), data.dtype()));
        let there = Dispatch::filled(there.into_dispatch(), data);
        let there = Tensor::from_dispatch(there);
        if device.is_autodiff() {
            there.autodiff()
        } else {
            there
        }
    }

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
        fn filled(x: FloatTensor<Self>, data: TensorData) -> FloatTensor<Self>;
    }

    impl UploadBackend for LibTorch {
        fn ints_to_gpu(x: TchTensor, gpu: usize) -> TchTensor {
            fresh(uploaded(&x.tensor, tch::Device::Cuda(gpu)))
        }

        fn floats_to_gpu(x: TchTensor, gpu: usize) -> TchTensor {
            fresh(uploaded(&x.tensor, tch::Device::Cuda(gpu)))
        }

        fn filled(x: TchTensor, data: TensorData) -> TchTensor {
            fill(&x.tensor, data.as_bytes());
            x
        }
    }

    impl<B: UploadBackend, C: CheckpointStrategy> UploadBackend for Autodiff<B, C> {
        fn ints_to_gpu(x: IntTensor<Self>, gpu: usize) -> IntTensor<Self> {
            B::ints_to_gpu(x, gpu)
        }

        fn floats_to_gpu(x: FloatTensor<Self>, gpu: usize) -> FloatTensor<Self> {
            Self::from_inner(B::floats_to_gpu(x.into_primitive(), gpu))
        }

        fn filled(x: FloatTensor<Self>, data: TensorData) -> FloatTensor<Self> {
            Self::from_inner(B::filled(x.into_primitive(), data))
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;

    #[test]
    fn weights_arrive_in_their_dtype() {
        let values: Vec<f32> = (0..6).map(|i| 0.5 * i as f32).collect();
        let data = TensorData::new(values, [2, 3]);
        for device in crate::devices::all() {
            for dtype in [DType::F32, DType::BF16] {
                let data = data.clone().convert_dtype(dtype);
                for device in [device.clone(), device.clone().autodiff()] {
                    let weight = upload_weight::<2>(data.clone(), &device);
                    assert_eq!(weight.device(), device);
                    weight.into_data().assert_eq(&data, true);
                }
            }
        }
    }
}
