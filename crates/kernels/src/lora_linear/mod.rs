//! A linear layer with a low-rank branch beside its weight (LoRA).
//!
//! `y = x Wᵀ + s · x' Aᵀ Bᵀ`, where `x' = m∘x` with dropout (`m` is its mask), else `x' = x`.
//! `W + s·B·A` is never formed.
//!
//! With `l = x' Aᵀ` and `dl = s · dy B`: `dx = dy W + m∘dx'`, `dx' = dl A`, `dA = dlᵀ x'`,
//! `dB = s · dyᵀ l`. The frozen weight gets no gradient.
//!
//! Source: Hu et al. 2021, equation 3; PEFT `lora/layer.py`, `Linear.forward`.
//!
//! Axes: T tokens, I input features, O output features, r rank.

mod flex;
mod halves;
#[cfg(feature = "libtorch")]
mod libtorch;
mod together;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, NodeGuard, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

pub use self::together::{
    GradientsForm, Layer, LayerOn, Lows, MOST_TOGETHER, ResultsForm, Together, TogetherForms,
    TogetherGradients, TogetherResults, lora_linears,
};
use crate::Dropout;
use crate::frozen::{FrozenForms, FrozenWeight, StoredWeight, WeightOn};
use crate::linear::{self, LinearForms, gradient_of_weight, untracked};
use crate::operation::Operation;
use crate::reference::{self, in_dtype, widened};

/// The low-rank branch of [`lora_linear`].
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[r, I]`
    pub a: Tensor<2>,
    /// `[O, r]`
    pub b: Tensor<2>,
    /// `alpha / r`, or `alpha / √r`
    pub scale: f64,
    /// Dropout of the branch's input.
    pub dropout: Option<Dropout>,
}

impl LowRank {
    /// The input of the branch, `[T, I]`, in the dtype of `x`.
    pub fn input(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.dropout {
            Some(dropout) => {
                let mask = dropout.mask(x.dims()[1], &x.device());
                let dtype = x.dtype();
                (x.cast(DType::F32) * mask).cast(dtype)
            }
            None => x,
        }
    }
}

/// `x Wᵀ` plus the scaled low-rank branch.
///
/// # Shapes
/// `x`: `[T, I]`, f32 or bf16. `weight`: `[O, I]`, as stored. Result: `[T, O]`, in the dtype of `x`.
pub fn lora_linear(x: Tensor<2>, weight: impl Into<FrozenWeight>, branch: LowRank) -> Tensor<2> {
    let LowRank {
        a,
        b,
        scale,
        dropout,
    } = branch;
    let [x, a, b] = [x, a, b].map(Tensor::into_dispatch);
    Tensor::from_dispatch(match weight.into() {
        FrozenWeight::Dense(weight) => {
            Dispatch::low_rank_linear(x, weight.into_dispatch(), a, b, scale, dropout)
        }
        FrozenWeight::Stored(weight) => {
            Dispatch::stored_low_rank_linear(x, a, b, weight, scale, dropout)
        }
    })
}

/// The reference implementation of [`lora_linear`], in plain tensor operations.
///
/// # Shapes
/// As [`lora_linear`].
pub fn lora_linear_reference(x: Tensor<2>, weight: Tensor<2>, branch: LowRank) -> Tensor<2> {
    let LowRank {
        a,
        b,
        scale,
        dropout,
    } = branch;
    let inputs = [x, weight, a, b].map(Tensor::into_dispatch);
    Tensor::from_dispatch(plain::<Dispatch>(inputs, scale, dropout.as_ref()))
}

fn plain<B: Backend>(
    [x, weight, a, b]: [FloatTensor<B>; 4],
    scale: f64,
    dropout: Option<&Dropout>,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = widened::<B>(x);
    let y = linear::plain::<B>(x.clone(), weight); // [T, O]
    let input = match dropout {
        None => x,
        Some(dropout) => {
            let [_, features] = x.shape().dims();
            let mask = B::float_from_data(dropout.mask_data(features), &x.device());
            B::float_mul(x, mask)
        }
    };
    let low = linear::plain::<B>(input, a); // [T, r]
    let low = B::float_mul_scalar(low, scale.into());
    in_dtype::<B>(B::float_add(y, linear::plain::<B>(low, b)), dtype)
}

fn plain_gradient<B: LinearForms>(adapted: Adapted<B>, dy: FloatTensor<B>) -> AdaptedGradients<B> {
    let Adapted {
        x,
        weight,
        a,
        b,
        scale,
        dropout,
        below,
        ..
    } = adapted;
    let of = |[x, weight, a, b]: [_; 4]| {
        plain::<Autodiff<B>>([x, weight, a, b], scale, dropout.as_ref())
    };
    let weight = weight.tensor(&x.device());
    let inputs = [x, weight, a, b];
    let wanted = [below, false, true, true];
    match reference::gradients::<B, 4>(inputs, wanted, of, dy) {
        [x, _, Some(a), Some(b)] => AdaptedGradients { x, a, b },
        _ => unreachable!("the gradients of A and B are wanted"),
    }
}

backends! {
    /// [`lora_linear`] on a backend.
    pub trait LoraLinearBackend: Backend {
        /// See [`lora_linear`].
        fn low_rank_linear(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            a: FloatTensor<Self>,
            b: FloatTensor<Self>,
            scale: f64,
            dropout: Option<Dropout>,
        ) -> FloatTensor<Self>;

        /// See [`lora_linear`].
        fn stored_low_rank_linear(
            x: FloatTensor<Self>,
            a: FloatTensor<Self>,
            b: FloatTensor<Self>,
            weight: StoredWeight,
            scale: f64,
            dropout: Option<Dropout>,
        ) -> FloatTensor<Self>;

        /// See [`lora_linears`].
        fn linears_of_one_input(
            x: FloatTensor<Self>,
            #[extension_type] first: LayerOn<Self>,
            #[extension_type] second: LayerOn<Self>,
            #[extension_type] third: LayerOn<Self>,
        ) -> Vec<FloatTensor<Self>>;
    }
}

/// The values of the forward pass that the backward pass of [`lora_linear`] needs.
#[derive(Debug, Clone)]
pub struct Adapted<B: Backend> {
    /// `[T, I]`
    pub x: FloatTensor<B>,
    /// `[O, I]`
    pub weight: WeightOn<B>,
    /// `[r, I]`
    pub a: FloatTensor<B>,
    /// `[O, r]`
    pub b: FloatTensor<B>,
    /// Scale of the branch.
    pub scale: f64,
    /// Dropout of the branch's input.
    pub dropout: Option<Dropout>,
    /// `s · x' Aᵀ`, `[T, r]`, if the forward pass kept it.
    pub low: Option<FloatTensor<B>>,
    /// Whether the gradient of `x` is needed.
    pub below: bool,
}

