//! Attention for rows with a single query, as in generation.
//!
//! Reading keys and values takes most of the time. They are therefore read in memory order, with all
//! heads of a token together. A task takes a block of keys. The weights of a block are relative to
//! the largest score in that block; the blocks of a row are combined in order.
//!
//! With a window, a row has only the keys that its query sees.
//!
//! Axes as in [`super::super`]; s keys of a block.

use std::ops::Range;

use burn_flex::FlexTensor;

use super::blocks::{Shape, cap};
use crate::Row;
use crate::attention::Scores;
use crate::buffer::buffer;
use crate::flex::values;
use crate::simd::{dot, exp, max, prefetch, sum, vectorised};
use crate::threads;

/// Keys per task.
const KEYS: usize = 32;

/// Keys are prefetched this many tokens ahead. Values are prefetched when their key is read.
const AHEAD: usize = 4;

/// Elements of a cache line.
const LINE: usize = 16;

/// The contribution of a block of keys to a row, before the division by the total.
struct Part {
    /// Largest score, `[N]`.
    largest: Vec<f32>,
    /// `Σ_j exp(score_j - largest)`, `[N]`.
    total: Vec<f32>,
    /// `Σ_j exp(score_j - largest) v_j`, `[N, D]`.
    y: Vec<f32>,
}

/// Computes the result `y`, `[T, N, D]`, and `lse`, `[T, N]`.
pub(super) fn attend(
    qkv: &[FlexTensor; 3],
    shape: Shape,
    rows: &[Row],
    scores: Scores,
    y: &mut [f32],
    lse: &mut [f32],
) {
    let sides = qkv.each_ref().map(values);
    let blocks: Vec<(usize, Range<usize>)> = rows.iter().flat_map(blocks).collect();
    let parts = threads::map(blocks.len(), |task| {
        let (query, keys) = &blocks[task];
        let heads = shape.key_heads * shape.groups;
        let mut part = Part {
            largest: buffer(heads),
            total: buffer(heads),
            y: vec![0.0; heads * shape.dim],
        };
        attend_block(sides, shape, *query, keys.clone(), scores, &mut part);
        part
    });
    let mut rest = &parts[..];
    let results = y.chunks_exact_mut(shape.query_stride());
    for (query, (y, lse)) in results
        .zip(lse.chunks_exact_mut(shape.key_heads * shape.groups))
        .enumerate()
    {
        let count = blocks.iter().filter(|(of, _)| *of == query).count();
        let (of_query, others) = rest.split_at(count);
        rest = others;
        join(of_query, shape.dim, y, lse);
    }
}

/// The blocks of a row: its query, and the keys of each block.
fn blocks(row: &Row) -> impl Iterator<Item = (usize, Range<usize>)> {
    let ranges = row.keys.iter().flat_map(|keys| {
        let starts = keys.clone().step_by(KEYS);
        starts.map(|start| start..keys.end.min(start + KEYS))
    });
    ranges.map(|keys| (row.queries.start, keys))
}

vectorised! {
    fn attend_block(
        simd,
        sides: [&'a [f32]; 3],
        shape: Shape,
        query: usize,
        keys: Range<usize>,
        scores: Scores,
        part: &'a mut Part,
    ) {
        let Shape { groups, dim, .. } = shape;
        let scale = scores.scale as f32;
        let [queries, width] = [shape.query_stride(), shape.key_stride()];
        let [q, k, v] = sides;
        let q = &q[query * queries..][..queries];
        let [k, v] = [k, v].map(|of| of[keys.start * width..keys.end * width].chunks_exact(width));
        let s = keys.len();
        let mut weights = buffer(part.total.len() * s); // [N, s]
        for (j, (key, value)) in k.zip(v.clone()).enumerate() {
            for line in (0..width).step_by(LINE) {
                prefetch(&key[line..], AHEAD * width);
                prefetch(&value[line..], 0);
            }
            for (head, q) in q.chunks_exact(dim).enumerate() {
                let key = &key[head / groups * dim..][..dim];
                weights[head * s + j] = scale * dot(simd, q, key);
            }
        }
        cap(&mut weights, scores.soft_cap.map(|cap| cap as f32));
        let heads = weights.chunks_exact_mut(s).zip(&mut part.largest);
        for ((weights, largest), total) in heads.zip(&mut part.total) {
            *largest = max(simd, weights);
            for weight in weights.iter_mut() {
                *weight = exp(*weight - *largest);
            }
            *total = sum(simd, weights);
        }
        for (j, value) in v.enumerate() {
            for (head, y) in part.y.chunks_exact_mut(dim).enumerate() {
                let weight = weights[head * s + j];
                for (y, value) in y.iter_mut().zip(&value[head / groups * dim..][..dim]) {
                    *y = weight.mul_add(*value, *y);
                }
            }
        }
    }
}

vectorised! {
    /// Combines the blocks of a row. `y`: `[N, D]`. `lse`: `[N]`.
    fn join(_simd, parts: &'a [Part], dim: usize, y: &'a mut [f32], lse: &'a mut [f32]) {
        for (head, (y, lse)) in y.chunks_exact_mut(dim).zip(lse).enumerate() {
            let largest = parts.iter().map(|part| part.largest[head]).fold(f32::NEG_INFINITY, f32::max);
            let factor = |part: &Part| exp(part.largest[head] - largest);
            let total: f32 = parts.iter().map(|part| factor(part) * part.total[head]).sum();
            y.fill(0.0);
            for part in parts {
                let share = factor(part) / total;
                for (y, part) in y.iter_mut().zip(&part.y[head * dim..][..dim]) {
                    *y = share.mul_add(*part, *y);
                }
            }
            *lse = largest + total.ln();
        }
    }
}
