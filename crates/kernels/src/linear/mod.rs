//! A linear layer whose weight keeps its stored dtype.
//!
//! `y = x Wᵀ`, `dx = dy W`, `dW = dyᵀ x` (only if the weight is trained).
//!
//! The weight, dense or quantised, is widened to f32 inside the matrix multiplication, in the forward pass and again in
//! the backward pass, so that no widened copy outlives the operation. Plain automatic differentiation
//! would keep one.
//!
//! Axes: T tokens, I input features, O output features.

mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, NodeGuard, Ops, OpsKind},
};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, tensor::FloatTensor,
};
use burn::tensor::{DType, Tensor};

use crate::frozen::{FrozenForms, FrozenWeight, StoredWeight, WeightOn};
use crate::profile::{self, Operation};
use crate::reference::{self, in_dtype, widened};

/// A linear layer without a bias: `y = x Wᵀ`.
///
/// # Shapes
/// `x`: `[T, I]`, f32 or bf16. `weight`: `[O, I]`, f32, bf16, f16 or quantised. Result: `[T, O]`, in the dtype of `x`.
pub fn linear(x: Tensor<2>, weight: impl Into<FrozenWeight>) -> Tensor<2> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(match weight.into() {
        FrozenWeight::Dense(weight) => Dispatch::widened_linear(x, weight.into_dispatch()),
        FrozenWeight::Stored(weight) => Dispatch::stored_linear(x, weight),
    })
}

/// The reference implementation of [`linear`], in plain tensor operations.
///
/// # Shapes
/// As [`linear`].
pub fn linear_reference(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let [x, weight] = [x, weight].map(Tensor::into_dispatch);
    Tensor::from_dispatch(plain::<Dispatch>(x, weight))
}

pub(crate) fn plain<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = x.dtype();
    let [x, weight] = [x, weight].map(widened::<B>);
    in_dtype::<B>(B::float_matmul(x, B::float_transpose(weight)), dtype)
}

fn plain_gradient<B: Backend>(dy: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = dy.dtype();
    let [dy, weight] = [dy, weight].map(widened::<B>);
    in_dtype::<B>(B::float_matmul(dy, weight), dtype)
}

backends! {
    /// [`linear`] on a backend.
    pub trait LinearBackend: Backend {
        /// See [`linear`].
        fn widened_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

        /// See [`linear`].
        fn stored_linear(x: FloatTensor<Self>, weight: StoredWeight) -> FloatTensor<Self>;
    }
}

/// The forms of [`linear`] on a backend; without a fused one, the reference implementation.
pub trait LinearForms: FrozenForms {
    /// Whether they are fused.
    const FUSED: bool = false;

    /// See [`linear`].
    fn linear_form(x: FloatTensor<Self>, weight: WeightOn<Self>) -> FloatTensor<Self> {
        by_reference(x, weight, plain::<Self>)
    }

    /// The gradient of `x`, whose dtype is `dtype`, from the gradient of the result.
    fn linear_gradient(
        dy: FloatTensor<Self>,
        weight: WeightOn<Self>,
        dtype: DType,
    ) -> FloatTensor<Self> {
        let _ = dtype;
        by_reference(dy, weight, plain_gradient::<Self>)
    }

    /// `dW = dyᵀ x`, `[O, I]`
    fn weight_gradient(dy: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(Self::float_transpose(dy), x)
    }
}

impl<B: LinearForms> LinearBackend for B {
    fn widened_linear(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
        result::<B>(x, WeightOn::Dense(weight))
    }

    fn stored_linear(x: FloatTensor<B>, weight: StoredWeight) -> FloatTensor<B> {
        result::<B>(x, WeightOn::Stored(weight))
    }
}

/// Runs a reference implementation on the weight as a tensor.
fn by_reference<B: FrozenForms>(
    x: FloatTensor<B>,
    weight: WeightOn<B>,
    f: fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    reference::run(Operation::Linear, || {
        let weight = weight.tensor(&x.device());
        f(x, weight)
    })
}

fn result<B: LinearForms>(x: FloatTensor<B>, weight: WeightOn<B>) -> FloatTensor<B> {
    if reference::is_chosen(Operation::Linear) {
        return by_reference(x, weight, plain::<B>);
    }
    B::linear_form(x, weight)
}

fn gradient<B: LinearForms>(
    dy: FloatTensor<B>,
    weight: WeightOn<B>,
    dtype: DType,
) -> FloatTensor<B> {
    if reference::is_chosen(Operation::Linear) {
        return by_reference(dy, weight, plain_gradient::<B>);
    }
    B::linear_gradient(dy, weight, dtype)
}

/// `dW = dyᵀ x`, `[O, I]`, f32
pub(crate) fn gradient_of_weight<B: LinearForms>(
    dy: FloatTensor<B>,
    x: FloatTensor<B>,
) -> FloatTensor<B> {
    let ([t, o], [_, i]) = (dy.shape().dims(), x.shape().dims());
    let bytes = dy.dtype().size() * (t * (o + i) + o * i);
    let _span = profile::span(Operation::Linear, 2 * t * o * i, bytes);
    widened::<B>(B::weight_gradient(dy, x))
}

