//! The forms on libtorch.
//!
//! On a GPU, all rows of a packed sequence are one call: flash attention for 16-bit dtypes,
//! memory-efficient attention for others. On a processor, each row is one call. All of these compute
//! the scores block by block and never store them. If rows see other keys than their own, the keys
//! of each row are gathered first, and their gradients are scattered back.
//!
//! `_scaled_dot_product_flash_attention_for_cpu` and its backward function have these signatures in
//! torch 2.9 to 2.11; for the functions on a GPU see [`aten`].
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Device, Kind, Tensor};

use super::{Attended, AttentionForms};
use crate::libtorch::aten::{self, Packed};
use crate::libtorch::{bytes, fresh};
use crate::profile::{self, Operation};
use crate::rows::{Placed, Row, Rows};

/// The largest head size that flash attention supports.
const FLASH: i64 = 256;

impl AttentionForms for LibTorch {
    const FUSED: bool = true;

    fn attention_form(
        q: TchTensor,
        k: TchTensor,
        v: TchTensor,
        rows: Rows,
        scale: f64,
    ) -> (TchTensor, TchTensor) {
        let qkv = [q, k, v].map(|of| of.tensor);
        let _span = span(&qkv, &rows, [2, 1]);
        let [y, lse] = if qkv[0].device().is_cuda() {
            on_gpu(qkv, &rows, scale)
        } else {
            by_row(&qkv, &rows, scale)
        };
        (fresh(y), fresh(lse))
    }

    fn attention_gradient(attended: Attended<Self>, dy: TchTensor) -> [TchTensor; 3] {
        let Attended {
            qkv,
            y,
            lse,
            rows,
            scale,
        } = attended;
        let qkv = qkv.map(|of| of.tensor);
        let [y, lse, dy] = [y.tensor, lse.tensor, dy.tensor];
        let _span = span(&qkv, &rows, [5, 2]);
        let found = if dy.device().is_cuda() {
            on_gpu_backward(qkv, [&y, &lse], &rows, scale, &dy)
        } else {
            by_row_backward(&qkv, [&y, &lse], &rows, scale, &dy)
        };
        found.map(fresh)
    }
}

/// A span of `products` matrix multiplications over all queries and keys, and `passes` times the
/// bytes of q, k, v and y.
fn span(
    [q, k, v]: &[Tensor; 3],
    rows: &Rows,
    [products, passes]: [usize; 2],
) -> profile::Recording {
    let [_, heads, dim] = sizes(q);
    let flops = 2 * products * rows.pairs() * (heads * dim) as usize;
    profile::span(Operation::Attention, flops, passes * bytes(&[q, k, v, q]))
}

// On a GPU.

fn packed(placed: &Placed, scale: f64) -> Packed<'_> {
    Packed {
        starts: placed.starts.each_ref(),
        longest: placed.longest,
        scale,
    }
}

fn is_flash(q: &Tensor) -> bool {
    let dim = q.size()[2];
    matches!(q.kind(), Kind::BFloat16 | Kind::Half) && dim % 8 == 0 && dim <= FLASH
}

/// The keys (or values) that the rows see, row after row, `[S', K, D]`.
fn seen(of: Tensor, placed: &Placed) -> Tensor {
    match &placed.keys {
        None => of,
        Some(keys) => of.index_select(0, keys),
    }
}

fn on_gpu(qkv: [Tensor; 3], rows: &Rows, scale: f64) -> [Tensor; 2] {
    let [q, k, v] = qkv;
    let placed = rows.on_device(q.device());
    let packed = packed(&placed, scale);
    let [k, v] = [k, v].map(|of| seen(of, &placed));
    if is_flash(&q) {
        return aten::flash_attention([&q, &k, &v], &packed);
    }
    let [k, v] = [k, v].map(|of| for_every_head(&of, &q));
    let [y, lse] = aten::efficient_attention([&q.unsqueeze(0), &k, &v], &packed);
    [y.squeeze_dim(0), lse]
}

fn on_gpu_backward(
    qkv: [Tensor; 3],
    [y, lse]: [&Tensor; 2],
    rows: &Rows,
    scale: f64,
    dy: &Tensor,
) -> [Tensor; 3] {
    let [q, k, v] = qkv;
    let placed = rows.on_device(q.device());
    let packed = packed(&placed, scale);
    let [k, v] = [k, v].map(|of| seen(of, &placed));
    let [dq, dk, dv] = if is_flash(&q) {
        aten::flash_attention_backward(dy, [&q, &k, &v], [y, lse], &packed)
    } else {
        let [wide_k, wide_v] = [&k, &v].map(|of| for_every_head(of, &q));
        let [dy, q, y] = [dy, &q, y].map(|of| of.unsqueeze(0));
        let qkv = [&q, &wide_k, &wide_v];
        let [dq, dk, dv] = aten::efficient_attention_backward(&dy, qkv, [&y, lse], &packed);
        let [keys, heads, dim] = sizes(&k);
        let of_group = |of: Tensor| {
            let groups = of.view([keys, heads, -1, dim]); // [S', K, G, D]
            groups
                .sum_dim_intlist(2, false, Kind::Float)
                .to_kind(of.kind())
        };
        [dq.squeeze_dim(0), of_group(dk), of_group(dv)]
    };
    let [dk, dv] = [dk, dv].map(|of| scattered(of, &placed, rows.keys()));
    [dq, dk, dv]
}

