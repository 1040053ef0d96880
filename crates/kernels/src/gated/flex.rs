//! The fused form on flex.
//!
//! Axes as in [`super`].

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::backend::Flex;
use burn_flex::FlexTensor;

use super::{Activation, CUBIC, GatedForms};
use crate::buffer::buffer;
use crate::flex::{self, contiguous, rows_of_task, values};
use crate::profile::{self, Operation};
use crate::simd::{erf, exp, sigmoid, vectorised};
use crate::threads;

impl GatedForms for Flex {
    const FUSED: bool = true;

    fn gated_form(activation: Activation, gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let [gate, up] = [gate, up].map(contiguous);
        let [g, u] = [values(&gate), values(&up)];
        let _span = profile::span(Operation::Gated, 5 * g.len(), 3 * 4 * g.len());
        let forward = match activation {
            Activation::Silu => silu,
            Activation::GeluTanh => gelu_tanh,
            Activation::Gelu => gelu,
        };
        let task = rows_of_task(1);
        let mut y = buffer(g.len());
        threads::chunks(&mut y, task, |index, y| {
            let [g, u] = [g, u].map(|of| &of[index * task..][..y.len()]);
            forward(g, u, y);
        });
        flex::tensor(y, gate.layout().shape().clone())
    }

    fn gated_gradient(
        activation: Activation,
        gate: FlexTensor,
        up: FlexTensor,
        dy: FlexTensor,
    ) -> [FlexTensor; 2] {
        let [gate, up, dy] = [gate, up, dy].map(contiguous);
        let [g, u, dy] = [values(&gate), values(&up), values(&dy)];
        let _span = profile::span(Operation::Gated, 9 * g.len(), 5 * 4 * g.len());
        let backward = match activation {
            Activation::Silu => silu_backward,
            Activation::GeluTanh => gelu_tanh_backward,
            Activation::Gelu => gelu_backward,
        };
        let task = rows_of_task(1);
        let [mut dg, mut du] = [buffer(g.len()), buffer(g.len())];
        threads::chunk_pairs(&mut dg, task, &mut du, task, |index, dg, du| {
            let [g, u, dy] = [g, u, dy].map(|of| &of[index * task..][..dg.len()]);
            backward(g, u, dy, dg, du);
        });
        let shape = gate.layout().shape();
        [
            flex::tensor(dg, shape.clone()),
            flex::tensor(du, shape.clone()),
        ]
    }
}

/// An activation of a gate: its value and its derivative.
#[inline(always)]
fn silu_of(x: f32) -> [f32; 2] {
    let s = sigmoid(x);
    [x * s, s * (1.0 + x * (1.0 - s))]
}

#[inline(always)]
fn gelu_tanh_of(x: f32) -> [f32; 2] {
    /// `2 √(2/π)`
    const ROOT: f32 = 2.0 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
    let square = x * x;
    let s = sigmoid(ROOT * x * (CUBIC * square + 1.0));
    let slope = ROOT * (3.0 * CUBIC * square + 1.0);
    [x * s, s * (1.0 + x * (1.0 - s) * slope)]
}

#[inline(always)]
fn gelu_of(x: f32) -> [f32; 2] {
    /// `1 / √(2π)`
    const ROOT: f32 = 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
    let distribution = 0.5 + 0.5 * erf(x * FRAC_1_SQRT_2);
    let density = ROOT * exp(-0.5 * x * x);
    [x * distribution, distribution + x * density]
}

/// Defines the loops of an activation, forward and backward.
macro_rules! loops {
    ($of:ident, $forward:ident, $backward:ident) => {
        vectorised! {
            fn $forward(_simd, gate: &'a [f32], up: &'a [f32], y: &'a mut [f32]) {
                for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                    let [value, _] = $of(*g);
                    *y = value * u;
                }
            }
        }

        vectorised! {
            fn $backward(
                _simd,
                gate: &'a [f32],
                up: &'a [f32],
                dy: &'a [f32],
                d_gate: &'a mut [f32],
                d_up: &'a mut [f32],
            ) {
                let inputs = gate.iter().zip(up).zip(dy);
                for (((g, u), dy), (dg, du)) in inputs.zip(d_gate.iter_mut().zip(d_up)) {
                    let [value, slope] = $of(*g);
                    *du = dy * value;
                    *dg = dy * u * slope;
                }
            }
        }
    };
}

loops!(silu_of, silu, silu_backward);
loops!(gelu_tanh_of, gelu_tanh, gelu_tanh_backward);
loops!(gelu_of, gelu, gelu_backward);
