//! SwiGLU, the gated activation of LLaMA's feed-forward block.
//!
//! `y = silu(g) · u`, `silu(x) = x · σ(x)`, `σ(x) = 1 / (1 + exp(-x))`;
//! `dg = dy · u · σ(g) · (1 + g · (1 - σ(g)))`, `du = dy · silu(g)`.
//!
//! Source: Shazeer 2020, equation 6; transformers `LlamaMLP`.
//!
//! Axes: T tokens, I intermediate size.

mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;

use crate::operation::Operation;
use crate::reference::{self, in_dtype, widened};

/// Multiplies `up` by `silu(gate)`.
///
/// # Shapes
/// `gate`, `up`, result: `[T, I]`.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// The reference implementation of [`swiglu`], in plain tensor operations.
///
/// # Shapes
/// As [`swiglu`].
pub fn swiglu_reference(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let [gate, up] = [gate, up].map(Tensor::into_dispatch);
    Tensor::from_dispatch(plain::<Dispatch>(gate, up))
}

fn plain<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = gate.dtype();
    let [gate, up] = [gate, up].map(widened::<B>);
    let silu = B::float_mul(gate.clone(), B::sigmoid(gate));
    in_dtype::<B>(B::float_mul(silu, up), dtype)
}

fn plain_gradient<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> [FloatTensor<B>; 2] {
    let of = |[gate, up]: [_; 2]| plain::<Autodiff<B>>(gate, up);
    reference::all_gradients::<B, 2>([gate, up], of, dy)
}

backends! {
    /// [`swiglu`] on a backend.
    pub trait SwiGluBackend: Backend {
        /// See [`swiglu`].
        fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
    }
}

/// The forms of [`swiglu`] on a backend; without a fused one, the reference implementation.
pub trait SwiGluForms: Backend {
    /// Whether they are fused.
    const FUSED: bool = false;

    /// See [`swiglu`].
    fn swiglu_form(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::run(Operation::SwiGlu, || plain::<Self>(gate, up))
    }

    /// Gradients of `gate` and `up`, from the gradient of the result.
    fn swiglu_gradient(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        reference::run(Operation::SwiGlu, || plain_gradient::<Self>(gate, up, dy))
    }
}

impl<B: SwiGluForms> SwiGluBackend for B {
    fn swiglu(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
        if reference::is_chosen(Operation::SwiGlu) {
            return reference::run(Operation::SwiGlu, || plain::<B>(gate, up));
        }
        B::swiglu_form(gate, up)
    }
}

fn gradient<B: SwiGluForms>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> [FloatTensor<B>; 2] {
    if reference::is_chosen(Operation::SwiGlu) {
        return reference::run(Operation::SwiGlu, || plain_gradient::<B>(gate, up, dy));
    }
    B::swiglu_gradient(gate, up, dy)
}

impl<B: SwiGluForms, C: CheckpointStrategy> SwiGluBackend for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SwiGlu;

        impl<B: SwiGluForms> Backward<B, 2> for SwiGlu {
            type State = (FloatTensor<B>, FloatTensor<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let dy = grads.consume::<B>(&ops.node); // [T, I]
                let (gate, up) = ops.state;
                let found = gradient::<B>(gate, up, dy);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{self, on};
    use burn::tensor::{DType, Device, Distribution, TensorData, Tolerance};
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
        fn equals_the_reference(t in 1_usize..40, f in 1_usize..600) {
            let device = Device::flex().autodiff();
            // gates below -10 and above 10, where the sigmoid is near 0 and 1
            let random = |scale| {
                Tensor::<2>::random([t, f], Distribution::Normal(0.0, scale), &device)
            };
            let (gate, up, seed) = (random(5.0), random(1.0), random(1.0));
            let reference = run(swiglu_reference, &gate, &up, &seed);
            for device in devices::all() {
                let [gate, up, seed] = [&gate, &up, &seed].map(|of| on(&device, of));
                for fused in devices::forms(|| run(swiglu, &gate, &up, &seed)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // a few roundings of f32, and an exponential within two units in the last place
                        fused.assert_approx_eq::<f32>(reference, Tolerance::relative(1e-5).set_absolute(1e-5));
                    }
                }
            }
            if let Some(device) = devices::halves() {
                let [gate, up, seed] = [&gate, &up, &seed].map(devices::rounded);
                let reference = run(swiglu_reference, &gate, &up, &seed);
                let [gate, up, seed] = [gate, up, seed].map(|of| on(&device, &of.cast(DType::BF16)));
                for fused in devices::forms(|| run(swiglu, &gate, &up, &seed)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // rounded are the activation and its product with `up`
                        let scale = devices::largest(reference).max(0.1);
                        devices::assert_near(fused, reference, 2.0, scale);
                    }
                }
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
