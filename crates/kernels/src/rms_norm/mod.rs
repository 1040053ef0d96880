//! Root mean square normalisation.
//!
//! `y = x · s · w`, `s = 1 / sqrt(mean(x²) + eps)`, the mean over the last axis;
//! `dx = s · (dy∘w) - x · s³ · mean(dy∘w∘x)`, `dw = Σ_t dy · x · s`.
//!
//! Only the input is kept for the backward pass. Recomputing `s` reads a row that is in the cache
//! anyway.
//!
//! Source: Zhang and Sennrich 2019, equation 4; transformers `LlamaRMSNorm`.
//!
//! Axes: T tokens, H hidden size.

mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{Shape, Tensor};

use crate::operation::Operation;
use crate::reference::{self, in_dtype, widened};

/// Normalises each token's vector by its root mean square.
///
/// # Shapes
/// `x`: `[T, H]`, f32. `weight`: `[H]`, in its stored precision. Result: `[T, H]`, f32.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let [x, weight] = [x.into_dispatch(), weight.into_dispatch()];
    Tensor::from_dispatch(Dispatch::rms_norm(x, weight, eps))
}

/// The reference implementation of [`rms_norm`], in plain tensor operations.
///
/// # Shapes
/// As [`rms_norm`].
pub fn rms_norm_reference(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let [x, weight] = [x.into_dispatch(), weight.into_dispatch()];
    Tensor::from_dispatch(plain::<Dispatch>(x, weight, eps))
}

fn plain<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let dtype = x.dtype();
    let [x, weight] = [x, weight].map(widened::<B>);
    let [width] = weight.shape().dims();
    let mean_square = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1); // [T, 1]
    let root = B::float_sqrt(B::float_add_scalar(mean_square, eps.into())); // [T, 1]
    let x = B::float_mul(x, B::float_recip(root)); // [T, H]
    let weight = B::float_reshape(weight, Shape::from([1, width]));
    in_dtype::<B>(B::float_mul(x, weight), dtype)
}

fn plain_gradient<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    eps: f64,
    trained: bool,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let of = |[x, weight]: [_; 2]| plain::<Autodiff<B>>(x, weight, eps);
    let inputs = [x, widened::<B>(weight)]; // the gradient of the weight is in f32
    let [dx, d_weight] = reference::all_gradients::<B, 2>(inputs, of, dy);
    (dx, trained.then_some(d_weight))
}

backends! {
    /// [`rms_norm`] on a backend.
    pub trait RmsNormBackend: Backend {
        /// See [`rms_norm`].
        fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
    }
}

/// The forms of [`rms_norm`] on a backend; without a fused one, the reference implementation.
pub trait RmsNormForms: Backend {
    /// Whether they are fused.
    const FUSED: bool = false;

    /// See [`rms_norm`].
    fn rms_norm_form(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        reference::run(Operation::RmsNorm, || plain::<Self>(x, weight, eps))
    }

    /// Gradients of `x`, and of `weight` if it is `trained`, from the gradient of the result.
    fn rms_norm_gradient(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
        trained: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        reference::run(Operation::RmsNorm, || {
            plain_gradient::<Self>(x, weight, dy, eps, trained)
        })
    }
}

impl<B: RmsNormForms> RmsNormBackend for B {
    fn rms_norm(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
        if reference::is_chosen(Operation::RmsNorm) {
            return reference::run(Operation::RmsNorm, || plain::<B>(x, weight, eps));
        }
        B::rms_norm_form(x, weight, eps)
    }
}

fn gradient<B: RmsNormForms>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    eps: f64,
    trained: bool,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    if reference::is_chosen(Operation::RmsNorm) {
        return reference::run(Operation::RmsNorm, || {
            plain_gradient::<B>(x, weight, dy, eps, trained)
        });
    }
    B::rms_norm_gradient(x, weight, dy, eps, trained)
}