/// Gradients of [`lora_linear`].
#[derive(Debug)]
pub struct AdaptedGradients<B: Backend> {
    /// Gradient of `x`, `[T, I]`, if it is needed.
    pub x: Option<FloatTensor<B>>,
    /// Gradient of A, `[r, I]`.
    pub a: FloatTensor<B>,
    /// Gradient of B, `[O, r]`.
    pub b: FloatTensor<B>,
}

/// The forms of [`lora_linear`] on a backend; without a fused one, the reference implementation.
pub trait LoraLinearForms: LinearForms {
    /// Whether they are fused.
    const FUSED: bool = false;

    /// How layers of one input are computed together, if they are; see [`lora_linears`].
    const TOGETHER: Option<TogetherForms<Self>> = None;

    /// The result of [`lora_linear`], and [`Adapted::low`] if the backward pass takes it.
    fn low_rank_linear_form(
        x: FloatTensor<Self>,
        weight: WeightOn<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
        dropout: Option<Dropout>,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        let y = by_reference::<Self>(x, weight, [a, b], scale, dropout.as_ref());
        (y, None)
    }

    /// The gradients of the inputs except the weight's, from the gradient of the result.
    fn low_rank_linear_gradient(
        adapted: Adapted<Self>,
        dy: FloatTensor<Self>,
    ) -> AdaptedGradients<Self> {
        reference::run(Operation::LowRank, || plain_gradient::<Self>(adapted, dy))
    }
}

impl<B: LoraLinearForms> LoraLinearBackend for B {
    fn low_rank_linear(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        a: FloatTensor<B>,
        b: FloatTensor<B>,
        scale: f64,
        dropout: Option<Dropout>,
    ) -> FloatTensor<B> {
        result::<B>(x, WeightOn::Dense(weight), [a, b], scale, dropout).0
    }

    fn stored_low_rank_linear(
        x: FloatTensor<B>,
        a: FloatTensor<B>,
        b: FloatTensor<B>,
        weight: StoredWeight,
        scale: f64,
        dropout: Option<Dropout>,
    ) -> FloatTensor<B> {
        result::<B>(x, WeightOn::Stored(weight), [a, b], scale, dropout).0
    }

