//! The input of a forward pass: a packed sequence and its targets.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use simmer_kernels::{Rows, upload_ints};

/// A packed sequence: the tokens of several rows, one row after another, without padding.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// The tokens of each row, and the keys that they see.
    pub rows: Rows,
    /// One key per token, `[T]`, from which dropout draws its mask. `None`: no dropout.
    pub dropout_keys: Option<Arc<[u64]>>,
}

impl Sequence {
    /// Packs rows that start at position 0, without dropout.
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
    /// If `tokens` is empty.
    pub fn continuing(tokens: &[u32], seen: usize) -> Self {
        Self {
            tokens: tokens.to_vec(),
            rows: Rows::continuing(seen, tokens.len()),
            dropout_keys: None,
        }
    }

    /// The same rows, each after the first `seen` tokens of a cache.
    pub(crate) fn after(&self, seen: usize) -> Self {
        let rows = self.rows.iter().map(|row| {
            let mut keys: Vec<Range<usize>> = Vec::with_capacity(row.keys.len() + 1);
            let own = row
                .keys
                .iter()
                .map(|keys| keys.start + seen..keys.end + seen);
            for range in std::iter::once(0..seen).chain(own) {
                match keys.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => keys.push(range),
                }
            }
            keys.retain(|range| !range.is_empty());
            (row.queries.len(), keys)
        });
        Self {
            tokens: self.tokens.clone(),
            rows: Rows::seeing(rows, seen + self.len()),
            dropout_keys: self.dropout_keys.clone(),
        }
    }

    /// Number of tokens, T.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the sequence has no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// A token to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Index in the packed sequence of the token before it, whose hidden state predicts it.
    pub place: u32,
    /// The token to predict.
    pub token: u32,
}

impl Target {
    /// Targets from one slot per token of a packed sequence, `[T]`: the token that it predicts, or `None`.
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

/// Token ids or indices as a tensor on a device, `[N]`.
pub(crate) fn ids(ids: impl IntoIterator<Item = u32>, device: &Device) -> Tensor<1, Int> {
    upload_ints(ids.into_iter().map(i64::from).collect(), device)
}
