//! The gated activation of a feed-forward block: SwiGLU, or GEGLU.
//!
//! `y = f(g) · u`; `dg = dy · u · f'(g)`, `du = dy · f(g)`, with the function f of [`Activation`].
//!
//! Source: Shazeer 2020, equation 6; transformers `LlamaMLP`, `GemmaMLP`.
//!
//! Axes: T tokens, I intermediate size.

mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;

use crate::operation::Operation;
use crate::reference::{self, in_dtype, widened};

/// The function of a gate.
///
/// `σ(x) = 1 / (1 + exp(-x))`; `Φ(x) = (1 + erf(x / √2)) / 2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x σ(x)`, also called swish; the derivative is `σ(x) (1 + x (1 - σ(x)))`.
    ///
    /// Source: Elfwing et al. 2017; `silu` in transformers.
    Silu,
    /// The approximation `x (1 + tanh v(x)) / 2 = x σ(2 v(x))` of [`Activation::Gelu`], with
    /// `v(x) = √(2/π) (x + 0.044715 x³)`; the derivative is `s + x s (1 - s) 2 v'(x)`, `s = σ(2 v(x))`.
    ///
    /// Source: Hendrycks and Gimpel 2016; PyTorch's `gelu(x, approximate="tanh")`, `gelu_pytorch_tanh`
    /// in transformers.
    GeluTanh,
    /// `x Φ(x)`; the derivative is `Φ(x) + x exp(-x² / 2) / √(2π)`.
    ///
    /// Source: Hendrycks and Gimpel 2016; PyTorch's `gelu(x)`, `gelu` in transformers.
    Gelu,
}

/// Factor of `x³` in [`Activation::GeluTanh`].
const CUBIC: f32 = 0.044_715;

/// Multiplies `up` by the activation of `gate`.
///
/// # Shapes
/// `gate`, `up`, result: `[T, I]`.
pub fn gated(activation: Activation, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let [gate, up] = [gate, up].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::gated(activation, gate, up))
}

/// The reference implementation of [`gated`], in plain tensor operations.
///
/// # Shapes
/// As [`gated`].
pub fn gated_reference(activation: Activation, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let [gate, up] = [gate, up].map(Tensor::into_dispatch);
    Tensor::from_dispatch(plain::<Dispatch>(activation, gate, up))
}

fn plain<B: Backend>(
    activation: Activation,
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
) -> FloatTensor<B> {
    let dtype = gate.dtype();
    let [gate, up] = [gate, up].map(widened::<B>);
    let gate = activation.of::<B>(gate);
    in_dtype::<B>(B::float_mul(gate, up), dtype)
}

impl Activation {
    fn of<B: Backend>(self, x: FloatTensor<B>) -> FloatTensor<B> {
        let half = |x| B::float_mul_scalar(x, 0.5.into());
        let and_one = |x| B::float_add_scalar(x, 1.0.into());
        let factor = match self {
            Self::Silu => B::sigmoid(x.clone()),
            Self::GeluTanh => {
                let square = B::float_mul(x.clone(), x.clone());
                let inner = and_one(B::float_mul_scalar(square, CUBIC.into()));
                let inner = B::float_mul(x.clone(), inner);
                let root = (FRAC_2_SQRT_PI * FRAC_1_SQRT_2).into();
                half(and_one(B::float_tanh(B::float_mul_scalar(inner, root))))
            }
            Self::Gelu => {
                let root = FRAC_1_SQRT_2.into();
                half(and_one(B::float_erf(B::float_mul_scalar(x.clone(), root))))
            }
        };
        B::float_mul(x, factor)
    }
}

