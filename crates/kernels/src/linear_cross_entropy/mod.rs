//! The output head and the cross-entropy loss as one operation.
//!
//! `loss = Σ_n (log Σ_v exp z_nv - z_n,target(n))`, `z = hidden Wᵀ`;
//! `dz = softmax(z) - onehot(target)`, `d hidden = dz W`, `dW = dzᵀ hidden`.
//!
//! With a soft cap c, `z = c tanh(hidden Wᵀ / c)`, and `dz` is multiplied by `1 - (z / c)²`.
//!
//! The forward pass computes the gradients too, and the `[N, V]` logits never exist as a whole. With
//! a frozen head this is attention over the vocabulary: for one slab of W after another,
//! `Σ_v exp(z_v - m) W_v` and `Σ_v exp(z_v - m)` are summed with a running maximum m, and each slab is
//! read once. The gradient of a trained head needs the finished softmax, so the tokens are then
//! processed in chunks.
//!
//! Some entries of the vocabulary may have logits of their own, which stand in for those of W: tokens whose rows are trained
//! while W is frozen. Their gradient is `dz` in these columns, and they add nothing to `d hidden`.
//!
//! Source: Wijmans et al. 2024 (Cut Your Losses) for never storing the logits; Milakov and Gimelshein
//! 2018 for the running maximum; transformers `Gemma2ForCausalLM` (`final_logit_softcapping`) for the
//! soft cap.
//!
//! Axes: N tokens with a target, H hidden size, V vocabulary size, c tokens of one chunk, s
//! vocabulary entries of one slab, K entries with logits of their own.

mod chunks;
mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;
mod slabs;

use std::sync::Arc;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, NodeGuard, Ops, OpsKind},
};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata};
use burn::tensor::{Int, Shape, Tensor, TensorData};

use crate::frozen::{FrozenForms, FrozenWeight, StoredWeight, WeightOn};
use crate::linear::{self, LinearForms, untracked};
use crate::operation::Operation;
use crate::reference::{self, widened};

