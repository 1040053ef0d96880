//! The fused form on flex for activations in bf16: products of bf16 values with sums in f32.
//!
//! Scores, softmax, log-sum-exp and gradients are in f32. The weights `p` and the gradients `ds` are rounded to bf16 where
//! they enter a product; the sum of a column's weights is that of the unrounded ones. A block has an even first key, so
//! that pairs of keys are those of the piece; a key more than its queries see has no weight.
//!
//! Axes as in [`super::super`]; c columns of a block, as in [`super::blocks`]; s keys of a piece or a block.

use std::ops::Range;

use burn_flex::FlexTensor;
use half::bf16;

use super::backward::{Found, gather_gradients, weights};
use super::blocks::{Block, PIECE, Shape, blocks, cap, cap_with_slopes, scatter, tasks};
use super::{exponentials, finish};
use crate::attention::Scores;
use crate::buffer::{Plain, buffer};
use crate::flex::{self, contiguous, half_tensor, tensor, values, widened};
use crate::product::Numbers;
use crate::product::bf16::tile::{Left, Right, multiply, paired_rows, round, transposed};
use crate::profile::{self, Operation};
use crate::simd::{dot, vectorised};
use crate::tile::Output;
use crate::{Row, Rows};

/// Whether queries are in bf16, with heads of even size, and the processor multiplies such values. Rows of one query,
/// which read each key once, are not worth packing.
pub(super) fn can(q: &FlexTensor, rows: &Rows) -> bool {
    let [_, _, dim] = q.layout().shape().dims();
    let single = rows.iter().all(|row| row.queries.len() == 1);
    flex::is_half(q) && flex::has_half_products() && dim % 2 == 0 && !single
}

/// See [`super::AttentionForms::attention_form`].
pub(super) fn forward(
    qkv: [FlexTensor; 3],
    rows: &Rows,
    scores: Scores,
) -> (FlexTensor, FlexTensor) {
    let qkv = qkv.map(contiguous);
    let shape = Shape::of(&qkv[0], &qkv[1]);
    let heads = shape.key_heads * shape.groups;
    let size = 2 * qkv
        .iter()
        .map(|of| 2 * of.layout().num_elements())
        .sum::<usize>();
    let flops = shape.flops(rows, scores.window, 2);
    let _span = profile::span(Operation::Attention, flops, size);
    let pieces = rows.pieces(PIECE, scores.window);
    let found = tasks(&pieces, shape, |piece, head| {
        let mut y = buffer(piece.queries.len() * shape.groups * shape.dim); // [t, G, D]
        let mut lse = buffer(piece.queries.len() * shape.groups); // [t, G]
        let sides = Sides::new(&qkv, shape, head, scores);
        attend(sides, piece, &mut y, &mut lse);
        let mut narrow = buffer(y.len());
        round(&y, &mut narrow);
        (narrow, lse)
    });
    let mut y: Vec<bf16> = buffer(rows.total() * heads * shape.dim);
    let mut lse: Vec<f32> = buffer(rows.total() * heads);
    for (index, (y_part, lse_part)) in found.iter().enumerate() {
        let piece = &pieces[index / shape.key_heads];
        let head = index % shape.key_heads;
        scatter(&mut y, y_part, piece, head, shape.key_heads);
        scatter(&mut lse, lse_part, piece, head, shape.key_heads);
    }
    let total = rows.total();
    (
        half_tensor(y, [total, heads, shape.dim]),
        tensor(lse, [total, heads]),
    )
}

