//! The form on libtorch: one pass by a kernel of `gated.cu`, or else ATen's functions.
//!
//! `silu_backward` and `gelu_backward` have these signatures in torch 2.9 to 2.11.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::Tensor;

use super::{Activation, GatedForms};
use crate::OptionalKernel;
use crate::libtorch::cuda::{self, Argument, Kernel, variant};
use crate::libtorch::{bytes, fresh};
use crate::profile::{self, Operation};

const FORWARD: [[&str; 2]; 2] = [
    ["gated_f32", "gated_f32_single"],
    ["gated_bf16", "gated_bf16_single"],
];
const BACKWARD: [[&str; 2]; 2] = [
    ["gated_backward_f32", "gated_backward_f32_single"],
    ["gated_backward_bf16", "gated_backward_bf16_single"],
];

/// PyTorch's names of the two forms of GELU.
const EXACT: &str = "none";
const TANH: &str = "tanh";

fn of(activation: Activation, gate: &Tensor) -> Tensor {
    match activation {
        Activation::Silu => gate.silu(),
        Activation::GeluTanh => gate.gelu(TANH),
        Activation::Gelu => gate.gelu(EXACT),
    }
}

impl GatedForms for LibTorch {
    const FUSED: bool = true;

    fn gated_form(activation: Activation, gate: TchTensor, up: TchTensor) -> TchTensor {
        let gate = gate.tensor;
        let _span = profile::span(Operation::Gated, 5 * gate.numel(), 3 * bytes(&[&gate]));
        let up = up.tensor;
        if let Some((kernel, threads)) = kernel(&[&gate, &up], FORWARD) {
            let y = gate.empty_like();
            let [gate, up, to] = [&gate, &up, &y].map(Argument::Tensor);
            let count = Argument::Long(y.numel() as i64);
            kernel.on_threads(threads, &[number(activation), gate, up, to, count]);
            return fresh(y);
        }
        let mut y = of(activation, &gate);
        fresh(y.g_mul_(&up))
    }

    fn gated_gradient(
        activation: Activation,
        gate: TchTensor,
        up: TchTensor,
        dy: TchTensor,
    ) -> [TchTensor; 2] {
        let [gate, up, dy] = [gate.tensor, up.tensor, dy.tensor];
        let _span = profile::span(Operation::Gated, 9 * gate.numel(), 5 * bytes(&[&gate]));
        if let Some((kernel, threads)) = kernel(&[&gate, &up, &dy], BACKWARD) {
            let found = [gate.empty_like(), up.empty_like()];
            let [d_gate, d_up] = &found;
            let [gate, up, dy, d_gate, d_up] =
                [&gate, &up, &dy, d_gate, d_up].map(Argument::Tensor);
            let count = Argument::Long(found[0].numel() as i64);
            let arguments = [number(activation), gate, up, dy, d_gate, d_up, count];
            kernel.on_threads(threads, &arguments);
            return found.map(fresh);
        }
        let mut d_up = of(activation, &gate);
        let _ = d_up.g_mul_(&dy);
        let weighted = dy * up;
        let d_gate = match activation {
            Activation::Silu => gate.silu_backward(&weighted),
            Activation::GeluTanh => gate.gelu_backward(&weighted, TANH),
            Activation::Gelu => gate.gelu_backward(&weighted, EXACT),
        };
        [fresh(d_gate), fresh(d_up)]
    }
}

/// The kernel with one of these names that computes these tensors, and its number of threads.
fn kernel(tensors: &[&Tensor], names: [[&'static str; 2]; 2]) -> Option<(Kernel, usize)> {
    let [first, ..] = tensors else { return None };
    if tensors.iter().any(|of| !of.is_contiguous()) {
        return None;
    }
    let (name, width) = variant(tensors, &[first.numel() as i64], names)?;
    let kernel = cuda::GATED.kernel(OptionalKernel::Gated, name, first)?;
    Some((kernel, first.numel() / width as usize))
}

/// An activation in `gated.cu`.
fn number(activation: Activation) -> Argument<'static> {
    Argument::Int(match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
        Activation::Gelu => 2,
    })
}
