//! What a layer received, and what it adds: `x + y`, `dx = dy = d(x + y)`.
//!
//! For activations in bf16 flex adds one element after another, on one thread. Here the sum is one pass on all threads,
//! rounded once, and its gradient is passed on in f32.
//!
//! Axes: T tokens, H hidden size.

#[cfg(feature = "libtorch")]
use burn::backend::LibTorch;
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use half::bf16;

use crate::buffer::buffer;
use crate::flex::{contiguous, half_tensor, numbers, rows_of_task, widened};
use crate::product::Numbers;
use crate::rounding::{to_bf16, to_f32};
use crate::simd::vectorised;
use crate::threads;

/// The sum of two tensors of the same dtype.
///
/// # Shapes
/// `x`, `y`, result: `[T, H]`.
pub fn residual(x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    let [x, y] = [x, y].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::residual(x, y))
}

backends! {
    /// [`residual`] on a backend.
    pub trait ResidualBackend: Backend {
        /// See [`residual`].
        fn residual(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self>;
    }
}

/// The form of [`residual`] on a backend: its addition.
pub trait ResidualForms: Backend {
    /// See [`residual`].
    fn residual_form(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_add(x, y)
    }

    /// The gradient of both sides, from that of the sum.
    fn residual_gradient(dy: FloatTensor<Self>) -> FloatTensor<Self> {
        dy
    }
}

#[cfg(feature = "libtorch")]
impl ResidualForms for LibTorch {}

impl ResidualForms for Flex {
    fn residual_form(x: FlexTensor, y: FlexTensor) -> FlexTensor {
        let [x, y] = [x, y].map(contiguous);
        let [Numbers::Bf16(a), Numbers::Bf16(b)] = [&x, &y].map(numbers) else {
            return Self::float_add(x, y);
        };
        assert_eq!(a.len(), b.len(), "elements of the sides of a sum");
        let task = rows_of_task(1);
        let mut sum = buffer(a.len());
        threads::chunks(&mut sum, task, |index, sum| {
            let [a, b] = [a, b].map(|of| &of[index * task..][..sum.len()]);
            add(a, b, sum);
        });
        half_tensor(sum, x.layout().shape().clone())
    }

    /// In f32, as the gradients are that other operations add to it.
    fn residual_gradient(dy: FlexTensor) -> FlexTensor {
        widened(dy)
    }
}

vectorised! {
    fn add(_simd, a: &'a [bf16], b: &'a [bf16], sum: &'a mut [bf16]) {
        for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
            *sum = to_bf16(to_f32(*a) + to_f32(*b));
        }
    }
}

impl<B: ResidualForms> ResidualBackend for B {
    fn residual(x: FloatTensor<B>, y: FloatTensor<B>) -> FloatTensor<B> {
        B::residual_form(x, y)
    }
}

impl<B: ResidualForms, C: CheckpointStrategy> ResidualBackend for Autodiff<B, C> {
    fn residual(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Residual;

        impl<B: ResidualForms> Backward<B, 2> for Residual {
            type State = ();

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let dy = B::residual_gradient(grads.consume::<B>(&ops.node)); // [T, H]
                for node in ops.parents.into_iter().flatten() {
                    grads.register::<B>(node.id, dy.clone());
                }
            }
        }

        let prepared = Residual
            .prepare::<C>([x.node(), y.node()])
            .compute_bound()
            .stateful();
        let sum = B::residual_form(x.into_primitive(), y.into_primitive());
        match prepared {
            OpsKind::Tracked(prep) => prep.finish((), sum),
            OpsKind::UnTracked(prep) => prep.finish(sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{self, on};
    use burn::tensor::{DType, Device, Distribution};

    #[test]
    fn a_sum_is_rounded_once_and_passes_its_gradient_on() {
        let flex = Device::flex().autodiff();
        let random = || Tensor::<2>::random([37, 600], Distribution::Normal(0.0, 1.0), &flex);
        let [x, y, seed] = [random(), random(), random()].map(|of| devices::rounded(&of));
        for dtype in [DType::F32, DType::BF16] {
            let expected = (x.clone() + y.clone()).cast(dtype).into_data();
            for device in devices::all() {
                let [x, y, seed] = [&x, &y, &seed].map(|of| on(&device, &of.clone().cast(dtype)));
                let [x, y] = [x, y].map(Tensor::require_grad);
                let sum = residual(x.clone(), y.clone());
                sum.clone().into_data().assert_eq(&expected, true);
                let grads = (sum * seed.clone()).sum().backward();
                for leaf in [x, y] {
                    let gradient = leaf.grad(&grads).unwrap().into_data();
                    gradient
                        .convert_dtype(dtype)
                        .assert_eq(&seed.to_data(), true);
                }
            }
        }
    }
}
