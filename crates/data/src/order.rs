//! The order of the training rows: a pure function of the sources' sizes, their weights, the seed and the epoch.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// The stream of random numbers that chooses the validation rows. Epochs use the streams from 0 on.
const VALIDATION_STREAM: u64 = u64::MAX;

/// How rows are ordered and divided into batches.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The number of rows of each source. Rows are numbered through all sources, one source after another.
    pub sources: Vec<usize>,
    /// The sources' shares of an epoch, in any unit. Without weights, an epoch has every row once.
    pub weights: Option<Vec<f64>>,
    /// Rows per step. The last step of an epoch may have fewer.
    pub batch_size: usize,
    /// The seed of the shuffle, or `None` for file order.
    pub shuffle: Option<u64>,
}

/// How the steps of a run choose their examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Examples per step. The last step of an epoch may have fewer.
    pub batch_size: usize,
    /// The seed for the choice of the validation rows and for the shuffle.
    pub seed: u64,
}

/// A position in the order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Finished epochs; always 0 for a stream.
    pub epoch: u64,
    /// Rows of this epoch that are done; for a stream, all rows that are done.
    pub index: usize,
    /// For a stream: how many examples of the next row are done.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub within: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Order {
    /// Rows of one epoch.
    pub fn rows(&self) -> usize {
        self.sources.iter().sum()
    }

    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.rows().div_ceil(self.batch_size.max(1))
    }

    /// Steps before a position: those of the epochs before, and those of its own that do not come after it.
    pub fn steps_before(&self, cursor: Cursor) -> u64 {
        let left = self.rows().saturating_sub(cursor.index);
        let left = left.div_ceil(self.batch_size.max(1));
        let per_epoch = self.steps_per_epoch();
        cursor.epoch * per_epoch as u64 + (per_epoch - left) as u64
    }

    /// The rows of an epoch, in order.
    ///
    /// With weights, each source has its share of the epoch's places. It repeats its rows across epochs, and each row
    /// occurs once before any row occurs again.
    pub fn epoch(&self, epoch: u64) -> Vec<usize> {
        let rows = match &self.weights {
            None => (0..self.rows()).collect(),
            Some(weights) => self.mixed(epoch, weights),
        };
        match self.shuffle {
            None => rows,
            Some(seed) => {
                let order = Random::new(seed, epoch).permutation(rows.len());
                order.into_iter().map(|place| rows[place]).collect()
            }
        }
    }

    /// The rows of an epoch with weighted sources, evenly interleaved.
    fn mixed(&self, epoch: u64, weights: &[f64]) -> Vec<usize> {
        let quotas = shares(self.rows(), weights);
        let mut first = 0;
        let mut places = Vec::with_capacity(self.rows());
        for (source, (&count, quota)) in self.sources.iter().zip(quotas).enumerate() {
            let mut pass: Option<(u64, Vec<usize>)> = None;
            for place in 0..quota {
                let visit = epoch * quota as u64 + place as u64;
                let number = visit / count as u64;
                if pass.as_ref().is_none_or(|(of, _)| *of != number) {
                    pass = Some((number, self.pass(source, number, count)));
                }
                let row = pass
                    .as_ref()
                    .map_or(0, |(_, rows)| rows[(visit % count as u64) as usize]);
                places.push(((place as f64 + 0.5) / quota as f64, source, first + row));
            }
            first += count;
        }
        places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        places.into_iter().map(|(_, _, row)| row).collect()
    }

    /// The order of a weighted source's rows in one pass over them.
    fn pass(&self, source: usize, pass: u64, count: usize) -> Vec<usize> {
        match self.shuffle {
            None => (0..count).collect(),
            Some(seed) => Random::of_source(seed, source, pass).permutation(count),
        }
    }

    /// The batch at `cursor`, from the rows of its epoch.
    fn batch(&self, cursor: Cursor, epoch: &[usize]) -> Batch {
        let start = cursor.index.min(epoch.len());
        let end = (start + self.batch_size.max(1)).min(epoch.len());
        let next = if end == epoch.len() {
            Cursor {
                epoch: cursor.epoch + 1,
                ..Cursor::default()
            }
        } else {
            Cursor {
                index: end,
                ..cursor
            }
        };
        Batch {
            epoch: cursor.epoch,
            rows: epoch[start..end].to_vec(),
            next,
        }
    }

    /// Batches from `cursor` on, epoch after epoch, without end. Empty if there are no rows. A position after the last row of its epoch,
    /// which had more rows once, is the start of the next one.
    pub fn batches(&self, mut cursor: Cursor) -> Batches {
        if cursor.index > 0 && cursor.index >= self.rows() {
            cursor = Cursor {
                epoch: cursor.epoch + 1,
                ..Cursor::default()
            };
        }
        Batches {
            order: self.clone(),
            cursor,
            rows: None,
        }
    }
}