/// Gradients of `q`, `k` and `v`, in f32.
pub(super) fn gradient(
    qkv: [FlexTensor; 3],
    [y, lse, dy]: [FlexTensor; 3],
    rows: &Rows,
    scores: Scores,
) -> [FlexTensor; 3] {
    let qkv = qkv.map(contiguous);
    let [y, lse, dy] = [contiguous(y), contiguous(lse), contiguous(widened(dy))];
    let shape = Shape::of(&qkv[0], &qkv[1]);
    let size = 4
        * 2
        * qkv
            .iter()
            .map(|of| of.layout().num_elements())
            .sum::<usize>();
    let flops = shape.flops(rows, scores.window, 5);
    let _span = profile::span(Operation::Attention, flops, size);
    let pieces = rows.pieces(PIECE, scores.window);
    let found = tasks(&pieces, shape, |piece, head| {
        let mut found = Found::new(piece, shape);
        let sides = Sides::new(&qkv, shape, head, scores);
        let results = Results {
            y: elements(&y),
            lse: values(&lse),
            dy: values(&dy),
        };
        backward(sides, results, piece, &mut found);
        found
    });
    gather_gradients(&found, &pieces, shape, rows)
}

/// The elements of a contiguous tensor in bf16.
fn elements(tensor: &FlexTensor) -> &[bf16] {
    match flex::numbers(tensor) {
        Numbers::Bf16(values) => values,
        Numbers::F32(_) => unreachable!("queries, keys, values and results have one dtype"),
    }
}

/// The inputs of the tasks of one key head.
#[derive(Clone, Copy)]
struct Sides<'a> {
    /// `[T, N, D]`
    q: &'a [bf16],
    /// `[S, K, D]`
    k: &'a [bf16],
    /// `[S, K, D]`
    v: &'a [bf16],
    shape: Shape,
    head: usize,
    scale: f32,
    window: Option<usize>,
    soft_cap: Option<f32>,
}