impl<B: LinearForms, C: CheckpointStrategy> LinearBackend for Autodiff<B, C> {
    fn widened_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let trained = weight.is_tracked();
        let node = weight.node();
        recorded::<B, C>(x, node, WeightOn::Dense(weight.into_primitive()), trained)
    }

    fn stored_linear(x: FloatTensor<Self>, weight: StoredWeight) -> FloatTensor<Self> {
        let node = untracked::<B, C>(&x);
        recorded::<B, C>(x, node, WeightOn::Stored(weight), false)
    }
}

/// A node of the graph without a gradient, in the place of a weight that is not a tensor.
pub(crate) fn untracked<B: Backend, C: CheckpointStrategy>(
    x: &FloatTensor<Autodiff<B, C>>,
) -> NodeGuard {
    // shares the memory of `x`, so that nothing is allocated
    Autodiff::<B, C>::from_inner(x.clone().into_primitive()).node()
}

fn recorded<B: LinearForms, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight_node: NodeGuard,
    weight: WeightOn<B>,
    weight_is_trained: bool,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct Linear;

    impl<B: LinearForms> Backward<B, 2> for Linear {
        /// The input, which is kept only if the weight is trained, its dtype, and the weight.
        type State = (Option<FloatTensor<B>>, DType, WeightOn<B>);

        fn backward(
            self,
            ops: Ops<Self::State, 2>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let [x_node, weight_node] = ops.parents;
            let dy = grads.consume::<B>(&ops.node); // [T, O]
            let (x, dtype, weight) = ops.state;
            if let (Some(node), Some(x)) = (weight_node, x) {
                let d_weight = gradient_of_weight::<B>(dy.clone(), x);
                grads.register::<B>(node.id, d_weight);
            }
            if let Some(node) = x_node {
                let dx = gradient::<B>(dy, weight, dtype); // [T, I]
                grads.register::<B>(node.id, dx);
            }
        }
    }

    match Linear
        .prepare::<C>([x.node(), weight_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let x = x.into_primitive();
            let y = result(x.clone(), weight.clone());
            let dtype = x.dtype();
            prep.finish((weight_is_trained.then_some(x), dtype, weight), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(result(x.into_primitive(), weight)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{self, on};
    use burn::tensor::{Device, Distribution, TensorData, Tolerance};
    use proptest::prelude::*;

    type Product = fn(Tensor<2>, Tensor<2>) -> Tensor<2>;

    /// Result and gradients of `sum(f(x, w) · seed)`.
    fn run(f: Product, x: &Tensor<2>, w: &Tensor<2>, seed: &Tensor<2>) -> [TensorData; 3] {
        let x = x.clone().require_grad();
        let w = w.clone().require_grad();
        let y = f(x.clone(), w.clone());
        let grads = (y.clone() * seed.clone()).sum().backward();
        let gradient = |leaf: Tensor<2>| leaf.grad(&grads).unwrap().into_data();
        [y.inner().into_data(), gradient(x), gradient(w)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equals_the_reference(t in 1_usize..70, i in 1_usize..80, o in 1_usize..80) {
            let device = Device::flex().autodiff();
            let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            let (x, w, seed) = (random([t, i]), random([o, i]), random([t, o]));
            let reference = run(linear_reference, &x, &w, &seed);
            for device in devices::all() {
                let [x, w, seed] = [&x, &w, &seed].map(|of| on(&device, of));
                for fused in devices::forms(|| run(linear, &x, &w, &seed)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // the same terms summed in another order, at most 80 of order one
                        fused.assert_approx_eq::<f32>(reference, Tolerance::absolute(4e-5));
                    }
                }
            }
            for device in devices::all() {
                let [x, w, seed] = [&x, &w, &seed].map(devices::rounded);
                let reference = run(linear_reference, &x, &w, &seed);
                let [x, w, seed] = [x, w, seed].map(|of| on(&device, &of.cast(DType::BF16)));
                for fused in devices::forms(|| run(linear, &x, &w, &seed)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // sums in f32, rounded once
                        let scale = devices::largest(reference).max(0.1);
                        devices::assert_near(fused, reference, 1.0, scale);
                    }
                }
            }
        }
    }

    #[test]
    fn frozen_half_weights_are_widened_exactly() {
        let flex = Device::flex().autodiff();
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &flex);
        for device in devices::all() {
            for dtype in [DType::BF16, DType::F16] {
                let w = random([5, 7]).inner().cast(dtype);
                let x = random([3, 7]);
                let leaf = on(&device, &x).require_grad();
                let y = linear(leaf.clone(), on(&device, &w).inner());
                let grads = y.clone().sum().backward();
                let expected = linear_reference(x.inner(), w.clone());
                // seven terms of a few units, summed in f32 in two orders: 7 · 2⁻²⁴ of about 25
                y.inner()
                    .into_data()
                    .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(2e-5));
                let column_sums = w.cast(DType::F32).sum_dim(0).expand([3, 7]);
                leaf.grad(&grads)
                    .unwrap()
                    .into_data()
                    .assert_approx_eq::<f32>(&column_sums.into_data(), Tolerance::absolute(1e-5));
            }
        }
    }
}
