//! Pieces of rows: some of their queries, with the keys that these see.
//!
//! A piece is a row too: its last query has the position of its last key. Which keys a query sees
//! depends only on the distances to them, so a piece has the same causal mask and the same window.
//!
//! Axes as in [`super`].

use std::ops::Range;

use super::{Row, Rows};

impl Row {
    /// The keys that at least one of some queries sees, as indices among the row's keys: from the first
    /// key of the first query to the own key of the last one. With a window, a query sees that many
    /// keys at most, its own last.
    pub(crate) fn seen(&self, queries: &Range<usize>, window: Option<usize>) -> Range<usize> {
        let end = self.key_count() - (self.queries.end - queries.end);
        let of_first = end + 1 - queries.len();
        window.map_or(0, |window| of_first.saturating_sub(window))..end
    }

    /// The row's keys with some indices.
    pub(crate) fn keys_at(&self, indices: Range<usize>) -> Vec<Range<usize>> {
        let mut first = 0;
        let ranges = self.keys.iter().map(|keys| {
            let of_range = |index: usize| keys.start + index.saturating_sub(first).min(keys.len());
            let part = of_range(indices.start)..of_range(indices.end);
            first += keys.len();
            part
        });
        ranges.filter(|part| !part.is_empty()).collect()
    }
}

impl Rows {
    /// Cuts the rows into pieces of at most `length` queries. A piece has the keys that at least one of
    /// its queries sees.
    pub(crate) fn pieces(&self, length: usize, window: Option<usize>) -> Vec<Row> {
        let of_row = |row: &Row| -> Vec<Row> {
            let starts = row.queries.clone().step_by(length);
            let pieces = starts.map(|start| {
                let queries = start..row.queries.end.min(start.saturating_add(length));
                let keys = row.keys_at(row.seen(&queries, window));
                Row { queries, keys }
            });
            pieces.collect()
        };
        self.iter().flat_map(of_row).collect()
    }

    /// Number of pairs of a query and a key that it sees.
    pub(crate) fn pairs(&self, window: Option<usize>) -> usize {
        // keys up to each of the first n positions
        let triangle = |n: usize| n * (n + 1) / 2;
        let of_row = |row: &Row| {
            let [t, s] = [row.queries.len(), row.key_count()];
            let all = triangle(s) - triangle(s - t);
            let hidden = window.map_or(0, |window| {
                triangle(s.saturating_sub(window)) - triangle((s - t).saturating_sub(window))
            });
            all - hidden
        };
        self.iter().map(of_row).sum()
    }
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "these are lists with one range, not ranges to be expanded"
)]
mod tests {
    use super::*;

    fn pieces(
        rows: &Rows,
        length: usize,
        window: Option<usize>,
    ) -> Vec<(Range<usize>, Vec<Range<usize>>)> {
        let pieces = rows.pieces(length, window).into_iter();
        pieces.map(|piece| (piece.queries, piece.keys)).collect()
    }

    #[test]
    fn pieces_see_the_keys_before_them() {
        let rows = Rows::from_tree([(2, None), (1, None), (5, Some(0))]);
        let expected = [
            (0..2, vec![0..2]),
            (2..3, vec![2..3]),
            (3..5, vec![0..2, 3..5]),
            (5..7, vec![0..2, 3..7]),
            (7..8, vec![0..2, 3..8]),
        ];
        assert_eq!(pieces(&rows, 2, None), expected);
    }

    #[test]
    fn pieces_see_the_keys_of_a_window() {
        let rows = Rows::from_tree([(2, None), (1, None), (5, Some(0))]);
        let expected = [
            (0..2, vec![0..2]),
            (2..3, vec![2..3]),
            // positions 2 and 3 see 0..=2 and 1..=3
            (3..5, vec![0..2, 3..5]),
            (5..7, vec![3..7]),
            (7..8, vec![5..8]),
        ];
        assert_eq!(pieces(&rows, 2, Some(3)), expected);
        let whole: Vec<_> = rows.iter().cloned().collect();
        assert_eq!(rows.pieces(usize::MAX, Some(7)), whole);
        assert_eq!(
            pieces(&Rows::continuing(9, 1), 1, Some(4)),
            [(0..1, vec![6..10])]
        );
    }

    #[test]
    fn pairs_are_counted() {
        let rows = Rows::from_tree([(3, None), (2, Some(0)), (1, None)]);
        // keys of the queries: 1 2 3, 4 5, 1
        for (window, expected) in [
            (None, 16),
            (Some(9), 16),
            (Some(4), 15),
            (Some(2), 10),
            (Some(1), 6),
        ] {
            assert_eq!(rows.pairs(window), expected);
        }
    }
}
