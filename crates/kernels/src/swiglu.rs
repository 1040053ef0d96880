//! The gated activation of LLaMA's feed-forward block.
//!
//! `y = silu(g) · u`, `silu(x) = x · σ(x)`, `σ(x) = 1 / (1 + exp(-x))`;
//! `dg = dy · u · σ(g) · (1 + g · (1 - σ(g)))`, `du = dy · silu(g)`.
//!
//! Source: Shazeer 2020, equation 6; transformers `LlamaMLP`.
//!
//! Axes: T tokens, F intermediate size.

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{Tensor, activation};
use burn_flex::FlexTensor;

use crate::buffer::buffer;
use crate::flex::{self, contiguous, rows_of_task, values};
use crate::profile::{self, Operation};
use crate::simd::{sigmoid, vectorised};
use crate::threads;

/// Gates `up` by the sigmoid-weighted `gate`.
///
/// # Shapes
/// `gate`, `up`, result: `[T, F]`.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// The definition of [`swiglu`] in plain tensor operations.
///
/// # Shapes
/// As [`swiglu`].
pub fn swiglu_oracle(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

/// [`swiglu`] on a backend.
#[backend_extension(Flex, Autodiff)]
pub trait SwiGluBackend: Backend {
    /// See [`swiglu`].
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The gradient of [`swiglu`] on a backend.
pub trait SwiGluGradient: SwiGluBackend {
    /// Gradients of `gate` and `up` from that of the result.
    fn swiglu_gradient(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
}

impl<B: SwiGluGradient, C: CheckpointStrategy> SwiGluBackend for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SwiGlu;

        impl<B: SwiGluGradient> Backward<B, 2> for SwiGlu {
            type State = (FloatTensor<B>, FloatTensor<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let dy = grads.consume::<B>(&ops.node); // [T, F]
                let (gate, up) = ops.state;
                let found = B::swiglu_gradient(gate, up, dy);
                for (node, gradient) in ops.parents.into_iter().zip(found) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        match SwiGlu
            .prepare::<C>([gate.node(), up.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let [gate, up] = [gate.into_primitive(), up.into_primitive()];
                let y = B::swiglu(gate.clone(), up.clone());
                prep.finish((gate, up), y)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::swiglu(gate.into_primitive(), up.into_primitive()))
            }
        }
    }
}

impl SwiGluBackend for Flex {
    fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
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
}

impl SwiGluGradient for Flex {
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution, TensorData, Tolerance};
    use proptest::prelude::*;

    type Gated = fn(Tensor<2>, Tensor<2>) -> Tensor<2>;

    fn run(f: Gated, gate: &Tensor<2>, up: &Tensor<2>, seed: &Tensor<2>) -> [TensorData; 3] {
        let (gate, up) = (gate.clone().require_grad(), up.clone().require_grad());
        let y = f(gate.clone(), up.clone());
        let grads = (y.clone() * seed.clone()).sum().backward();
        let gradient = |leaf: Tensor<2>| leaf.grad(&grads).unwrap().into_data();
        [y.inner().into_data(), gradient(gate), gradient(up)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equals_the_oracle(t in 1_usize..40, f in 1_usize..600) {
            let device = Device::flex().autodiff();
            // gates beyond ten either way: the sigmoid's ends
            let random = |scale| {
                Tensor::<2>::random([t, f], Distribution::Normal(0.0, scale), &device)
            };
            let (gate, up, seed) = (random(5.0), random(1.0), random(1.0));
            let fused = run(swiglu, &gate, &up, &seed);
            let oracle = run(swiglu_oracle, &gate, &up, &seed);
            for (fused, oracle) in fused.into_iter().zip(oracle) {
                // a few roundings of f32 and an exponential within two units
                fused.assert_approx_eq::<f32>(&oracle, Tolerance::relative(1e-5).set_absolute(1e-5));
            }
        }
    }

    #[test]
    fn matches_the_formula() {
        let device = Device::flex();
        let gate = Tensor::from_data([[0.0_f32, 1.0, -2.0]], &device);
        let up = Tensor::from_data([[5.0_f32, 2.0, 3.0]], &device);
        let silu = |x: f32| x / (1.0 + (-x).exp());
        let expected = Tensor::<2>::from_data([[0.0, 2.0 * silu(1.0), 3.0 * silu(-2.0)]], &device);
        swiglu(gate, up)
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    }
}
