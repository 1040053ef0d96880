//! The form on libtorch: on a GPU one pass by a kernel of `rms_norm.cu`, or else ATen's fused kernels, the formula on a
//! processor.
//!
//! `_fused_rms_norm` and its backward function have these signatures in torch 2.9 to 2.11.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Kind, Tensor};

use super::RmsNormForms;
use crate::OptionalKernel;
use crate::libtorch::cuda::{self, Argument, Kernel};
use crate::libtorch::{aten, bytes, fresh};
use crate::profile::{self, Operation};

/// Names of the kernels: for each dtype of `x`, and of the weight, with several elements at a time and with single ones.
type Names = [[[&'static str; 2]; 2]; 2];

const FORWARD: Names = [
    [
        ["rms_norm_f32", "rms_norm_f32_single"],
        ["rms_norm_f32_by_bf16", "rms_norm_f32_by_bf16_single"],
    ],
    [
        ["rms_norm_bf16_by_f32", "rms_norm_bf16_by_f32_single"],
        ["rms_norm_bf16", "rms_norm_bf16_single"],
    ],
];
const BACKWARD: Names = [
    [
        ["rms_norm_backward_f32", "rms_norm_backward_f32_single"],
        [
            "rms_norm_backward_f32_by_bf16",
            "rms_norm_backward_f32_by_bf16_single",
        ],
    ],
    [
        [
            "rms_norm_backward_bf16_by_f32",
            "rms_norm_backward_bf16_by_f32_single",
        ],
        ["rms_norm_backward_bf16", "rms_norm_backward_bf16_single"],
    ],
];

/// A pack of the weight can have 32 bytes: as many elements as 16 bytes of `x`, in f32.
const PACK: usize = 32;

impl RmsNormForms for LibTorch {
    const FUSED: bool = true;

    fn rms_norm_form(x: TchTensor, weight: TchTensor, eps: f64) -> TchTensor {
        let [x, weight] = [x.tensor, weight.tensor];
        let _span = profile::span(Operation::RmsNorm, 4 * x.numel(), 2 * bytes(&[&x]));
        if let Some((kernel, threads)) = kernel([&x], &weight, FORWARD) {
            let y = x.empty_like();
            let tensors = [&x, &weight, &y].map(Argument::Tensor);
            launch(kernel, threads, &tensors, &x, eps);
            return fresh(y);
        }
        fresh(norm(&x, &weight, eps).0)
    }

    fn rms_norm_gradient(
        x: TchTensor,
        weight: TchTensor,
        dy: TchTensor,
        eps: f64,
        trained: bool,
    ) -> (TchTensor, Option<TchTensor>) {
        let [x, weight, dy] = [x.tensor, weight.tensor, dy.tensor];
        let _span = profile::span(Operation::RmsNorm, 10 * x.numel(), 3 * bytes(&[&x]));
        if !trained && let Some((kernel, threads)) = kernel([&x, &dy], &weight, BACKWARD) {
            let dx = x.empty_like();
            let tensors = [&x, &weight, &dy, &dx].map(Argument::Tensor);
            launch(kernel, threads, &tensors, &x, eps);
            return (fresh(dx), None);
        }
        if x.device().is_cuda() {
            let (_, s) = norm(&x, &weight, eps);
            let weight = weight.to_kind(x.kind());
            let (dx, d_weight) = aten::fused_rms_norm_backward(&dy, &x, &s, &weight, trained);
            return (fresh(dx), d_weight.map(|d| fresh(d.to_kind(Kind::Float))));
        }
        let kind = x.kind();
        let [x, weight, dy] = [x, weight, dy].map(|of| of.to_kind(Kind::Float));
        let s = scale(&x, eps); // [T, 1]
        let dx_hat = &dy * weight; // [T, H]
        let mean = (&dx_hat * &x).mean_dim(-1, true, Kind::Float); // [T, 1]
        let dx = dx_hat * &s - &x * (s.pow_tensor_scalar(3) * mean);
        let d_weight = trained.then(|| (dy * x * s).sum_dim_intlist(0, false, Kind::Float));
        (fresh(dx.to_kind(kind)), d_weight.map(fresh))
    }
}

/// The result, and the factor `s` of each token, `[T, 1]`.
fn norm(x: &Tensor, weight: &Tensor, eps: f64) -> (Tensor, Tensor) {
    let kind = x.kind();
    if x.device().is_cuda() {
        return x.internal_fused_rms_norm(weight.size(), Some(weight.to_kind(kind)), eps);
    }
    let x = x.to_kind(Kind::Float);
    let s = scale(&x, eps);
    let y = x * &s * weight.to_kind(Kind::Float);
    (y.to_kind(kind), s)
}

/// `1 / sqrt(mean(x²) + eps)`, `[T, 1]`.
fn scale(x: &Tensor, eps: f64) -> Tensor {
    (x.square().mean_dim(-1, true, Kind::Float) + eps).rsqrt()
}

/// The kernel for tensors `[T, H]`, and the threads of a block.
fn kernel<const N: usize>(
    tensors: [&Tensor; N],
    weight: &Tensor,
    names: Names,
) -> Option<(Kernel, usize)> {
    let [first, ..] = tensors.as_slice() else {
        return None;
    };
    let kind = first.kind();
    let names = cuda::names_of(weight.kind(), cuda::names_of(kind, names)?)?;
    let are_plain = tensors
        .iter()
        .all(|of| of.kind() == kind && of.is_contiguous());
    if !are_plain || !weight.is_contiguous() {
        return None;
    }
    let features = weight.size()[0];
    let of_x = cuda::together(kind, &tensors, &[features], PACK)?;
    let of_weight = cuda::together(kind, &[weight], &[features], PACK)?;
    let width = of_x.min(of_weight);
    let name = names[usize::from(width == 1)];
    let kernel = cuda::RMS_NORM.kernel(OptionalKernel::RmsNorm, name, first)?;
    let threads = ((features / width) as usize).next_multiple_of(32).min(512);
    Some((kernel, threads))
}

/// Runs a kernel on a block for each token.
fn launch(kernel: Kernel, threads: usize, tensors: &[Argument<'_>], x: &Tensor, eps: f64) {
    let [tokens, features] = x.size()[..] else {
        unreachable!("tokens have one axis of features")
    };
    let mut arguments = tensors.to_vec();
    arguments.extend([Argument::Int(features), Argument::Float(eps)]);
    kernel.on_blocks([tokens as usize, 1, 1], threads, 0, &arguments);
}
