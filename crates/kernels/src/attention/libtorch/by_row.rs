//! Attention on a processor: one call of ATen a row or piece of a row.
//!
//! `_scaled_dot_product_flash_attention_for_cpu` and its backward function have these signatures in
//! torch 2.9 to 2.11.
//!
//! Axes as in [`super::super`].

use tch::{Kind, Tensor};

use super::{Scores, add, mask, sizes};
use crate::rows::{Row, Rows};

/// Queries per call if there is a window.
const PIECE: usize = 256;

/// The queries of a row, or another tensor of that shape, as the call expects them: `[K, G, t, D]`.
fn of_queries(of: &Tensor, row: &Row, key_heads: i64) -> Tensor {
    let part = of.narrow(0, row.queries.start as i64, row.queries.len() as i64);
    let [t, heads, dim] = sizes(&part);
    let groups = heads / key_heads;
    part.reshape([t, key_heads, groups, dim])
        .permute([1, 2, 0, 3])
}

/// The keys or values that a row sees: `[K, G, s, D]`. The heads of a group share memory.
fn of_keys(of: &Tensor, row: &Row, groups: i64) -> Tensor {
    let parts = row.keys.iter();
    let parts: Vec<Tensor> = parts
        .map(|keys| of.narrow(0, keys.start as i64, keys.len() as i64))
        .collect();
    let all = Tensor::cat(&parts, 0); // [s, K, D]
    let [s, heads, dim] = sizes(&all);
    let all = all.permute([1, 0, 2]).unsqueeze(1);
    all.expand([heads, groups, s, dim], false)
}

/// The mask of a row or piece, and whether the call's own causal mask is right instead.
fn masks(row: &Row, window: Option<usize>, q: &Tensor) -> (Option<Tensor>, bool) {
    let keys = row.key_count();
    if row.queries.len() == keys && window.is_none_or(|window| window >= keys) {
        return (None, true);
    }
    (mask(row, window, (q.kind(), q.device())), false)
}

/// The rows, or their pieces if there is a window: a call then gets only keys that its queries see.
fn calls(rows: &Rows, window: Option<usize>) -> Vec<Row> {
    let length = if window.is_some() { PIECE } else { usize::MAX };
    rows.pieces(length, window)
}

/// The result, `[T, N, D]`, and the log-sum-exp of the scores, `[T, N]`.
pub(super) fn attend([q, k, v]: &[Tensor; 3], rows: &Rows, scores: Scores) -> [Tensor; 2] {
    let [t, heads, _] = sizes(q);
    let key_heads = k.size()[1];
    let groups = heads / key_heads;
    let y = q.empty_like();
    let lse = Tensor::empty([t, heads, 1], (Kind::Float, q.device()));
    for row in &calls(rows, scores.window) {
        let (mask, is_causal) = masks(row, scores.window, q);
        let (part, part_lse) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            &of_queries(q, row, key_heads),
            &of_keys(k, row, groups),
            &of_keys(v, row, groups),
            0.0,
            is_causal,
            mask,
            scores.scale,
        );
        of_queries(&y, row, key_heads).copy_(&part);
        of_queries(&lse, row, key_heads).copy_(&part_lse.unsqueeze(3));
    }
    [y, lse.squeeze_dim(2)]
}

/// Gradients of `q`, `k` and `v`.
pub(super) fn gradient(
    [q, k, v]: &[Tensor; 3],
    [y, lse]: [&Tensor; 2],
    rows: &Rows,
    scores: Scores,
    dy: &Tensor,
) -> [Tensor; 3] {
    let heads = q.size()[1];
    let key_heads = k.size()[1];
    let groups = heads / key_heads;
    let lse = lse.unsqueeze(2); // [T, N, 1]
    let dq = q.empty_like();
    let zeros = |of: &Tensor| Tensor::zeros(of.size(), (Kind::Float, of.device()));
    let [dk, dv] = [zeros(k), zeros(v)];
    for row in &calls(rows, scores.window) {
        let (mask, is_causal) = masks(row, scores.window, q);
        let queries = |of: &Tensor| of_queries(of, row, key_heads);
        let (part_q, part_k, part_v) =
            Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
                &queries(dy),
                &queries(q),
                &of_keys(k, row, groups),
                &of_keys(v, row, groups),
                &queries(y),
                &queries(&lse).squeeze_dim(3),
                0.0,
                is_causal,
                mask,
                scores.scale,
            );
        queries(&dq).copy_(&part_q);
        for (whole, part) in [(&dk, part_k), (&dv, part_v)] {
            let part = part
                .sum_dim_intlist(1, false, Kind::Float)
                .permute([1, 0, 2]); // [s, K, D]
            add(whole, &part, row);
        }
    }
    [dq, dk.to_kind(k.kind()), dv.to_kind(v.kind())]
}