impl<B: RmsNormForms, C: CheckpointStrategy> RmsNormBackend for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct RmsNorm;

        impl<B: RmsNormForms> Backward<B, 2> for RmsNorm {
            type State = (FloatTensor<B>, FloatTensor<B>, f64);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let dy = grads.consume::<B>(&ops.node); // [T, H]
                let (x, weight, eps) = ops.state;
                let [x_node, weight_node] = ops.parents;
                let trained = weight_node.is_some();
                let (dx, d_weight) = gradient::<B>(x, weight, dy, eps, trained);
                for (node, gradient) in [(x_node, Some(dx)), (weight_node, d_weight)] {
                    if let (Some(node), Some(gradient)) = (node, gradient) {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        match RmsNorm
            .prepare::<C>([x.node(), weight.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let [x, weight] = [x.into_primitive(), weight.into_primitive()];
                let y = B::rms_norm(x.clone(), weight.clone(), eps);
                prep.finish((x, weight, eps), y)
            }
            OpsKind::UnTracked(prep) => {
                let [x, weight] = [x.into_primitive(), weight.into_primitive()];
                prep.finish(B::rms_norm(x, weight, eps))
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

    type Norm = fn(Tensor<2>, Tensor<1>, f64) -> Tensor<2>;

    /// Result and gradients of `sum(f(x, w) · seed)`.
    fn run(f: Norm, x: &Tensor<2>, w: &Tensor<1>, seed: &Tensor<2>) -> [TensorData; 3] {
        let (x, w) = (x.clone().require_grad(), w.clone().require_grad());
        let y = f(x.clone(), w.clone(), 1e-5);
        let grads = (y.clone() * seed.clone()).sum().backward();
        let dx = x.grad(&grads).unwrap().into_data();
        let dw = w.grad(&grads).unwrap().into_data();
        [y.inner().into_data(), dx, dw]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equals_the_reference(t in 1_usize..70, h in 1_usize..700) {
            let device = Device::flex().autodiff();
            let normal = Distribution::Normal(0.0, 1.0);
            let x = Tensor::<2>::random([t, h], normal, &device);
            let w = Tensor::<1>::random([h], normal, &device);
            let seed = Tensor::<2>::random([t, h], normal, &device);
            let reference = run(rms_norm_reference, &x, &w, &seed);
            for device in devices::all() {
                for fused in devices::forms(|| run(rms_norm, &on(&device, &x), &on(&device, &w), &on(&device, &seed))) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // up to 700 terms of order one, summed in two orders
                        fused.assert_approx_eq::<f32>(reference, Tolerance::relative(2e-5).set_absolute(2e-5));
                    }
                }
            }
        }

        #[test]
        fn halves_equal_the_reference(t in 1_usize..70, h in 1_usize..700) {
            let device = Device::flex().autodiff();
            let normal = Distribution::Normal(0.0, 1.0);
            let [x, seed] = [0; 2].map(|_| devices::rounded(&Tensor::<2>::random([t, h], normal, &device)));
            let w = devices::rounded(&Tensor::<1>::random([h], normal, &device));
            let reference = run(rms_norm_reference, &x, &w, &seed);
            for device in devices::all() {
                let [x, seed] = [&x, &seed].map(|of| on(&device, &of.clone().cast(DType::BF16)));
                for fused in devices::forms(|| run(rms_norm, &x, &on(&device, &w), &seed)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // rounded are the result and, on a GPU, each token's part of the weight's gradient
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
        let x = Tensor::from_data([[3.0_f32, 4.0], [0.0, 1.0]], &device);
        let weight = Tensor::from_data([1.0_f32, 2.0], &device);
        // sqrt((9 + 16) / 2) = 3.5355, sqrt(1 / 2) = 0.7071
        let expected = TensorData::from([[0.848_528_1_f32, 2.262_741_8], [0.0, 2.828_427_2]]);
        rms_norm(x, weight, 0.0)
            .into_data()
            .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    }
}
