//! The gradient of the fused form on flex.
//!
//! Axes as in [`super::super`]; c columns of a block, as in [`super::blocks`].

use burn::backend::Flex;
use burn_flex::FlexTensor;

use super::blocks::{
    Block, PIECE, Shape, Sides, blind, blocks, cap_with_slopes, fill_before, scatter, tasks,
};
use crate::attention::Attended;
use crate::buffer::buffer;
use crate::flex::{contiguous, tensor, values, widened};
use crate::profile::{self, Operation};
use crate::simd::{dot, exp, vectorised};
use crate::skinny::transposed;
use crate::tile::{self, Left, Output, Right};
use crate::{Row, Rows};

/// The gradients of a task: one piece and key head.
pub(super) struct Found {
    /// `[t, G, D]`
    pub(super) dq: Vec<f32>,
    /// `[s, D]`
    pub(super) dk: Vec<f32>,
    /// `[s, D]`
    pub(super) dv: Vec<f32>,
}

impl Found {
    /// Room for the gradients of a piece. Those of keys and values begin at zero, because blocks are added to them.
    pub(super) fn new(piece: &Row, shape: Shape) -> Self {
        let [t, s] = [piece.queries.len(), piece.key_count()];
        Self {
            dq: buffer(t * shape.groups * shape.dim),
            dk: vec![0.0; s * shape.dim],
            dv: vec![0.0; s * shape.dim],
        }
    }
}

/// See [`super::AttentionForms::attention_gradient`].
pub(super) fn gradient(attended: Attended<Flex>, dy: FlexTensor) -> [FlexTensor; 3] {
    let Attended {
        qkv,
        y,
        lse,
        rows,
        scores,
    } = attended;
    #[cfg(target_arch = "x86_64")]
    if super::halves::can(&qkv[0], &rows) {
        return super::halves::gradient(qkv, [y, lse, dy], &rows, scores);
    }
    let qkv = qkv.map(widened).map(contiguous);
    let [y, lse, dy] = [y, lse, dy].map(widened).map(contiguous);
    let [q, k, _] = &qkv;
    let shape = Shape::of(q, k);
    let size = 4 * (4 * values(q).len() + 4 * values(k).len());
    let _span = profile::span(
        Operation::Attention,
        shape.flops(&rows, scores.window, 5),
        size,
    );
    let pieces = rows.pieces(PIECE, scores.window);
    let found = tasks(&pieces, shape, |piece, head| {
        let mut found = Found::new(piece, shape);
        let sides = Sides::new(&qkv, shape, head, scores);
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

/// Combines the gradients of all tasks. The gradient of a key that several pieces see is the sum in
/// the order of the pieces.
pub(super) fn gather_gradients(
    found: &[Found],
    pieces: &[Row],
    shape: Shape,
    rows: &Rows,
) -> [FlexTensor; 3] {
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

/// Results of the forward pass, and the gradient of `y`.
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
        let mut done = 0; // columns of the blocks before
        for Block { tokens, keys, first } in blocks(piece, sides.shape, sides.window) {
            let c = tokens.len() * groups;
            let q = sides.group(sides.q, tokens.clone()); // [c, D]
            let y = sides.group(results.y, tokens.clone()); // [c, D]
            let dy = sides.group(results.dy, tokens.clone()); // [c, D]
            let delta: Vec<f32> = y
                .chunks_exact(dim)
                .zip(dy.chunks_exact(dim))
                .map(|(y, dy)| dot(simd, y, dy))
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
            let slopes = cap_with_slopes(&mut p, sides.soft_cap);
            let mut ds = sides.against(simd, sides.v, &keys, &transposed(&dy, dim), 1.0); // [s, c]
            let s = p.len() / c;
            let columns = [tokens.len(), groups];
            weights(&mut p, &mut ds, [&lse, &delta], columns, sides.window);
            for (ds, slope) in ds.iter_mut().zip(slopes.iter().flatten()) {
                *ds *= slope;
            }
            let dq = &mut found.dq[done * dim..][..c * dim];
            sides.combine(simd, sides.k, &keys, &ds, sides.scale, dq);
            for (weights, columns, scale, gradient) in [
                (&ds, &q, sides.scale, &mut found.dk),
                (&p, &dy, 1.0, &mut found.dv),
            ] {
                let left = Left { values: weights, row: c, depth: 1 };
                let right = Right { values: columns, depth: dim };
                let output = Output { values: &mut gradient[first * dim..], row: dim, add: true };
                tile::multiply(simd, [s, c, dim], scale, left, right, output);
            }
            done += c;
        }
    }
}

/// Replaces the scores of a block, `[s, c]`, by the attention weights, and the gradients of the weights by those of the
/// scores; both are zero where a column does not see the key. `lse`, `delta`: `[c]`.
#[inline(always)]
pub(super) fn weights(
    p: &mut [f32],
    ds: &mut [f32],
    [lse, delta]: [&[f32]; 2],
    [tokens, groups]: [usize; 2],
    window: Option<usize>,
) {
    let c = tokens * groups;
    let s = p.len() / c;
    for (j, (p, ds)) in p
        .chunks_exact_mut(c)
        .zip(ds.chunks_exact_mut(c))
        .enumerate()
    {
        let columns = p.iter_mut().zip(ds.iter_mut());
        for ((p, ds), (lse, delta)) in columns.zip(lse.iter().zip(delta)) {
            *p = exp(*p - lse);
            *ds = *p * (*ds - delta);
        }
        let blind = blind(j, s, tokens, groups);
        p[..blind].fill(0.0);
        ds[..blind].fill(0.0);
    }
    for values in [p, ds] {
        fill_before(values, [tokens, groups], window, 0.0);
    }
}
