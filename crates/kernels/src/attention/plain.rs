//! The reference implementation, row by row: the scores of one row exist at a time.
//!
//! Axes as in [`super`].

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::{FloatDType, Shape, Slice, TensorData};

use super::{Attended, Scores};
use crate::reference::{all_gradients, in_dtype, widened};
use crate::{Row, Rows};

/// The result, `[T, N, D]`, and the log-sum-exp of the scores, `[T, N]`.
pub(super) fn row_by_row<B: Backend>(
    qkv: [FloatTensor<B>; 3],
    rows: &Rows,
    scores: Scores,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = qkv[0].dtype();
    let (y, lse) = rows
        .iter()
        .map(|row| one_row::<B>(of_row::<B>(&qkv, row), scores))
        .unzip();
    let y = B::float_cat(y, 0);
    (in_dtype::<B>(y, dtype), B::float_cat(lse, 0))
}

/// Gradients of `q`, `k` and `v`, from the gradient of the result.
pub(super) fn gradient<B: Backend>(
    attended: Attended<B>,
    dy: FloatTensor<B>,
) -> [FloatTensor<B>; 3] {
    let Attended {
        qkv, rows, scores, ..
    } = attended;
    let dtype = dy.dtype();
    let zeros = |of: &FloatTensor<B>| B::float_zeros(of.shape(), &of.device(), FloatDType::F32);
    let [mut dk, mut dv] = [zeros(&qkv[1]), zeros(&qkv[2])];
    let mut dq = Vec::new();
    for row in &rows {
        let dy = widened::<B>(part::<B>(&dy, row.queries.clone()));
        let of = |qkv: [_; 3]| one_row::<Autodiff<B>>(qkv, scores).0;
        let [q, k, v] = all_gradients::<B, 3>(of_row::<B>(&qkv, row), of, dy);
        dq.push(q);
        dk = with_row::<B>(dk, &k, row);
        dv = with_row::<B>(dv, &v, row);
    }
    [B::float_cat(dq, 0), dk, dv].map(|found| in_dtype::<B>(found, dtype))
}

/// A row's queries, and the keys and values that they see, in f32.
fn of_row<B: Backend>([q, k, v]: &[FloatTensor<B>; 3], row: &Row) -> [FloatTensor<B>; 3] {
    let seen = |of: &FloatTensor<B>| {
        let ranges = row.keys.iter().map(|keys| part::<B>(of, keys.clone()));
        B::float_cat(ranges.collect(), 0) // [s, K, D]
    };
    [part::<B>(q, row.queries.clone()), seen(k), seen(v)].map(widened::<B>)
}

/// Some tokens of a tensor `[T, N, D]`.
fn part<B: Backend>(of: &FloatTensor<B>, tokens: Range<usize>) -> FloatTensor<B> {
    B::float_slice(of.clone(), &slices::<B>(of, tokens))
}

fn slices<B: Backend>(of: &FloatTensor<B>, tokens: Range<usize>) -> [Slice; 3] {
    let [_, heads, dim] = of.shape().dims();
    [tokens, 0..heads, 0..dim].map(Slice::from)
}

/// Adds the gradient of the keys that a row sees, `[s, K, D]`, to that of all keys, `[S, K, D]`.
fn with_row<B: Backend>(
    mut sum: FloatTensor<B>,
    found: &FloatTensor<B>,
    row: &Row,
) -> FloatTensor<B> {
    let mut start = 0;
    for keys in &row.keys {
        let more = part::<B>(found, start..start + keys.len());
        start += keys.len();
        let more = B::float_add(part::<B>(&sum, keys.clone()), more);
        let to = slices::<B>(&sum, keys.clone());
        sum = B::float_slice_assign(sum, &to, more);
    }
    sum
}

/// One row, in f32: the result, `[t, N, D]`, and the log-sum-exp of the scores, `[t, N]`.
fn one_row<B: Backend>(
    [q, k, v]: [FloatTensor<B>; 3],
    by: Scores,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [t, heads, dim] = q.shape().dims();
    let [s, key_heads, _] = k.shape().dims();
    let groups = heads / key_heads;
    let shaped = |of, shape: &[usize]| B::float_reshape(of, Shape::from(shape.to_vec()));
    let q = shaped(q, &[t, key_heads, groups, dim]);
    let q = B::float_permute(q, &[1, 2, 0, 3]); // [K, G, t, D]
    let q = shaped(
        B::float_mul_scalar(q, by.scale.into()),
        &[key_heads, groups * t, dim],
    );
    let k = B::float_permute(k, &[1, 2, 0]); // [K, D, s]
    let v = B::float_permute(v, &[1, 0, 2]); // [K, s, D]
    let scores = B::float_matmul(q, k); // [K, G·t, s]
    let mut scores = shaped(scores, &[key_heads, groups, t, s]);
    if let Some(cap) = by.soft_cap {
        let tanh = B::float_tanh(B::float_div_scalar(scores, cap.into()));
        scores = B::float_mul_scalar(tanh, cap.into());
    }
    if t > 1 || by.window.is_some() {
        let mask = B::float_from_data(unseen(t, s, by.window), &scores.device());
        scores = B::float_add(scores, mask);
    }
    // the result does not depend on what is subtracted
    let max = B::float_max_dim(B::float_detach(scores.clone()), 3); // [K, G, t, 1]
    let weights = B::float_exp(B::float_sub(scores, max.clone()));
    let sum = B::float_sum_dim(weights.clone(), 3); // [K, G, t, 1]
    let weights = shaped(
        B::float_div(weights, sum.clone()),
        &[key_heads, groups * t, s],
    );
    let y = shaped(B::float_matmul(weights, v), &[key_heads, groups, t, dim]);
    let y = B::float_permute(y, &[2, 0, 1, 3]); // [t, K, G, D]
    let lse = B::float_permute(B::float_add(B::float_log(sum), max), &[2, 0, 1, 3]);
    (shaped(y, &[t, heads, dim]), shaped(lse, &[t, heads]))
}

/// Minus infinity for the keys that each query does not see, else zero, `[1, 1, t, s]`. The last query
/// has the position of the last key.
fn unseen(t: usize, s: usize, window: Option<usize>) -> TensorData {
    let mask = (0..t).flat_map(|query| {
        let last = s - t + query;
        let first = window.map_or(0, |window| (last + 1).saturating_sub(window));
        let of_key = move |key| {
            let is_seen = (first..=last).contains(&key);
            if is_seen { 0.0 } else { f32::NEG_INFINITY }
        };
        (0..s).map(of_key)
    });
    TensorData::new(mask.collect::<Vec<f32>>(), [1, 1, t, s])
}
