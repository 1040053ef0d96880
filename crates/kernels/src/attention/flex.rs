//! The fused form on flex: blocks of queries against all their keys.
//!
//! A task is a piece of a row and a key head. Its queries are taken in blocks of a few dozen
//! columns, all heads of the group beside each other; scores, weights and their gradients are
//! `[s, c]`, a key a line, so that softmax runs down columns in vectors, and keys and values are
//! read where they lie.
//!
//! Axes as in [`super`], and c columns of a block: queries times heads of the group.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use std::ops::Range;

use super::{Attended, AttentionBackend, AttentionGradient};
use crate::buffer::buffer;
use crate::flex::{contiguous, tensor, values};
use crate::low_rank::transposed;
use crate::profile::{self, Operation};
use crate::simd::{dot, exp, vectorised};
use crate::threads;
use crate::tile::{self, Left, Output, Right};
use crate::{Row, Rows};

/// Queries of a task: a longer row is cut, each piece seeing what comes before it.
const PIECE: usize = 256;

/// Columns of a block, about.
const COLUMNS: usize = 64;

/// Heads and head size.
#[derive(Debug, Clone, Copy)]
struct Shape {
    key_heads: usize,
    groups: usize,
    dim: usize,
}

impl Shape {
    fn of(q: &FlexTensor, k: &FlexTensor) -> Self {
        let [_, heads, dim] = q.layout().shape().dims();
        let [_, key_heads, _] = k.layout().shape().dims();
        Self {
            key_heads,
            groups: heads / key_heads,
            dim,
        }
    }

    /// Tokens of a block: columns in whole vectors where there are many.
    fn block(self) -> usize {
        let tokens = COLUMNS / self.groups;
        (tokens - tokens % 16).max(16)
    }

    /// From one token's queries to the next's.
    fn query_stride(self) -> usize {
        self.key_heads * self.groups * self.dim
    }

    /// From one token's keys to the next's.
    fn key_stride(self) -> usize {
        self.key_heads * self.dim
    }

    /// Multiplications and additions of `products` products over all queries and keys.
    fn flops(self, rows: &Rows, products: usize) -> usize {
        let pairs: usize = rows
            .iter()
            .map(|row| {
                let [t, s] = [row.queries.len(), row.key_count()];
                t * (s - t) + t * (t + 1) / 2
            })
            .sum();
        2 * products * pairs * self.key_heads * self.groups * self.dim
    }
}

/// Rows cut into pieces of at most [`PIECE`] queries.
fn pieces(rows: &Rows) -> Vec<Row> {
    let mut pieces = Vec::new();
    for row in rows {
        for start in row.queries.clone().step_by(PIECE) {
            let end = row.queries.end.min(start + PIECE);
            pieces.push(Row {
                queries: start..end,
                keys: first_keys(row, row.key_count() - (row.queries.end - end)),
            });
        }
    }
    pieces
}

/// The first `count` keys of a row.
fn first_keys(row: &Row, mut count: usize) -> Vec<Range<usize>> {
    let mut keys = Vec::new();
    for range in &row.keys {
        let length = count.min(range.len());
        if length > 0 {
            keys.push(range.start..range.start + length);
        }
        count -= length;
    }
    keys
}

/// Runs every piece with every key head: `[pieces][K]`.
fn tasks<R: Send>(pieces: &[Row], shape: Shape, task: impl Fn(&Row, usize) -> R + Sync) -> Vec<R> {
    threads::map(pieces.len() * shape.key_heads, |index| {
        task(&pieces[index / shape.key_heads], index % shape.key_heads)
    })
}

