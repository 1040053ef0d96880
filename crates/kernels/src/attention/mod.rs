//! Causal attention with grouped query heads, inside each row of a packed sequence.
//!
//! For a query and the keys `j` that it sees:
//! `y = Σ_j p_j v_j`, `p_j = exp(s_j - l)`, `l = log Σ_j exp(s_j)`, `s_j = scale · q·k_j`.
//! Query head `h` reads key head `h / (N / K)`. A query at position `p` of its row sees the keys at
//! positions `0 ..= p`; with a sliding window of `w` keys, at positions `p - w + 1 ..= p`. With a soft
//! cap `c`, the score is `s_j = c tanh(scale · q·k_j / c)`. [`Scores`] holds scale, window and cap.
//!
//! Backward, with `δ = dy·y`: `ds_j = p_j (dy·v_j - δ)`, `dq = scale Σ_j ds_j k_j`,
//! `dk_j = scale Σ_queries ds_j q`, `dv_j = Σ_queries p_j dy`. With a soft cap, `ds_j` has the factor
//! `1 - (s_j / c)²`. The log-sum-exp `l` is kept from the forward pass. The backward pass recomputes
//! `p` from it block by block, so no `T x T` tensor ever exists. With a window, a block of queries
//! reads only the keys that these see.
//!
//! Source: Vaswani et al. 2017, equation 1; Ainslie et al. 2023 for grouped heads; Dao et al. 2022
//! for the backward pass that does not store the attention weights; Beltagy et al. 2020 for the
//! sliding window; Gemma Team 2024 (Gemma 2) for the soft cap.
//!
//! Axes: T query tokens, S key tokens, N query heads, K key heads, G = N / K, D head_dim;
//! t and s are T and S of one row.

mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;
mod plain;
mod scores;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, tensor::FloatTensor};
use burn::tensor::Tensor;

pub use scores::Scores;

use crate::Rows;
use crate::operation::Operation;
use crate::reference;

/// Causal attention within each row.
///
/// # Shapes
/// `q`: `[T, N, D]`. `k`, `v`: `[S, K, D]`. Result: `[T, N, D]`.
///
/// # Panics
/// If `rows` has other numbers of tokens and keys than the tensors, if the window is zero, or if the soft
/// cap is not a positive number.
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    rows: &Rows,
    scores: Scores,
) -> Tensor<3> {
    let [t, s] = [q.dims()[0], k.dims()[0]];
    assert_eq!(
        [t, s],
        [rows.total(), rows.keys()],
        "numbers of queries and keys, in the tensors and in the rows"
    );
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let scores = scores.within(rows);
    let (y, _) = Dispatch::attention_rows(q, k, v, rows.clone(), scores);
    Tensor::from_dispatch(y)
}

/// The reference implementation of [`attention`], in plain tensor operations.
///
/// # Shapes
/// As [`attention`].
pub fn attention_reference(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    rows: &Rows,
    scores: Scores,
) -> Tensor<3> {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let (y, _) = plain::row_by_row::<Dispatch>([q, k, v], rows, scores);
    Tensor::from_dispatch(y)
}

backends! {
    /// [`attention`] on a backend.
    pub trait AttentionBackend: Backend {
        /// See [`attention`]. The second result is the log-sum-exp of each query's scores, in the
        /// layout that the backend's gradient expects.
        fn attention_rows(
            q: FloatTensor<Self>,
            k: FloatTensor<Self>,
            v: FloatTensor<Self>,
            rows: Rows,
            scores: Scores,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
    }
}

/// The values of the forward pass that the backward pass of attention needs.
#[derive(Debug, Clone)]
pub struct Attended<B: Backend> {
    /// Queries `[T, N, D]`, keys and values `[S, K, D]`.
    pub qkv: [FloatTensor<B>; 3],
    /// Result, `[T, N, D]`.
    pub y: FloatTensor<B>,
    /// Log-sum-exp of each query's scores, in a layout of the backend.
    pub lse: FloatTensor<B>,
    /// Rows of the packed sequence.
    pub rows: Rows,
    /// How the keys were scored.
    pub scores: Scores,
}

/// The forms of [`attention`] on a backend; without a fused one, the reference implementation.
pub trait AttentionForms: Backend {
    /// Whether they are fused.
    const FUSED: bool = false;

    /// See [`attention`]. The second result is the log-sum-exp of each query's scores, in the layout
    /// that [`Self::attention_gradient`] expects.
    fn attention_form(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        rows: Rows,
        scores: Scores,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::run(Operation::Attention, || {
            plain::row_by_row::<Self>([q, k, v], &rows, scores)
        })
    }

    /// Gradients of `q`, `k` and `v`, from the gradient of the result.
    fn attention_gradient(
        attended: Attended<Self>,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        reference::run(Operation::Attention, || plain::gradient(attended, dy))
    }
}

impl<B: AttentionForms> AttentionBackend for B {
    fn attention_rows(
        q: FloatTensor<B>,
        k: FloatTensor<B>,
        v: FloatTensor<B>,
        rows: Rows,
        scores: Scores,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        if reference::is_chosen(Operation::Attention) {
            return reference::run(Operation::Attention, || {
                plain::row_by_row::<B>([q, k, v], &rows, scores)
            });
        }
        B::attention_form(q, k, v, rows, scores)
    }
}

fn gradient<B: AttentionForms>(attended: Attended<B>, dy: FloatTensor<B>) -> [FloatTensor<B>; 3] {
    if reference::is_chosen(Operation::Attention) {
        return reference::run(Operation::Attention, || plain::gradient(attended, dy));
    }
    B::attention_gradient(attended, dy)
}

impl<B: AttentionForms, C: CheckpointStrategy> AttentionBackend for Autodiff<B, C> {
    fn attention_rows(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        rows: Rows,
        scores: Scores,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct Attention;

        impl<B: AttentionForms> Backward<B, 3> for Attention {
            type State = Attended<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let dy = grads.consume::<B>(&ops.node); // [T, N, D]
                let found = gradient::<B>(ops.state, dy);
                for (node, gradient) in ops.parents.into_iter().zip(found) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let prepared = Attention
            .prepare::<C>([q.node(), k.node(), v.node()])
            .compute_bound()
            .stateful();
        let q = q.into_primitive();
        let k = k.into_primitive();
        let v = v.into_primitive();
        let (y, lse) = B::attention_rows(q.clone(), k.clone(), v.clone(), rows.clone(), scores);
        let untracked = <Self as AutodiffBackend>::from_inner(lse.clone());
        let y = match prepared {
            OpsKind::Tracked(prep) => {
                let attended = Attended {
                    qkv: [q, k, v],
                    y: y.clone(),
                    lse,
                    rows,
                    scores,
                };
                prep.finish(attended, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, untracked)
    }
}

#[cfg(test)]
mod tests;
