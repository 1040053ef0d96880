//! Rotary position embedding, in Hugging Face's half-split layout.
//!
//! `y[i] = x[i]·cos - x[i + R/2]·sin`, `y[i + R/2] = x[i + R/2]·cos + x[i]·sin` for `i < R/2`,
//! `y[i] = x[i]` from R on; the gradient is the same formula with `-sin`. If cos and sin have a common
//! factor (YaRN, LongRoPE), the rotated features are multiplied by it.
//!
//! Source: Su et al. 2021, equation 34; transformers `apply_rotary_pos_emb`, that of `modeling_phi3.py`
//! for R < D.
//!
//! Axes: T tokens, N heads, D `head_dim`, R rotated features of a head.

mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{Shape, Slice, Tensor};

use crate::operation::Operation;
use crate::reference::{self, in_dtype, widened};

/// Rotates the first R features of each head by the angles of its token, and keeps the others.
///
/// # Shapes
/// `x`: `[T, N, D]`. `cos`, `sin`: `[T, R/2]`, R at most D. Result: `[T, N, D]`.
pub fn rope(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    let [cos, sin] = [cos.into_dispatch(), sin.into_dispatch()];
    Tensor::from_dispatch(Dispatch::rope(x.into_dispatch(), cos, sin, false))
}

/// The reference implementation of [`rope`], in plain tensor operations.
///
/// # Shapes
/// As [`rope`].
pub fn rope_reference(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    let [cos, sin] = [cos, sin].map(Tensor::into_dispatch);
    Tensor::from_dispatch(plain::<Dispatch>(x.into_dispatch(), cos, sin, false))
}

fn plain<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    back: bool,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = widened::<B>(x);
    let [t, n, d] = x.shape().dims();
    let [_, r] = cos.shape().dims(); // R/2
    let [cos, sin] =
        [cos, sin].map(|of| B::float_reshape(widened::<B>(of), Shape::from([t, 1, r])));
    let sin = if back { B::float_neg(sin) } else { sin };
    let part = |features| {
        let all = [Slice::from(0..t), Slice::from(0..n), Slice::from(features)];
        B::float_slice(x.clone(), &all)
    };
    let [low, high] = [part(0..r), part(r..2 * r)]; // [T, N, R/2]
    let product = |a: &FloatTensor<B>, b: &FloatTensor<B>| B::float_mul(a.clone(), b.clone());
    let mut parts = vec![
        B::float_sub(product(&low, &cos), product(&high, &sin)),
        B::float_add(product(&high, &cos), product(&low, &sin)),
    ];
    if 2 * r < d {
        parts.push(part(2 * r..d)); // [T, N, D - R]
    }
    in_dtype::<B>(B::float_cat(parts, 2), dtype)
}

backends! {
    /// [`rope`] on a backend.
    pub trait RopeBackend: Backend {
        /// See [`rope`]; `back` selects the inverse rotation.
        fn rope(
            x: FloatTensor<Self>,
            cos: FloatTensor<Self>,
            sin: FloatTensor<Self>,
            back: bool,
        ) -> FloatTensor<Self>;
    }
}

/// The form of [`rope`] on a backend; without a fused one, the reference implementation.
pub trait RopeForms: Backend {
    /// Whether it is fused.
    const FUSED: bool = false;

    /// See [`rope`]; `back` selects the inverse rotation.
    fn rope_form(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self> {
        reference::run(Operation::Rope, || plain::<Self>(x, cos, sin, back))
    }
}

impl<B: RopeForms> RopeBackend for B {
    fn rope(
        x: FloatTensor<B>,
        cos: FloatTensor<B>,
        sin: FloatTensor<B>,
        back: bool,
    ) -> FloatTensor<B> {
        if reference::is_chosen(Operation::Rope) {
            return reference::run(Operation::Rope, || plain::<B>(x, cos, sin, back));
        }
        B::rope_form(x, cos, sin, back)
    }
}

impl<B: RopeForms, C: CheckpointStrategy> RopeBackend for Autodiff<B, C> {
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Rope;

        impl<B: RopeForms> Backward<B, 1> for Rope {
            type State = (FloatTensor<B>, FloatTensor<B>, bool);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let dy = grads.consume::<B>(&ops.node); // [T, N, D]
                let (cos, sin, back) = ops.state;
                if let [Some(node)] = ops.parents {
                    grads.register::<B>(node.id, B::rope(dy, cos, sin, !back));
                }
            }
        }

