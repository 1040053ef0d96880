//! A loss whose gradient with respect to a tensor is known: from there a backward pass continues that was computed apart.
//!
//! `Σ y · dy` has that gradient, too, but its sum and the gradients of its product are passes over tensors of this size.
//!
//! Axes: T tokens, H hidden size.

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

use crate::linear::LinearForms;

/// A zero whose gradient with respect to `y` is `dy`. The backward pass must begin at it.
///
/// # Shapes
/// `y`, `dy`: `[T, H]`. Result: `[1]`.
pub fn given_gradient(y: Tensor<2>, dy: Tensor<2>) -> Tensor<1> {
    let [y, dy] = [y, dy].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::given_gradient(y, dy))
}

backends! {
    /// [`given_gradient`] on a backend.
    pub trait GivenGradientBackend: Backend {
        /// See [`given_gradient`].
        fn given_gradient(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
    }
}

impl<B: LinearForms> GivenGradientBackend for B {
    fn given_gradient(y: FloatTensor<B>, _dy: FloatTensor<B>) -> FloatTensor<B> {
        B::float_zeros([1].into(), &y.device(), DType::F32.into())
    }
}

impl<B: LinearForms, C: CheckpointStrategy> GivenGradientBackend for Autodiff<B, C> {
    fn given_gradient(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct GivenGradient;

        impl<B: LinearForms> Backward<B, 1> for GivenGradient {
            /// The gradient, `[T, H]`.
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                grads.consume::<B>(&ops.node); // 1
                if let [Some(node)] = ops.parents {
                    grads.register::<B>(node.id, ops.state);
                }
            }
        }

        let prepared = GivenGradient
            .prepare::<C>([y.node()])
            .compute_bound()
            .stateful();
        let dy = dy.into_primitive();
        let zero = B::given_gradient(y.into_primitive(), dy.clone());
        match prepared {
            OpsKind::Tracked(prep) => prep.finish(dy, zero),
            OpsKind::UnTracked(prep) => prep.finish(zero),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{self, on};
    use burn::tensor::{Device, Distribution};

    #[test]
    fn a_backward_pass_continues_from_a_gradient() {
        let flex = Device::flex().autodiff();
        let random = || Tensor::<2>::random([7, 12], Distribution::Normal(0.0, 1.0), &flex);
        let (x, dy) = (random(), random());
        for dtype in [DType::F32, DType::BF16] {
            for device in devices::all() {
                let x = on(&device, &x.clone().cast(dtype)).require_grad();
                let dy = on(&device, &dy.clone().cast(dtype));
                let grads = given_gradient(x.clone() * 2.0, dy.clone()).backward();
                let expected = (dy * 2.0).into_data();
                x.grad(&grads)
                    .unwrap()
                    .into_data()
                    .assert_eq(&expected, true);
            }
        }
    }
}
