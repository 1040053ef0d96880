//! What one forward pass sees.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use simmer_kernels::{Rows, upload_ints};

/// A flat sequence of tokens: the rows of several examples one after another, without padding.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// Where each row begins and ends, and what it continues.
    pub rows: Rows,
    /// One key a token, `[T]`: what dropout draws from. `None`: no dropout.
    pub dropout_keys: Option<Arc<[u64]>>,
}

impl Sequence {
    /// Rows that begin at position 0, without dropout.
    pub fn from_rows(rows: &[&[u32]]) -> Self {
        Self {
            tokens: rows.concat(),
            rows: Rows::from_lengths(rows.iter().map(|row| row.len())),
            dropout_keys: None,
        }
    }

    /// One row that continues the `seen` tokens of a cache, without dropout.
    ///
    /// # Panics
    /// Where there is no token.
    pub fn continuing(tokens: &[u32], seen: usize) -> Self {
        Self {
            tokens: tokens.to_vec(),
            rows: Rows::continuing(seen, tokens.len()),
            dropout_keys: None,
        }
    }

    /// Number of tokens, T.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// A token to be predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The place in the sequence that predicts it: that of the token before it.
    pub place: u32,
    /// The token.
    pub token: u32,
}

impl Target {
    /// Targets from one slot a token of a sequence, `[T]`; `None` where nothing is predicted.
    pub fn from_slots(slots: &[Option<u32>]) -> Vec<Self> {
        let slots = slots.iter().enumerate();
        slots
            .filter_map(|(place, token)| {
                token.map(|token| Self {
                    place: place as u32,
                    token,
                })
            })
            .collect()
    }
}

/// Ids as a tensor on a device: `[N]`.
pub(crate) fn ids(ids: impl IntoIterator<Item = u32>, device: &Device) -> Tensor<1, Int> {
    upload_ints(ids.into_iter().map(i64::from).collect(), device)
}