fn plain_gradient<B: Backend>(
    activation: Activation,
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> [FloatTensor<B>; 2] {
    let of = |[gate, up]: [_; 2]| plain::<Autodiff<B>>(activation, gate, up);
    reference::all_gradients::<B, 2>([gate, up], of, dy)
}

backends! {
    /// [`gated`] on a backend.
    pub trait GatedBackend: Backend {
        /// See [`gated`].
        fn gated(
            activation: Activation,
            gate: FloatTensor<Self>,
            up: FloatTensor<Self>,
        ) -> FloatTensor<Self>;
    }
}

/// The forms of [`gated`] on a backend; without a fused one, the reference implementation.
pub trait GatedForms: Backend {
    /// Whether they are fused.
    const FUSED: bool = false;

    /// See [`gated`].
    fn gated_form(
        activation: Activation,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        reference::run(Operation::Gated, || plain::<Self>(activation, gate, up))
    }

    /// Gradients of `gate` and `up`, from the gradient of the result.
    fn gated_gradient(
        activation: Activation,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        reference::run(Operation::Gated, || {
            plain_gradient::<Self>(activation, gate, up, dy)
        })
    }
}

impl<B: GatedForms> GatedBackend for B {
    fn gated(activation: Activation, gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
        if reference::is_chosen(Operation::Gated) {
            return reference::run(Operation::Gated, || plain::<B>(activation, gate, up));
        }
        B::gated_form(activation, gate, up)
    }
}

fn gradient<B: GatedForms>(
    activation: Activation,
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> [FloatTensor<B>; 2] {
    if reference::is_chosen(Operation::Gated) {
        return reference::run(Operation::Gated, || {
            plain_gradient::<B>(activation, gate, up, dy)
        });
    }
    B::gated_gradient(activation, gate, up, dy)
}

impl<B: GatedForms, C: CheckpointStrategy> GatedBackend for Autodiff<B, C> {
    fn gated(
        activation: Activation,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Gated;

        impl<B: GatedForms> Backward<B, 2> for Gated {
            type State = (Activation, FloatTensor<B>, FloatTensor<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let dy = grads.consume::<B>(&ops.node); // [T, I]
                let (activation, gate, up) = ops.state;
                let found = gradient::<B>(activation, gate, up, dy);
                for (node, gradient) in ops.parents.into_iter().zip(found) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        match Gated
            .prepare::<C>([gate.node(), up.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let [gate, up] = [gate.into_primitive(), up.into_primitive()];
                let y = B::gated(activation, gate.clone(), up.clone());
                prep.finish((activation, gate, up), y)
            }
            OpsKind::UnTracked(prep) => {
                let [gate, up] = [gate.into_primitive(), up.into_primitive()];
                prep.finish(B::gated(activation, gate, up))
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

    type Function = fn(Activation, Tensor<2>, Tensor<2>) -> Tensor<2>;

    const ALL: [Activation; 3] = [Activation::Silu, Activation::GeluTanh, Activation::Gelu];

    fn run(
        f: Function,
        activation: Activation,
        [gate, up, seed]: [&Tensor<2>; 3],
    ) -> [TensorData; 3] {
        let (gate, up) = (gate.clone().require_grad(), up.clone().require_grad());
        let y = f(activation, gate.clone(), up.clone());
        let grads = (y.clone() * seed.clone()).sum().backward();
        let gradient = |leaf: Tensor<2>| leaf.grad(&grads).unwrap().into_data();
        [y.inner().into_data(), gradient(gate), gradient(up)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equals_the_reference(
            t in 1_usize..40,
            f in 1_usize..600,
            activation in prop::sample::select(ALL.to_vec()),
        ) {
            let device = Device::flex().autodiff();
            // gates below -10 and above 10, where the functions are near 0 and x
            let random = |scale| {
                Tensor::<2>::random([t, f], Distribution::Normal(0.0, scale), &device)
            };
            let (gate, up, seed) = (random(5.0), random(1.0), random(1.0));
            let reference = run(gated_reference, activation, [&gate, &up, &seed]);
            for device in devices::all() {
                let [gate, up, seed] = [&gate, &up, &seed].map(|of| on(&device, of));
                for fused in devices::forms(|| run(gated, activation, [&gate, &up, &seed])) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // a few roundings of f32, and an exponential within two units in the last place
                        fused.assert_approx_eq::<f32>(reference, Tolerance::relative(1e-5).set_absolute(1e-5));
                    }
                }
            }
            for device in devices::all() {
                let [gate, up, seed] = [&gate, &up, &seed].map(devices::rounded);
                let reference = run(gated_reference, activation, [&gate, &up, &seed]);
                let [gate, up, seed] = [gate, up, seed].map(|of| on(&device, &of.cast(DType::BF16)));
                for fused in devices::forms(|| run(gated, activation, [&gate, &up, &seed])) {
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
    #[expect(clippy::excessive_precision, reason = "as PyTorch prints them")]
    fn matches_pytorch() {
        const GATE: [f32; 13] = [
            -20.0, -6.0, -3.0, -1.5, -0.75, -0.1, 0.0, 0.1, 0.75, 1.5, 3.0, 6.0, 20.0,
        ];
        // torch 2.9: y = f(gate), y.sum().backward(), in f32
        let expected: [[[f32; 13]; 2]; 3] = [
            // F.silu
            [
                [
                    -4.122_307_47e-08,
                    -0.014_835_738_6,
                    -0.142_277_613,
                    -0.273_638_278,
                    -0.240_615_964,
                    -0.047_502_081_8,
                    0.0,
                    0.052_497_919_6,
                    0.509_384_036,
                    1.226_361_63,
                    2.857_722_52,
                    5.985_164_64,
                    20.0,
                ],
                [
                    -3.916_192_17e-08,
                    -0.012_326_431_5,
                    -0.088_104_106_5,
                    -0.041_294_161_2,
                    0.157_400_042,
                    0.450_083_196,
                    0.5,
                    0.549_916_744,
                    0.842_599_928,
                    1.041_294_22,
                    1.088_104_13,
                    1.012_326_24,
                    1.0,
                ],
            ],
            // F.gelu(approximate="tanh")
            [
                [
                    -0.0,
                    -0.0,
                    -0.003_637_433_05,
                    -0.100_428_432,
                    -0.170_039_475,
                    -0.046_017_248_2,
                    0.0,
                    0.053_982_753_3,
                    0.579_960_585,
                    1.399_571_54,
                    2.996_362_69,
                    6.0,
                    20.0,
                ],
                [
                    0.0,
                    0.0,
                    -0.011_584_296_8,
                    -0.127_710_819,
                    0.001_061_737_54,
                    0.420_478_195,
                    0.5,
                    0.579_521_775,
                    0.998_938_322,
                    1.127_710_82,
                    1.011_584_28,
                    1.0,
                    1.0,
                ],
            ],
            // F.gelu
            [
                [
                    0.0,
                    0.0,
                    -0.004_049_867_39,
                    -0.100_210_86,
                    -0.169_970_468,
                    -0.046_017_210_9,
                    0.0,
                    0.053_982_790_6,
                    0.580_029_547,
                    1.399_789_09,
                    2.995_950_22,
                    6.0,
                    20.0,
                ],
                [
                    0.0,
                    -2.980_232_24e-08,
                    -0.011_945_605_3,
                    -0.127_469_152,
                    0.000_774_204_731,
                    0.420_476_824,
                    0.5,
                    0.579_523_146,
                    0.999_225_795,
                    1.127_469_18,
                    1.011_945_61,
                    1.0,
                    1.0,
                ],
            ],
        ];
        let device = Device::flex().autodiff();
        let row = |values: [f32; 13]| Tensor::<2>::from_data([values], &device);
        let [gate, ones, twos] = [GATE, [1.0; 13], [2.0; 13]].map(row);
        for (activation, [y, slope]) in ALL.into_iter().zip(expected) {
            for f in [gated, gated_reference] {
                let [found, d_gate, d_up] = run(f, activation, [&gate, &twos, &ones]);
                // up is 2
                for (found, expected, factor) in
                    [(found, y, 2.0), (d_gate, slope, 2.0), (d_up, y, 1.0)]
                {
                    let expected = TensorData::from([expected.map(|x| factor * x)]);
                    found.assert_approx_eq::<f32>(
                        &expected,
                        Tolerance::relative(1e-6).set_absolute(1e-6),
                    );
                }
            }
        }
    }
}
