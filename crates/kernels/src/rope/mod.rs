//! Rotary position embedding, in Hugging Face's half-split layout.
//!
//! `y[i] = x[i]·cos - x[i + D/2]·sin`, `y[i + D/2] = x[i + D/2]·cos + x[i]·sin` for `i < D/2`;
//! the gradient is the inverse rotation: the same formula with `-sin`.
//!
//! Source: Su et al. 2021, equation 34; transformers `apply_rotary_pos_emb`.
//!
//! Axes: T tokens, N heads, D `head_dim`.

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

/// Rotates the vector of each head by the angles of its token.
///
/// # Shapes
/// `x`: `[T, N, D]`. `cos`, `sin`: `[T, D/2]`. Result: `[T, N, D]`.
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
    let [cos, sin] =
        [cos, sin].map(|of| B::float_reshape(widened::<B>(of), Shape::from([t, 1, d / 2])));
    let sin = if back { B::float_neg(sin) } else { sin };
    let half = |features| {
        let all = [Slice::from(0..t), Slice::from(0..n), Slice::from(features)];
        B::float_slice(x.clone(), &all) // [T, N, D/2]
    };
    let [low, high] = [half(0..d / 2), half(d / 2..d)];
    let product = |a: &FloatTensor<B>, b: &FloatTensor<B>| B::float_mul(a.clone(), b.clone());
    let halves = vec![
        B::float_sub(product(&low, &cos), product(&high, &sin)),
        B::float_add(product(&high, &cos), product(&low, &sin)),
    ];
    in_dtype::<B>(B::float_cat(halves, 2), dtype)
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
        fn equals_the_reference(t in 1_usize..40, n in 1_usize..5, half in 1_usize..40) {
            let device = Device::flex().autodiff();
            let uniform = Distribution::Uniform(-1.0, 1.0);
            let x = Tensor::<3>::random([t, n, 2 * half], uniform, &device);
            let seed = Tensor::<3>::random([t, n, 2 * half], uniform, &device);
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
            if let Some(device) = devices::halves() {
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
}
