//! The forms on libtorch.
//!
//! On a GPU, all rows of a packed sequence are one call: flash attention for 16-bit dtypes,
//! memory-efficient attention for others. If `SIMMER_KERNELS` names `cudnn_attention`, rows long enough for
//! it are a few calls of cuDNN, one for each length ([`dense`]). On a processor, each row is one call, or
//! each piece of a row if there is a window ([`by_row`]). All of these compute the scores block by block
//! and never store them. If rows see other keys than their own, the keys of each row are gathered first,
//! and their gradients are scattered back.
//!
//! ATen's functions have no soft cap, and its memory-efficient attention has no window that can be used
//! (see [`aten::efficient_attention`]). Then the scores of a few queries exist at a time, in plain
//! tensor operations ([`by_piece`]).
//!
//! [`choice`] selects the form, and the head size that heads are padded to with zeros. For the functions on
//! a GPU see [`aten`].
//!
//! Axes as in [`super`].

mod by_piece;
mod by_row;
mod choice;
mod dense;

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Device, Kind, Tensor};

use super::{Attended, AttentionForms, Scores};
use crate::OptionalKernel;
use crate::libtorch::aten::{self, Packed};
use crate::libtorch::cuda::{self, Argument, variant};
use crate::libtorch::{bytes, fresh};
use crate::profile::{self, Operation};
use crate::rows::{Placed, Row, Rows};
use choice::{Call, Choice, Form};

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
        let [y, lse] = match choice(&qkv, &rows, scores).form() {
            Form::Together(call) => on_gpu(qkv, &rows, scores, call),
            Form::Cudnn(call) => dense::attend(&qkv, &rows, scores, call),
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
        let found = match choice(&qkv, &rows, scores).form() {
            Form::Together(call) => on_gpu_backward(qkv, [&y, &lse], &rows, scores, &dy, call),
            Form::Cudnn(call) => dense::gradient(&qkv, [&y, &lse], &rows, scores, &dy, call),
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

fn packed(placed: &Placed, scores: Scores) -> Packed<'_> {
    Packed {
        starts: placed.starts.each_ref(),
        longest: placed.longest,
        scale: scores.scale,
        window: scores.window,
    }
}

/// What the choice of a form depends on.
fn choice<'a>([q, k, _]: &[Tensor; 3], rows: &'a Rows, scores: Scores) -> Choice<'a> {
    let [_, heads, head_dim] = sizes(q);
    Choice {
        is_cuda: q.device().is_cuda(),
        kind: q.kind(),
        heads: [heads, k.size()[1]],
        head_dim,
        rows,
        scores,
        cudnn: OptionalKernel::CudnnAttention.is_on(),
    }
}

/// The tensor with heads of `head_dim` elements, the new ones zeros, and laid out as kernels on a GPU load it: 16
/// bytes at a time.
fn padded(of: &Tensor, head_dim: i64) -> Tensor {
    let missing = head_dim - of.size()[2];
    if missing > 0 {
        of.constant_pad_nd([0, missing])
    } else if is_aligned(of) {
        of.shallow_clone()
    } else {
        of.copy()
    }
}

fn is_aligned(of: &Tensor) -> bool {
    const BYTES: usize = 16;
    let strides = of.stride();
    let size = of.kind().elt_size_in_bytes();
    let (last, others) = strides.split_last().unwrap_or((&1, &[]));
    *last == 1
        && of.data_ptr().addr().is_multiple_of(BYTES)
        && others
            .iter()
            .all(|stride| (*stride as usize * size).is_multiple_of(BYTES))
}

/// The tensor without the padding of its heads.
fn unpadded(of: Tensor, head_dim: i64) -> Tensor {
    if of.size()[2] == head_dim {
        of
    } else {
        of.narrow(2, 0, head_dim).contiguous()
    }
}

/// The keys (or values) that the rows see, row after row, `[S', K, D]`.
fn seen(of: Tensor, placed: &Placed) -> Tensor {
    match &placed.keys {
        None => of,
        Some(keys) => of.index_select(0, keys),
    }
}

fn on_gpu(qkv: [Tensor; 3], rows: &Rows, scores: Scores, call: Call) -> [Tensor; 2] {
    let head_dim = qkv[0].size()[2];
    let [q, k, v] = qkv.map(|of| padded(&of, call.head_dim));
    let placed = rows.on_device(q.device());
    let packed = packed(&placed, scores);
    let [k, v] = [k, v].map(|of| seen(of, &placed));
    let [y, lse] = if call.is_flash {
        aten::flash_attention([&q, &k, &v], &packed)
    } else {
        let [k, v] = [k, v].map(|of| for_every_head(&of, &q));
        let [y, lse] = aten::efficient_attention([&q.unsqueeze(0), &k, &v], &packed);
        [y.squeeze_dim(0), lse]
    };
    [unpadded(y, head_dim), lse]
}