impl AttentionBackend for Flex {
    fn attention_rows(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        rows: Rows,
        scale: f64,
    ) -> (FlexTensor, FlexTensor) {
        let [q, k, v] = [q, k, v].map(contiguous);
        let shape = Shape::of(&q, &k);
        let size = 4 * (2 * values(&q).len() + 2 * values(&k).len());
        let _span = profile::span(Operation::Attention, shape.flops(&rows, 2), size);
        let pieces = pieces(&rows);
        let found = tasks(&pieces, shape, |piece, head| {
            let mut y = buffer(piece.queries.len() * shape.groups * shape.dim); // [t, G, D]
            let mut lse = buffer(piece.queries.len() * shape.groups); // [t, G]
            let sides = Sides {
                q: values(&q),
                k: values(&k),
                v: values(&v),
                shape,
                head,
                scale: scale as f32,
            };
            forward(sides, piece, &mut y, &mut lse);
            [y, lse]
        });
        let heads = shape.key_heads * shape.groups;
        let mut y = buffer(rows.total() * heads * shape.dim);
        let mut lse = buffer(rows.total() * heads);
        for (index, [y_part, lse_part]) in found.iter().enumerate() {
            let piece = &pieces[index / shape.key_heads];
            let head = index % shape.key_heads;
            scatter(&mut y, y_part, piece, head, shape.key_heads);
            scatter(&mut lse, lse_part, piece, head, shape.key_heads);
        }
        (
            tensor(y, [rows.total(), heads, shape.dim]),
            tensor(lse, [rows.total(), heads]),
        )
    }
}

/// Puts what a task found for its queries and group into the whole, `[T, K, ...]`.
fn scatter(whole: &mut [f32], part: &[f32], piece: &Row, head: usize, key_heads: usize) {
    let width = part.len() / piece.queries.len();
    for (query, part) in piece.queries.clone().zip(part.chunks_exact(width)) {
        whole[(query * key_heads + head) * width..][..width].copy_from_slice(part);
    }
}

/// What a task reads.
#[derive(Debug, Clone, Copy)]
struct Sides<'a> {
    /// `[T, N, D]`
    q: &'a [f32],
    /// `[S, K, D]`
    k: &'a [f32],
    /// `[S, K, D]`
    v: &'a [f32],
    shape: Shape,
    head: usize,
    scale: f32,
}

impl<'a> Sides<'a> {
    /// The group's vectors of some tokens: `[c, D]`.
    fn group(&self, x: &[f32], tokens: Range<usize>) -> Vec<f32> {
        let width = self.shape.groups * self.shape.dim;
        let mut block = buffer(tokens.len() * width);
        for (token, block) in tokens.zip(block.chunks_exact_mut(width)) {
            let start = token * self.shape.query_stride() + self.head * width;
            block.copy_from_slice(&x[start..start + width]);
        }
        block
    }

