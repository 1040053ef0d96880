//! A run of one process.

use super::{Ranks, RanksError};

/// The only rank.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&self, to: usize, _: Vec<u8>) -> Result<(), RanksError> {
        Err(RanksError::Ended { rank: to })
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RanksError> {
        Err(RanksError::Ended { rank: from })
    }
}