/// Sum of the targets' negative log-probabilities (natural logarithm); not their mean. With `soft_cap`,
/// the logits are those of [`soft_capped`].
///
/// # Shapes
/// `hidden`: `[N, H]`, f32. `weight`: `[V, H]`, as stored. `targets`: `[N]`, each below V.
/// Result: `[1]`.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: impl Into<FrozenWeight>,
    targets: Tensor<1, Int>,
    soft_cap: Option<f64>,
) -> Tensor<1> {
    let (hidden, targets) = (hidden.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(match weight.into() {
        FrozenWeight::Dense(weight) => {
            Dispatch::linear_cross_entropy(hidden, weight.into_dispatch(), targets, soft_cap)
        }
        FrozenWeight::Stored(weight) => {
            Dispatch::stored_linear_cross_entropy(hidden, targets, weight, soft_cap)
        }
    })
}

/// As [`linear_cross_entropy`], with logits that stand in for those of some rows of the weight.
///
/// # Shapes
/// `own`: `[N, K]`, f32, before the soft cap. `ids`: K different entries of the vocabulary. The others as
/// [`linear_cross_entropy`].
///
/// # Panics
/// If `own` has not one column for each of `ids`.
pub fn linear_cross_entropy_with(
    hidden: Tensor<2>,
    weight: impl Into<FrozenWeight>,
    targets: Tensor<1, Int>,
    own: Tensor<2>,
    ids: Arc<[usize]>,
    soft_cap: Option<f64>,
) -> Tensor<1> {
    assert_eq!(own.dims()[1], ids.len(), "columns of logits, and entries");
    let (hidden, targets) = (hidden.into_dispatch(), targets.into_dispatch());
    let own = own.into_dispatch();
    Tensor::from_dispatch(match weight.into() {
        FrozenWeight::Dense(weight) => {
            let weight = weight.into_dispatch();
            Dispatch::linear_cross_entropy_with(hidden, weight, targets, own, ids, soft_cap)
        }
        FrozenWeight::Stored(weight) => {
            Dispatch::stored_linear_cross_entropy_with(hidden, targets, own, weight, ids, soft_cap)
        }
    })
}

/// Logits limited to between `-soft_cap` and `soft_cap`: `c tanh(z / c)`; without a cap, as they are.
///
/// # Shapes
/// `logits`: `[N, V]`. Result: `[N, V]`.
pub fn soft_capped(logits: Tensor<2>, soft_cap: Option<f64>) -> Tensor<2> {
    match soft_cap {
        None => logits,
        Some(cap) => (logits / cap).tanh() * cap,
    }
}

/// The reference implementation of [`linear_cross_entropy`], in plain tensor operations.
///
/// # Shapes
/// As [`linear_cross_entropy`].
pub fn linear_cross_entropy_reference(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    soft_cap: Option<f64>,
) -> Tensor<1> {
    Tensor::from_dispatch(plain::<Dispatch>(
        hidden.into_dispatch(),
        weight.into_dispatch(),
        targets.into_dispatch(),
        soft_cap,
    ))
}

/// The definition. It holds all logits, so backends without a fused form take [`chunks`] instead.
fn plain<B: Backend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    soft_cap: Option<f64>,
) -> FloatTensor<B> {
    let [n, _] = hidden.shape().dims();
    let mut logits = linear::plain::<B>(widened::<B>(hidden), weight); // [N, V]
    if let Some(cap) = soft_cap {
        let share = B::float_tanh(B::float_div_scalar(logits, cap.into()));
        logits = B::float_mul_scalar(share, cap.into());
    }
    let max = B::float_max_dim(B::float_detach(logits.clone()), 1); // [N, 1]
    let logits = B::float_sub(logits, max);
    let sum = B::float_sum_dim(B::float_exp(logits.clone()), 1); // [N, 1]
    let targets = B::int_reshape(targets, Shape::from([n, 1]));
    let chosen = B::float_gather(1, logits, targets); // [N, 1]
    B::float_sum(B::float_sub(B::float_log(sum), chosen))
}

backends! {
    /// [`linear_cross_entropy`] on a backend.
    pub trait LinearCrossEntropyBackend: Backend {
        /// See [`linear_cross_entropy`].
        fn linear_cross_entropy(
            hidden: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            targets: IntTensor<Self>,
            soft_cap: Option<f64>,
        ) -> FloatTensor<Self>;

        /// See [`linear_cross_entropy`].
        fn stored_linear_cross_entropy(
            hidden: FloatTensor<Self>,
            targets: IntTensor<Self>,
            weight: StoredWeight,
            soft_cap: Option<f64>,
        ) -> FloatTensor<Self>;

        /// See [`linear_cross_entropy_with`].
        fn linear_cross_entropy_with(
            hidden: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            targets: IntTensor<Self>,
            own: FloatTensor<Self>,
            ids: Arc<[usize]>,
            soft_cap: Option<f64>,
        ) -> FloatTensor<Self>;

        /// See [`linear_cross_entropy_with`].
        fn stored_linear_cross_entropy_with(
            hidden: FloatTensor<Self>,
            targets: IntTensor<Self>,
            own: FloatTensor<Self>,
            weight: StoredWeight,
            ids: Arc<[usize]>,
            soft_cap: Option<f64>,
        ) -> FloatTensor<Self>;
    }
}

/// Logits of some entries of the vocabulary, which stand in for those of the weight's rows.
#[derive(Debug, Clone)]
pub struct OwnLogits<B: Backend> {
    /// `[N, K]`, f32
    pub logits: FloatTensor<B>,
    /// The K entries.
    pub ids: Arc<[usize]>,
}

impl<B: Backend> OwnLogits<B> {
    /// The entries as a tensor, `[K]`.
    pub(crate) fn indices(&self) -> IntTensor<B> {
        let ids: Vec<i64> = self.ids.iter().map(|id| *id as i64).collect();
        let data = TensorData::new(ids, [self.ids.len()]);
        B::int_from_data(data, &self.logits.device())
    }
}

