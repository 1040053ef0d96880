//! Row boundaries of a packed sequence.
//!
//! Axes: T tokens (queries), S keys; t and s are T and S of one row.

mod pieces;
#[cfg(feature = "libtorch")]
mod placed;

use std::ops::Range;

#[cfg(feature = "libtorch")]
use placed::OnDevice;
#[cfg(feature = "libtorch")]
pub(crate) use placed::Placed;

/// The rows of a packed sequence: the tokens of each row, and the keys that they see.
///
/// A packed sequence holds the tokens of several examples one after another, without padding. An
/// operation that mixes positions (attention) stays inside a row.
///
/// A row sees its own tokens causally. If it continues other tokens (those in a cache, or a prefix
/// that it shares with other rows), it sees all of them: its keys are then several ranges, and the
/// last keys are its own tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    list: Vec<Row>,
    /// Number of tokens in all rows.
    total: usize,
    /// Number of keys of all rows; keys that several rows see are counted once.
    keys: usize,
    #[cfg(feature = "libtorch")]
    placed: OnDevice,
}

/// One row of a packed sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The row's tokens in the packed sequence.
    pub queries: Range<usize>,
    /// The keys that they see, in order of position. The last query has the position of the last key.
    pub keys: Vec<Range<usize>>,
}

impl Row {
    /// Number of keys, including those of the row's own tokens.
    pub fn key_count(&self) -> usize {
        self.keys.iter().map(ExactSizeIterator::len).sum()
    }

    /// Its keys without the last `count`.
    fn keys_without_last(&self, count: usize) -> Vec<Range<usize>> {
        let mut left = self.key_count() - count;
        let mut keys = Vec::with_capacity(self.keys.len());
        for range in &self.keys {
            let taken = left.min(range.len());
            if taken > 0 {
                keys.push(range.start..range.start + taken);
            }
            left -= taken;
        }
        keys
    }
}

impl Rows {
    /// Rows of the given lengths, in order.
    ///
    /// # Panics
    /// If a length is zero: the row would have no query and no key.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        Self::from_tree(lengths.into_iter().map(|length| (length, None)))
    }

    /// Rows that may continue others. Each has a length and, if it continues another row, the index
    /// of that row. It then sees the tokens of that row, and all that they see, before its own.
    ///
    /// # Panics
    /// If a length is zero, or a row continues a row that does not come before it.
    pub fn from_tree(rows: impl IntoIterator<Item = (usize, Option<usize>)>) -> Self {
        let mut found: Vec<Row> = Vec::new();
        let mut total = 0;
        for (length, parent) in rows {
            assert!(
                length > 0,
                "a row of a packed sequence needs at least one token"
            );
            let queries = total..total + length;
            let mut keys = parent.map_or(Vec::new(), |parent| found[parent].keys.clone());
            match keys.last_mut() {
                Some(last) if last.end == queries.start => last.end = queries.end,
                _ => keys.push(queries.clone()),
            }
            total = queries.end;
            found.push(Row { queries, keys });
        }
        Self::of(found, total, total)
    }

    /// One row of `length` tokens.
    pub fn single(length: usize) -> Self {
        Self::from_lengths([length])
    }

    /// One row of `length` new tokens after `seen` earlier ones, whose keys are in a cache, before the
    /// new keys.
    ///
    /// # Panics
    /// If the length is zero.
    pub fn continuing(seen: usize, length: usize) -> Self {
        assert!(
            length > 0,
            "a row of a packed sequence needs at least one token"
        );
        let all = 0..seen + length;
        let row = Row {
            queries: 0..length,
            keys: vec![all],
        };
        Self::of(vec![row], length, seen + length)
    }

    /// Rows of new tokens with any keys. Each has a length and the ranges of the keys that it sees,
    /// in order of position, its own tokens last. `keys` is the number of keys of all rows together.
    ///
    /// # Panics
    /// If a length is zero, if a row sees fewer keys than it has tokens, or if a range goes beyond
    /// `keys`.
    pub fn seeing(rows: impl IntoIterator<Item = (usize, Vec<Range<usize>>)>, keys: usize) -> Self {
        let mut total = 0;
        let list = rows.into_iter().map(|(length, seen)| {
            let queries = total..total + length;
            total = queries.end;
            let row = Row {
                queries,
                keys: seen,
            };
            assert!(
                length > 0,
                "a row of a packed sequence needs at least one token"
            );
            assert!(
                row.key_count() >= length,
                "a row sees at least its own tokens"
            );
            assert!(
                row.keys.iter().all(|range| range.end <= keys),
                "a range of keys goes beyond the keys of all rows"
            );
            row
        });
        let list = list.collect();
        Self::of(list, total, keys)
    }

    /// Some tokens of these rows, which see the same keys as there. `places` are ascending.
    ///
    /// # Panics
    /// If places are not ascending, or there is no such token.
    pub fn at(&self, places: &[u32]) -> Self {
        let mut places = places.iter().map(|place| *place as usize).peekable();
        let mut found = Vec::new();
        for row in &self.list {
            while let Some(first) = places.next_if(|place| row.queries.contains(place)) {
                let mut end = first + 1;
                while end < row.queries.end && places.next_if_eq(&end).is_some() {
                    end += 1;
                }
                found.push((end - first, row.keys_without_last(row.queries.end - end)));
            }
        }
        assert_eq!(places.next(), None, "places are ascending, and are tokens");
        Self::seeing(found, self.keys)
    }

    fn of(list: Vec<Row>, total: usize, keys: usize) -> Self {
        Self {
            list,
            total,
            keys,
            #[cfg(feature = "libtorch")]
            placed: OnDevice::default(),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of tokens in all rows, `T`.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Number of keys of all rows, `S`.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// The rows, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.list.iter()
    }

    /// The token range of each row, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.list.iter().map(|row| row.queries.clone())
    }

    /// The position of each token: `[T]`.
    pub fn positions(&self) -> Vec<u32> {
        let rows = self.list.iter();
        rows.flat_map(|row| {
            let keys = row.key_count();
            (keys - row.queries.len()..keys).map(|position| position as u32)
        })
        .collect()
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Row;
    type IntoIter = std::slice::Iter<'a, Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "these are lists with one range, not ranges to be expanded"
)]
mod tests {
    use super::*;

