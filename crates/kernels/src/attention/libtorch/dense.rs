//! Attention on dense batches: rows of about the same length are one call, padded to one length.
//!
//! The padding of a row is behind its tokens, where no token sees it, so that it changes no result. Its queries have
//! gradients of zero and give none to the keys. Lengths are rounded up in steps of about a sixteenth, and batches have
//! a power of two of rows, so that a kernel that plans for each shape plans for few of them.
//!
//! Axes as in [`super::super`]; B rows of a batch, L its length.

use std::collections::BTreeMap;
use std::ops::Range;

use tch::Tensor;

use super::choice::DenseCall;
use super::{Scores, padded, sizes, unpadded};
use crate::libtorch::aten;
use crate::rows::Rows;

/// Rows of one call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Tokens of a row with its padding.
    pub(super) length: usize,
    /// The tokens of each row.
    pub(super) rows: Vec<Range<usize>>,
}

/// The shortest length of a batch.
const LEAST: usize = 64;

/// The length that a row is padded to.
fn rounded(length: usize) -> usize {
    let step = (length.next_power_of_two() / 16).max(LEAST);
    length.next_multiple_of(step)
}

/// The batches of rows, the shortest first; `None` if a row sees other keys than its own.
pub(super) fn batches(rows: &Rows) -> Option<Vec<Batch>> {
    let mut by_length: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
    if rows.keys() != rows.total() {
        return None;
    }
    for row in rows {
        let [own] = &row.keys[..] else { return None };
        if *own != row.queries {
            return None;
        }
        let length = rounded(row.queries.len());
        by_length.entry(length).or_default().push(own.clone());
    }
    let mut batches = Vec::new();
    for (length, rows) in by_length {
        let mut rest = &rows[..];
        while !rest.is_empty() {
            let (these, others) = rest.split_at(1 << rest.len().ilog2());
            let rows = these.to_vec();
            batches.push(Batch { length, rows });
            rest = others;
        }
    }
    Some(batches)
}

impl Batch {
    /// Whether the rows are one range without padding.
    fn is_range(&self) -> bool {
        let mut pairs = self.rows.windows(2);
        pairs.all(|pair| pair[0].end == pair[1].start)
            && self.rows.iter().all(|row| row.len() == self.length)
    }

    /// The rows of a tensor `[T, N, D]`: `[B, N, L, D]`. Without a copy if they are one range without padding.
    fn of(&self, whole: &Tensor) -> Tensor {
        let [_, heads, dim] = sizes(whole);
        let [count, length] = [self.rows.len() as i64, self.length as i64];
        let batch = if self.is_range() {
            whole.narrow(0, self.rows[0].start as i64, count * length)
        } else {
            let options = (whole.kind(), whole.device());
            let batch = Tensor::zeros([count * length, heads, dim], options);
            self.each(|row, start, length| {
                batch
                    .narrow(0, row, length)
                    .copy_(&whole.narrow(0, start, length));
            });
            batch
        };
        batch.view([count, length, heads, dim]).transpose(1, 2)
    }

    /// Copies the rows of a batch, `[B, N, L, D]`, to their places in `whole`, `[T, N, D]`.
    fn put(&self, whole: &Tensor, batch: &Tensor) {
        let batch = unbatched(batch);
        self.each(|row, start, length| {
            whole
                .narrow(0, start, length)
                .copy_(&batch.narrow(0, row, length));
        });
    }

    /// For each row: its start in the batch, its start in the packed sequence, and its length.
    fn each(&self, f: impl Fn(i64, i64, i64)) {
        for (index, row) in self.rows.iter().enumerate() {
            f(
                (index * self.length) as i64,
                row.start as i64,
                row.len() as i64,
            );
        }
    }
}

/// Whether the only batch is the whole sequence, which then is the kernel's result as it is.
fn is_whole(batches: &[Batch], rows: &Rows) -> bool {
    let [batch] = batches else { return false };
    batch.is_range() && batch.rows.len() * batch.length == rows.total()
}

