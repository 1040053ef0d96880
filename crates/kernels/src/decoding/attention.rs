//! Attention of one query per row in a step, in plain tensor operations.
//!
//! Axes as in [`super`]; G = N / K.

use tch::{Kind, Tensor};

use super::memory::Memory;
use crate::Scores;

/// Writes the keys and values of the rows' newest tokens to their places in the cache.
///
/// # Shapes
/// `new`: `[B, K, D]` each. `cache`: `[S, K, D]` each.
pub(super) fn write(memory: &Memory, new: [&Tensor; 2], cache: [&Tensor; 2]) {
    let places = memory.places();
    for (cache, new) in cache.into_iter().zip(new) {
        let _ = cache.shallow_clone().index_copy_(0, &places, new);
    }
}

/// What each row's query sees.
///
/// # Shapes
/// `q`, result: `[B, N, D]`. `cache`: `[S, K, D]` each.
pub(super) fn attend(memory: &Memory, q: &Tensor, cache: [&Tensor; 2], scores: Scores) -> Tensor {
    let [rows, room] = memory.sizes();
    let [heads, dim] = [q.size()[1], q.size()[2]];
    let key_heads = cache[0].size()[1];
    let places = memory.table.view([-1]);
    let [k, v] = cache.map(|of| {
        let seen = of.index_select(0, &places).to_kind(Kind::Float);
        seen.view([rows, room, key_heads, dim]).transpose(1, 2) // [B, K, C, D]
    });
    let wide = q.to_kind(Kind::Float) * scores.scale;
    let wide = wide.view([rows, key_heads, heads / key_heads, dim]);
    let mut weights = wide.matmul(&k.transpose(2, 3)); // [B, K, G, C]
    if let Some(cap) = scores.soft_cap {
        weights = (weights / cap).tanh() * cap;
    }
    let weights = weights.masked_fill(&hidden(memory, scores.window), f64::NEG_INFINITY);
    let y = weights.softmax(-1, Kind::Float).matmul(&v); // [B, K, G, D]
    y.reshape([rows, heads, dim]).to_kind(q.kind())
}

/// Whether a row's query does not see a key: `[B, 1, 1, C]`.
fn hidden(memory: &Memory, window: Option<usize>) -> Tensor {
    let positions = memory.positions().unsqueeze(1); // [B, 1]
    let later = memory.columns.gt_tensor(&positions); // [B, C]
    let hidden = match window {
        None => later,
        Some(window) => {
            let last = &positions - window as i64;
            later.logical_or(&memory.columns.le_tensor(&last))
        }
    };
    hidden.unsqueeze(1).unsqueeze(1)
}