    fn linears_of_one_input(
        x: FloatTensor<B>,
        first: LayerOn<B>,
        second: LayerOn<B>,
        third: LayerOn<B>,
    ) -> Vec<FloatTensor<B>> {
        together::results(x, [first, second, third])
    }
}

fn by_reference<B: FrozenForms>(
    x: FloatTensor<B>,
    weight: WeightOn<B>,
    [a, b]: [FloatTensor<B>; 2],
    scale: f64,
    dropout: Option<&Dropout>,
) -> FloatTensor<B> {
    reference::run(Operation::LowRank, || {
        let weight = weight.tensor(&x.device());
        plain::<B>([x, weight, a, b], scale, dropout)
    })
}

fn result<B: LoraLinearForms>(
    x: FloatTensor<B>,
    weight: WeightOn<B>,
    [a, b]: [FloatTensor<B>; 2],
    scale: f64,
    dropout: Option<Dropout>,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    if reference::is_chosen(Operation::LowRank) {
        let y = by_reference::<B>(x, weight, [a, b], scale, dropout.as_ref());
        return (y, None);
    }
    B::low_rank_linear_form(x, weight, a, b, scale, dropout)
}

fn gradient<B: LoraLinearForms>(adapted: Adapted<B>, dy: FloatTensor<B>) -> AdaptedGradients<B> {
    if reference::is_chosen(Operation::LowRank) {
        return reference::run(Operation::LowRank, || plain_gradient::<B>(adapted, dy));
    }
    B::low_rank_linear_gradient(adapted, dy)
}

impl<B: LoraLinearForms, C: CheckpointStrategy> LoraLinearBackend for Autodiff<B, C> {
    fn low_rank_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
        dropout: Option<Dropout>,
    ) -> FloatTensor<Self> {
        let node = weight.node();
        let weight = WeightOn::Dense(weight.into_primitive());
        recorded::<B, C>(x, (node, weight), [a, b], scale, dropout)
    }

    fn stored_low_rank_linear(
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        weight: StoredWeight,
        scale: f64,
        dropout: Option<Dropout>,
    ) -> FloatTensor<Self> {
        let node = untracked::<B, C>(&x);
        let weight = WeightOn::Stored(weight);
        recorded::<B, C>(x, (node, weight), [a, b], scale, dropout)
    }

    fn linears_of_one_input(
        x: FloatTensor<Self>,
        first: LayerOn<Self>,
        second: LayerOn<Self>,
        third: LayerOn<Self>,
    ) -> Vec<FloatTensor<Self>> {
        together::recorded::<B, C>(x, [first, second, third])
    }
}

fn recorded<B: LoraLinearForms, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    (weight_node, weight): (NodeGuard, WeightOn<B>),
    [a, b]: [FloatTensor<Autodiff<B, C>>; 2],
    scale: f64,
    dropout: Option<Dropout>,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct LoraLinear;

    impl<B: LoraLinearForms> Backward<B, 4> for LoraLinear {
        type State = Adapted<B>;

        fn backward(
            self,
            ops: Ops<Self::State, 4>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let [x_node, weight_node, a_node, b_node] = ops.parents;
            let dy = grads.consume::<B>(&ops.node); // [T, O]
            let adapted = ops.state;
            if let Some(node) = weight_node {
                let d_weight = gradient_of_weight::<B>(dy.clone(), adapted.x.clone());
                grads.register::<B>(node.id, d_weight);
            }
            let found = gradient::<B>(adapted, dy);
            let parts = [
                (x_node, found.x),
                (a_node, Some(found.a)),
                (b_node, Some(found.b)),
            ];
            for (node, gradient) in parts {
                if let (Some(node), Some(gradient)) = (node, gradient) {
                    grads.register::<B>(node.id, gradient);
                }
            }
        }
    }

    let below = x.is_tracked();
    let prepared = LoraLinear
        .prepare::<C>([x.node(), weight_node, a.node(), b.node()])
        .compute_bound()
        .stateful();
    let (x, a, b) = (x.into_primitive(), a.into_primitive(), b.into_primitive());
    let branch = [a.clone(), b.clone()];
    let (y, low) = result(x.clone(), weight.clone(), branch, scale, dropout.clone());
    match prepared {
        OpsKind::Tracked(prep) => {
            let adapted = Adapted {
                x,
                weight,
                a,
                b,
                scale,
                dropout,
                low,
                below,
            };
            prep.finish(adapted, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[cfg(test)]
mod tests;