/// The rows of a batch, `[B, N, L, D]`, one after another: `[B L, N, D]`. Without a copy if they lie so, as cuDNN's do.
fn unbatched(batch: &Tensor) -> Tensor {
    let [_, heads, _, dim] = batch.size()[..] else {
        unreachable!("a batch has four axes")
    };
    batch.transpose(1, 2).reshape([-1, heads, dim])
}

/// The batches of rows that the choice found.
fn chosen(rows: &Rows) -> Vec<Batch> {
    batches(rows).unwrap_or_else(|| unreachable!("the choice found batches"))
}

/// The result, `[T, N, D]`, and the log-sum-exp of all batches, one after another: `[n]`, or `[n, 1]` if the kernel's has
/// four axes.
pub(super) fn attend(
    qkv: &[Tensor; 3],
    rows: &Rows,
    scores: Scores,
    call: DenseCall,
) -> [Tensor; 2] {
    let head_dim = qkv[0].size()[2];
    let qkv = qkv.each_ref().map(|of| padded(of, call.head_dim));
    let batches = chosen(rows);
    let is_whole = is_whole(&batches, rows);
    let mut y = qkv[0].empty_like();
    let mut all_lse = Vec::new();
    for batch in batches {
        let [q, k, v] = qkv.each_ref().map(|of| batch.of(of));
        let [part, lse] = call.forward([&q, &k, &v], scores.scale);
        if is_whole {
            y = unbatched(&part);
        } else {
            batch.put(&y, &part);
        }
        all_lse.push(match lse.dim() {
            4 => lse.reshape([-1, 1]),
            _ => lse.reshape([-1]),
        });
    }
    [unpadded(y, head_dim), Tensor::cat(&all_lse, 0)]
}

/// Gradients of `q`, `k` and `v`.
pub(super) fn gradient(
    qkv: &[Tensor; 3],
    [y, lse]: [&Tensor; 2],
    rows: &Rows,
    scores: Scores,
    dy: &Tensor,
    call: DenseCall,
) -> [Tensor; 3] {
    let head_dim = qkv[0].size()[2];
    let qkv = qkv.each_ref().map(|of| padded(of, call.head_dim));
    let [y, dy] = [y, dy].map(|of| padded(of, call.head_dim));
    let batches = chosen(rows);
    let is_whole = is_whole(&batches, rows);
    let mut found = qkv.each_ref().map(Tensor::empty_like);
    let mut start = 0;
    for batch in batches {
        let [q, k, v] = qkv.each_ref().map(|of| batch.of(of));
        let [y, dy] = [&y, &dy].map(|of| batch.of(of));
        let [count, heads, length, _] = q.size()[..] else {
            unreachable!("a batch has four axes")
        };
        let size = count * heads * length;
        let lse_of = lse.narrow(0, start, size);
        let lse_of = match lse.dim() {
            2 => lse_of.view([count, heads, length, 1]),
            _ => lse_of.view([count, heads, length]),
        };
        start += size;
        let parts = call.backward(&dy, [&q, &k, &v], [&y, &lse_of], scores.scale);
        if is_whole {
            found = parts.each_ref().map(unbatched);
            continue;
        }
        for (whole, part) in found.iter().zip(&parts) {
            batch.put(whole, part);
        }
    }
    found.map(|of| unpadded(of, head_dim))
}

impl DenseCall {
    fn forward(self, [q, k, v]: [&Tensor; 3], scale: f64) -> [Tensor; 2] {
        if self.is_cudnn {
            return aten::cudnn_attention([q, k, v], scale);
        }
        let [k, v] = [k, v].map(|of| for_every_head(of, q));
        let (y, lse) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            q,
            &k,
            &v,
            0.0,
            true,
            None::<Tensor>,
            scale,
        );
        [y, lse]
    }

    fn backward(
        self,
        dy: &Tensor,
        [q, k, v]: [&Tensor; 3],
        [y, lse]: [&Tensor; 2],
        scale: f64,
    ) -> [Tensor; 3] {
        if self.is_cudnn {
            return aten::cudnn_attention_backward(dy, [q, k, v], [y, lse], scale);
        }
        let [wide_k, wide_v] = [k, v].map(|of| for_every_head(of, q));
        let (dq, dk, dv) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
            dy,
            q,
            &wide_k,
            &wide_v,
            y,
            lse,
            0.0,
            true,
            None::<Tensor>,
            scale,
        );
        let of_group = |of: Tensor| {
            let [count, heads, length, dim] = k.size()[..] else {
                unreachable!("a batch has four axes")
            };
            let groups = of.view([count, heads, -1, length, dim]);
            groups.sum_dim_intlist(2, false, of.kind())
        };
        [dq, of_group(dk.contiguous()), of_group(dv.contiguous())]
    }
}

