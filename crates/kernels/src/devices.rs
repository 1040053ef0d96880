//! The devices that tests run on.
//!
//! Reference implementations run on flex. Fused forms run on flex and, in a build with libtorch, on
//! the device in `SIMMER_TEST_DEVICE`: `libtorch` (the default) or `libtorch-cuda:N`.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{Operations, with_reference};

/// All devices with fused forms.
pub(crate) fn all() -> Vec<Device> {
    let flex = std::iter::once(Device::flex());
    #[cfg(feature = "libtorch")]
    return flex.chain([libtorch()]).collect();
    #[cfg(not(feature = "libtorch"))]
    flex.collect()
}

#[cfg(feature = "libtorch")]
fn libtorch() -> Device {
    match torch() {
        tch::Device::Cuda(index) => crate::libtorch::gpu(index),
        _ => crate::libtorch::cpu(),
    }
}

/// The device in `SIMMER_TEST_DEVICE`, as tch names it.
#[cfg(feature = "libtorch")]
pub(crate) fn torch() -> tch::Device {
    let name = std::env::var("SIMMER_TEST_DEVICE").unwrap_or_else(|_| "libtorch".to_owned());
    match name.strip_prefix("libtorch-cuda:") {
        Some(index) => tch::Device::Cuda(index.parse().unwrap()),
        None if name == "libtorch" => tch::Device::Cpu,
        None => panic!("SIMMER_TEST_DEVICE={name}: expected libtorch or libtorch-cuda:N"),
    }
}

/// The results of fused forms, and of the reference implementations in their place, as a backend
/// without fused forms runs them.
pub(crate) fn forms<T>(f: impl Fn() -> T) -> [T; 2] {
    [f(), with_reference(Operations::ALL, f)]
}

/// A copy of a tensor on another device, with automatic differentiation.
pub(crate) fn on<const D: usize>(device: &Device, x: &Tensor<D>) -> Tensor<D> {
    let data = x.to_data();
    let dtype = data.dtype();
    Tensor::from_data(data, (&device.clone().autodiff(), dtype))
}

/// A tensor in f32 whose values are rounded to bf16.
pub(crate) fn rounded<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    x.clone().cast(DType::BF16).cast(DType::F32)
}

/// The largest absolute value.
pub(crate) fn largest(data: &TensorData) -> f32 {
    numbers(data)
        .into_iter()
        .fold(0.0, |most: f32, x| most.max(x.abs()))
}

fn numbers(data: &TensorData) -> Vec<f32> {
    let data = data.clone().convert_dtype(DType::F32);
    data.try_into_vec::<f32>().unwrap()
}

/// Asserts that all elements differ by at most `roundings` roundings of bf16, each 2⁻⁸ of `scale`.
/// `scale` is the size of the terms of a sum, because the sum itself can be small.
pub(crate) fn assert_near(actual: &TensorData, expected: &TensorData, roundings: f32, scale: f32) {
    let [actual, expected] = [actual, expected].map(numbers);
    assert_eq!(actual.len(), expected.len());
    let allowed = roundings * scale / 256.0;
    for (place, (a, b)) in actual.iter().zip(&expected).enumerate() {
        assert!(
            (a - b).abs() <= allowed,
            "element {place}: expected {b} ± {allowed}, found {a}"
        );
    }
}
