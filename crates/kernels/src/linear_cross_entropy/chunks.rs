//! The loss in plain tensor operations, on any backend: one chunk of tokens after another. Also the form
//! on flex for a trained head.
//!
//! Axes as in [`super`].

use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape, Slice, TensorData};

use super::{LossAndGradients, OwnLogits, Wanted};
use crate::reference::{in_dtype, widened};

/// Elements of a chunk's logits. 32 MiB in f32 limit the memory, and are large enough for matrix
/// multiplications at full speed.
pub(super) const ELEMENTS: usize = 8 << 20;

/// The loss, and the gradients that `wanted` names.
pub(super) fn loss<B: Backend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    own: Option<OwnLogits<B>>,
    soft_cap: Option<f64>,
    wanted: Wanted,
) -> LossAndGradients<B> {
    let [n, h] = hidden.shape().dims();
    let [v, _] = weight.shape().dims();
    let dtype = hidden.dtype();
    let [hidden, weight] = [hidden, weight].map(widened::<B>); // [N, H], [V, H]
    let rows = (ELEMENTS / v).max(1);
    let own = own.map(|own| Own::new(own, v));
    let mut losses = Vec::new();
    let mut d_hidden = Vec::new();
    let mut d_weight: Option<FloatTensor<B>> = None;
    let mut d_own = Vec::new();
    for start in (0..n).step_by(rows) {
        let c = rows.min(n - start);
        let chunk = Slice::from(start..start + c);
        let x = B::float_slice(hidden.clone(), &[chunk, Slice::from(0..h)]); // [c, H]
        let target = B::int_slice(targets.clone(), &[chunk]);
        let target = B::int_reshape(target, Shape::from([c, 1]));
        let logits = B::float_matmul(x.clone(), B::float_transpose(weight.clone())); // [c, V]
        let logits = match &own {
            Some(own) => own.put(logits, start..start + c),
            None => logits,
        };
        let (loss, mut d_logits) = capped_loss::<B>(logits, target, soft_cap, wanted.any());
        losses.push(loss);
        if let Some(own) = own.as_ref().filter(|_| wanted.any()) {
            d_own.push(own.of(d_logits.clone()));
            d_logits = own.without(d_logits);
        }
        if wanted.weight {
            let part = B::float_matmul(B::float_transpose(d_logits.clone()), x); // [V, H]
            d_weight = Some(match d_weight {
                Some(sum) => B::float_add(sum, part),
                None => part,
            });
        }
        if wanted.hidden {
            d_hidden.push(B::float_matmul(d_logits, weight.clone())); // [c, H]
        }
    }
    LossAndGradients {
        loss: B::float_sum(B::float_cat(losses, 0)),
        hidden: wanted
            .hidden
            .then(|| in_dtype::<B>(B::float_cat(d_hidden, 0), dtype)), // [N, H]
        weight: d_weight,
        own: wanted.own.then(|| B::float_cat(d_own, 0)), // [N, K]
    }
}

/// Logits of their own, as plain tensor operations put them into those of the weight.
struct Own<B: Backend> {
    /// `[N, K]`
    logits: FloatTensor<B>,
    /// `[K]`
    ids: IntTensor<B>,
    /// `[1, V]`: zeros at the entries, ones elsewhere.
    others: FloatTensor<B>,
}

impl<B: Backend> Own<B> {
    fn new(own: OwnLogits<B>, vocabulary: usize) -> Self {
        let mut others = vec![1.0_f32; vocabulary];
        for id in own.ids.iter() {
            others[*id] = 0.0;
        }
        let device = own.logits.device();
        Self {
            others: B::float_from_data(TensorData::new(others, [1, vocabulary]), &device),
            ids: own.indices(),
            logits: own.logits,
        }
    }

    /// The logits of some tokens, `[c, V]`, with those of their own.
    fn put(&self, logits: FloatTensor<B>, tokens: Range<usize>) -> FloatTensor<B> {
        let [_, k] = self.logits.shape().dims();
        let part = [Slice::from(tokens), Slice::from(0..k)];
        let own = B::float_slice(self.logits.clone(), &part);
        let logits = self.without(logits);
        B::float_select_assign(logits, 1, self.ids.clone(), own, IndexingUpdateOp::Add)
    }

    /// `[c, V]` with zeros at the entries.
    fn without(&self, of: FloatTensor<B>) -> FloatTensor<B> {
        B::float_mul(of, self.others.clone())
    }

    /// `[c, V]` -> `[c, K]`
    fn of(&self, of: FloatTensor<B>) -> FloatTensor<B> {
        B::float_select(of, 1, self.ids.clone())
    }
}

/// [`softmax_loss`] of logits with a soft cap, if there is one.
fn capped_loss<B: Backend>(
    logits: FloatTensor<B>,
    target: IntTensor<B>,
    soft_cap: Option<f64>,
    gradient: bool,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let Some(cap) = soft_cap else {
        return softmax_loss::<B>(logits, target, gradient);
    };
    let share = B::float_tanh(B::float_div_scalar(logits, cap.into())); // [c, V]
    let slope = gradient.then(|| {
        let square = B::float_mul(share.clone(), share.clone());
        B::float_add_scalar(B::float_neg(square), 1.0.into()) // [c, V]
    });
    let logits = B::float_mul_scalar(share, cap.into());
    let (loss, d_logits) = softmax_loss::<B>(logits, target, gradient);
    match slope {
        None => (loss, d_logits),
        Some(slope) => (loss, B::float_mul(d_logits, slope)),
    }
}

/// Each token's loss, `[c, 1]`, and the gradient of the logits, `[c, V]`. If `gradient` is not set,
/// the second tensor has no meaning.
fn softmax_loss<B: Backend>(
    logits: FloatTensor<B>,
    target: IntTensor<B>,
    gradient: bool,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [c, _] = logits.shape().dims();
    let max = B::float_max_dim(logits.clone(), 1); // [c, 1]
    let logits = B::float_sub(logits, max);
    let chosen = B::float_gather(1, logits.clone(), target.clone()); // [c, 1]
    let exp = B::float_exp(logits);
    let sum = B::float_sum_dim(exp.clone(), 1); // [c, 1]
    let loss = B::float_sub(B::float_log(sum.clone()), chosen);
    if !gradient {
        return (loss, exp);
    }
    let softmax = B::float_div(exp, sum.clone());
    let minus_one = B::float_neg(B::float_ones(
        Shape::from([c, 1]),
        &sum.device(),
        burn::tensor::FloatDType::F32,
    ));
    let d_logits = B::float_scatter(1, softmax, target, minus_one, IndexingUpdateOp::Add);
    (loss, d_logits)
}