/// Keys or values, `[B, K, L, D]`, each head repeated for every query head of its group.
fn for_every_head(of: &Tensor, q: &Tensor) -> Tensor {
    of.repeat_interleave_self_int(q.size()[1] / of.size()[1], 1, None)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::super::by_piece;
    use super::*;
    use crate::{OptionalKernel, devices};

    #[test]
    fn lengths_are_rounded_up_by_little() {
        for (length, expected) in [(1, 64), (64, 64), (65, 128), (1025, 1152), (4096, 4096)] {
            assert_eq!(rounded(length), expected);
        }
        for length in 512..5000 {
            assert!(rounded(length) >= length && rounded(length) * 8 <= length * 9);
        }
    }

    #[test]
    fn batches_have_rows_of_one_length() {
        let rows = Rows::from_lengths([60, 200, 64, 10]);
        let batch = |length, rows: &[[usize; 2]]| Batch {
            length,
            rows: rows.iter().map(|[start, end]| *start..*end).collect(),
        };
        let expected = [
            batch(64, &[[0, 60], [260, 324]]),
            batch(64, &[[324, 334]]),
            batch(256, &[[60, 260]]),
        ];
        assert_eq!(batches(&rows).unwrap(), expected);
        for rows in [
            Rows::from_tree([(3, None), (2, Some(0))]),
            Rows::continuing(5, 2),
        ] {
            assert_eq!(batches(&rows), None);
        }
    }

    /// By cuDNN if it is switched on and the tests run on a GPU, else by ATen's kernel for processors.
    #[test]
    fn batches_equal_the_scores_in_plain_operations() {
        let is_cudnn = OptionalKernel::CudnnAttention.is_on() && devices::torch().is_cuda();
        let (options, head_dim) = if is_cudnn {
            ((Kind::BFloat16, devices::torch()), 64)
        } else {
            ((Kind::Float, Device::Cpu), 8)
        };
        let call = DenseCall { head_dim, is_cudnn };
        let scores = Scores::scaled(0.4);
        // a range without padding; rows with padding and of several lengths
        for (lengths, head_dim) in [(vec![64, 64], head_dim), (vec![70, 3, 128, 64, 65], 5)] {
            let rows = Rows::from_lengths(lengths);
            let random = |heads| Tensor::randn([rows.total() as i64, heads, head_dim], options);
            let qkv = [4, 2, 2].map(random);
            let dy = random(4);
            let [y, lse] = by_piece::attend(&qkv, &rows, scores);
            let expected = by_piece::gradient(&qkv, [&y, &lse], &rows, scores, &dy);
            let [found, lse] = attend(&qkv, &rows, scores, call);
            let gradients = gradient(&qkv, [&found, &lse], &rows, scores, &dy, call);
            let pairs = gradients.iter().zip(&expected);
            for (found, expected) in pairs.chain([(&found, &y)]) {
                assert_eq!(found.size(), expected.size());
                let [found, expected] = [found, expected].map(|of| of.to_kind(Kind::Float));
                // roundings of bf16, as in the tests of attention; of sums of up to 256 terms in another order
                let largest = expected.abs().max().double_value(&[]).max(1.0);
                let allowed = largest * if is_cudnn { 12.0 / 256.0 } else { 4e-5 };
                assert!(found.allclose(&expected, 0.0, allowed, false));
            }
        }
    }
}
