//! The form on libtorch: ATen's fused kernels on a GPU, the formula on a processor.
//!
//! `_fused_rms_norm` and its backward function have these signatures in torch 2.9 to 2.11.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Kind, Tensor};

use super::RmsNormForms;
use crate::libtorch::{aten, bytes, fresh};
use crate::profile::{self, Operation};

impl RmsNormForms for LibTorch {
    const FUSED: bool = true;

    fn rms_norm_form(x: TchTensor, weight: TchTensor, eps: f64) -> TchTensor {
        let x = x.tensor;
        let _span = profile::span(Operation::RmsNorm, 4 * x.numel(), 2 * bytes(&[&x]));
        fresh(norm(&x, &weight.tensor, eps).0)
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
