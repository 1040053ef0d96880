//! Row boundaries of a flat run.

use std::ops::Range;

/// The rows of a flat run: where each begins and ends.
///
/// A run holds the tokens of several examples one after another, without padding. Every operation
/// that mixes positions (attention) stays inside a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Start of each row, and the total length as the last element; strictly increasing.
    bounds: Vec<usize>,
}

impl Rows {
    /// Rows of the given lengths, in order.
    ///
    /// # Panics
    /// On a row of length zero: it would have no query and no key.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut bounds = vec![0];
        let mut end = 0;
        for length in lengths {
            assert!(length > 0, "a row of a flat run has at least one token");
            end += length;
            bounds.push(end);
        }
        Self { bounds }
    }

    /// One row of `length` tokens.
    pub fn single(length: usize) -> Self {
        Self::from_lengths([length])
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all rows together: `T`.
    pub fn total(&self) -> usize {
        self.bounds[self.len()]
    }

    /// The token range of each row, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.bounds.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// The position of each token within its row: `[T]`.
    pub fn positions(&self) -> Vec<u32> {
        self.ranges().flat_map(|row| 0..row.len() as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_cover_the_run() {
        let rows = Rows::from_lengths([3, 1, 2]);
        assert_eq!(rows.ranges().collect::<Vec<_>>(), [0..3, 3..4, 4..6]);
        assert_eq!((rows.len(), rows.total()), (3, 6));
        assert_eq!(rows.positions(), [0, 1, 2, 0, 0, 1]);
    }
}
