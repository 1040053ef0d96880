//! Attention in a step by the kernels of `src/cuda/decode_attention.cu`.
//!
//! Axes as in [`super`]; G = N / K.

use tch::{Kind, Tensor};

use super::memory::Memory;
use crate::libtorch::cuda::{Argument, DECODE_ATTENTION, Kernel, PACK, names_of, together};
use crate::{OptionalKernel, Scores};

/// Threads of a block.
const THREADS: i64 = 128;
/// Lanes of a warp.
const LANES: i64 = 32;
/// The most features of a head.
const LARGEST: i64 = 256;
/// About as many blocks as an H200 runs at a time.
const BLOCKS: i64 = 264;
/// The most blocks that share the keys of a row.
const SPLITS: i64 = 32;

/// The kernel that writes, and those that attend: for one query head of a key head, for several, and with single elements.
const NAMES: [(&str, [&str; 3]); 2] = [
    (
        "decode_write_f32",
        [
            "decode_attention_f32",
            "decode_attention_f32_grouped",
            "decode_attention_f32_single",
        ],
    ),
    (
        "decode_write_bf16",
        [
            "decode_attention_bf16",
            "decode_attention_bf16_grouped",
            "decode_attention_bf16_single",
        ],
    ),
];

/// How the keys of a step are shared among threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    write: &'static str,
    attend: &'static str,
    /// Query heads of a block.
    heads: i64,
    /// Lanes that compute a key.
    lanes: i64,
    /// Blocks that share the keys of a row, at most.
    splits: i64,
    /// Key heads of a row, each as many times as its query heads need blocks.
    sets: i64,
}

/// Rotates, writes and attends as [`super::StepInputs::attend`]; `None` if the kernels are off or do not support the tensors.
pub(super) fn attend(
    memory: &Memory,
    qkv: [&Tensor; 3],
    rotary: Option<[&Tensor; 2]>,
    cache: [&Tensor; 2],
    scores: Scores,
) -> Option<Tensor> {
    let plan = plan(memory, qkv, rotary, cache)?;
    let find = |name| DECODE_ATTENTION.kernel(OptionalKernel::DecodeAttention, name, qkv[0]);
    let kernels = [find(plan.write)?, find(plan.attend)?];
    run(kernels, plan, memory, qkv, rotary, cache, scores)
}

fn plan(
    memory: &Memory,
    qkv: [&Tensor; 3],
    rotary: Option<[&Tensor; 2]>,
    cache: [&Tensor; 2],
) -> Option<Plan> {
    let [q, k, _] = qkv;
    let kind = q.kind();
    let dim = q.size()[2];
    let of_one_kind = qkv.iter().chain(&cache).all(|of| of.kind() == kind);
    let heads_are_whole = qkv.iter().all(|of| of.stride()[1..] == [dim, 1]);
    let whole = cache.into_iter().chain(rotary.into_iter().flatten());
    let angles_are_f32 = rotary.is_none_or(|of| of.iter().all(|of| of.kind() == Kind::Float));
    let are_whole = heads_are_whole && whole.into_iter().all(Tensor::is_contiguous);
    if !of_one_kind || !are_whole || !angles_are_f32 {
        return None;
    }
    let width = together(kind, &cache, &[dim], PACK)?;
    let [rows, _] = memory.sizes();
    planned(kind, width, rows, [q.size()[1], k.size()[1], dim])
}

/// For `width` elements of the keys at a time, and `sizes` N, K and D.
fn planned(kind: Kind, width: i64, rows: i64, sizes: [i64; 3]) -> Option<Plan> {
    let [heads, key_heads, dim] = sizes;
    let group = heads / key_heads;
    let (write, names) = names_of(kind, NAMES)?;
    if dim > LARGEST {
        return None;
    }
    let (attend, of_block) = match (width > 1, group) {
        (true, 1) => (names[0], 1),
        (true, _) => (names[1], 4),
        (false, _) => (names[2], 4),
    };
    let needed = (dim as u64).div_ceil(width as u64).next_power_of_two() as i64;
    let sets = key_heads * (group as u64).div_ceil(of_block as u64) as i64;
    Some(Plan {
        write,
        attend,
        heads: of_block,
        lanes: needed.min(LANES),
        splits: (BLOCKS / (rows * sets)).clamp(1, SPLITS),
        sets,
    })
}

