//! The fused form on flex.
//!
//! Axes as in [`super`].

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::backend::Flex;
use burn_flex::FlexTensor;

use super::{Activation, CUBIC, GatedForms};
use crate::buffer::buffer;
use crate::flex::{self, contiguous, rows_of_task, values};
use crate::product::Numbers;
use crate::profile::{self, Operation};
use crate::rounding;
use crate::simd::{erf, exp, sigmoid, vectorised};
use crate::threads;

/// Elements of bf16 that are widened at a time.
const PART: usize = 1024;

impl GatedForms for Flex {
    const FUSED: bool = true;

    fn gated_form(activation: Activation, gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let [gate, up] = [gate, up].map(contiguous);
        let bytes = 3 * gate.dtype().size() * gate.layout().num_elements();
        let _span = profile::span(Operation::Gated, 5 * gate.layout().num_elements(), bytes);
        let forward = match activation {
            Activation::Silu => silu,
            Activation::GeluTanh => gelu_tanh,
            Activation::Gelu => gelu,
        };
        let task = rows_of_task(1);
        if let [Numbers::Bf16(g), Numbers::Bf16(u)] = [&gate, &up].map(flex::numbers) {
            let mut y = buffer(g.len());
            threads::chunks(&mut y, task, |index, y| {
                let [g, u] = [g, u].map(|of| &of[index * task..][..y.len()]);
                let mut wide = [[0.0; PART]; 3];
                for ((y, g), u) in y.chunks_mut(PART).zip(g.chunks(PART)).zip(u.chunks(PART)) {
                    let [wide_g, wide_u, wide_y] = wide.each_mut().map(|part| &mut part[..y.len()]);
                    rounding::widen_part(g, wide_g);
                    rounding::widen_part(u, wide_u);
                    forward(wide_g, wide_u, wide_y);
                    rounding::round_part(wide_y, y);
                }
            });
            return flex::half_tensor(y, gate.layout().shape().clone());
        }
        let [g, u] = [values(&gate), values(&up)];
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
        let [gate, up, dy] = [gate, up, flex::widened(dy)].map(contiguous);
        let size = gate.layout().num_elements();
        let bytes = (4 * gate.dtype().size() + 4) * size;
        let _span = profile::span(Operation::Gated, 9 * size, bytes);
        let backward = match activation {
            Activation::Silu => silu_backward,
            Activation::GeluTanh => gelu_tanh_backward,
            Activation::Gelu => gelu_backward,
        };
        let task = rows_of_task(1);
        let shape = gate.layout().shape();
        if let [Numbers::Bf16(g), Numbers::Bf16(u)] = [&gate, &up].map(flex::numbers) {
            // matrix multiplications alone read these gradients, and would round them
            let [mut dg, mut du] = [buffer(size), buffer(size)];
            let dy = values(&dy);
            threads::chunk_pairs(&mut dg, task, &mut du, task, |index, dg, du| {
                let range = index * task..index * task + dg.len();
                let [g, u] = [g, u].map(|of| of[range.clone()].chunks(PART));
                let inputs = g.zip(u).zip(dy[range].chunks(PART));
                let mut wide = [[0.0; PART]; 4];
                let results = dg.chunks_mut(PART).zip(du.chunks_mut(PART));
                for (((g, u), dy), (dg, du)) in inputs.zip(results) {
                    let [wide_g, wide_u, wide_dg, wide_du] =
                        wide.each_mut().map(|part| &mut part[..dy.len()]);
                    rounding::widen_part(g, wide_g);
                    rounding::widen_part(u, wide_u);
                    backward(wide_g, wide_u, dy, wide_dg, wide_du);
                    rounding::round_part(wide_dg, dg);
                    rounding::round_part(wide_du, du);
                }
            });
            return [dg, du].map(|of| flex::half_tensor(of, shape.clone()));
        }
        let [g, u, dy] = [values(&gate), values(&up), values(&dy)];
        let [mut dg, mut du] = [buffer(g.len()), buffer(g.len())];
        threads::chunk_pairs(&mut dg, task, &mut du, task, |index, dg, du| {
            let [g, u, dy] = [g, u, dy].map(|of| &of[index * task..][..dg.len()]);
            backward(g, u, dy, dg, du);
        });
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