    #[test]
    fn rows_cover_the_packed_sequence() {
        let rows = Rows::from_lengths([3, 1, 2]);
        assert_eq!(rows.ranges().collect::<Vec<_>>(), [0..3, 3..4, 4..6]);
        assert_eq!((rows.len(), rows.total()), (3, 6));
        assert_eq!(rows.positions(), [0, 1, 2, 0, 0, 1]);
    }

    #[test]
    fn rows_continue_others() {
        let rows = Rows::from_tree([(2, None), (3, Some(0)), (1, Some(0)), (2, Some(2))]);
        let keys: Vec<_> = rows.iter().map(|row| row.keys.clone()).collect();
        let expected = [vec![0..2], vec![0..5], vec![0..2, 5..6], vec![0..2, 5..8]];
        assert_eq!(keys, expected);
        assert_eq!(rows.positions(), [0, 1, 2, 3, 4, 2, 3, 4]);
    }

    #[test]
    fn some_tokens_see_the_same_keys() {
        let rows = Rows::from_tree([(2, None), (4, Some(0)), (1, Some(0)), (2, Some(2))]);
        let some = rows.at(&[1, 2, 3, 5, 8]);
        let keys: Vec<_> = some.iter().map(|row| row.keys.clone()).collect();
        let expected = [vec![0..2], vec![0..4], vec![0..6], vec![0..2, 6..9]];
        assert_eq!(keys, expected);
        let lengths: Vec<usize> = some.ranges().map(|queries| queries.len()).collect();
        assert_eq!(lengths, [1, 2, 1, 1]);
        assert_eq!(some.positions(), [1, 2, 3, 5, 4]);
        assert_eq!(rows.at(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), rows);
    }

    #[test]
    fn a_row_continues_a_cache() {
        let rows = Rows::continuing(5, 2);
        assert_eq!((rows.total(), rows.keys()), (2, 7));
        assert_eq!(rows.positions(), [5, 6]);
    }
}
