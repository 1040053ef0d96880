//! Linear layers that read the same input, such as those of queries, keys and values, each with or without a low-rank branch.
//!
//! `yᵢ = x Wᵢᵀ + s · x Aᵢᵀ Bᵢᵀ`. With `l = x [A₁; A₂; ...]ᵀ` the input is read once for all branches, and the gradient
//! `dx = Σ (dyᵢ Wᵢ + dlᵢ Aᵢ)` is one tensor to which each layer adds, not a sum of several.
//!
//! Automatic differentiation of Burn has one result per operation. Here a node of the input stands between the input and the
//! results: each result hands its gradient to it, and its own step, which follows theirs, computes all others.
//!
//! Axes: T tokens, I input features, O output features, R sum of the ranks.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, NodeGuard, Ops, OpsKind},
};
use burn::backend::{
    Autodiff, Backend, Dispatch, ExtensionType, TensorMetadata, tensor::FloatTensor,
};
use burn::tensor::Tensor;

use super::{LoraLinearBackend, LoraLinearForms, LowRank};
use crate::Dropout;
use crate::frozen::{FrozenWeight, WeightOn};
use crate::linear::{LinearBackend, untracked};
use crate::operation::Operation;
use crate::reference;

/// The most layers of one input.
pub const MOST_TOGETHER: usize = 3;

/// `x Wᵢᵀ` plus the scaled low-rank branch of those layers that have one.
///
/// A backend with [`LoraLinearForms::TOGETHER`] computes layers together that have no dropout and one scale. Otherwise this
/// is [`linear`](crate::linear) or [`lora_linear`](crate::lora_linear) of each.
///
/// # Shapes
/// `x`: `[T, I]`, f32 or bf16. Weights: `[O, I]`, as stored. Results: `[T, O]`, in the dtype of `x`.
pub fn lora_linears<const N: usize>(
    x: Tensor<2>,
    layers: [(FrozenWeight, Option<LowRank>); N],
) -> [Tensor<2>; N] {
    const { assert!(N <= MOST_TOGETHER) }
    let mut layers = layers.map(LayerOn::of).into_iter();
    let mut next = || layers.next().unwrap_or(LayerOn::Absent);
    let [first, second, third] = [next(), next(), next()];
    let results = Dispatch::linears_of_one_input(x.into_dispatch(), first, second, third);
    let mut results = results.into_iter();
    std::array::from_fn(|_| match results.next() {
        Some(y) => Tensor::from_dispatch(y),
        None => unreachable!("each layer has a result"),
    })
}

