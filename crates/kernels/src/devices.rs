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
#[cfg_attr(
    feature = "libtorch",
    expect(clippy::unnecessary_wraps, reason = "other builds have none")
)]
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

/// The largest of the numbers, without signs.
pub(crate) fn largest(data: &TensorData) -> f32 {
    numbers(data)
        .into_iter()
        .fold(0.0, |most: f32, x| most.max(x.abs()))
}

fn numbers(data: &TensorData) -> Vec<f32> {
    let data = data.clone().convert_dtype(DType::F32);
    data.try_into_vec::<f32>().unwrap()
}

/// Whether every number is as near as `roundings` of bf16, 2⁻⁸ of `scale` each: of the numbers that were added up,
/// whose sum can be small.
pub(crate) fn assert_near(actual: &TensorData, expected: &TensorData, roundings: f32, scale: f32) {
    let [actual, expected] = [actual, expected].map(numbers);
    assert_eq!(actual.len(), expected.len());
    let allowed = roundings * scale / 256.0;
    for (place, (a, b)) in actual.iter().zip(&expected).enumerate() {
        assert!(
            (a - b).abs() <= allowed,
            "{place}: {a} for {b}, {allowed} allowed"
        );
    }
}
