//! The fused form on flex.
//!
//! Axes as in [`super`].

mod backward;
mod blocks;
#[cfg(target_arch = "x86_64")]
mod halves;
mod single;

use burn::backend::Flex;
use burn_flex::FlexTensor;

use self::blocks::{Block, PIECE, Shape, Sides, blind, blocks, cap, fill_before, scatter, tasks};
use super::{Attended, AttentionForms, Scores};
use crate::buffer::buffer;
use crate::flex::{self, contiguous, tensor, values};
use crate::profile::{self, Operation};
use crate::simd::{exp, vectorised};
use crate::skinny::transposed;
use crate::{Row, Rows};

impl AttentionForms for Flex {
    const FUSED: bool = true;

    fn attention_form(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        rows: Rows,
        scores: Scores,
    ) -> (FlexTensor, FlexTensor) {
        if flex::is_half(&q) {
            #[cfg(target_arch = "x86_64")]
            if halves::can(&q, &rows) {
                return halves::forward([q, k, v], &rows, scores);
            }
            let [q, k, v] = [q, k, v].map(flex::widened);
            let (y, lse) = Self::attention_form(q, k, v, rows, scores);
            return (flex::narrowed(y), lse);
        }
        let qkv = [q, k, v].map(contiguous);
        let [q, k, _] = &qkv;
        let shape = Shape::of(q, k);
        let size = 4 * (2 * values(q).len() + 2 * values(k).len());
        let _span = profile::span(
            Operation::Attention,
            shape.flops(&rows, scores.window, 2),
            size,
        );
        let heads = shape.key_heads * shape.groups;
        let mut y = buffer(rows.total() * heads * shape.dim);
        let mut lse = buffer(rows.total() * heads);
        if rows.iter().all(|row| row.queries.len() == 1) {
            let rows = rows.pieces(1, scores.window);
            single::attend(&qkv, shape, &rows, scores, &mut y, &mut lse);
        } else {
            by_piece(&qkv, shape, &rows, scores, &mut y, &mut lse);
        }
        (
            tensor(y, [rows.total(), heads, shape.dim]),
            tensor(lse, [rows.total(), heads]),
        )
    }

    fn attention_gradient(attended: Attended<Self>, dy: FlexTensor) -> [FlexTensor; 3] {
        backward::gradient(attended, dy)
    }
}

/// Computes the result `y`, `[T, N, D]`, and `lse`, `[T, N]`, for rows of any length.
fn by_piece(
    qkv: &[FlexTensor; 3],
    shape: Shape,
    rows: &Rows,
    scores: Scores,
    y: &mut [f32],
    lse: &mut [f32],
) {
    let pieces = rows.pieces(PIECE, scores.window);
    let found = tasks(&pieces, shape, |piece, head| {
        let mut y = buffer(piece.queries.len() * shape.groups * shape.dim); // [t, G, D]
        let mut lse = buffer(piece.queries.len() * shape.groups); // [t, G]
        let sides = Sides::new(qkv, shape, head, scores);
        attend(sides, piece, &mut y, &mut lse);
        [y, lse]
    });
    for (index, [y_part, lse_part]) in found.iter().enumerate() {
        let piece = &pieces[index / shape.key_heads];
        let head = index % shape.key_heads;
        scatter(y, y_part, piece, head, shape.key_heads);
        scatter(lse, lse_part, piece, head, shape.key_heads);
    }
}

vectorised! {
    /// One piece and key head. `y`: `[t, G, D]`. `lse`: `[t, G]`.
    fn attend(simd, sides: Sides<'a>, piece: &'a Row, y: &'a mut [f32], lse: &'a mut [f32]) {
        let Shape { groups, dim, .. } = sides.shape;
        let mut done = 0; // columns of the blocks before
        for Block { tokens, keys, .. } in blocks(piece, sides.shape, sides.window) {
            let q = transposed(&sides.group(sides.q, tokens.clone()), dim); // [D, c]
            let c = tokens.len() * groups;
            let mut weights = sides.against(simd, sides.k, &keys, &q, sides.scale); // [s, c]
            cap(&mut weights, sides.soft_cap);
            let columns = [tokens.len(), groups];
            let [largest, total] = exponentials(&mut weights, columns, sides.window);
            let y = &mut y[done * dim..][..c * dim];
            sides.combine(simd, sides.v, &keys, &weights, 1.0, y);
            finish(y, &mut lse[done..done + c], [&largest, &total], dim);
            done += c;
        }
    }
}

/// Replaces the scores of a block, `[s, c]`, by `exp(score - largest)`, zero where a column does not see the key. Returns
/// the largest score and the sum of each column, `[c]`.
#[inline(always)]
fn exponentials(
    weights: &mut [f32],
    [tokens, groups]: [usize; 2],
    window: Option<usize>,
) -> [Vec<f32>; 2] {
    let c = tokens * groups;
    fill_before(weights, [tokens, groups], window, f32::NEG_INFINITY);
    let s = weights.len() / c;
    let mut largest = vec![f32::NEG_INFINITY; c];
    for (j, scores) in weights.chunks_exact(c).enumerate() {
        let blind = blind(j, s, tokens, groups);
        for (largest, score) in largest[blind..].iter_mut().zip(&scores[blind..]) {
            *largest = if *score > *largest { *score } else { *largest };
        }
    }
    let mut total = vec![0.0; c];
    for (j, scores) in weights.chunks_exact_mut(c).enumerate() {
        let blind = blind(j, s, tokens, groups);
        scores[..blind].fill(0.0);
        let seeing = scores[blind..].iter_mut().zip(&largest[blind..]);
        for ((score, largest), total) in seeing.zip(&mut total[blind..]) {
            *score = exp(*score - largest);
            *total += *score;
        }
    }
    fill_before(weights, [tokens, groups], window, 0.0);
    [largest, total]
}

/// Divides the sums of a block, `[c, D]`, by the totals of their columns, and writes the log-sum-exp, `[c]`.
#[inline(always)]
fn finish(y: &mut [f32], lse: &mut [f32], [largest, total]: [&[f32]; 2], dim: usize) {
    for (y, total) in y.chunks_exact_mut(dim).zip(total) {
        let share = 1.0 / total;
        for y in y {
            *y *= share;
        }
    }
    for ((lse, largest), total) in lse.iter_mut().zip(largest).zip(total) {
        *lse = largest + total.ln();
    }
}