        let [cos, sin] = [cos.into_primitive(), sin.into_primitive()];
        match Rope.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::rope(x.into_primitive(), cos.clone(), sin.clone(), back);
                prep.finish((cos, sin, back), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rope(x.into_primitive(), cos, sin, back)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{self, on};
    use burn::tensor::{DType, Device, Distribution, TensorData, Tolerance};
    use proptest::prelude::*;

    type Rotation = fn(Tensor<3>, Tensor<2>, Tensor<2>) -> Tensor<3>;

    /// Result and gradient of `sum(f(x, cos, sin) · seed)`.
    fn run(f: Rotation, x: &Tensor<3>, angle: &Tensor<2>, seed: &Tensor<3>) -> [TensorData; 2] {
        let x = x.clone().require_grad();
        let y = f(x.clone(), angle.clone().cos(), angle.clone().sin());
        let grads = (y.clone() * seed.clone()).sum().backward();
        [y.inner().into_data(), x.grad(&grads).unwrap().into_data()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equals_the_reference(
            t in 1_usize..40,
            n in 1_usize..5,
            half in 1_usize..40,
            rest in prop::sample::select(vec![0_usize, 0, 1, 2, 16, 33]),
        ) {
            let d = 2 * half + rest;
            let device = Device::flex().autodiff();
            let uniform = Distribution::Uniform(-1.0, 1.0);
            let x = Tensor::<3>::random([t, n, d], uniform, &device);
            let seed = Tensor::<3>::random([t, n, d], uniform, &device);
            let angle = Tensor::<2>::random([t, half], Distribution::Uniform(0.0, 6.3), &device);
            let reference = run(rope_reference, &x, &angle, &seed);
            for device in devices::all() {
                let [x, seed] = [&x, &seed].map(|of| on(&device, of));
                let before = x.to_data();
                for fused in devices::forms(|| run(rope, &x, &on(&device, &angle), &seed)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // two multiplications and an addition, each rounded once
                        fused.assert_approx_eq::<f32>(reference, Tolerance::absolute(1e-6));
                    }
                }
                // a tensor that is still in use is not rotated in place
                x.into_data().assert_eq(&before, true);
            }
            for device in devices::all() {
                let [x, seed] = [&x, &seed].map(devices::rounded);
                let reference = run(rope_reference, &x, &angle, &seed);
                let [x, seed] = [x, seed].map(|of| on(&device, &of.cast(DType::BF16)));
                for fused in devices::forms(|| run(rope, &x, &on(&device, &angle), &seed)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // rounded are a multiplication and the sum
                        let scale = devices::largest(reference).max(0.1);
                        devices::assert_near(fused, reference, 2.0, scale);
                    }
                }
            }
        }
    }

    #[test]
    fn rotates_pairs_by_the_angle() {
        let device = Device::flex();
        let angle = 0.5_f32;
        let x = Tensor::from_data([[[1.0_f32, 0.0, 0.0, 2.0]]], &device);
        let cos = Tensor::from_data([[angle.cos(), 0.0]], &device);
        let sin = Tensor::from_data([[angle.sin(), 1.0]], &device);
        // pair 0 is (x0, x2), rotated by `angle`; pair 1 is (x1, x3), rotated by 90 degrees
        let expected =
            Tensor::<3>::from_data([[[angle.cos(), -2.0, angle.sin(), 0.0]]], &device).into_data();
        rope(x, cos, sin)
            .into_data()
            .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    }

    #[test]
    #[expect(clippy::excessive_precision, reason = "as PyTorch prints them")]
    fn rotates_a_part_as_transformers_does() {
        // `apply_rotary_pos_emb` of modeling_phi3.py in transformers 5, with cos and sin as below
        let device = Device::flex().autodiff();
        let x = [
            [[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]],
            [[-1.0, 0.5, 2.0, -0.25, 3.0, 1.0, -2.0]],
        ];
        let x = Tensor::<3>::from_data(x, &device);
        let expected = TensorData::from([
            [[
                0.103_163_719_f32,
                -4.505_161_29,
                4.742_294_31,
                4.970_263_48,
                5.0,
                6.0,
                7.0,
            ]],
            [[
                -0.593_701_005,
                0.544_763_803,
                -3.301_138_88,
                -0.637_461_662,
                3.0,
                1.0,
                -2.0,
            ]],
        ]);
        let angle = Tensor::<2>::from_data([[0.3_f32, 1.2], [2.5, -0.4]], &device);
        let [cos, sin] = [angle.clone().cos() * 1.5, angle.sin() * 1.5];
        for f in [rope, rope_reference] {
            let found = f(x.clone(), cos.clone(), sin.clone()).into_data();
            found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(2e-6));
        }
    }
}
