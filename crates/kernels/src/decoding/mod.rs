//! Steps of decoding: each computes the next token of every row by the same operations at the same addresses.
//!
//! On a GPU the host needs longer to launch the operations of a step than the GPU to compute them. So the first step is
//! recorded, and the others run as one call: a CUDA graph ([`crate::libtorch::graph`]). What changes from step to step is
//! read from fixed memory: the tokens, their positions, and the places of their keys in the cache.
//!
//! For the query of row `b` at position `p`, with keys `k_j` and values `v_j` at the places `table[b, j]` of the cache, for
//! `j` from `max(0, p - w + 1)` with a window of `w` keys, else from 0, to `p`:
//! `y = Σ_j softmax_j(s) v_j`, `s_j = scale · q·k_j`; with a soft cap `c`, `s_j = c tanh(scale · q·k_j / c)`.
//!
//! Source: Kwon et al. 2023 (PagedAttention) for keys by a table of places; Dao et al. 2023 (Flash-Decoding) for keys split
//! over blocks.
//!
//! Axes: B rows, C places in the table of a row, S places of the cache, N query heads, K key heads, D head_dim,
//! R rotated features, V vocabulary.

#[cfg(not(feature = "libtorch"))]
mod absent;
#[cfg(feature = "libtorch")]
mod attention;
#[cfg(feature = "libtorch")]
mod kernel;
#[cfg(feature = "libtorch")]
mod memory;
#[cfg(feature = "libtorch")]
mod present;

#[cfg(not(feature = "libtorch"))]
pub use absent::{Decoding, StepInputs};
#[cfg(feature = "libtorch")]
pub use present::{Decoding, StepInputs};

use std::ops::Range;

/// The newest token of a row, and the places of the keys that it sees.
#[derive(Debug, Clone, Copy)]
pub struct NewestToken<'a> {
    /// The token.
    pub token: u32,
    /// Places of the cache, in order of position. The last one is that of the token's own key, which the step writes.
    pub keys: &'a [Range<usize>],
}

impl NewestToken<'_> {
    /// Its position: the number of keys before its own.
    pub fn position(&self) -> usize {
        let keys: usize = self.keys.iter().map(ExactSizeIterator::len).sum();
        keys.saturating_sub(1)
    }

    /// The place of its own key.
    pub fn place(&self) -> usize {
        self.keys.last().map_or(0, |last| last.end - 1)
    }
}

#[cfg(all(test, feature = "libtorch"))]
mod tests;