impl<'a> Sides<'a> {
    fn new(qkv: &'a [FlexTensor; 3], shape: Shape, head: usize, scores: Scores) -> Self {
        let [q, k, v] = qkv.each_ref().map(elements);
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

    /// The keys or values of the head that a piece sees, as words of neighbours in D: `[s, D/2]`.
    fn of_head(&self, x: &[bf16], piece: &Row) -> Vec<u32> {
        let dim = self.shape.dim;
        let mut words = buffer(piece.key_count() * dim / 2);
        let rows = bytemuck::cast_slice_mut::<u32, bf16>(&mut words).chunks_exact_mut(dim);
        for (key, row) in piece.keys.iter().cloned().flatten().zip(rows) {
            row.copy_from_slice(&x[key * self.shape.key_stride() + self.head * dim..][..dim]);
        }
        words
    }

    /// The elements of the group's heads for some tokens: `[c, D]`.
    fn group<T: Plain>(&self, x: &[T], tokens: Range<usize>) -> Vec<T> {
        self.shape.group(x, self.head, tokens)
    }
}

/// Values as words of neighbours.
fn words(values: &[bf16]) -> Vec<u32> {
    let mut words = buffer(values.len() / 2);
    bytemuck::cast_slice_mut::<u32, bf16>(&mut words).copy_from_slice(values);
    words
}

/// Pairs each two rows of `[n, D/2]` words: `[n/2, D]`. An odd number of rows ends with zeros.
fn paired(words: &[u32], dim: usize) -> Vec<u32> {
    let rows = words.len() * 2 / dim;
    let mut pairs = buffer(rows.div_ceil(2) * dim);
    pair(words, dim, &mut pairs);
    pairs
}

vectorised! {
    fn pair(_simd, words: &'a [u32], dim: usize, pairs: &'a mut [u32]) {
        let half = dim / 2;
        for (rows, pairs) in words.chunks(dim).zip(pairs.chunks_exact_mut(dim)) {
            let (even, odd) = rows.split_at(half);
            for (place, pair) in pairs.chunks_exact_mut(2).enumerate() {
                let odd = odd.get(place).copied().unwrap_or(0);
                pair[0] = even[place] & 0xffff | odd << 16;
                pair[1] = even[place] >> 16 | odd & 0xffff_0000;
            }
        }
    }
}

/// The keys of a block, the first one even: their first, and their number.
fn keys_of(block: &Block) -> [usize; 2] {
    let count: usize = block.keys.iter().map(ExactSizeIterator::len).sum();
    let first = block.first & !1;
    [first, count + block.first - first]
}

/// `x[j] · columns` for some keys: `[s, c]`, from words of neighbours in D.
fn against(x: &[u32], columns: &[u32], [s, half]: [usize; 2], scale: f32) -> Vec<f32> {
    let c = columns.len() / half;
    let mut scores = buffer(s * c);
    let left = Left {
        words: x,
        row: half,
        depth: 1,
    };
    let right = Right {
        words: columns,
        depth: c,
    };
    let output = Output {
        values: &mut scores,
        row: c,
        add: false,
    };
    multiply([s, half, c], scale, left, right, output);
    scores
}

/// `scale · Σ_j weights[j] x[j]`: `[c, D]` from `[s, c]`, and pairs of x.
fn combine(weights: &[f32], x: &[u32], [c, dim]: [usize; 2], scale: f32, y: &mut [f32]) {
    let s = weights.len() / c;
    let mut pairs = buffer(s.div_ceil(2) * c);
    paired_rows(weights, c, &mut pairs);
    let left = Left {
        words: &pairs,
        row: 1,
        depth: c,
    };
    let right = Right {
        words: x,
        depth: dim,
    };
    let output = Output {
        values: y,
        row: dim,
        add: false,
    };
    multiply([c, s.div_ceil(2), dim], scale, left, right, output);
}

/// `y[j] += scale · Σ_c weights[j][c] columns[c]`: `[s, D]` from `[s, c]`, and pairs of columns, `[c/2, D]`.
fn spread(weights: &[f32], columns: &[u32], [c, dim]: [usize; 2], scale: f32, y: &mut [f32]) {
    let s = weights.len() / c;
    let even = c.next_multiple_of(2);
    let mut narrow = vec![0_u32; s * even / 2];
    let rows = bytemuck::cast_slice_mut::<u32, bf16>(&mut narrow).chunks_exact_mut(even);
    for (weights, row) in weights.chunks_exact(c).zip(rows) {
        round(weights, &mut row[..c]);
    }
    let left = Left {
        words: &narrow,
        row: even / 2,
        depth: 1,
    };
    let right = Right {
        words: columns,
        depth: dim,
    };
    let output = Output {
        values: y,
        row: dim,
        add: true,
    };
    multiply([s, even / 2, dim], scale, left, right, output);
}

/// One piece and key head. `y`: `[t, G, D]`. `lse`: `[t, G]`.
fn attend(sides: Sides<'_>, piece: &Row, y: &mut [f32], lse: &mut [f32]) {
    let Shape { groups, dim, .. } = sides.shape;
    let k = sides.of_head(sides.k, piece); // [s, D/2]
    let v = paired(&sides.of_head(sides.v, piece), dim); // [s/2, D]
    let mut done = 0; // columns of the blocks before
    for block in blocks(piece, sides.shape, sides.window) {
        let [first, s] = keys_of(&block);
        let Block { tokens, .. } = block;
        let c = tokens.len() * groups;
        let q = words(&sides.group(sides.q, tokens.clone()));
        let q = transposed(&q, dim / 2); // [D/2, c]
        let mut weights = against(&k[first * dim / 2..], &q, [s, dim / 2], sides.scale); // [s, c]
        let columns = [tokens.len(), groups];
        let mut sums = [Vec::new(), Vec::new()];
        softmax(
            &mut weights,
            columns,
            sides.window,
            sides.soft_cap,
            &mut sums,
        );
        let y = &mut y[done * dim..][..c * dim];
        combine(&weights, &v[first / 2 * dim..], [c, dim], 1.0, y);
        let [largest, total] = &sums;
        finish(y, &mut lse[done..done + c], [largest, total], dim);
        done += c;
    }
}

vectorised! {
    /// See [`exponentials`].
    fn softmax(
        _simd,
        weights: &'a mut [f32],
        columns: [usize; 2],
        window: Option<usize>,
        soft_cap: Option<f32>,
        sums: &'a mut [Vec<f32>; 2],
    ) {
        cap(weights, soft_cap);
        *sums = exponentials(weights, columns, window);
    }
}

/// Results of the forward pass, and the gradient of `y`.
#[derive(Clone, Copy)]
struct Results<'a> {
    /// `[T, N, D]`
    y: &'a [bf16],
    /// `[T, N]`
    lse: &'a [f32],
    /// `[T, N, D]`
    dy: &'a [f32],
}