fn on_gpu_backward(
    qkv: [Tensor; 3],
    [y, lse]: [&Tensor; 2],
    rows: &Rows,
    scores: Scores,
    dy: &Tensor,
    call: Call,
) -> [Tensor; 3] {
    let head_dim = qkv[0].size()[2];
    let [q, k, v] = qkv.map(|of| padded(&of, call.head_dim));
    let [y, dy] = [y, dy].map(|of| padded(of, call.head_dim));
    let placed = rows.on_device(q.device());
    let packed = packed(&placed, scores);
    let [k, v] = [k, v].map(|of| seen(of, &placed));
    let [dq, dk, dv] = if call.is_flash {
        aten::flash_attention_backward(&dy, [&q, &k, &v], [&y, lse], &packed)
    } else {
        let [wide_k, wide_v] = [&k, &v].map(|of| for_every_head(of, &q));
        let [dy, q, y] = [dy, q, y].map(|of| of.unsqueeze(0));
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
    let [dq, dk, dv] = [dq, dk, dv].map(|of| unpadded(of, head_dim));
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
    if let Some(sums) = summed(&of, placed, keys) {
        return sums;
    }
    let [_, heads, dim] = sizes(&of);
    let mut sums = Tensor::zeros([keys as i64, heads, dim], (Kind::Float, of.device()));
    let _ = sums.index_put_(&[Some(index)], &of.to_kind(Kind::Float), true);
    sums.to_kind(of.kind())
}

/// [`scattered`] by a kernel of `sum_rows.cu`, if it computes this tensor.
fn summed(of: &Tensor, placed: &Placed, keys: usize) -> Option<Tensor> {
    const NAMES: [[&str; 2]; 2] = [
        ["sum_rows_f32", "sum_rows_f32_single"],
        ["sum_rows_bf16", "sum_rows_bf16_single"],
    ];
    let seen = placed.seen.as_ref()?;
    let [_, heads, dim] = sizes(of);
    let features = heads * dim;
    if !of.is_contiguous() {
        return None;
    }
    let (name, width) = variant(&[of], &[features], NAMES)?;
    let kernel = cuda::SUM_ROWS.kernel(OptionalKernel::SumRows, name, of)?;
    let sums = Tensor::empty([keys as i64, heads, dim], (of.kind(), of.device()));
    let arguments = [
        Argument::Tensor(of),
        Argument::Tensor(&seen.starts),
        Argument::Tensor(&seen.places),
        Argument::Tensor(&sums),
        Argument::Int(features),
    ];
    let threads = ((features / width) as usize).next_multiple_of(32).min(512);
    kernel.on_blocks([keys, 1, 1], threads, 0, &arguments);
    Some(sums)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn random(shape: [i64; 3]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    fn assert_equal(found: &Tensor, expected: &Tensor) {
        assert_eq!(found.size(), expected.size());
        assert!(found.allclose(expected, 1e-5, 1e-5, false));
    }

    /// Zeros change no score and no other element of the result.
    #[test]
    fn padded_heads_give_the_same_result() {
        let rows = Rows::from_lengths([5, 2]);
        let scores = Scores::scaled(0.3);
        for (head_dim, wider) in [(1, 4), (3, 8), (13, 16)] {
            let qkv = [[7, 4, head_dim], [7, 2, head_dim], [7, 2, head_dim]].map(random);
            let dy = random([7, 4, head_dim]);
            let [y, lse] = by_row::attend(&qkv, &rows, scores);
            let found = by_row::gradient(&qkv, [&y, &lse], &rows, scores, &dy);
            let wide = qkv.each_ref().map(|of| padded(of, wider));
            let [wide_y, wide_lse] = by_row::attend(&wide, &rows, scores);
            assert_equal(&wide_lse, &lse);
            assert_equal(&unpadded(wide_y, head_dim), &y);
            let [y, dy] = [&y, &dy].map(|of| padded(of, wider));
            let gradients = by_row::gradient(&wide, [&y, &wide_lse], &rows, scores, &dy);
            for (wide, found) in gradients.into_iter().zip(found) {
                assert_equal(&unpadded(wide, head_dim), &found);
            }
        }
    }

    #[test]
    fn tensors_that_kernels_cannot_load_are_copied() {
        let whole = random([3, 4, 9]);
        assert!(is_aligned(&random([3, 2, 8])));
        // a multiple of 16 bytes, but not at one; then rows of 36 bytes
        for of in [whole.narrow(2, 1, 8), whole.narrow(2, 0, 8)] {
            assert!(!is_aligned(&of));
            let copy = padded(&of, 8);
            assert!(is_aligned(&copy));
            assert_equal(&copy, &of);
        }
    }
}
