//! The fused form on flex.
//!
//! Axes as in [`super`].

use burn::backend::Flex;
use burn_flex::FlexTensor;

use super::SwiGluForms;
use crate::buffer::buffer;
use crate::flex::{self, contiguous, rows_of_task, values};
use crate::profile::{self, Operation};
use crate::simd::{sigmoid, vectorised};
use crate::threads;

impl SwiGluForms for Flex {
    const FUSED: bool = true;

    fn swiglu_form(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let [gate, up] = [gate, up].map(contiguous);
        let [g, u] = [values(&gate), values(&up)];
        let _span = profile::span(Operation::SwiGlu, 5 * g.len(), 3 * 4 * g.len());
        let task = rows_of_task(1);
        let mut y = buffer(g.len());
        threads::chunks(&mut y, task, |index, y| {
            let [g, u] = [g, u].map(|of| &of[index * task..][..y.len()]);
            forward(g, u, y);
        });
        flex::tensor(y, gate.layout().shape().clone())
    }

    fn swiglu_gradient(gate: FlexTensor, up: FlexTensor, dy: FlexTensor) -> [FlexTensor; 2] {
        let [gate, up, dy] = [gate, up, dy].map(contiguous);
        let [g, u, dy] = [values(&gate), values(&up), values(&dy)];
        let _span = profile::span(Operation::SwiGlu, 9 * g.len(), 5 * 4 * g.len());
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

vectorised! {
    fn forward(_simd, gate: &'a [f32], up: &'a [f32], y: &'a mut [f32]) {
        for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(*g) * u;
        }
    }
}

vectorised! {
    fn backward(
        _simd,
        gate: &'a [f32],
        up: &'a [f32],
        dy: &'a [f32],
        d_gate: &'a mut [f32],
        d_up: &'a mut [f32],
    ) {
        let inputs = gate.iter().zip(up).zip(dy);
        for (((g, u), dy), (dg, du)) in inputs.zip(d_gate.iter_mut().zip(d_up)) {
            let s = sigmoid(*g);
            *du = dy * g * s;
            *dg = dy * u * s * (1.0 + g * (1.0 - s));
        }
    }
}
