//! What one forward pass sees.

use burn::tensor::{Device, Int, Tensor, TensorData};
use simmer_kernels::Rows;

/// A flat run of tokens: the rows of several examples one after another, without padding.
#[derive(Debug, Clone)]
pub struct Run {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// Place of each token in its row, `[T]`.
    pub positions: Vec<u32>,
    /// Where each row begins and ends.
    pub rows: Rows,
    /// One key a token, `[T]`: what dropout draws from. `None`: no dropout.
    pub dropout_keys: Option<Vec<u64>>,
}

impl Run {
    /// Rows that begin at position 0, without dropout.
    pub fn from_rows(rows: &[&[u32]]) -> Self {
        let bounds = Rows::from_lengths(rows.iter().map(|row| row.len()));
        Self {
            tokens: rows.concat(),
            positions: bounds.positions(),
            rows: bounds,
            dropout_keys: None,
        }
    }

    /// One row whose first token stands at `position`, without dropout.
    pub fn continuing(tokens: &[u32], position: usize) -> Self {
        Self {
            tokens: tokens.to_vec(),
            positions: (position..position + tokens.len())
                .map(|p| p as u32)
                .collect(),
            rows: Rows::single(tokens.len()),
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
    /// The place in the run that predicts it: that of the token before it.
    pub place: u32,
    /// The token.
    pub token: u32,
}

impl Target {
    /// Targets from one slot a token of a run, `[T]`; `None` where nothing is predicted.
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
    let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
    let shape = [ids.len()];
    Tensor::from_data(TensorData::new(ids, shape), device)
}
