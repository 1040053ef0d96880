//! Causal attention with grouped heads, inside each row of a flat run.
//!
//! For a query at place `i` of the last `n` places of its row and the keys `j <= i` of that row:
//! `y_i = Σ_j softmax_j(scale · q_i·k_j) v_j`. Query head `h` reads key head `h / (N / K)`.
//!
//! Source: Vaswani et al. 2017, equation 1; Ainslie et al. 2023 for the groups.
//!
//! Axes: T query tokens, S key tokens, N query heads, K key heads, G = N / K, D head_dim;
//! t and s are T and S of one row.

use burn::tensor::{Bool, Tensor, activation, s};

use crate::Rows;

/// Attends within each row; the last query of a row stands at its last key.
///
/// `queries` and `keys` are the same in training. With a cache, a row's queries are its newest
/// tokens and its keys are all tokens so far.
///
/// # Shapes
/// `q`: `[T, N, D]`. `k`, `v`: `[S, K, D]`. Result: `[T, N, D]`.
///
/// # Panics
/// Where the number of rows differs, or a row has more queries than keys.
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    queries: &Rows,
    keys: &Rows,
    scale: f64,
) -> Tensor<3> {
    assert_eq!(queries.len(), keys.len(), "rows of queries and of keys");
    let [_, heads, dim] = q.dims();
    let [_, key_heads, _] = k.dims();
    let groups = heads / key_heads;
    let q = q * scale;
    let rows = queries
        .ranges()
        .zip(keys.ranges())
        .map(|(queries, keys)| {
            let [t, s] = [queries.len(), keys.len()];
            assert!(t <= s, "a row with {t} queries has {s} keys");
            let q = q
                .clone()
                .slice(s![queries])
                .reshape([t, key_heads, groups, dim])
                .permute([1, 2, 0, 3]) // [K, G, t, D]
                .reshape([key_heads, groups * t, dim]); // [K, G·t, D]
            let k = k.clone().slice(s![keys.clone()]).permute([1, 2, 0]); // [K, D, s]
            let v = v.clone().slice(s![keys]).swap_dims(0, 1); // [K, s, D]
            let scores = q.matmul(k).reshape([key_heads, groups, t, s]); // [K, G, t, s]
            let weights = activation::softmax(mask_future(scores), 3);
            weights
                .reshape([key_heads, groups * t, s])
                .matmul(v) // [K, G·t, D]
                .reshape([key_heads, groups, t, dim])
                .permute([2, 0, 1, 3]) // [t, K, G, D]
                .reshape([t, heads, dim])
        })
        .collect();
    Tensor::cat(rows, 0)
}

/// Sets the score of every key after its query to minus infinity.
///
/// # Shapes
/// `scores`, result: `[K, G, t, s]`, the last query at the last key.
fn mask_future(scores: Tensor<4>) -> Tensor<4> {
    let [key_heads, groups, t, s] = scores.dims();
    if t == 1 {
        return scores;
    }
    let future = Tensor::<2, Bool>::tril_mask([t, s], (s - t) as i64, &scores.device());
    let future = future.unsqueeze::<4>().expand([key_heads, groups, t, s]);
    scores.mask_fill(future, f32::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution, TensorData, Tolerance};

    fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
    }

    fn assert_close(actual: Tensor<3>, expected: Tensor<3>) {
        let expected: TensorData = expected.into_data();
        actual
            .into_data()
            .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    }

    #[test]
    fn one_query_by_hand() {
        let device = Device::flex();
        let q = Tensor::from_data([[[1.0_f32]]], &device);
        let k = Tensor::from_data([[[0.0_f32]], [[2.0_f32.ln()]]], &device);
        let v = Tensor::from_data([[[3.0_f32]], [[6.0_f32]]], &device);
        // weights 1/3 and 2/3
        let expected = Tensor::from_data([[[5.0_f32]]], &device);
        assert_close(
            attention(q, k, v, &Rows::single(1), &Rows::single(2), 1.0),
            expected,
        );
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
        let together = attention(q.clone(), k.clone(), v.clone(), &rows, &rows, 0.4);
        for row in rows.ranges() {
            let one = Rows::single(row.len());
            let cut = |x: &Tensor<3>| x.clone().slice(s![row.clone()]);
            let alone = attention(cut(&q), cut(&k), cut(&v), &one, &one, 0.4);
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
        let row = Rows::single(5);
        let whole = attention(q.clone(), k.clone(), v.clone(), &row, &row, 1.0);
        let newest = attention(q.slice(s![3..5]), k, v, &Rows::single(2), &row, 1.0);
        assert_close(newest, whole.slice(s![3..5]));
    }
}
