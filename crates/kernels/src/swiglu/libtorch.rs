//! The form on libtorch.
//!
//! `silu_backward` has this signature in torch 2.9 to 2.11.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;

use super::SwiGluForms;
use crate::libtorch::{bytes, fresh};
use crate::profile::{self, Operation};

impl SwiGluForms for LibTorch {
    const FUSED: bool = true;

    fn swiglu_form(gate: TchTensor, up: TchTensor) -> TchTensor {
        let gate = gate.tensor;
        let _span = profile::span(Operation::SwiGlu, 5 * gate.numel(), 3 * bytes(&[&gate]));
        let mut y = gate.silu();
        fresh(y.g_mul_(&up.tensor))
    }

    fn swiglu_gradient(gate: TchTensor, up: TchTensor, dy: TchTensor) -> [TchTensor; 2] {
        let [gate, up, dy] = [gate.tensor, up.tensor, dy.tensor];
        let _span = profile::span(Operation::SwiGlu, 9 * gate.numel(), 5 * bytes(&[&gate]));
        let mut d_up = gate.silu();
        let _ = d_up.g_mul_(&dy);
        let d_gate = gate.silu_backward(&(dy * up));
        [fresh(d_gate), fresh(d_up)]
    }
}