    /// One vector a key of this head, from a range's first on.
    fn of_head(&self, x: &'a [f32], range: &Range<usize>) -> &'a [f32] {
        &x[range.start * self.shape.key_stride() + self.head * self.shape.dim..]
    }

    /// `x[j] · columns` for every key: `[s, c]`.
    #[inline(always)]
    fn against<S: pulp::Simd>(
        &self,
        simd: S,
        x: &'a [f32],
        keys: &[Range<usize>],
        columns: &[f32],
        scale: f32,
    ) -> Vec<f32> {
        let c = columns.len() / self.shape.dim;
        let s: usize = keys.iter().map(ExactSizeIterator::len).sum();
        let mut scores = buffer(s * c);
        let mut first = 0;
        for range in keys {
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
            tile::multiply(
                simd,
                [range.len(), self.shape.dim, c],
                scale,
                left,
                right,
                output,
            );
            first += range.len();
        }
        scores
    }

    /// `Σ_j weights[j] x[j]`: `[c, D]` from `[s, c]`.
    #[inline(always)]
    fn combine<S: pulp::Simd>(
        &self,
        simd: S,
        x: &'a [f32],
        keys: &[Range<usize>],
        weights: &[f32],
        scale: f32,
        y: &mut [f32],
    ) {
        let dim = self.shape.dim;
        let c = y.len() / dim;
        let mut first = 0;
        for range in keys {
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
            first += range.len();
        }
    }
}

/// Blocks of a piece: each block's tokens, and its keys.
fn blocks(piece: &Row, shape: Shape) -> impl Iterator<Item = (Range<usize>, Vec<Range<usize>>)> {
    let seen = piece.key_count() - piece.queries.len();
    piece
        .queries
        .clone()
        .step_by(shape.block())
        .map(move |start| {
            let end = piece.queries.end.min(start + shape.block());
            let keys = first_keys(piece, seen + end - piece.queries.start);
            (start..end, keys)
        })
}

/// Columns of a block that may not see key `j`: those of tokens before it.
///
/// The block's `tokens` are the last of its `s` keys.
#[inline(always)]
fn blind(j: usize, s: usize, tokens: usize, groups: usize) -> usize {
    (j + tokens).saturating_sub(s) * groups
}

vectorised! {
    /// `y`: `[t, G, D]`. `lse`: `[t, G]`.
    fn forward(simd, sides: Sides<'a>, piece: &'a Row, y: &'a mut [f32], lse: &'a mut [f32]) {
        let Shape { groups, dim, .. } = sides.shape;
        let mut done = 0; // columns
        for (tokens, keys) in blocks(piece, sides.shape) {
            let q = transposed(&sides.group(sides.q, tokens.clone()), dim); // [D, c]
            let c = tokens.len() * groups;
            let mut weights = sides.against(simd, sides.k, &keys, &q, sides.scale); // [s, c]
            let s = weights.len() / c;
            let mut largest = vec![f32::NEG_INFINITY; c];
            for (j, scores) in weights.chunks_exact(c).enumerate() {
                let blind = blind(j, s, tokens.len(), groups);
                for (largest, score) in largest[blind..].iter_mut().zip(&scores[blind..]) {
                    *largest = if *score > *largest { *score } else { *largest };
                }
            }
            let mut total = vec![0.0; c];
            for (j, scores) in weights.chunks_exact_mut(c).enumerate() {
                let blind = blind(j, s, tokens.len(), groups);
                scores[..blind].fill(0.0);
                let seeing = scores[blind..].iter_mut().zip(&largest[blind..]);
                for ((score, largest), total) in seeing.zip(&mut total[blind..]) {
                    *score = exp(*score - largest);
                    *total += *score;
                }
            }
            let y = &mut y[done * dim..][..c * dim];
            sides.combine(simd, sides.v, &keys, &weights, 1.0, y);
            for (y, total) in y.chunks_exact_mut(dim).zip(&total) {
                let share = 1.0 / total;
                for y in y {
                    *y *= share;
                }
            }
            for ((lse, largest), total) in lse[done..].iter_mut().zip(&largest).zip(&total) {
                *lse = largest + total.ln();
            }
            done += c;
        }
    }
}

/// Gradients that a task finds: for its queries `[t, G, D]`, and for all its keys `[s, D]` each.
struct Found {
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl AttentionGradient for Flex {
    fn attention_gradient(attended: Attended<Self>, dy: FlexTensor) -> [FlexTensor; 3] {
        let Attended {
            qkv,
            y,
            lse,
            rows,
            scale,
        } = attended;
        let [q, k, v] = qkv.map(contiguous);
        let [y, lse, dy] = [y, lse, dy].map(contiguous);
        let shape = Shape::of(&q, &k);
        let size = 4 * (4 * values(&q).len() + 4 * values(&k).len());
        let _span = profile::span(Operation::Attention, shape.flops(&rows, 5), size);
        let pieces = pieces(&rows);
        let found = tasks(&pieces, shape, |piece, head| {
            let [t, s] = [piece.queries.len(), piece.key_count()];
            let mut found = Found {
                dq: buffer(t * shape.groups * shape.dim),
                dk: vec![0.0; s * shape.dim],
                dv: vec![0.0; s * shape.dim],
            };
            let sides = Sides {
                q: values(&q),
                k: values(&k),
                v: values(&v),
                shape,
                head,
                scale: scale as f32,
            };
            let results = Results {
                y: values(&y),
                lse: values(&lse),
                dy: values(&dy),
            };
            backward(sides, results, piece, &mut found);
            found
        });
        gather_gradients(&found, &pieces, shape, &rows)
    }
}

/// The gradients of all tasks together; keys that several pieces see add up in their order.
fn gather_gradients(found: &[Found], pieces: &[Row], shape: Shape, rows: &Rows) -> [FlexTensor; 3] {
    let Shape {
        key_heads,
        groups,
        dim,
    } = shape;
    let mut dq = buffer(rows.total() * shape.query_stride());
    let mut dk = vec![0.0; rows.keys() * shape.key_stride()];
    let mut dv = vec![0.0; rows.keys() * shape.key_stride()];
    for (index, found) in found.iter().enumerate() {
        let [piece, head] = [index / key_heads, index % key_heads];
        let piece = &pieces[piece];
        scatter(&mut dq, &found.dq, piece, head, key_heads);
        for (whole, part) in [(&mut dk, &found.dk), (&mut dv, &found.dv)] {
            let keys = piece.keys.iter().cloned().flatten();
            for (key, part) in keys.zip(part.chunks_exact(dim)) {
                let whole = &mut whole[(key * key_heads + head) * dim..][..dim];
                for (whole, part) in whole.iter_mut().zip(part) {
                    *whole += part;
                }
            }
        }
    }
    [
        tensor(dq, [rows.total(), key_heads * groups, dim]),
        tensor(dk, [rows.keys(), key_heads, dim]),
        tensor(dv, [rows.keys(), key_heads, dim]),
    ]
}

/// What came out of the forward pass, and its gradient.
#[derive(Debug, Clone, Copy)]
struct Results<'a> {
    /// `[T, N, D]`
    y: &'a [f32],
    /// `[T, N]`
    lse: &'a [f32],
    /// `[T, N, D]`
    dy: &'a [f32],
}

vectorised! {
    fn backward(
        simd,
        sides: Sides<'a>,
        results: Results<'a>,
        piece: &'a Row,
        found: &'a mut Found,
    ) {
        let Shape { key_heads, groups, dim } = sides.shape;
        let mut done = 0; // columns
        for (tokens, keys) in blocks(piece, sides.shape) {
            let c = tokens.len() * groups;
            let q = sides.group(sides.q, tokens.clone()); // [c, D]
            let y = sides.group(results.y, tokens.clone()); // [c, D]
            let dy = sides.group(results.dy, tokens.clone()); // [c, D]
            let delta: Vec<f32> = y
                .chunks_exact(dim)
                .zip(dy.chunks_exact(dim))
                .map(|(y, dy)| dot(y, dy))
                .collect(); // [c]
            let lse: Vec<f32> = tokens
                .clone()
                .flat_map(|token| {
                    let first = (token * key_heads + sides.head) * groups;
                    &results.lse[first..first + groups]
                })
                .copied()
                .collect(); // [c]
            let mut p = sides.against(simd, sides.k, &keys, &transposed(&q, dim), sides.scale);
            let mut ds = sides.against(simd, sides.v, &keys, &transposed(&dy, dim), 1.0); // [s, c]
            let s = p.len() / c;
            for (j, (p, ds)) in p.chunks_exact_mut(c).zip(ds.chunks_exact_mut(c)).enumerate() {
                let columns = p.iter_mut().zip(ds.iter_mut());
                for ((p, ds), (lse, delta)) in columns.zip(lse.iter().zip(&delta)) {
                    *p = exp(*p - lse);
                    *ds = *p * (*ds - delta);
                }
                let blind = blind(j, s, tokens.len(), groups);
                p[..blind].fill(0.0);
                ds[..blind].fill(0.0);
            }
            let dq = &mut found.dq[done * dim..][..c * dim];
            sides.combine(simd, sides.k, &keys, &ds, sides.scale, dq);
            for (weights, columns, scale, gradient) in [
                (&ds, &q, sides.scale, &mut found.dk),
                (&p, &dy, 1.0, &mut found.dv),
            ] {
                let left = Left { values: weights, row: c, depth: 1 };
                let right = Right { values: columns, depth: dim };
                let output = Output { values: gradient, row: dim, add: true };
                tile::multiply(simd, [s, c, dim], scale, left, right, output);
            }
            done += c;
        }
    }
}