fn run(
    [write, attend]: [Kernel; 2],
    plan: Plan,
    memory: &Memory,
    [q, k, v]: [&Tensor; 3],
    rotary: Option<[&Tensor; 2]>,
    [keys, values]: [&Tensor; 2],
    scores: Scores,
) -> Option<Tensor> {
    let [rows, room] = memory.sizes();
    let [heads, key_heads, dim] = [q.size()[1], k.size()[1], q.size()[2]];
    let places = memory.places();
    let positions = memory.positions();
    let half = rotary.map_or(0, |[cos, _]| cos.size()[1]);
    // without rotated features nothing is read there
    let [cos, sin] = rotary.unwrap_or([&memory.columns; 2]);
    let [parts, finished] =
        memory.scratch(rows * heads * plan.splits * (dim + 2), rows * plan.sets)?;
    let y = Tensor::empty([rows, heads, dim], (q.kind(), q.device()));
    write.on_threads(
        (rows * key_heads * dim) as usize,
        &[
            Argument::Tensor(k),
            Argument::Tensor(v),
            Argument::Tensor(cos),
            Argument::Tensor(sin),
            Argument::Tensor(&places),
            Argument::Tensor(keys),
            Argument::Tensor(values),
            Argument::Int(rows),
            Argument::Int(key_heads),
            Argument::Int(dim),
            Argument::Int(half),
            Argument::Long(k.stride()[0]),
            Argument::Long(v.stride()[0]),
        ],
    );
    let shared = THREADS / plan.lanes * plan.heads * (dim + 2) * 4;
    attend.on_blocks(
        [plan.splits, plan.sets, rows].map(|of| of as usize),
        THREADS as usize,
        shared as usize,
        &[
            Argument::Tensor(q),
            Argument::Tensor(cos),
            Argument::Tensor(sin),
            Argument::Tensor(keys),
            Argument::Tensor(values),
            Argument::Tensor(&memory.table),
            Argument::Tensor(&positions),
            Argument::Tensor(&y),
            Argument::Tensor(parts),
            Argument::Tensor(finished),
            Argument::Int(heads),
            Argument::Int(key_heads),
            Argument::Int(dim),
            Argument::Int(half),
            Argument::Long(q.stride()[0]),
            Argument::Int(room),
            Argument::Int(plan.lanes),
            Argument::Float(scores.scale),
            Argument::Int(scores.window.map_or(0, |window| window as i64)),
            Argument::Float(scores.soft_cap.unwrap_or(0.0)),
        ],
    );
    Some(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_of_models() {
        let width = |kind| names_of(kind, [4, 8]).unwrap_or(1);
        let of = |kind, rows, sizes| planned(kind, width(kind), rows, sizes).unwrap();
        // LLaMA 3 8B, of one text and of many
        let plan = of(Kind::BFloat16, 1, [32, 8, 128]);
        assert_eq!(plan.attend, "decode_attention_bf16_grouped");
        assert_eq!([plan.lanes, plan.splits, plan.sets], [16, 32, 8]);
        assert_eq!(of(Kind::BFloat16, 64, [32, 8, 128]).splits, 1);
        // seven query heads of a key head are two blocks
        assert_eq!(of(Kind::BFloat16, 1, [14, 2, 64]).sets, 4);
        let plan = of(Kind::Float, 2, [16, 16, 256]);
        assert_eq!(plan.attend, "decode_attention_f32");
        assert_eq!([plan.lanes, plan.splits, plan.sets], [32, 8, 16]);
        let plan = planned(Kind::Float, 1, 1, [4, 2, 6]).unwrap();
        assert_eq!(plan.attend, "decode_attention_f32_single");
        assert_eq!(planned(Kind::Half, 1, 1, [4, 2, 8]), None);
        assert_eq!(planned(Kind::Float, 1, 1, [4, 2, 257]), None);
    }

    /// The most that a kernel gets without asking for more.
    #[test]
    fn blocks_share_at_most_48_kib() {
        for dim in 1..=LARGEST {
            for (kind, key_heads, width) in [(Kind::Float, 1, 4), (Kind::BFloat16, 4, 8)] {
                let width = if dim % width == 0 { width } else { 1 };
                let plan = planned(kind, width, 1, [4, key_heads, dim]).unwrap();
                assert!(THREADS / plan.lanes * plan.heads * (dim + 2) * 4 <= 48 << 10);
            }
        }
    }
}
