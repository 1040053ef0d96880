//! Causal attention with grouped query heads, inside each row of a packed sequence.
//!
//! For a query and the keys `j` up to its own position in the row:
//! `y = Σ_j p_j v_j`, `p_j = exp(scale · q·k_j - l)`, `l = log Σ_j exp(scale · q·k_j)`.
//! Query head `h` reads key head `h / (N / K)`.
//!
//! Backward, with `δ = dy·y`: `ds_j = p_j (dy·v_j - δ)`, `dq = scale Σ_j ds_j k_j`,
//! `dk_j = scale Σ_queries ds_j q`, `dv_j = Σ_queries p_j dy`. The log-sum-exp `l` is kept from the
//! forward pass. The backward pass recomputes `p` from it block by block, so no `T x T` tensor ever
//! exists.
//!
//! Source: Vaswani et al. 2017, equation 1; Ainslie et al. 2023 for grouped heads; Dao et al. 2022
//! for the backward pass that does not store the attention weights.
//!
//! Axes: T query tokens, S key tokens, N query heads, K key heads, G = N / K, D head_dim;
//! t and s are T and S of one row.

mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;
mod plain;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, tensor::FloatTensor};
use burn::tensor::Tensor;

use crate::Rows;
use crate::operation::Operation;
use crate::reference;