/// The form of [`linear_cross_entropy`] on a backend; without a fused one, plain tensor operations on
/// one chunk of tokens after another.
pub trait LinearCrossEntropyForms: LinearForms {
    /// Whether it is fused.
    const FUSED: bool = false;

    /// The loss, and the gradients that `wanted` names, for a gradient of the loss of one.
    fn linear_cross_entropy_form(
        hidden: FloatTensor<Self>,
        weight: WeightOn<Self>,
        targets: IntTensor<Self>,
        own: Option<OwnLogits<Self>>,
        soft_cap: Option<f64>,
        wanted: Wanted,
    ) -> LossAndGradients<Self> {
        by_reference::<Self>(hidden, weight, targets, own, soft_cap, wanted)
    }
}

impl<B: LinearCrossEntropyForms> LinearCrossEntropyBackend for B {
    fn linear_cross_entropy(
        hidden: FloatTensor<B>,
        weight: FloatTensor<B>,
        targets: IntTensor<B>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<B> {
        let weight = WeightOn::Dense(weight);
        loss_alone::<B>(hidden, weight, targets, None, soft_cap)
    }

    fn stored_linear_cross_entropy(
        hidden: FloatTensor<B>,
        targets: IntTensor<B>,
        weight: StoredWeight,
        soft_cap: Option<f64>,
    ) -> FloatTensor<B> {
        let weight = WeightOn::Stored(weight);
        loss_alone::<B>(hidden, weight, targets, None, soft_cap)
    }

    fn linear_cross_entropy_with(
        hidden: FloatTensor<B>,
        weight: FloatTensor<B>,
        targets: IntTensor<B>,
        logits: FloatTensor<B>,
        ids: Arc<[usize]>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<B> {
        let own = Some(OwnLogits { logits, ids });
        loss_alone::<B>(hidden, WeightOn::Dense(weight), targets, own, soft_cap)
    }

    fn stored_linear_cross_entropy_with(
        hidden: FloatTensor<B>,
        targets: IntTensor<B>,
        logits: FloatTensor<B>,
        weight: StoredWeight,
        ids: Arc<[usize]>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<B> {
        let own = Some(OwnLogits { logits, ids });
        loss_alone::<B>(hidden, WeightOn::Stored(weight), targets, own, soft_cap)
    }
}

fn loss_alone<B: LinearCrossEntropyForms>(
    hidden: FloatTensor<B>,
    weight: WeightOn<B>,
    targets: IntTensor<B>,
    own: Option<OwnLogits<B>>,
    soft_cap: Option<f64>,
) -> FloatTensor<B> {
    loss_and_gradients::<B>(hidden, weight, targets, own, soft_cap, Wanted::default()).loss
}

/// The loss in plain tensor operations, on one chunk of tokens after another.
fn by_reference<B: FrozenForms>(
    hidden: FloatTensor<B>,
    weight: WeightOn<B>,
    targets: IntTensor<B>,
    own: Option<OwnLogits<B>>,
    soft_cap: Option<f64>,
    wanted: Wanted,
) -> LossAndGradients<B> {
    reference::run(Operation::LinearCrossEntropy, || {
        let weight = weight.tensor(&hidden.device());
        chunks::loss(hidden, weight, targets, own, soft_cap, wanted)
    })
}

fn loss_and_gradients<B: LinearCrossEntropyForms>(
    hidden: FloatTensor<B>,
    weight: WeightOn<B>,
    targets: IntTensor<B>,
    own: Option<OwnLogits<B>>,
    soft_cap: Option<f64>,
    wanted: Wanted,
) -> LossAndGradients<B> {
    if reference::is_chosen(Operation::LinearCrossEntropy) {
        return by_reference::<B>(hidden, weight, targets, own, soft_cap, wanted);
    }
    B::linear_cross_entropy_form(hidden, weight, targets, own, soft_cap, wanted)
}

/// The gradients to compute with the loss.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Whether to compute the gradient of the hidden states.
    pub hidden: bool,
    /// Whether to compute the gradient of the head.
    pub weight: bool,
    /// Whether to compute the gradient of logits of their own.
    pub own: bool,
}

impl Wanted {
    /// Whether to compute any gradient.
    pub(crate) fn any(self) -> bool {
        self.hidden || self.weight || self.own
    }
}

/// The loss and its gradients.
#[derive(Debug)]
pub struct LossAndGradients<B: Backend> {
    /// Sum of the losses, `[1]`.
    pub loss: FloatTensor<B>,
    /// Gradient of the hidden states, `[N, H]`.
    pub hidden: Option<FloatTensor<B>>,
    /// Gradient of the head, `[V, H]`.
    pub weight: Option<FloatTensor<B>>,
    /// Gradient of logits of their own, `[N, K]`.
    pub own: Option<FloatTensor<B>>,
}

impl<B: LinearCrossEntropyForms, C: CheckpointStrategy> LinearCrossEntropyBackend
    for Autodiff<B, C>
{
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<Self> {
        let (node, trained) = (weight.node(), weight.is_tracked());
        let weight = WeightOn::Dense(weight.into_primitive());
        recorded::<B, C>(hidden, (node, weight), targets, None, soft_cap, trained)
    }

    fn stored_linear_cross_entropy(
        hidden: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weight: StoredWeight,
        soft_cap: Option<f64>,
    ) -> FloatTensor<Self> {
        let node = untracked::<B, C>(&hidden);
        let weight = WeightOn::Stored(weight);
        recorded::<B, C>(hidden, (node, weight), targets, None, soft_cap, false)
    }

    fn linear_cross_entropy_with(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        logits: FloatTensor<Self>,
        ids: Arc<[usize]>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<Self> {
        let (node, trained) = (weight.node(), weight.is_tracked());
        let weight = WeightOn::Dense(weight.into_primitive());
        let own = Some(OwnLogits { logits, ids });
        recorded::<B, C>(hidden, (node, weight), targets, own, soft_cap, trained)
    }

    fn stored_linear_cross_entropy_with(
        hidden: FloatTensor<Self>,
        targets: IntTensor<Self>,
        logits: FloatTensor<Self>,
        weight: StoredWeight,
        ids: Arc<[usize]>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<Self> {
        let node = untracked::<B, C>(&hidden);
        let weight = WeightOn::Stored(weight);
        let own = Some(OwnLogits { logits, ids });
        recorded::<B, C>(hidden, (node, weight), targets, own, soft_cap, false)
    }
}

fn recorded<B: LinearCrossEntropyForms, C: CheckpointStrategy>(
    hidden: FloatTensor<Autodiff<B, C>>,
    (weight_node, weight): (NodeGuard, WeightOn<B>),
    targets: IntTensor<B>,
    own: Option<OwnLogits<Autodiff<B, C>>>,
    soft_cap: Option<f64>,
    weight_is_trained: bool,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct LinearCrossEntropy;

    impl<B: Backend> Backward<B, 3> for LinearCrossEntropy {
        /// The gradients of the hidden states, of the weight and of logits of their own, for a gradient of the loss of one.
        type State = [Option<FloatTensor<B>>; 3];

        fn backward(
            self,
            ops: Ops<Self::State, 3>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let d_loss = grads.consume::<B>(&ops.node);
            let d_loss = B::float_reshape(d_loss, Shape::from([1, 1]));
            for (node, part) in ops.parents.into_iter().zip(ops.state) {
                if let (Some(node), Some(part)) = (node, part) {
                    let d_loss = B::float_cast(d_loss.clone(), part.dtype().into());
                    grads.register::<B>(node.id, B::float_mul(part, d_loss));
                }
            }
        }
    }

    let wanted = Wanted {
        hidden: hidden.is_tracked(),
        weight: weight_is_trained,
        own: own.as_ref().is_some_and(|own| own.logits.is_tracked()),
    };
    let own_node = match &own {
        Some(own) => own.logits.node(),
        None => untracked::<B, C>(&hidden),
    };
    let own = own.map(|own| OwnLogits {
        logits: own.logits.into_primitive(),
        ids: own.ids,
    });
    match LinearCrossEntropy
        .prepare::<C>([hidden.node(), weight_node, own_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let hidden = hidden.into_primitive();
            let result = loss_and_gradients::<B>(hidden, weight, targets, own, soft_cap, wanted);
            prep.finish([result.hidden, result.weight, result.own], result.loss)
        }
        OpsKind::UnTracked(prep) => {
            let hidden = hidden.into_primitive();
            prep.finish(loss_alone::<B>(hidden, weight, targets, own, soft_cap))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{self, on};
    use burn::tensor::{DType, Device, Distribution, Tolerance};
    use proptest::prelude::*;

    type Loss = fn(Tensor<2>, Tensor<2>, Tensor<1, Int>, Option<f64>) -> Tensor<1>;

    fn ids(list: &[i64], device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(list.to_vec(), [list.len()]), device)
    }

    fn ids_on(ids: &Tensor<1, Int>, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(ids.to_data(), &device.clone().autodiff())
    }

    fn run(
        f: Loss,
        x: &Tensor<2>,
        w: &Tensor<2>,
        targets: &Tensor<1, Int>,
        cap: Option<f64>,
    ) -> Vec<TensorData> {
        let (x, w) = (x.clone().require_grad(), w.clone().require_grad());
        let loss = f(x.clone(), w.clone(), targets.clone(), cap);
        let grads = (loss.clone() * 0.25).backward();
        let gradient = |leaf: &Tensor<2>| leaf.grad(&grads).unwrap().into_data();
        vec![loss.inner().into_data(), gradient(&x), gradient(&w)]
    }

    /// As [`run`], the head frozen.
    fn run_frozen(
        f: Loss,
        x: &Tensor<2>,
        w: &Tensor<2>,
        targets: &Tensor<1, Int>,
        cap: Option<f64>,
    ) -> Vec<TensorData> {
        let x = x.clone().require_grad();
        let loss = f(x.clone(), w.clone(), targets.clone(), cap);
        let grads = (loss.clone() * 0.25).backward();
        vec![
            loss.inner().into_data(),
            x.grad(&grads).unwrap().into_data(),
        ]
    }

    /// No soft cap, one that most logits are near, and Gemma 2's.
    fn caps() -> impl Strategy<Value = Option<f64>> {
        prop::sample::select(vec![None, Some(2.0), Some(30.0)])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_frozen_head_equals_the_reference(
            n in 1_usize..40,
            h in 1_usize..40,
            v in 2_usize..5000,
            dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
            cap in caps(),
        ) {
            let device = Device::flex().autodiff();
            let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            let (x, w) = (random([n, h]), random([v, h]).cast(dtype));
            let targets: Vec<i64> = (0..n as i64).map(|i| (i * 977) % v as i64).collect();
            let targets = ids(&targets, &device);
            let reference = run_frozen(linear_cross_entropy_reference, &x, &w, &targets, cap);
            for device in devices::all() {
                let (x, w, targets) = (on(&device, &x), on(&device, &w), ids_on(&targets, &device));
                for fused in devices::forms(|| run_frozen(linear_cross_entropy, &x, &w, &targets, cap)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // sums of up to 5,000 exponentials, and of 40 losses of order ten, in f32
                        fused.assert_approx_eq::<f32>(reference, Tolerance::relative(1e-5).set_absolute(2e-4));
                    }
                }
                let alone = linear_cross_entropy(x.clone().inner(), w.clone().inner(), targets.clone().inner(), cap);
                let tracked = linear_cross_entropy(x, w, targets, cap).inner();
                alone.into_data().assert_eq(&tracked.into_data(), true);
            }
            for device in devices::all() {
                let [x, w] = [&x, &w].map(devices::rounded);
                let reference = run_frozen(linear_cross_entropy_reference, &x, &w, &targets, cap);
                let [x, w] = [x, w].map(|of| on(&device, &of.cast(DType::BF16)));
                for fused in devices::forms(|| run_frozen(linear_cross_entropy, &x, &w, &ids_on(&targets, &device), cap)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // rounded are the logits (the loss can depend on one of order twenty), their
                        // gradient, and the sums of it
                        let scale = devices::largest(reference).max(0.1);
                        devices::assert_near(fused, reference, 40.0, scale);
                    }
                }
            }
        }

        #[test]
        fn logits_of_their_own_stand_in_for_rows(
            n in 1_usize..12,
            h in 1_usize..16,
            v in 8_usize..5000,
            dtype in prop::sample::select(vec![DType::F32, DType::BF16]),
            cap in caps(),
        ) {
            let device = Device::flex().autodiff();
            let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            let ids: Arc<[usize]> = [v - 1, 0, v / 2, v / 2 + 1].into();
            let (x, w, rows) = (random([n, h]), random([v, h]).cast(dtype), random([4, h]));
            // targets that are replaced, and others
            let targets: Vec<i64> = (0..n).map(|i| if i % 2 == 0 { ids[i / 2 % 4] } else { i * 7 % v } as i64).collect();
            let targets = super::tests::ids(&targets, &device);
            let (x, rows) = (x.require_grad(), rows.require_grad());
            let reference = {
                let mut parts = Vec::new();
                for id in 0..v {
                    parts.push(match ids.iter().position(|own| *own == id) {
                        Some(own) => rows.clone().slice(own..=own),
                        None => w.clone().cast(DType::F32).slice(id..=id),
                    });
                }
                let loss = linear_cross_entropy_reference(x.clone(), Tensor::cat(parts, 0), targets.clone(), cap);
                let grads = loss.clone().backward();
                [loss.inner().reshape([1, 1]), x.grad(&grads).unwrap(), rows.grad(&grads).unwrap()].map(Tensor::into_data)
            };
            for device in devices::all() {
                let leaf = |of: &Tensor<2>| Tensor::<2>::from_data(of.to_data(), &device.clone().autodiff()).require_grad();
                let (x, rows, targets) = (leaf(&x), leaf(&rows), ids_on(&targets, &device));
                let w = on(&device, &w);
                let found = || {
                    let own = crate::linear(x.clone(), rows.clone());
                    let loss = linear_cross_entropy_with(x.clone(), w.clone(), targets.clone(), own, ids.clone(), cap);
                    let grads = loss.clone().backward();
                    [loss.inner().reshape([1, 1]), x.grad(&grads).unwrap(), rows.grad(&grads).unwrap()].map(Tensor::into_data)
                };
                for found in devices::forms(found) {
                    for (found, reference) in found.iter().zip(&reference) {
                        // sums of up to 5,000 exponentials, and of 12 losses of order ten, in f32
                        found.assert_approx_eq::<f32>(reference, Tolerance::relative(1e-5).set_absolute(2e-4));
                    }
                }
            }
        }

        #[test]
        fn equals_the_reference(
            n in 1_usize..12,
            h in 1_usize..16,
            v in 2_usize..40,
            seed in 0_i64..1000,
            cap in caps(),
        ) {
            let device = Device::flex().autodiff();
            let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            let (x, w) = (random([n, h]), random([v, h]));
            let targets: Vec<i64> = (0..n as i64).map(|i| (i * 7 + seed) % v as i64).collect();
            let targets = ids(&targets, &device);
            let reference = run(linear_cross_entropy_reference, &x, &w, &targets, cap);
            for device in devices::all() {
                let (x, w, targets) = (on(&device, &x), on(&device, &w), ids_on(&targets, &device));
                for fused in devices::forms(|| run(linear_cross_entropy, &x, &w, &targets, cap)) {
                    for (fused, reference) in fused.iter().zip(&reference) {
                        // sums of at most 12 tokens' losses of order ten, in f32
                        fused.assert_approx_eq::<f32>(reference, Tolerance::absolute(1e-4));
                    }
                }
            }
        }
    }

    #[test]
    #[expect(clippy::excessive_precision, reason = "as PyTorch prints them")]
    fn a_soft_cap_matches_pytorch() {
        // torch 2.9: l = c * torch.tanh((x @ w.T) / c), F.cross_entropy(l, targets, reduction="sum")
        let device = Device::flex().autodiff();
        let x = [[1.0_f32, -2.0, 0.5], [3.0, 1.0, -1.0]];
        let w = [
            [0.5_f32, 1.0, -1.0],
            [2.0, -1.5, 0.25],
            [-1.0, 0.75, 3.0],
            [1.5, 2.0, 0.5],
        ];
        let (x, w) = (Tensor::from_data(x, &device), Tensor::from_data(w, &device));
        let logits = TensorData::from([
            [
                -1.848_468_66_f32,
                3.427_270_41,
                -0.979_674_637,
                -2.039_319_99,
            ],
            [2.815_622_33, 3.146_475_32, -3.459_626_44, 3.620_593_07],
        ]);
        let d_x = [
            [-0.594_249_606_f32, -1.852_061_75, -0.273_720_086],
            [-0.347_940_415, 0.683_519_542, -0.131_657_556],
        ];
        let d_w = [
            [0.330_790_877_f32, 0.101_076_707, -0.106_982_581],
            [-0.539_595_246, -0.787_137_628, 0.396_748_126],
            [0.011_526_656_3, -0.022_336_443_9, 0.005_507_303_87],
            [-0.475_166_023, 1.561_306, -0.455_788_016],
        ];
        let capped = soft_capped(linear::linear(x.clone(), w.clone()), Some(4.0));
        capped
            .into_data()
            .assert_approx_eq::<f32>(&logits, Tolerance::absolute(1e-6));
        for f in [linear_cross_entropy, linear_cross_entropy_reference] {
            let all = run(f, &x, &w, &ids(&[3, 1], &device), Some(4.0));
            let frozen = run_frozen(f, &x, &w, &ids(&[3, 1], &device), Some(4.0));
            // `run` asks for a quarter of the gradient
            let quarter = |x: f32| 0.25 * x;
            let expected = [
                TensorData::from([6.689_742_09_f32]),
                TensorData::from(d_x.map(|row| row.map(quarter))),
                TensorData::from(d_w.map(|row| row.map(quarter))),
            ];
            let both = all
                .iter()
                .zip(&expected)
                .chain(frozen.iter().zip(&expected));
            for (found, expected) in both {
                found.assert_approx_eq::<f32>(expected, Tolerance::absolute(2e-6));
            }
        }
    }

    #[test]
    fn many_chunks_equal_one() {
        let device = Device::flex().autodiff();
        let (n, h) = (600, 16);
        let v = chunks::ELEMENTS / 256; // 256 tokens per chunk: the third chunk is not full
        let x = Tensor::<2>::random([n, h], Distribution::Normal(0.0, 0.3), &device);
        let w = Tensor::<2>::random([v, h], Distribution::Normal(0.0, 1.0), &device);
        let targets: Vec<i64> = (0..n as i64).map(|i| i * 977 % v as i64).collect();
        let targets = ids(&targets, &device);
        let cap = None;
        let reference = run(linear_cross_entropy_reference, &x, &w, &targets, cap);
        for device in devices::all() {
            let (x, w, targets) = (on(&device, &x), on(&device, &w), ids_on(&targets, &device));
            for fused in devices::forms(|| run(linear_cross_entropy, &x, &w, &targets, cap)) {
                for (fused, reference) in fused.iter().zip(&reference) {
                    // 32 thousand exponentials summed in another order. For narrower heads some libraries
                    // use one running sum, which loses three more digits.
                    fused.assert_approx_eq::<f32>(
                        reference,
                        Tolerance::relative(1e-4).set_absolute(1e-4),
                    );
                }
            }
        }
    }
}