/// Divides `total` places in proportion to `weights`, by the largest remainder method.
fn shares(total: usize, weights: &[f64]) -> Vec<usize> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights
        .iter()
        .map(|weight| total as f64 * weight / sum)
        .collect();
    let mut shares: Vec<usize> = exact.iter().map(|share| share.floor() as usize).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by(|&a, &b| {
        let remainder = |source: usize| exact[source] - exact[source].floor();
        remainder(b).total_cmp(&remainder(a)).then(a.cmp(&b))
    });
    let left = total.saturating_sub(shares.iter().sum());
    for source in by_remainder.into_iter().take(left) {
        shares[source] += 1;
    }
    shares
}

/// The rows of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Row numbers.
    pub rows: Vec<usize>,
    /// The position after it.
    pub next: Cursor,
}

/// The iterator of [`Order::batches`].
#[derive(Debug, Clone)]
pub struct Batches {
    order: Order,
    cursor: Cursor,
    /// The rows of the cursor's epoch, computed when they are needed.
    rows: Option<Vec<usize>>,
}

impl Batches {
    /// The position of the next batch.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        if self.order.rows() == 0 {
            return None;
        }
        let cursor = self.cursor;
        let rows = self
            .rows
            .get_or_insert_with(|| self.order.epoch(cursor.epoch));
        let batch = self.order.batch(cursor, rows);
        self.cursor = batch.next;
        if batch.next.epoch != cursor.epoch {
            self.rows = None;
        }
        Some(batch)
    }
}

/// Chooses `count` of `rows` rows for validation: `true` for each chosen row.
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
            sources: vec![rows],
            weights: None,
            batch_size,
            shuffle,
        }
    }

    fn mixture(sources: &[usize], weights: &[f64], shuffle: Option<u64>) -> Order {
        Order {
            sources: sources.to_vec(),
            weights: Some(weights.to_vec()),
            batch_size: 4,
            shuffle,
        }
    }

    #[test]
    fn weights_are_parts_of_an_epoch() {
        let order = mixture(&[4, 8], &[1.0, 1.0], None);
        assert_eq!(order.epoch(0), [0, 4, 1, 5, 2, 6, 3, 7, 0, 8, 1, 9]);
        // Each source continues where the previous epoch stopped.
        assert_eq!(order.epoch(1), [2, 10, 3, 11, 0, 4, 1, 5, 2, 6, 3, 7]);
        assert_eq!(shares(10, &[1.0, 1.0, 1.0]), [4, 3, 3]);
        assert_eq!(shares(7, &[0.9, 0.1]), [6, 1]);
    }

    /// These numbers must never change: runs of earlier versions are resumed with them.
    #[test]
    fn the_order_never_changes() {
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
            let cursor = Cursor { epoch, ..Cursor::default() };
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
        fn weighted_sources_have_their_shares(
            sources in prop::collection::vec((1usize..40, 0.1f64..10.0), 1..5),
            seed: Option<u64>,
            epochs in 1u64..6,
        ) {
            let (counts, weights): (Vec<_>, Vec<_>) = sources.into_iter().unzip();
            let order = mixture(&counts, &weights, seed);
            let quotas = shares(order.rows(), &weights);
            let mut seen = vec![0usize; order.rows()];
            for epoch in 0..epochs {
                let rows = order.epoch(epoch);
                prop_assert_eq!(rows.len(), order.rows());
                for row in rows {
                    seen[row] += 1;
                }
            }
            let mut first = 0;
            for (count, quota) in counts.into_iter().zip(quotas) {
                let visits = &seen[first..first + count];
                prop_assert_eq!(visits.iter().sum::<usize>(), quota * epochs as usize);
                let (least, most) = (visits.iter().min().unwrap(), visits.iter().max().unwrap());
                prop_assert!(most - least <= 1);
                first += count;
            }
        }

        #[test]
        fn validation_is_as_many_rows_as_asked(rows in 0usize..200, count in 0usize..250, seed: u64) {
            let chosen = validation_rows(rows, count, seed);
            prop_assert_eq!(chosen.iter().filter(|&&chosen| chosen).count(), count.min(rows));
        }
    }
}
