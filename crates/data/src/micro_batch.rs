//! Examples packed into micro-batches: flat runs of tokens without padding.
//!
//! Axes: `T` tokens of a micro-batch, `R` rows in it.

use std::cmp::Reverse;

use crate::example::Example;

/// The target of a position that is not trained on, as in Hugging Face's labels.
pub const IGNORE: i64 = -100;

/// What one forward and backward pass sees: rows one after another, never padded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MicroBatch {
    /// `[T]` token ids.
    pub tokens: Vec<u32>,
    /// `[T]` the row's next token where that is trained on, [`IGNORE`] elsewhere; always for a row's last.
    pub targets: Vec<i64>,
    /// `[R + 1]` where each row starts, and at last `T`: row `r` is `rows[r]..rows[r + 1]`.
    pub rows: Vec<usize>,
    /// `[T]` each token's place in its row, from 0.
    pub positions: Vec<u32>,
    /// `[R]` which example of the batch each row is.
    pub examples: Vec<usize>,
}

impl MicroBatch {
    /// A micro-batch of some of `batch`'s examples, in the order of `chosen`.
    ///
    /// # Panics
    /// When an index is not below `batch.len()`.
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

    /// How many positions have a target.
    pub fn target_count(&self) -> usize {
        self.targets.iter().filter(|&&t| t != IGNORE).count()
    }
}

/// Packs one step's examples into micro-batches of at most `micro_batch_tokens` tokens: the longest first, each into the
/// first micro-batch that has room. A longer example has a micro-batch of its own. The same batch always gives the same
/// micro-batches.
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
