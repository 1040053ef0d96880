//! The quantised types of ggml in ATen's operations. The layout of each block is in
//! [`simmer_blocks::ggml`].
//!
//! Axes: n blocks, b bytes of a block.

use simmer_blocks::ggml::BlockType;
use tch::{Kind, Tensor};

/// Widens blocks.
///
/// # Shapes
/// `blocks`: `[n, b]`. Result: `[n, elements of a block]`, f32.
pub(super) fn widened(kind: BlockType, blocks: &Tensor) -> Tensor {
    match kind {
        BlockType::Q8_0 => {
            let q = bytes(blocks, 2, 32).contiguous().view_dtype(Kind::Int8);
            q.to_kind(Kind::Float) * half(blocks, 0)
        }
        BlockType::Q4_0 => (nibbles(&bytes(blocks, 2, 16)) - 8.0) * half(blocks, 0),
        BlockType::Q4_1 => nibbles(&bytes(blocks, 4, 16)) * half(blocks, 0) + half(blocks, 2),
        BlockType::Q5_0 => {
            let q = nibbles(&bytes(blocks, 6, 16)) + fifth(&bytes(blocks, 2, 4));
            (q - 16.0) * half(blocks, 0)
        }
        BlockType::Q5_1 => {
            let q = nibbles(&bytes(blocks, 8, 16)) + fifth(&bytes(blocks, 4, 4));
            q * half(blocks, 0) + half(blocks, 2)
        }
        BlockType::IQ4_NL => {
            let values = Tensor::from_slice(&simmer_blocks::ggml::IQ4_NL_VALUES.map(f32::from));
            let values = values.to_device(blocks.device());
            let q = nibbles(&bytes(blocks, 2, 16));
            let wide = values.index_select(0, &q.flatten(0, -1).to_kind(Kind::Int));
            wide.view_as(&q) * half(blocks, 0)
        }
        BlockType::Q4_K => {
            let (scales, minima) = scales_and_minima(blocks);
            scaled(halves_of_pairs(&bytes(blocks, 16, 128)), &scales) - spread(&minima)
        }
        BlockType::Q5_K => {
            let (scales, minima) = scales_and_minima(blocks);
            // bit g of byte i belongs to element i of group g
            let fifth = bits(&bytes(blocks, 16, 32), 8) * 16.0; // [n, 8, 32]
            let q = halves_of_pairs(&bytes(blocks, 48, 128)) + fifth.flatten(1, 2);
            scaled(q, &scales) - spread(&minima)
        }
        BlockType::Q6_K => q6_k(blocks),
    }
}

/// `[n, count]`
fn bytes(blocks: &Tensor, start: i64, count: i64) -> Tensor {
    blocks.narrow(1, start, count)
}

/// The f16 at a byte of each block, `[n, 1]`, in f32.
fn half(blocks: &Tensor, at: i64) -> Tensor {
    let bits = bytes(blocks, at, 2).contiguous();
    bits.view_dtype(Kind::Half).to_kind(Kind::Float)
}

fn low(bytes: &Tensor) -> Tensor {
    bytes.bitwise_and(15)
}

fn high(bytes: &Tensor) -> Tensor {
    bytes.bitwise_right_shift_tensor_scalar(4)
}

/// The lower bits of all bytes, then their upper bits: `[n, 2 · count]`, f32.
fn nibbles(bytes: &Tensor) -> Tensor {
    Tensor::cat(&[low(bytes), high(bytes)], 1).to_kind(Kind::Float)
}

/// Some bits of bytes, `[n, count, bytes]`, each 0 or 1, in f32.
fn bits(bytes: &Tensor, count: i64) -> Tensor {
    let bits: Vec<Tensor> = (0..count)
        .map(|bit| bytes.bitwise_right_shift_tensor_scalar(bit).bitwise_and(1))
        .collect();
    Tensor::stack(&bits, 1).to_kind(Kind::Float)
}

/// 16 for each fifth bit that is set: `[n, 32]` from four bytes.
fn fifth(four: &Tensor) -> Tensor {
    bits(four, 8).transpose(1, 2).flatten(1, 2) * 16.0
}

/// Elements of the K types with four bits: each 32 bytes hold two groups, the first in the lower bits.
///
/// # Shapes
/// `q`: `[n, 128]`. Result: `[n, 256]`, f32.
fn halves_of_pairs(q: &Tensor) -> Tensor {
    let q = q.reshape([-1, 4, 32]);
    let groups = Tensor::stack(&[low(&q), high(&q)], 2); // [n, 4, 2, 32]
    groups.flatten(1, 3).to_kind(Kind::Float)
}

/// Each group's number for its 32 elements: `[n, 256]` from `[n, 8]`.
fn spread(of_groups: &Tensor) -> Tensor {
    of_groups.repeat_interleave_self_int(32, 1, None)
}

fn scaled(q: Tensor, scales: &Tensor) -> Tensor {
    q * spread(scales)
}

/// Scale and minimum of each group of Q4_K and Q5_K, `[n, 8]` each.
fn scales_and_minima(blocks: &Tensor) -> (Tensor, Tensor) {
    let first = bytes(blocks, 4, 4);
    let second = bytes(blocks, 8, 4);
    let rest = bytes(blocks, 12, 4);
    let upper = |of: &Tensor| {
        of.bitwise_right_shift_tensor_scalar(6)
            .bitwise_left_shift_tensor_scalar(4)
    };
    let scales = [
        first.bitwise_and(63),
        low(&rest).bitwise_or_tensor(&upper(&first)),
    ];
    let minima = [
        second.bitwise_and(63),
        high(&rest).bitwise_or_tensor(&upper(&second)),
    ];
    let [scales, minima] = [scales, minima].map(|of| Tensor::cat(&of, 1).to_kind(Kind::Float));
    (scales * half(blocks, 0), minima * half(blocks, 2))
}

fn q6_k(blocks: &Tensor) -> Tensor {
    let lower = bytes(blocks, 0, 128).reshape([-1, 2, 64]);
    let upper = bytes(blocks, 128, 64).reshape([-1, 2, 32]);
    let lower = Tensor::cat(&[low(&lower), high(&lower)], 2); // [n, 2, 128]
    let upper: Vec<Tensor> = (0..4)
        .map(|pair| {
            upper
                .bitwise_right_shift_tensor_scalar(2 * pair)
                .bitwise_and(3)
        })
        .collect();
    let upper = Tensor::cat(&upper, 2); // [n, 2, 128]
    let q = lower.to_kind(Kind::Float) + upper.to_kind(Kind::Float) * 16.0 - 32.0;
    let scales = bytes(blocks, 192, 16).contiguous().view_dtype(Kind::Int8);
    let scales = scales.to_kind(Kind::Float) * half(blocks, 208); // [n, 16]
    q.flatten(1, 2) * scales.repeat_interleave_self_int(16, 1, None)
}
