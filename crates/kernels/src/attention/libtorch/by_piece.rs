//! Attention in plain tensor operations, in f32: the scores of a piece of a row exist at a time.
//!
//! Axes as in [`super::super`]; c columns of a piece: queries times heads of the group.

use tch::{Kind, Tensor};

use super::{Scores, add, mask, sizes};
use crate::rows::{Row, Rows};

/// Approximate number of scores of a piece: on a processor they stay in its caches, on a GPU there are
/// enough for all its cores.
const SCORES: [usize; 2] = [1 << 20, 1 << 23];

/// Least and largest number of queries of a piece.
const QUERIES: [usize; 2] = [16, 512];

/// The pieces of the rows. They are not longer than a window, so that at least half of the scores are of
/// keys that the queries see.
fn pieces(rows: &Rows, scores: Scores, q: &Tensor) -> Vec<Row> {
    let window = scores.window.unwrap_or(usize::MAX);
    let of_row = |row: &Row| row.key_count().min(window.saturating_mul(2));
    let keys = rows.iter().map(of_row).max().unwrap_or(1);
    let of_query = keys * q.size()[1] as usize;
    let length = SCORES[usize::from(q.device().is_cuda())] / of_query;
    let length = length.min(window).clamp(QUERIES[0], QUERIES[1]);
    rows.pieces(length, scores.window)
}

/// The inputs of a piece.
struct Piece {
    /// Scaled queries, `[K, c, D]`.
    q: Tensor,
    /// `[K, s, D]`
    k: Tensor,
    /// `[K, s, D]`
    v: Tensor,
    /// Minus infinity for the keys that a query does not see, else zero: `[t, 1, s]`.
    mask: Option<Tensor>,
    soft_cap: Option<f64>,
}

impl Piece {
    fn new([q, k, v]: &[Tensor; 3], row: &Row, scores: Scores) -> Self {
        let mask = mask(row, scores.window, (Kind::Float, q.device()));
        Self {
            q: columns(q, row, k.size()[1]) * scores.scale,
            k: seen(k, row),
            v: seen(v, row),
            mask: mask.map(|mask| mask.unsqueeze(1)),
            soft_cap: scores.soft_cap,
        }
    }

    /// The scores, `[K, c, s]`, minus infinity for the keys that a query does not see. With a soft cap
    /// also the derivative of the cap.
    fn scores(&self) -> (Tensor, Option<Tensor>) {
        let products = self.q.bmm(&self.k.transpose(1, 2));
        let (scores, slope) = match self.soft_cap {
            None => (products, None),
            Some(cap) => {
                let tanh = (products / cap).tanh_();
                (&tanh * cap, Some(1.0 - tanh.square()))
            }
        };
        if let Some(mask) = &self.mask {
            let [heads, c, s] = sizes(&scores);
            let t = mask.size()[0];
            let _ = scores.view([heads, t, c / t, s]).g_add_(mask);
        }
        (scores, slope)
    }
}

/// The vectors of a piece's queries in f32: `[K, c, D]`.
fn columns(of: &Tensor, row: &Row, key_heads: i64) -> Tensor {
    let part = of.narrow(0, row.queries.start as i64, row.queries.len() as i64);
    let [t, heads, dim] = sizes(&part);
    let of_heads = part.view([t, key_heads, heads / key_heads, dim]);
    let of_heads = of_heads.permute([1, 0, 2, 3]).to_kind(Kind::Float);
    of_heads.reshape([key_heads, -1, dim])
}

/// Copies columns, `[K, c, D]`, to a piece's queries in `whole`, `[T, N, D]`.
fn put(whole: &Tensor, part: &Tensor, row: &Row) {
    let t = row.queries.len() as i64;
    let [key_heads, c, dim] = sizes(part);
    let part = part.view([key_heads, t, c / t, dim]).permute([1, 0, 2, 3]);
    let mut to = whole.narrow(0, row.queries.start as i64, t);
    to.copy_(&part.reshape([t, -1, dim]));
}

/// The keys or values that a piece sees in f32: `[K, s, D]`.
fn seen(of: &Tensor, row: &Row) -> Tensor {
    let parts = row.keys.iter();
    let parts: Vec<Tensor> = parts
        .map(|keys| of.narrow(0, keys.start as i64, keys.len() as i64))
        .collect();
    let all = Tensor::cat(&parts, 0).to_kind(Kind::Float); // [s, K, D]
    all.permute([1, 0, 2]).contiguous()
}

/// The result, `[T, N, D]`, and the log-sum-exp of the scores, `[T, N]`.
pub(super) fn attend(qkv: &[Tensor; 3], rows: &Rows, scores: Scores) -> [Tensor; 2] {
    let [q, ..] = qkv;
    let [t, heads, _] = sizes(q);
    let y = q.empty_like();
    let lse = Tensor::empty([t, heads, 1], (Kind::Float, q.device()));
    for row in &pieces(rows, scores, q) {
        let piece = Piece::new(qkv, row, scores);
        let (scores, _) = piece.scores();
        let part_lse = scores.logsumexp(2, true); // [K, c, 1]
        let weights = (scores - &part_lse).exp_();
        put(&y, &weights.bmm(&piece.v), row);
        put(&lse, &part_lse, row);
    }
    [y, lse.squeeze_dim(2)]
}

/// Gradients of `q`, `k` and `v`.
pub(super) fn gradient(
    qkv: &[Tensor; 3],
    [y, lse]: [&Tensor; 2],
    rows: &Rows,
    scores: Scores,
    dy: &Tensor,
) -> [Tensor; 3] {
    let [q, k, v] = qkv;
    let lse = lse.unsqueeze(2); // [T, N, 1]
    let dq = q.empty_like();
    let zeros = |of: &Tensor| Tensor::zeros(of.size(), (Kind::Float, of.device()));
    let [dk, dv] = [zeros(k), zeros(v)];
    for row in &pieces(rows, scores, q) {
        let piece = Piece::new(qkv, row, scores);
        let [y, lse, dy] = [y, &lse, dy].map(|of| columns(of, row, k.size()[1]));
        let (part, slope) = piece.scores();
        let weights = (part - lse).exp_(); // [K, c, s]
        let delta = (y * &dy).sum_dim_intlist(2, true, Kind::Float); // [K, c, 1]
        let mut ds = (dy.bmm(&piece.v.transpose(1, 2)) - delta).g_mul_(&weights);
        if let Some(slope) = &slope {
            ds = ds.g_mul_(slope);
        }
        put(&dq, &(ds.bmm(&piece.k) * scores.scale), row);
        let of_keys = |left: Tensor, right: &Tensor| left.transpose(1, 2).bmm(right);
        for (whole, part) in [(&dk, of_keys(ds, &piece.q)), (&dv, of_keys(weights, &dy))] {
            add(whole, &part.permute([1, 0, 2]), row);
        }
    }
    [dq, dk.to_kind(k.kind()), dv.to_kind(v.kind())]
}