/// Causal attention within each row.
///
/// # Shapes
/// `q`: `[T, N, D]`. `k`, `v`: `[S, K, D]`. Result: `[T, N, D]`.
///
/// # Panics
/// If `rows` has other numbers of tokens and keys than the tensors.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, rows: &Rows, scale: f64) -> Tensor<3> {
    let [t, s] = [q.dims()[0], k.dims()[0]];
    assert_eq!(
        [t, s],
        [rows.total(), rows.keys()],
        "numbers of queries and keys, in the tensors and in the rows"
    );
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let (y, _) = Dispatch::attention_rows(q, k, v, rows.clone(), scale);
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
    scale: f64,
) -> Tensor<3> {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let (y, _) = plain::row_by_row::<Dispatch>([q, k, v], rows, scale);
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
            scale: f64,
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
    /// Factor of the scores, usually `1 / √D`.
    pub scale: f64,
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
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::run(Operation::Attention, || {
            plain::row_by_row::<Self>([q, k, v], &rows, scale)
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
        scale: f64,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        if reference::is_chosen(Operation::Attention) {
            return reference::run(Operation::Attention, || {
                plain::row_by_row::<B>([q, k, v], &rows, scale)
            });
        }
        B::attention_form(q, k, v, rows, scale)
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
        scale: f64,
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
        let (y, lse) = B::attention_rows(q.clone(), k.clone(), v.clone(), rows.clone(), scale);
        let untracked = <Self as AutodiffBackend>::from_inner(lse.clone());
        let y = match prepared {
            OpsKind::Tracked(prep) => {
                let attended = Attended {
                    qkv: [q, k, v],
                    y: y.clone(),
                    lse,
                    rows,
                    scale,
                };
                prep.finish(attended, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, untracked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{self, on};
    use burn::tensor::{DType, Device, Distribution, TensorData, Tolerance, s};
    use proptest::prelude::*;

    fn random(shape: [usize; 3], device: &Device) -> Tensor<3> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
    }

    fn assert_close(actual: Tensor<3>, expected: Tensor<3>) {
        let expected: TensorData = expected.into_data();
        actual
            .into_data()
            .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    }

    type Attention = fn(Tensor<3>, Tensor<3>, Tensor<3>, &Rows, f64) -> Tensor<3>;

    /// Result and gradients of `sum(f(q, k, v) · seed)`.
    fn run(f: Attention, qkv: &[Tensor<3>; 3], rows: &Rows, seed: &Tensor<3>) -> Vec<TensorData> {
        let [q, k, v] = qkv.clone().map(Tensor::require_grad);
        let y = f(q.clone(), k.clone(), v.clone(), rows, 0.3);
        let grads = (y.clone() * seed.clone()).sum().backward();
        let gradients = [q, k, v].map(|leaf| leaf.grad(&grads).unwrap());
        std::iter::once(y.inner())
            .chain(gradients)
            .map(Tensor::into_data)
            .collect()
    }

    fn equals_the_reference(rows: &Rows, [key_heads, groups, dim]: [usize; 3]) {
        let device = Device::flex().autodiff();
        let [t, s] = [rows.total(), rows.keys()];
        let qkv = [
            random([t, key_heads * groups, dim], &device),
            random([s, key_heads, dim], &device),
            random([s, key_heads, dim], &device),
        ];
        let seed = random([t, key_heads * groups, dim], &device);
        let reference = run(attention_reference, &qkv, rows, &seed);
        for device in devices::all() {
            let qkv = qkv.each_ref().map(|of| on(&device, of));
            for fused in devices::forms(|| run(attention, &qkv, rows, &on(&device, &seed))) {
                for (fused, reference) in fused.iter().zip(&reference) {
                    // sums of terms of order one over tokens and over features, in two orders
                    let tolerance = Tolerance::relative(5e-5).set_absolute(5e-5);
                    fused.assert_approx_eq::<f32>(reference, tolerance);
                }
            }
        }
        if let Some(device) = devices::halves() {
            let qkv = qkv.each_ref().map(devices::rounded);
            let seed = devices::rounded(&seed);
            let reference = run(attention_reference, &qkv, rows, &seed);
            let half = |of: &Tensor<3>| on(&device, &of.clone().cast(DType::BF16));
            for fused in
                devices::forms(|| run(attention, &qkv.each_ref().map(half), rows, &half(&seed)))
            {
                for (fused, reference) in fused.iter().zip(&reference) {
                    // rounded are the weights, their gradients, the difference of the two, and the sum
                    // over a group's heads; a weight's gradient is a scaled dot product over D features
                    let scale = devices::largest(reference).max(0.3 * (dim as f32).sqrt());
                    devices::assert_near(fused, reference, 12.0, scale);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn rows_equal_the_reference(
            lengths in prop::collection::vec(1_usize..90, 1..5),
            key_heads in 1_usize..4,
            groups in 1_usize..5,
            dim in 1_usize..40,
        ) {
            equals_the_reference(&Rows::from_lengths(lengths), [key_heads, groups, 2 * dim]);
        }

        #[test]
        fn trees_of_rows_equal_the_reference(
            rows in prop::collection::vec((1_usize..40, prop::option::of(0_usize..100)), 1..7),
            key_heads in 1_usize..3,
            groups in 1_usize..4,
        ) {
            let rows = rows.into_iter().enumerate().map(|(row, (length, parent))| {
                (length, parent.filter(|_| row > 0).map(|parent| parent % row))
            });
            equals_the_reference(&Rows::from_tree(rows), [key_heads, groups, 16]);
        }

        #[test]
        fn continued_rows_equal_the_reference(
            seen in 0_usize..200,
            length in 1_usize..40,
            groups in 1_usize..10,
        ) {
            equals_the_reference(&Rows::continuing(seen, length), [2, groups, 8]);
        }

        #[test]
        fn single_queries_equal_the_reference(
            seen in 0_usize..300,
            rows in 1_usize..5,
            groups in 1_usize..5,
            dim in 1_usize..40,
        ) {
            equals_the_reference(&Rows::continuing(seen, 1), [2, groups, dim]);
            let rows = (0..rows).map(|row| (1, row.checked_sub(2)));
            equals_the_reference(&Rows::from_tree(rows), [2, groups, dim]);
        }
    }

    #[test]
    fn rows_longer_than_a_piece_equal_the_reference() {
        equals_the_reference(&Rows::from_lengths([700, 3]), [1, 3, 8]);
        equals_the_reference(
            &Rows::from_tree([(300, None), (300, Some(0)), (5, Some(0))]),
            [2, 1, 8],
        );
    }

    #[test]
    fn one_query_by_hand() {
        let device = Device::flex();
        let q = Tensor::from_data([[[1.0_f32]]], &device);
        let k = Tensor::from_data([[[0.0_f32]], [[2.0_f32.ln()]]], &device);
        let v = Tensor::from_data([[[3.0_f32]], [[6.0_f32]]], &device);
        // weights 1/3 and 2/3
        let expected = Tensor::from_data([[[5.0_f32]]], &device);
        assert_close(attention(q, k, v, &Rows::continuing(1, 1), 1.0), expected);
    }

    #[test]
    fn rows_do_not_see_each_other() {
        let device = Device::flex();
        let (q, k, v) = (
            random([7, 4, 6], &device),
            random([7, 2, 6], &device),
            random([7, 2, 6], &device),
        );
        let rows = Rows::from_lengths([4, 1, 2]);
        let together = attention(q.clone(), k.clone(), v.clone(), &rows, 0.4);
        for row in rows.ranges() {
            let one = Rows::single(row.len());
            let cut = |x: &Tensor<3>| x.clone().slice(s![row.clone()]);
            let alone = attention(cut(&q), cut(&k), cut(&v), &one, 0.4);
            assert_close(cut(&together), alone);
        }
    }

    #[test]
    fn newest_queries_equal_the_whole_row() {
        let device = Device::flex();
        let (q, k, v) = (
            random([5, 3, 4], &device),
            random([5, 1, 4], &device),
            random([5, 1, 4], &device),
        );
        let whole = attention(q.clone(), k.clone(), v.clone(), &Rows::single(5), 1.0);
        let newest = attention(q.slice(s![3..5]), k, v, &Rows::continuing(3, 2), 1.0);
        assert_close(newest, whole.slice(s![3..5]));
    }
}