fn backward(sides: Sides<'_>, results: Results<'_>, piece: &Row, found: &mut Found) {
    let Shape {
        key_heads,
        groups,
        dim,
    } = sides.shape;
    let half = dim / 2;
    let k = sides.of_head(sides.k, piece); // [s, D/2]
    let v = sides.of_head(sides.v, piece); // [s, D/2]
    let pairs = paired(&k, dim); // [s/2, D]
    let mut done = 0; // columns of the blocks before
    for block in blocks(piece, sides.shape, sides.window) {
        let [first, s] = keys_of(&block);
        let Block { tokens, .. } = block;
        let c = tokens.len() * groups;
        let q = words(&sides.group(sides.q, tokens.clone())); // [c, D/2]
        let dy = sides.group(results.dy, tokens.clone()); // [c, D]
        let y = sides.group(results.y, tokens.clone()); // [c, D]
        let mut delta = buffer(c);
        deltas(&y, &dy, dim, &mut delta);
        let lse: Vec<f32> = tokens
            .clone()
            .flat_map(|token| {
                let first = (token * key_heads + sides.head) * groups;
                &results.lse[first..first + groups]
            })
            .copied()
            .collect(); // [c]
        let mut narrow: Vec<u32> = buffer(c * half); // dy, [c, D/2]
        round(&dy, bytemuck::cast_slice_mut(&mut narrow));
        let [k, v] = [&k, &v].map(|of| &of[first * half..]);
        let mut p = against(k, &transposed(&q, half), [s, half], sides.scale); // [s, c]
        let mut ds = against(v, &transposed(&narrow, half), [s, half], 1.0); // [s, c]
        let columns = [tokens.len(), groups];
        weigh(
            &mut p,
            &mut ds,
            &lse,
            &delta,
            columns,
            sides.window,
            sides.soft_cap,
        );
        let dq = &mut found.dq[done * dim..][..c * dim];
        combine(&ds, &pairs[first / 2 * dim..], [c, dim], sides.scale, dq);
        let shape = [c, dim];
        spread(
            &ds,
            &paired(&q, dim),
            shape,
            sides.scale,
            &mut found.dk[first * dim..],
        );
        spread(
            &p,
            &paired(&narrow, dim),
            shape,
            1.0,
            &mut found.dv[first * dim..],
        );
        done += c;
    }
}

vectorised! {
    /// `y · dy` of each column, `[c]`.
    fn deltas(simd, y: &'a [bf16], dy: &'a [f32], dim: usize, delta: &'a mut [f32]) {
        let mut wide = vec![0.0; dim];
        let rows = y.chunks_exact(dim).zip(dy.chunks_exact(dim));
        for ((y, dy), delta) in rows.zip(delta) {
            for (wide, y) in wide.iter_mut().zip(y) {
                *wide = crate::rounding::to_f32(*y);
            }
            *delta = dot(simd, &wide, dy);
        }
    }
}

vectorised! {
    /// See [`weights`]; also caps the scores.
    fn weigh(
        _simd,
        p: &'a mut [f32],
        ds: &'a mut [f32],
        lse: &'a [f32],
        delta: &'a [f32],
        columns: [usize; 2],
        window: Option<usize>,
        soft_cap: Option<f32>,
    ) {
        let slopes = cap_with_slopes(p, soft_cap);
        weights(p, ds, [lse, delta], columns, window);
        for (ds, slope) in ds.iter_mut().zip(slopes.iter().flatten()) {
            *ds *= slope;
        }
    }
}
