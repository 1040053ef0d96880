//! The order in which rows are trained on: a pure function of the number of rows, the seed and the epoch.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// The stream of random numbers that chooses the validation rows; epochs have the streams from 0 on.
const VALIDATION_STREAM: u64 = u64::MAX;

/// How rows are put in order and cut into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// How many rows there are.
    pub rows: usize,
    /// Rows of one step; the last step of an epoch takes what is left.
    pub batch_size: usize,
    /// The seed of the shuffle, or `None` for file order.
    pub shuffle: Option<u64>,
}

/// Where in the order a run stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Epochs finished.
    pub epoch: u64,
    /// Rows of this epoch already trained on.
    pub index: usize,
}

/// The rows of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The epoch that it belongs to, from 0.
    pub epoch: u64,
    /// Row numbers.
    pub rows: Vec<usize>,
    /// Where the order stands after it.
    pub next: Cursor,
}

impl Order {
    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.rows.div_ceil(self.batch_size.max(1))
    }

    /// The rows of an epoch, in order.
    pub fn epoch(&self, epoch: u64) -> Vec<usize> {
        match self.shuffle {
            Some(seed) => Random::new(seed, epoch).permutation(self.rows),
            None => (0..self.rows).collect(),
        }
    }

    /// Batches from `cursor` on, epoch after epoch, without end; none where there are no rows.
    pub fn batches(self, cursor: Cursor) -> Batches {
        Batches {
            order: self,
            cursor,
            rows: None,
        }
    }
}

/// See [`Order::batches`].
#[derive(Debug, Clone)]
pub struct Batches {
    order: Order,
    cursor: Cursor,
    /// The cursor's epoch, once it is needed.
    rows: Option<Vec<usize>>,
}

impl Batches {
    /// Where the next batch starts.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        if self.order.rows == 0 {
            return None;
        }
        let Cursor { epoch, index } = self.cursor;
        let start = index.min(self.order.rows);
        let end = (start + self.order.batch_size.max(1)).min(self.order.rows);
        let all = self.rows.get_or_insert_with(|| self.order.epoch(epoch));
        let rows = all[start..end].to_vec();
        self.cursor.index = end;
        if end == self.order.rows {
            self.cursor = Cursor {
                epoch: epoch + 1,
                index: 0,
            };
            self.rows = None;
        }
        Some(Batch {
            epoch,
            rows,
            next: self.cursor,
        })
    }
}

/// Chooses `count` of `rows` for validation: whether each row is one of them.
pub fn validation_rows(rows: usize, count: usize, seed: u64) -> Vec<bool> {
    let mut chosen = vec![false; rows];
    let shuffled = Random::new(seed, VALIDATION_STREAM).permutation(rows);
    for row in shuffled.into_iter().take(count) {
        chosen[row] = true;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(rows: usize, batch_size: usize, shuffle: Option<u64>) -> Order {
        Order {
            rows,
            batch_size,
            shuffle,
        }
    }

    /// These numbers must never change: runs of earlier versions are resumed with them.
    #[test]
    fn the_order_is_the_same_for_ever() {
        let order = order(12, 4, Some(42));
        insta::assert_debug_snapshot!([order.epoch(0), order.epoch(1)].map(|rows| format!("{rows:?}")), @r#"
    [
        "[2, 10, 8, 1, 3, 9, 5, 11, 4, 6, 7, 0]",
        "[9, 2, 6, 10, 7, 1, 3, 0, 4, 5, 11, 8]",
    ]
    "#);
        let chosen = validation_rows(12, 3, 42);
        let chosen: Vec<_> = (0..12).filter(|&row| chosen[row]).collect();
        insta::assert_debug_snapshot!(format!("{chosen:?}"), @r#""[1, 3, 5]""#);
    }

    #[test]
    fn file_order_keeps_the_last_smaller_batch() {
        let order = order(5, 2, None);
        assert_eq!(order.steps_per_epoch(), 3);
        let batches: Vec<_> = order
            .batches(Cursor::default())
            .take(4)
            .map(|b| (b.epoch, b.rows))
            .collect();
        assert_eq!(
            batches,
            [
                (0, vec![0, 1]),
                (0, vec![2, 3]),
                (0, vec![4]),
                (1, vec![0, 1])
            ]
        );
    }

    #[test]
    fn no_rows_give_no_batches() {
        assert_eq!(order(0, 4, Some(1)).batches(Cursor::default()).next(), None);
    }

    proptest! {
        #[test]
        fn an_epoch_has_every_row_once(rows in 1usize..200, batch in 1usize..40, seed: u64, epoch in 0u64..5) {
            let order = order(rows, batch, Some(seed));
            let cursor = Cursor { epoch, index: 0 };
            let batches = order.batches(cursor).take(order.steps_per_epoch());
            let mut seen: Vec<usize> = batches.flat_map(|batch| batch.rows).collect();
            prop_assert_eq!(seen.len(), rows);
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..rows));
        }

        #[test]
        fn it_resumes_from_any_cursor(rows in 1usize..60, batch in 1usize..20, seed: u64, skip in 0usize..30) {
            let order = order(rows, batch, Some(seed));
            let mut all = order.batches(Cursor::default());
            let cursor = all.by_ref().take(skip).last().map_or(Cursor::default(), |batch| batch.next);
            prop_assert_eq!(cursor, all.cursor());
            let resumed: Vec<_> = order.batches(cursor).take(8).collect();
            prop_assert_eq!(resumed, all.take(8).collect::<Vec<_>>());
        }

        #[test]
        fn validation_is_as_many_rows_as_asked(rows in 0usize..200, count in 0usize..250, seed: u64) {
            let chosen = validation_rows(rows, count, seed);
            prop_assert_eq!(chosen.iter().filter(|&&chosen| chosen).count(), count.min(rows));
        }
    }
}
