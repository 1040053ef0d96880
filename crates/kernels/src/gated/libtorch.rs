//! The form on libtorch.
//!
//! `silu_backward` and `gelu_backward` have these signatures in torch 2.9 to 2.11.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::Tensor;

use super::{Activation, GatedForms};
use crate::libtorch::{bytes, fresh};
use crate::profile::{self, Operation};

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
        let mut y = of(activation, &gate);
        fresh(y.g_mul_(&up.tensor))
    }

    fn gated_gradient(
        activation: Activation,
        gate: TchTensor,
        up: TchTensor,
        dy: TchTensor,
    ) -> [TchTensor; 2] {
        let [gate, up, dy] = [gate.tensor, up.tensor, dy.tensor];
        let _span = profile::span(Operation::Gated, 9 * gate.numel(), 5 * bytes(&[&gate]));
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
