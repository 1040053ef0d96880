//! The devices that tests run on.
//!
//! The oracles run on flex. Fused forms run on flex and, in a build with libtorch, on the device of
//! `SIMMER_TEST_DEVICE`: `libtorch`, which it is where it is not set, or `libtorch-cuda:N`.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Devices with fused forms.
pub(crate) fn all() -> Vec<Device> {
    std::iter::once(Device::flex()).chain(halves()).collect()
}

/// Those whose forms take activations of 16 bits too.
pub(crate) fn halves() -> Option<Device> {
    #[cfg(feature = "libtorch")]
    return Some(libtorch());
    #[cfg(not(feature = "libtorch"))]
    None
}

#[cfg(feature = "libtorch")]
fn libtorch() -> Device {
    match torch() {
        tch::Device::Cuda(index) => crate::libtorch::gpu(index),
        _ => crate::libtorch::cpu(),
    }
}

/// The same device as libtorch calls it.
#[cfg(feature = "libtorch")]
pub(crate) fn torch() -> tch::Device {
    let name = std::env::var("SIMMER_TEST_DEVICE").unwrap_or_else(|_| "libtorch".to_owned());
    match name.strip_prefix("libtorch-cuda:") {
        Some(index) => tch::Device::Cuda(index.parse().unwrap()),
        None if name == "libtorch" => tch::Device::Cpu,
        None => panic!("SIMMER_TEST_DEVICE={name}"),
    }
}

/// A tensor's numbers on another device, where gradients are recorded.
pub(crate) fn on<const D: usize>(device: &Device, x: &Tensor<D>) -> Tensor<D> {
    let data = x.to_data();
    let dtype = data.dtype();
    Tensor::from_data(data, (&device.clone().autodiff(), dtype))
}

/// What is left of a tensor's numbers in bf16.
pub(crate) fn rounded<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    x.clone().cast(DType::BF16).cast(DType::F32)
}

/// Whether every number is as near as `roundings` of bf16, 2⁻⁸ of the largest number each; small numbers may
/// be what is left of numbers of order one.
pub(crate) fn assert_near(actual: &TensorData, expected: &TensorData, roundings: f32) {
    let numbers = |data: &TensorData| {
        let data = data.clone().convert_dtype(DType::F32);
        data.try_into_vec::<f32>().unwrap()
    };
    let [actual, expected] = [numbers(actual), numbers(expected)];
    assert_eq!(actual.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let allowed = roundings * largest.max(0.1) / 256.0;
    for (place, (a, b)) in actual.iter().zip(&expected).enumerate() {
        assert!(
            (a - b).abs() <= allowed,
            "{place}: {a} for {b}, {allowed} allowed"
        );
    }
}