/// Keys or values, each head repeated for every query head of its group, `[1, S, N, D]`.
fn for_every_head(of: &Tensor, q: &Tensor) -> Tensor {
    let [s, heads, dim] = sizes(of);
    let groups = q.size()[1] / heads;
    let wide = of.unsqueeze(2).expand([s, heads, groups, dim], false);
    wide.reshape([1, s, heads * groups, dim])
}

/// Scatters the gradients of gathered keys back, `[S, K, D]`. Gradients of a key that several rows
/// see are summed in f32 and in a fixed order.
fn scattered(of: Tensor, placed: &Placed, keys: usize) -> Tensor {
    let Some(index) = &placed.keys else {
        return of;
    };
    let [_, heads, dim] = sizes(&of);
    let mut sums = Tensor::zeros([keys as i64, heads, dim], (Kind::Float, of.device()));
    let _ = sums.index_put_(&[Some(index)], &of.to_kind(Kind::Float), true);
    sums.to_kind(of.kind())
}

// On a processor.

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

/// Minus infinity for keys that a row's queries do not see; `None` if the call's own causal mask, or
/// none, is right.
fn mask(row: &Row, kind: (Kind, Device)) -> Option<Tensor> {
    let [t, s] = [row.queries.len() as i64, row.key_count() as i64];
    if t == s || t == 1 {
        return None;
    }
    let mut mask = Tensor::full([t, s], f64::NEG_INFINITY, kind);
    Some(mask.triu_(s - t + 1))
}

fn is_causal(row: &Row) -> bool {
    row.queries.len() > 1 && row.queries.len() == row.key_count()
}

fn by_row([q, k, v]: &[Tensor; 3], rows: &Rows, scale: f64) -> [Tensor; 2] {
    let [t, heads, _] = sizes(q);
    let key_heads = k.size()[1];
    let groups = heads / key_heads;
    let y = q.empty_like();
    let lse = Tensor::empty([t, heads, 1], (Kind::Float, q.device()));
    for row in rows {
        let (part, part_lse) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            &of_queries(q, row, key_heads),
            &of_keys(k, row, groups),
            &of_keys(v, row, groups),
            0.0,
            is_causal(row),
            mask(row, (q.kind(), q.device())),
            scale,
        );
        of_queries(&y, row, key_heads).copy_(&part);
        of_queries(&lse, row, key_heads).copy_(&part_lse.unsqueeze(3));
    }
    [y, lse.squeeze_dim(2)]
}

fn by_row_backward(
    [q, k, v]: &[Tensor; 3],
    [y, lse]: [&Tensor; 2],
    rows: &Rows,
    scale: f64,
    dy: &Tensor,
) -> [Tensor; 3] {
    let heads = q.size()[1];
    let key_heads = k.size()[1];
    let groups = heads / key_heads;
    let lse = lse.unsqueeze(2); // [T, N, 1]
    let dq = q.empty_like();
    let zeros = |of: &Tensor| Tensor::zeros(of.size(), (Kind::Float, of.device()));
    let [dk, dv] = [zeros(k), zeros(v)];
    for row in rows {
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
                is_causal(row),
                mask(row, (q.kind(), q.device())),
                scale,
            );
        queries(&dq).copy_(&part_q);
        for (whole, part) in [(&dk, part_k), (&dv, part_v)] {
            let part = part
                .sum_dim_intlist(1, false, Kind::Float)
                .permute([1, 0, 2]); // [s, K, D]
            let mut start = 0;
            for keys in &row.keys {
                let count = keys.len() as i64;
                let mut to = whole.narrow(0, keys.start as i64, count);
                let _ = to.g_add_(&part.narrow(0, start, count));
                start += count;
            }
        }
    }
    [dq, dk.to_kind(k.kind()), dv.to_kind(v.kind())]
}

fn sizes(of: &Tensor) -> [i64; 3] {
    match of.size()[..] {
        [a, b, c] => [a, b, c],
        ref other => panic!("expected a tensor of three axes, found {other:?}"),
    }
}
