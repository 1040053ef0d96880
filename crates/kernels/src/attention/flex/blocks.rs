//! Blocks of queries with all their keys, on flex.
//!
//! A task is one piece of a row and one key head. It processes its queries in blocks of a few dozen
//! columns; a column is one query of one head of the group. Scores, weights and their gradients have
//! the shape `[s, c]`, with a key per line. The softmax of several columns is therefore computed at
//! once in vector instructions, and keys and values are not copied.
//!
//! Axes as in [`super::super`]; c columns of a block: queries times heads of the group.

use std::ops::Range;

use burn_flex::FlexTensor;

use crate::attention::Scores;
use crate::buffer::{Plain, buffer};
use crate::flex::values;
use crate::simd::tanh;
use crate::threads;
use crate::tile::{self, Left, Output, Right};
use crate::{Row, Rows};

/// Queries per task. A longer row is cut into pieces; each piece also sees the keys before it.
pub(super) const PIECE: usize = 256;

/// Approximate number of columns per block.
const COLUMNS: usize = 64;

/// Numbers of heads, and the head size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) key_heads: usize,
    pub(super) groups: usize,
    pub(super) dim: usize,
}

impl Shape {
    pub(super) fn of(q: &FlexTensor, k: &FlexTensor) -> Self {
        let [_, heads, dim] = q.layout().shape().dims();
        let [_, key_heads, _] = k.layout().shape().dims();
        Self {
            key_heads,
            groups: heads / key_heads,
            dim,
        }
    }

    /// Tokens per block: a multiple of 16, so that its columns fill whole vectors.
    pub(super) fn block(self) -> usize {
        let tokens = COLUMNS / self.groups;
        (tokens - tokens % 16).max(16)
    }

    /// Elements from the queries of one token to those of the next.
    pub(super) fn query_stride(self) -> usize {
        self.key_heads * self.groups * self.dim
    }

    /// Elements from the keys of one token to those of the next.
    pub(super) fn key_stride(self) -> usize {
        self.key_heads * self.dim
    }

    /// The elements of the heads of one key head's group for some tokens, `[c, D]`, of `x`, `[T, N, D]`.
    pub(super) fn group<T: Plain>(self, x: &[T], head: usize, tokens: Range<usize>) -> Vec<T> {
        let width = self.groups * self.dim;
        let mut block = buffer(tokens.len() * width);
        for (token, block) in tokens.zip(block.chunks_exact_mut(width)) {
            let start = token * self.query_stride() + head * width;
            block.copy_from_slice(&x[start..start + width]);
        }
        block
    }

    /// Multiplications and additions of `products` matrix multiplications over all queries and the keys
    /// that they see.
    pub(super) fn flops(self, rows: &Rows, window: Option<usize>, products: usize) -> usize {
        2 * products * rows.pairs(window) * self.key_heads * self.groups * self.dim
    }
}

/// Runs a task for every piece and key head. The results are ordered by piece, then by head.
pub(super) fn tasks<R: Send>(
    pieces: &[Row],
    shape: Shape,
    task: impl Fn(&Row, usize) -> R + Sync,
) -> Vec<R> {
    threads::map(pieces.len() * shape.key_heads, |index| {
        task(&pieces[index / shape.key_heads], index % shape.key_heads)
    })
}

/// Copies the result of a task to its queries and key head in `whole`, `[T, K, ...]`.
pub(super) fn scatter<T: Copy>(
    whole: &mut [T],
    part: &[T],
    piece: &Row,
    head: usize,
    key_heads: usize,
) {
    let width = part.len() / piece.queries.len();
    for (query, part) in piece.queries.clone().zip(part.chunks_exact(width)) {
        whole[(query * key_heads + head) * width..][..width].copy_from_slice(part);
    }
}

/// The inputs of the tasks of one key head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sides<'a> {
    /// `[T, N, D]`
    pub(super) q: &'a [f32],
    /// `[S, K, D]`
    pub(super) k: &'a [f32],
    /// `[S, K, D]`
    pub(super) v: &'a [f32],
    pub(super) shape: Shape,
    pub(super) head: usize,
    pub(super) scale: f32,
    pub(super) window: Option<usize>,
    pub(super) soft_cap: Option<f32>,
}

impl<'a> Sides<'a> {
    pub(super) fn new(qkv: &'a [FlexTensor; 3], shape: Shape, head: usize, scores: Scores) -> Self {
        let [q, k, v] = qkv.each_ref().map(values);
        Self {
            q,
            k,
            v,
            shape,
            head,
            scale: scores.scale as f32,
            window: scores.window,
            soft_cap: scores.soft_cap.map(|cap| cap as f32),
        }
    }

    /// The vectors of the group's heads for some tokens: `[c, D]`.
    pub(super) fn group(&self, x: &[f32], tokens: Range<usize>) -> Vec<f32> {
        self.shape.group(x, self.head, tokens)
    }