/// A layer of [`lora_linears`] on a backend.
#[derive(Debug, Clone, ExtensionType)]
pub enum LayerOn<B: Backend> {
    /// There are fewer layers.
    Absent,
    /// A layer without a low-rank branch.
    Plain(#[extension_type] WeightOn<B>),
    /// A layer with one.
    Adapted {
        /// `[O, I]`
        #[extension_type]
        weight: WeightOn<B>,
        /// `[r, I]`
        a: FloatTensor<B>,
        /// `[O, r]`
        b: FloatTensor<B>,
        /// Scale of the branch.
        scale: f64,
        /// Dropout of the branch's input.
        dropout: Option<Dropout>,
    },
}

impl LayerOn<Dispatch> {
    fn of((weight, branch): (FrozenWeight, Option<LowRank>)) -> Self {
        let weight = match weight {
            FrozenWeight::Dense(weight) => WeightOn::Dense(weight.into_dispatch()),
            FrozenWeight::Stored(weight) => WeightOn::Stored(weight),
        };
        match branch {
            None => Self::Plain(weight),
            Some(LowRank {
                a,
                b,
                scale,
                dropout,
            }) => Self::Adapted {
                weight,
                a: a.into_dispatch(),
                b: b.into_dispatch(),
                scale,
                dropout,
            },
        }
    }
}

/// A layer without dropout, whose scale is that of all layers.
#[derive(Debug, Clone)]
pub struct Layer<B: Backend> {
    /// `[O, I]`
    pub weight: WeightOn<B>,
    /// A, `[r, I]`, and B, `[O, r]`.
    pub branch: Option<[FloatTensor<B>; 2]>,
}

/// What the forward pass of layers with low-rank branches keeps.
#[derive(Debug, Clone)]
pub struct Lows<B: Backend> {
    /// A of all branches, one below the other, `[R, I]`, in the dtype of `x`.
    pub a: FloatTensor<B>,
    /// `s · x aᵀ`, `[T, R]`
    pub low: FloatTensor<B>,
}

/// What the backward pass of layers of one input needs.
#[derive(Debug, Clone)]
pub struct Together<B: Backend> {
    /// `[T, I]`
    pub x: FloatTensor<B>,
    /// The layers.
    pub layers: Vec<Layer<B>>,
    /// Scale of the branches.
    pub scale: f64,
    /// `None` if no layer has a branch.
    pub lows: Option<Lows<B>>,
    /// Whether the gradient of `x` is needed.
    pub below: bool,
}

/// Gradients of layers of one input.
#[derive(Debug)]
pub struct TogetherGradients<B: Backend> {
    /// Gradient of `x`, `[T, I]`, if it is needed.
    pub x: Option<FloatTensor<B>>,
    /// Gradients of A and B of each layer, f32.
    pub branches: Vec<Option<[FloatTensor<B>; 2]>>,
}

/// Results of layers of one input, and what their backward pass takes.
pub type TogetherResults<B> = (Vec<FloatTensor<B>>, Option<Lows<B>>);

/// How a backend computes layers of one input together.
#[derive(Debug, Clone, Copy)]
pub struct TogetherForms<B: Backend> {
    /// The results for `x`, layers and their scale.
    pub results: ResultsForm<B>,
    /// All gradients, from those of the results.
    pub gradients: GradientsForm<B>,
}

/// See [`TogetherForms::results`].
pub type ResultsForm<B> = fn(&FloatTensor<B>, &[Layer<B>], f64) -> TogetherResults<B>;

/// See [`TogetherForms::gradients`].
pub type GradientsForm<B> = fn(Together<B>, Vec<FloatTensor<B>>) -> TogetherGradients<B>;

/// The forms of a backend, if it has them and these layers can be computed together, with their scale.
fn forms<B: LoraLinearForms, L: Backend>(layers: &[LayerOn<L>]) -> Option<(TogetherForms<B>, f64)> {
    let forms = B::TOGETHER?;
    let operations = [Operation::Linear, Operation::LowRank];
    if layers.len() < 2 || operations.into_iter().any(reference::is_chosen) {
        return None;
    }
    let mut common: Option<f64> = None;
    for layer in layers {
        if let LayerOn::Adapted { scale, dropout, .. } = layer {
            let other = common.is_some_and(|common| common.to_bits() != scale.to_bits());
            if other || dropout.is_some() {
                return None;
            }
            common = Some(*scale);
        }
    }
    Some((forms, common.unwrap_or(1.0)))
}

fn present<B: Backend>(layers: [LayerOn<B>; MOST_TOGETHER]) -> Vec<LayerOn<B>> {
    let layers = layers.into_iter();
    layers
        .filter(|layer| !matches!(layer, LayerOn::Absent))
        .collect()
}

/// [`lora_linears`] on a backend without automatic differentiation.
pub(super) fn results<B: LoraLinearForms>(
    x: FloatTensor<B>,
    layers: [LayerOn<B>; MOST_TOGETHER],
) -> Vec<FloatTensor<B>> {
    let layers = present(layers);
    let Some((forms, scale)) = forms::<B, B>(&layers) else {
        return one_by_one::<B>(&x, layers);
    };
    let layers = layers.into_iter().map(|layer| layer.without_scale(|of| of));
    let layers: Vec<Layer<B>> = layers.collect();
    (forms.results)(&x, &layers, scale).0
}

fn one_by_one<B: LinearBackend + LoraLinearBackend>(
    x: &FloatTensor<B>,
    layers: Vec<LayerOn<B>>,
) -> Vec<FloatTensor<B>> {
    let of = |layer| {
        let x = x.clone();
        match layer {
            LayerOn::Absent => unreachable!("only layers that are present"),
            LayerOn::Plain(WeightOn::Dense(weight)) => B::widened_linear(x, weight),
            LayerOn::Plain(WeightOn::Stored(weight)) => B::stored_linear(x, weight),
            LayerOn::Adapted {
                weight,
                a,
                b,
                scale,
                dropout,
            } => match weight {
                WeightOn::Dense(weight) => B::low_rank_linear(x, weight, a, b, scale, dropout),
                WeightOn::Stored(weight) => {
                    B::stored_low_rank_linear(x, a, b, weight, scale, dropout)
                }
            },
        }
    };
    layers.into_iter().map(of).collect()
}

impl<B: Backend> LayerOn<B> {
    /// The layer on the backend below, without what all layers share.
    fn without_scale<L: Backend>(
        self,
        lower: impl Fn(FloatTensor<B>) -> FloatTensor<L>,
    ) -> Layer<L> {
        let (weight, branch) = match self {
            Self::Absent => unreachable!("only layers that are present"),
            Self::Plain(weight) => (weight, None),
            Self::Adapted { weight, a, b, .. } => (weight, Some([a, b].map(&lower))),
        };
        let weight = match weight {
            WeightOn::Dense(weight) => WeightOn::Dense(lower(weight)),
            WeightOn::Stored(weight) => WeightOn::Stored(weight),
        };
        Layer { weight, branch }
    }
}

/// The gradients of the results, as far as the backward pass has reached them.
type Arrived<B> = Arc<Mutex<Vec<Option<FloatTensor<B>>>>>;

/// [`lora_linears`] with automatic differentiation.
pub(super) fn recorded<B: LoraLinearForms, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    layers: [LayerOn<Autodiff<B, C>>; MOST_TOGETHER],
) -> Vec<FloatTensor<Autodiff<B, C>>> {
    let layers = present(layers);
    let found = forms::<B, _>(&layers).filter(|_| !layers.iter().any(trains_its_weight));
    let Some((forms, scale)) = found else {
        return one_by_one::<Autodiff<B, C>>(&x, layers);
    };
    let below = x.is_tracked();
    let prepared = Input
        .prepare::<C>(parents(&x, &layers))
        .compute_bound()
        .stateful();
    let lower = |of: FloatTensor<Autodiff<B, C>>| of.into_primitive();
    let layers = layers.into_iter().map(|layer| layer.without_scale(lower));
    let layers: Vec<Layer<B>> = layers.collect();
    let x = x.into_primitive();
    let (results, lows) = (forms.results)(&x, &layers, scale);
    let arrived: Arrived<B> = Arc::new(Mutex::new(vec![None; layers.len()]));
    let input = match prepared {
        OpsKind::UnTracked(prep) => prep.finish(x),
        OpsKind::Tracked(prep) => {
            let together = Together {
                x: x.clone(),
                layers,
                scale,
                lows,
                below,
            };
            prep.finish((together, Arc::clone(&arrived)), x)
        }
    };
    let results = results.into_iter().enumerate();
    let results = results.map(|(place, y)| {
        let prepared = Output.prepare::<C>([input.node()]).compute_bound();
        match prepared.stateful() {
            OpsKind::UnTracked(prep) => prep.finish(y),
            OpsKind::Tracked(prep) => prep.finish((Arc::clone(&arrived), place), y),
        }
    });
    results.collect()
}

