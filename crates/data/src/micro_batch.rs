//! Examples packed into micro-batches: packed sequences of tokens without padding.
//!
//! Axes: `T` tokens of a micro-batch, `R` rows in it.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::example::Example;

/// The target of a position that is not trained on, as in Hugging Face's labels.
pub const IGNORE: i64 = -100;

/// The input of one forward and backward pass: rows one after another, without padding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MicroBatch {
    /// `[T]` token ids.
    pub tokens: Vec<u32>,
    /// `[T]` the row's next token if that is a label, otherwise [`IGNORE`], as for the last token of each row.
    pub targets: Vec<i64>,
    /// `[R + 1]` where each row starts, then `T`: row `r` is `rows[r]..rows[r + 1]`.
    pub rows: Vec<usize>,
    /// `[T]` each token's position in its row, from 0.
    pub positions: Vec<u32>,
    /// `[R]` each row's index in the batch.
    pub examples: Vec<usize>,
}

impl MicroBatch {
    /// A micro-batch of the chosen examples of `batch`, in the order of `chosen`.
    ///
    /// # Panics
    /// If an index is not below `batch.len()`.
    pub fn of(batch: &[&Example], chosen: &[usize]) -> MicroBatch {
        let mut micro = MicroBatch {
            rows: vec![0],
            ..MicroBatch::default()
        };
        for &index in chosen {
            micro.push(index, batch[index]);
        }
        micro
    }

    fn push(&mut self, index: usize, example: &Example) {
        let Example {
            tokens, trained, ..
        } = example;
        let next = tokens.iter().zip(trained).skip(1);
        let targets =
            next.map(|(&token, &trained)| if trained { i64::from(token) } else { IGNORE });
        self.targets.extend(targets);
        if !tokens.is_empty() {
            self.targets.push(IGNORE);
        }
        self.tokens.extend(tokens);
        self.positions.extend(0..tokens.len() as u32);
        self.rows.push(self.tokens.len());
        self.examples.push(index);
    }

    /// The number of labels.
    pub fn target_count(&self) -> usize {
        self.targets.iter().filter(|&&t| t != IGNORE).count()
    }
}

/// Packs one step's examples into micro-batches of at most `micro_batch_tokens` tokens, by first-fit decreasing: the
/// longest example first, each into the first micro-batch with room for it. A longer example has a micro-batch of its
/// own. The same batch always gives the same micro-batches.
pub fn pack(batch: &[&Example], micro_batch_tokens: usize) -> Vec<MicroBatch> {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&index| Reverse(batch[index].tokens.len()));
    let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
    for index in order {
        let length = batch[index].tokens.len();
        let fits = |(used, _): &&mut (usize, Vec<usize>)| *used + length <= micro_batch_tokens;
        if let Some((used, chosen)) = bins.iter_mut().find(fits) {
            *used += length;
            chosen.push(index);
        } else {
            bins.push((length, vec![index]));
        }
    }
    let micro = |(_, chosen): &(usize, Vec<usize>)| MicroBatch::of(batch, chosen);
    bins.iter().map(micro).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example(tokens: &[u32], trained: &[bool]) -> Example {
        Example {
            tokens: tokens.to_vec(),
            trained: trained.to_vec(),
            ..Example::default()
        }
    }

    #[test]
    fn rows_are_concatenated() {
        let examples = [
            example(&[5, 6], &[false, true]),
            example(&[7, 8, 9, 10], &[false, false, true, false]),
        ];
        let batch: Vec<_> = examples.iter().collect();
        let expected = MicroBatch {
            tokens: vec![7, 8, 9, 10, 5, 6],
            targets: vec![IGNORE, 9, IGNORE, IGNORE, 6, IGNORE],
            rows: vec![0, 4, 6],
            positions: vec![0, 1, 2, 3, 0, 1],
            examples: vec![1, 0],
        };
        assert_eq!(expected.target_count(), 2);
        assert_eq!(pack(&batch, 6), [expected]);
    }

    #[test]
    fn a_row_over_the_budget_is_alone() {
        let examples = [example(&[1, 2, 3], &[false; 3]), example(&[4], &[false])];
        let batch: Vec<_> = examples.iter().collect();
        let packed: Vec<_> = pack(&batch, 2)
            .into_iter()
            .map(|micro| micro.examples)
            .collect();
        assert_eq!(packed, [[0], [1]]);
        assert!(pack(&[], 2).is_empty());
    }

    fn examples() -> impl Strategy<Value = Vec<Example>> {
        let row = prop::collection::vec((0u32..1000, any::<bool>()), 1..40);
        let row = row.prop_map(|row| {
            let (tokens, trained): (Vec<_>, Vec<_>) = row.into_iter().unzip();
            example(&tokens, &trained)
        });
        prop::collection::vec(row, 0..30)
    }

    proptest! {
        #[test]
        fn every_token_of_every_row_occurs_once(examples in examples(), budget in 1usize..100) {
            let batch: Vec<_> = examples.iter().collect();
            let packed = pack(&batch, budget);
            let mut seen = vec![0; batch.len()];
            for micro in &packed {
                prop_assert!(micro.tokens.len() <= budget || micro.examples.len() == 1);
                prop_assert_eq!(micro.rows.len(), micro.examples.len() + 1);
                prop_assert_eq!(micro.rows[micro.rows.len() - 1], micro.tokens.len());
                prop_assert_eq!(micro.targets.len(), micro.tokens.len());
                for (row, &index) in micro.examples.iter().enumerate() {
                    seen[index] += 1;
                    let Example { tokens, trained, .. } = batch[index];
                    let span = micro.rows[row]..micro.rows[row + 1];
                    prop_assert_eq!(&micro.tokens[span.clone()], &tokens[..]);
                    for (place, at) in span.enumerate() {
                        let next = trained.get(place + 1).is_some_and(|&trained| trained);
                        let target = if next { i64::from(tokens[place + 1]) } else { IGNORE };
                        prop_assert_eq!(micro.targets[at], target);
                        prop_assert_eq!(micro.positions[at] as usize, place);
                    }
                }
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
        }

        #[test]
        fn no_two_micro_batches_would_fit_into_one(examples in examples(), budget in 1usize..100) {
            let batch: Vec<_> = examples.iter().collect();
            let lengths: Vec<_> = pack(&batch, budget).iter().map(|micro| micro.tokens.len()).collect();
            for (index, first) in lengths.iter().enumerate() {
                prop_assert!(lengths[index + 1..].iter().all(|second| first + second > budget));
            }
        }
    }
}