    /// The part of `x`, keys or values, that begins at this head of the range's first key.
    fn of_head(&self, x: &'a [f32], range: &Range<usize>) -> &'a [f32] {
        &x[range.start * self.shape.key_stride() + self.head * self.shape.dim..]
    }

    /// `x[j] · columns` for every key: `[s, c]`.
    #[inline(always)]
    pub(super) fn against<S: pulp::Simd>(
        &self,
        simd: S,
        x: &'a [f32],
        keys: &[Range<usize>],
        columns: &[f32],
        scale: f32,
    ) -> Vec<f32> {
        let Shape { dim, .. } = self.shape;
        let c = columns.len() / dim;
        let mut scores = buffer(count(keys) * c);
        for (first, range) in numbered(keys) {
            let left = Left {
                values: self.of_head(x, range),
                row: self.shape.key_stride(),
                depth: 1,
            };
            let right = Right {
                values: columns,
                depth: c,
            };
            let output = Output {
                values: &mut scores[first * c..],
                row: c,
                add: false,
            };
            tile::multiply(simd, [range.len(), dim, c], scale, left, right, output);
        }
        scores
    }

    /// `Σ_j weights[j] x[j]`: `[c, D]` from `[s, c]`.
    #[inline(always)]
    pub(super) fn combine<S: pulp::Simd>(
        &self,
        simd: S,
        x: &'a [f32],
        keys: &[Range<usize>],
        weights: &[f32],
        scale: f32,
        y: &mut [f32],
    ) {
        let Shape { dim, .. } = self.shape;
        let c = y.len() / dim;
        for (first, range) in numbered(keys) {
            let left = Left {
                values: &weights[first * c..],
                row: 1,
                depth: c,
            };
            let right = Right {
                values: self.of_head(x, range),
                depth: self.shape.key_stride(),
            };
            let output = Output {
                values: &mut *y,
                row: dim,
                add: first > 0,
            };
            tile::multiply(simd, [c, range.len(), dim], scale, left, right, output);
        }
    }
}

/// Number of keys in all ranges.
fn count(keys: &[Range<usize>]) -> usize {
    keys.iter().map(ExactSizeIterator::len).sum()
}

/// Each range with the number of keys before it.
#[inline(always)]
fn numbered(keys: &[Range<usize>]) -> impl Iterator<Item = (usize, &Range<usize>)> {
    let mut next = 0;
    keys.iter().map(move |range| {
        let first = next;
        next += range.len();
        (first, range)
    })
}

/// A block of queries.
pub(super) struct Block {
    pub(super) tokens: Range<usize>,
    /// The keys that they see.
    pub(super) keys: Vec<Range<usize>>,
    /// Number of keys of the piece before them.
    pub(super) first: usize,
}

/// The blocks of a piece.
pub(super) fn blocks(
    piece: &Row,
    shape: Shape,
    window: Option<usize>,
) -> impl Iterator<Item = Block> + '_ {
    let length = shape.block();
    piece.queries.clone().step_by(length).map(move |start| {
        let tokens = start..piece.queries.end.min(start + length);
        let seen = piece.seen(&tokens, window);
        Block {
            first: seen.start,
            keys: piece.keys_at(seen),
            tokens,
        }
    })
}

/// Number of columns of a block that must not see key `j`, because their tokens come before it.
///
/// The `tokens` of the block are the last of its `s` keys.
#[inline(always)]
pub(super) fn blind(j: usize, s: usize, tokens: usize, groups: usize) -> usize {
    (j + tokens).saturating_sub(s) * groups
}

/// Fills the elements of the columns of a block that must not see a key, because it comes before their
/// window. `values`: `[s, c]`.
///
/// The `tokens` of the block are the last of its `s` keys.
#[inline(always)]
pub(super) fn fill_before(
    values: &mut [f32],
    [tokens, groups]: [usize; 2],
    window: Option<usize>,
    value: f32,
) {
    let Some(window) = window else { return };
    let c = tokens * groups;
    let s = values.len() / c;
    let lines = values.chunks_exact_mut(c).take(s.saturating_sub(window));
    for (j, line) in lines.enumerate() {
        let seeing = (j + window + tokens - s) * groups;
        line[seeing..].fill(value);
    }
}

/// Caps scores.
#[inline(always)]
pub(super) fn cap(scores: &mut [f32], soft_cap: Option<f32>) {
    let Some(cap) = soft_cap else { return };
    let inverse = 1.0 / cap;
    for score in scores {
        *score = cap * tanh(*score * inverse);
    }
}

/// As [`cap`]; also returns the derivative of each capped score.
#[inline(always)]
pub(super) fn cap_with_slopes(scores: &mut [f32], soft_cap: Option<f32>) -> Option<Vec<f32>> {
    let cap = soft_cap?;
    let inverse = 1.0 / cap;
    let mut slopes = buffer(scores.len());
    for (score, slope) in scores.iter_mut().zip(&mut slopes) {
        let tanh = tanh(*score * inverse);
        *score = cap * tanh;
        *slope = 1.0 - tanh * tanh;
    }
    Some(slopes)
}