fn trains_its_weight<B: Backend, C: CheckpointStrategy>(layer: &LayerOn<Autodiff<B, C>>) -> bool {
    match layer {
        LayerOn::Plain(WeightOn::Dense(weight))
        | LayerOn::Adapted {
            weight: WeightOn::Dense(weight),
            ..
        } => weight.is_tracked(),
        _ => false,
    }
}

/// The input, and A and B of each layer.
const PARENTS: usize = 1 + 2 * MOST_TOGETHER;

fn parents<B: Backend, C: CheckpointStrategy>(
    x: &FloatTensor<Autodiff<B, C>>,
    layers: &[LayerOn<Autodiff<B, C>>],
) -> [NodeGuard; PARENTS] {
    std::array::from_fn(|place| {
        let Some(place) = place.checked_sub(1) else {
            return x.node();
        };
        match layers.get(place / 2) {
            Some(LayerOn::Adapted { a, .. }) if place % 2 == 0 => a.node(),
            Some(LayerOn::Adapted { b, .. }) => b.node(),
            _ => untracked::<B, C>(x),
        }
    })
}

/// The node of the input: its step computes all gradients.
#[derive(Debug)]
struct Input;

impl<B: LoraLinearForms> Backward<B, PARENTS> for Input {
    type State = (Together<B>, Arrived<B>);

    fn backward(
        self,
        ops: Ops<Self::State, PARENTS>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (together, arrived) = ops.state;
        let arrived = std::mem::take(&mut *arrived.lock().unwrap_or_else(PoisonError::into_inner));
        let used: Vec<bool> = arrived.iter().map(Option::is_some).collect();
        let dys = arrived.into_iter().zip(&together.layers);
        let dys = dys.map(|(dy, layer)| dy.unwrap_or_else(|| nothing(&together.x, layer)));
        let dys = dys.collect();
        let Some(forms) = B::TOGETHER else {
            unreachable!("recorded by these forms");
        };
        let found = (forms.gradients)(together, dys);
        let [x_node, nodes @ ..] = ops.parents;
        if let (Some(node), Some(dx)) = (x_node, found.x) {
            grads.register::<B>(node.id, dx);
        }
        // a result that the loss does not depend on leaves A and B without gradients
        let branches = found.branches.into_iter().zip(used);
        let branches = branches.map(|(branch, used)| branch.filter(|_| used));
        for (nodes, branch) in nodes.chunks(2).zip(branches) {
            for (node, gradient) in nodes.iter().zip(branch.into_iter().flatten()) {
                if let Some(node) = node {
                    grads.register::<B>(node.id, gradient);
                }
            }
        }
    }
}

/// The gradient of a result that the loss does not depend on: zeros, `[T, O]`.
fn nothing<B: LoraLinearForms>(x: &FloatTensor<B>, layer: &Layer<B>) -> FloatTensor<B> {
    let shape = [x.shape()[0], layer.weight.shape()[0]];
    B::float_zeros(shape.into(), &x.device(), x.dtype().into())
}

/// The node of a result: its step hands the gradient to that of the input.
#[derive(Debug)]
struct Output;

impl<B: Backend> Backward<B, 1> for Output {
    type State = (Arrived<B>, usize);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (arrived, place) = ops.state;
        let dy = grads.consume::<B>(&ops.node); // [T, O]
        arrived.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(dy);
    }
}
