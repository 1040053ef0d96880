//! The tokens of a run's micro-batches and steps.

use serde::Serialize;
use simmer_data::Dataset;
use simmer_model::Sharing;

use super::steps::first_steps;
use crate::error::TrainError;
use crate::recipe::Recipe;

/// How many of the first steps are packed for the estimate.
const STEPS: usize = 64;

/// The tokens of micro-batches and steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// Tokens of the largest micro-batch, with shared prefixes counted once.
    pub tokens: usize,
    /// The most labels in a micro-batch.
    pub targets: usize,
    /// Tokens of the longest row.
    pub longest: usize,
    /// Mean tokens per step, with shared prefixes counted once.
    pub step_tokens: f64,
    /// Mean labels per step.
    pub step_targets: f64,
    /// Mean number of earlier tokens that a token attends to.
    pub context: f64,
}

impl Load {
    /// Packs the first steps of a run, as training will do; rows share prefixes by `sharing`.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    pub(super) fn of(
        recipe: &Recipe,
        sharing: Sharing,
        data: &mut Dataset,
        budget: usize,
    ) -> Result<Load, TrainError> {
        if data.examples().is_none() {
            return Ok(Load::of_stream(recipe, data, budget));
        }
        let shares = recipe.train.share_prefixes && !has_dropout(recipe);
        let mut load = Load {
            tokens: 0,
            targets: 0,
            longest: 0,
            step_tokens: 0.0,
            step_targets: 0.0,
            context: 0.0,
        };
        let mut pairs = 0.0;
        // the steps of an epoch have all rows
        let most = STEPS.min(data.steps_per_epoch().unwrap_or(STEPS));
        let steps = first_steps(recipe, data, budget, most, |micro_batches| {
            for micro_batch in micro_batches {
                let rows = micro_batch.rows.windows(2);
                let rows: Vec<&[u32]> = rows
                    .map(|row| &micro_batch.tokens[row[0]..row[1]])
                    .collect();
                let tokens = if shares {
                    sharing.packed(&rows).sequence.len()
                } else {
                    micro_batch.tokens.len()
                };
                let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
                load.tokens = load.tokens.max(tokens);
                load.targets = load.targets.max(micro_batch.target_count());
                load.longest = load.longest.max(longest);
                load.step_tokens += tokens as f64;
                load.step_targets += micro_batch.target_count() as f64;
                let squares = rows.iter().map(|row| (row.len() * row.len()) as f64);
                pairs += squares.sum::<f64>() / 2.0;
            }
        })?;
        load.context = pairs / load.step_tokens.max(1.0);
        load.step_tokens /= steps.max(1) as f64;
        load.step_targets /= steps.max(1) as f64;
        Ok(load)
    }

    /// For a stream: upper limits of a micro-batch, and means over the rows that were checked.
    fn of_stream(recipe: &Recipe, data: &Dataset, budget: usize) -> Load {
        let longest = recipe.data.max_tokens;
        let read = &data.report.train;
        let mean = |count: usize| {
            let examples: usize = read.iter().map(|source| source.examples).sum();
            count as f64 / examples.max(1) as f64
        };
        let tokens = mean(read.iter().map(|source| source.tokens).sum());
        let targets = mean(read.iter().map(|source| source.targets).sum());
        let rows = recipe.train.batch_size as f64;
        Load {
            tokens: budget.max(longest),
            targets: budget.max(longest),
            longest,
            step_tokens: tokens * rows,
            step_targets: targets * rows,
            context: tokens / 2.0,
        }
    }

    /// The same with at most `budget` tokens per micro-batch.
    pub(super) fn within(self, budget: usize) -> Load {
        let tokens = self.tokens.min(budget.max(self.longest));
        Load {
            tokens,
            targets: self.targets.min(tokens),
            ..self
        }
    }
}

fn has_dropout(recipe: &Recipe) -> bool {
    let adapter = recipe.method.adapter();
    adapter.is_some_and(|table| table.dropout() > 0.0)
}
