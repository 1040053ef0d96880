//! The forms on libtorch.
//!
//! On a GPU, all rows of a packed sequence are one call: flash attention for 16-bit dtypes,
//! memory-efficient attention for others. On a processor, each row is one call, or each piece of a row
//! if there is a window ([`by_row`]). All of these compute the scores block by block and never store
//! them. If rows see other keys than their own, the keys of each row are gathered first, and their
//! gradients are scattered back.
//!
//! ATen's functions have no soft cap, and its memory-efficient attention has no window that can be used
//! (see [`aten::efficient_attention`]). Then the scores of a few queries exist at a time, in plain
//! tensor operations ([`by_piece`]).
//!
//! For the functions on a GPU see [`aten`].
//!
//! Axes as in [`super`].

mod by_piece;
mod by_row;

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Device, Kind, Tensor};

use super::{Attended, AttentionForms, Scores};
use crate::libtorch::aten::{self, Packed};
use crate::libtorch::{bytes, fresh};
use crate::profile::{self, Operation};
use crate::rows::{QuantisedWeight, Row, Rows};

/// The largest head size that flash attention supports.
const FLASH: i64 = 256;

/// How the scores are computed.
enum Form {
    /// All rows in one call, on a GPU.
    Together,
    ByRow,
    ByPiece,
}

impl Form {
    fn of(q: &Tensor, scores: Scores) -> Self {
        let is_cuda = q.device().is_cuda();
        if scores.soft_cap.is_some() || (is_cuda && scores.window.is_some() && !is_flash(q)) {
            Self::ByPiece
        } else if is_cuda {
            Self::Together
        } else {
            Self::ByRow
        }
    }
}

impl AttentionForms for LibTorch {
    const FUSED: bool = true;

    fn attention_form(
        q: TchTensor,
        k: TchTensor,
        v: TchTensor,
        rows: Rows,
        scores: Scores,
    ) -> (TchTensor, TchTensor) {
        let qkv = [q, k, v].map(|of| of.tensor);
        let _span = span(&qkv, &rows, scores, [2, 1]);
        let [y, lse] = match Form::of(&qkv[0], scores) {
            Form::Together => on_gpu(qkv, &rows, scores),
            Form::ByRow => by_row::attend(&qkv, &rows, scores),
            Form::ByPiece => by_piece::attend(&qkv, &rows, scores),
        };
        (fresh(y), fresh(lse))
    }

    fn attention_gradient(attended: Attended<Self>, dy: TchTensor) -> [TchTensor; 3] {
        let Attended {
            qkv,
            y,
            lse,
            rows,
            scores,
        } = attended;
        let qkv = qkv.map(|of| of.tensor);
        let [y, lse, dy] = [y.tensor, lse.tensor, dy.tensor];
        let _span = span(&qkv, &rows, scores, [5, 2]);
        let found = match Form::of(&qkv[0], scores) {
            Form::Together => on_gpu_backward(qkv, [&y, &lse], &rows, scores, &dy),
            Form::ByRow => by_row::gradient(&qkv, [&y, &lse], &rows, scores, &dy),
            Form::ByPiece => by_piece::gradient(&qkv, [&y, &lse], &rows, scores, &dy),
        };
        found.map(fresh)
    }
}

/// A span of `products` matrix multiplications over all queries and the keys that they see, and `passes` times the
/// bytes of q, k, v and y.
fn span(
    [q, k, v]: &[Tensor; 3],
    rows: &Rows,
    scores: Scores,
    [products, passes]: [usize; 2],
) -> profile::Recording {
    let [_, heads, dim] = sizes(q);
    let flops = 2 * products * rows.pairs(scores.window) * (heads * dim) as usize;
    profile::span(Operation::Attention, flops, passes * bytes(&[q, k, v, q]))
}

fn packed(placed: &QuantisedWeight, scores: Scores) -> Packed<'_> {
    Packed {
        starts: placed.starts.each_ref(),
        longest: placed.longest,
        scale: scores.scale,
        window: scores.window,
    }
}

fn is_flash(q: &Tensor) -> bool {
    let dim = q.size()[2];
    matches!(q.kind(), Kind::BFloat16 | Kind::Half) && dim % 8 == 0 && dim <= FLASH
}

/// The keys (or values) that the rows see, row after row, `[S', K, D]`.
fn seen(of: Tensor, placed: &QuantisedWeight) -> Tensor {
    match &placed.keys {
        None => of,
        Some(keys) => of.index_select(0, keys),
    }
}

fn on_gpu(qkv: [Tensor; 3], rows: &Rows, scores: Scores) -> [Tensor; 2] {
    let [q, k, v] = qkv;
    let placed = rows.on_device(q.device());
    let packed = packed(&placed, scores);
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
    scores: Scores,
    dy: &Tensor,
) -> [Tensor; 3] {
    let [q, k, v] = qkv;
    let placed = rows.on_device(q.device());
    let packed = packed(&placed, scores);
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
fn scattered(of: Tensor, placed: &QuantisedWeight, keys: usize) -> Tensor {
    let Some(index) = &placed.keys else {
        return of;
    };
    let [_, heads, dim] = sizes(&of);
    let mut sums = Tensor::zeros([keys as i64, heads, dim], (Kind::Float, of.device()));
    let _ = sums.index_put_(&[Some(index)], &of.to_kind(Kind::Float), true);
    sums.to_kind(of.kind())
}

/// Minus infinity for the keys that a piece's queries do not see, else zero, `[t, s]`; `None` if they
/// see all.
fn mask(piece: &Row, window: Option<usize>, kind: (Kind, Device)) -> Option<Tensor> {
    let [t, s] = [piece.queries.len() as i64, piece.key_count() as i64];
    if t == 1 {
        return None;
    }
    let hidden = Tensor::full([t, s], f64::NEG_INFINITY, kind);
    let after = hidden.triu(s - t + 1);
    Some(match window {
        None => after,
        Some(window) => after + hidden.tril(s - t - window as i64),
    })
}

/// Adds the gradient of the keys that a row sees, `[s, K, D]`, to that of all keys, `[S, K, D]`.
fn add(sum: &Tensor, part: &Tensor, row: &Row) {
    let mut start = 0;
    for keys in &row.keys {
        let count = keys.len() as i64;
        let mut to = sum.narrow(0, keys.start as i64, count);
        let _ = to.g_add_(&part.narrow(0, start, count));
        start += count;
    }
}

fn sizes(of: &Tensor) -> [i64; 3] {
    match of.size()[..] {
        [a, b, c] => [a, b, c],
        ref other => panic!("expected a tensor of three axes, found {other:?}"),
    }
}
