//! A step on several ranks: its time, what travels, and the memory of each rank. A simulation with one clock for each rank.
//!
//! The model, for P trained parameters in f32 (4P bytes), a network of bandwidth B and latency λ, and memory that is read at M:
//! - A message of n bytes takes `λ + n/B` of its sender's and of its receiver's time.
//! - Rank 0 sends 4P bytes down a binomial tree, then each rank its micro-batches, one rank after another.
//! - A rank computes its share in the time of a step on one rank, in proportion to its tokens.
//! - Gradients are added in the order of the tree of `ranks::additions`: 4P bytes for each sum that changes its rank. Encoding,
//!   decoding and adding read or write 8P, 8P and 12P bytes of memory.
//! - Rank 0 updates: AdamW reads and writes 28P bytes (weights, both moments; it reads the gradient).
//!
//! All ranks are alike, and no two messages share a link.

use std::fmt;
use std::ops::Range;

use serde::Serialize;
use simmer_data::Dataset;
use simmer_files::size::{duration, grouped, readable};

use super::steps::first_steps;
use super::{Estimate, StepTime};
use crate::error::TrainError;
use crate::ranks::{Held, additions, children, deal};
use crate::recipe::Recipe;

/// How many of the first steps are simulated.
const STEPS: usize = 16;
/// Bytes of a token in a message to a rank: its id, target and position as text.
const TOKEN: f64 = 16.0;
/// Bytes of memory that are read or written for each trained parameter: to encode or decode a message, to add, to update.
const COPY: f64 = 8.0;
const ADD: f64 = 12.0;
const UPDATE: f64 = 28.0;

/// The network between ranks, and the memory of each.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// Bytes per second.
    pub bandwidth: f64,
    /// Seconds until the first byte arrives.
    pub latency: f64,
    /// Bytes per second that a rank reads from its memory.
    pub memory: f64,
}

/// A step on a number of ranks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OnRanks {
    /// Number of ranks.
    pub ranks: usize,
    /// Seconds of a step.
    pub seconds: f64,
    /// The speed-up over one rank, divided by the number of ranks.
    pub efficiency: f64,
    /// Bytes that all ranks send in a step.
    pub sent: f64,
    /// Bytes that rank 0 sends and receives in a step.
    pub at_rank_0: f64,
    /// Peak memory of rank 0, in bytes.
    pub memory_of_rank_0: u64,
    /// Peak memory of each other rank, in bytes.
    pub memory_of_others: u64,
}

/// Steps on several numbers of ranks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scaling {
    /// One entry for each number of ranks; those with fewer micro-batches in a step than ranks are missing.
    pub steps: Vec<OnRanks>,
    /// The fewest micro-batches in a step.
    pub micro_batches: usize,
    /// Numbers of ranks that are more than that.
    pub too_many: Vec<usize>,
    /// Tokens of a step on average.
    tokens: f64,
}

/// The tokens of each micro-batch of the first steps. A stream's are of the size that the recipe allows.
///
/// # Errors
/// As [`Dataset::batch`].
pub(super) fn micro_batches(
    recipe: &Recipe,
    data: &mut Dataset,
    estimate: &Estimate,
) -> Result<Vec<Vec<usize>>, TrainError> {
    let budget = estimate.micro_batch_tokens;
    if data.examples().is_none() {
        let count = (estimate.load.step_tokens / budget.max(1) as f64).ceil() as usize;
        return Ok(vec![vec![budget; count.max(1)]]);
    }
    let mut found = Vec::new();
    first_steps(recipe, data, budget, STEPS, |step| {
        found.push(step.iter().map(|one| one.tokens.len()).collect());
    })?;
    Ok(found)
}

impl Scaling {
    /// Simulates the steps on each number of ranks. `parameters` are trained; `step` is the time on one rank.
    pub(super) fn of(
        ranks: &[usize],
        network: Network,
        steps: &[Vec<usize>],
        step: StepTime,
        estimate: &Estimate,
    ) -> Self {
        let fewest = steps.iter().map(Vec::len).min().unwrap_or(0);
        let (fitting, too_many): (Vec<usize>, Vec<usize>) =
            ranks.iter().partition(|count| **count <= fewest);
        let values = 4.0 * estimate.trained as f64;
        let tokens: usize = steps.iter().flatten().sum();
        let tokens = tokens as f64 / steps.len().max(1) as f64;
        // the update is the same on any number of ranks
        let update = UPDATE / 4.0 * values / network.memory;
        let per_token = (step.seconds - update).max(0.0) / tokens.max(1.0);
        let mean = |count: usize| {
            let all = steps.iter().map(|micro_batches| {
                Simulation::of(count, values, network, per_token).step(micro_batches)
            });
            let sum =
                all.reduce(|one, other| [one[0] + other[0], one[1] + other[1], one[2] + other[2]]);
            sum.unwrap_or_default()
                .map(|of| of / steps.len().max(1) as f64)
        };
        let [alone, ..] = mean(1);
        let steps = fitting.into_iter().map(|count| {
            let [seconds, sent, at_rank_0] = mean(count);
            let parts = &estimate.parts;
            // a message as it is written, and another as it is read
            let messages = if count > 1 {
                8 * estimate.trained as u64
            } else {
                0
            };
            OnRanks {
                ranks: count,
                seconds,
                efficiency: alone / seconds / count as f64,
                sent,
                at_rank_0,
                memory_of_rank_0: parts.peak() + messages,
                memory_of_others: parts.peak() - parts.optimizer + messages,
            }
        });
        Self {
            steps: steps.collect(),
            micro_batches: fewest,
            too_many,
            tokens,
        }
    }
}

/// A step in progress.
struct Simulation {
    network: Network,
    /// Bytes of the trained tensors.
    values: f64,
    /// Seconds that a rank computes for each token.
    per_token: f64,
    /// The time of each rank.
    clocks: Vec<f64>,
    sent: f64,
    at_rank_0: f64,
}

impl Simulation {
    fn of(ranks: usize, values: f64, network: Network, per_token: f64) -> Self {
        Self {
            network,
            values,
            per_token,
            clocks: vec![0.0; ranks],
            sent: 0.0,
            at_rank_0: 0.0,
        }
    }

    /// Seconds of a step with these micro-batches, bytes that travel, and those of rank 0.
    fn step(mut self, micro_batches: &[usize]) -> [f64; 3] {
        let ranks = self.clocks.len();
        let shares = deal(micro_batches, ranks);
        let tokens =
            |share: &Range<usize>| micro_batches[share.clone()].iter().sum::<usize>() as f64;
        if ranks > 1 {
            self.clocks[0] += self.in_memory(COPY);
            self.send_down(0);
            for (rank, share) in shares.iter().enumerate().skip(1) {
                self.message(0, rank, TOKEN * tokens(share));
            }
        }
        for (clock, share) in self.clocks.iter_mut().zip(&shares) {
            *clock += self.per_token * tokens(share);
        }
        // sums of a rank alone are part of its time on one rank
        let added = additions(
            micro_batches.len(),
            &shares,
            |_| (),
            |one: Held<()>, other| {
                if one.rank != other.rank {
                    self.clocks[other.rank] += self.in_memory(COPY);
                    self.message(other.rank, one.rank, self.values);
                    self.clocks[one.rank] += self.in_memory(COPY + ADD);
                }
                Ok::<(), ()>(())
            },
        );
        debug_assert!(added.is_ok());
        [
            self.clocks[0] + self.in_memory(UPDATE),
            self.sent,
            self.at_rank_0,
        ]
    }

    /// Sends the trained tensors to the ranks below, and those send them on.
    fn send_down(&mut self, rank: usize) {
        let below: Vec<usize> = children(rank, self.clocks.len()).collect();
        for child in &below {
            self.message(rank, *child, self.values);
        }
        for child in below {
            self.send_down(child);
        }
    }

    /// A message: both ranks are busy with it once both have come to it.
    fn message(&mut self, from: usize, to: usize, bytes: f64) {
        let start = self.clocks[from].max(self.clocks[to]);
        let end = start + self.network.latency + bytes / self.network.bandwidth;
        self.clocks[from] = end;
        self.clocks[to] = end;
        self.sent += bytes;
        if from == 0 || to == 0 {
            self.at_rank_0 += bytes;
        }
    }

    /// Seconds to read or write so many bytes for each trained parameter.
    fn in_memory(&self, bytes: f64) -> f64 {
        bytes / 4.0 * self.values / self.network.memory
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.steps.is_empty() {
            write!(
                f,
                "{:>6} {:>10} {:>12} {:>11} {:>12} {:>14} {:>14}",
                "ranks", "step", "tokens/s", "efficiency", "sent", "memory, rank 0", "others"
            )?;
        }
        for step in &self.steps {
            write!(
                f,
                "\n{:>6} {:>10} {:>12} {:>10.1}% {:>12} {:>14} {:>14}",
                grouped(step.ranks as u64),
                duration(step.seconds),
                grouped((self.tokens / step.seconds).round() as u64),
                100.0 * step.efficiency,
                readable(step.sent as u64),
                readable(step.memory_of_rank_0),
                if step.ranks > 1 {
                    readable(step.memory_of_others)
                } else {
                    "-".to_owned()
                },
            )?;
        }
        if let Some(ranks) = self.too_many.first() {
            let line = if self.steps.is_empty() { "" } else { "\n" };
            write!(
                f,
                "{line}{} ranks and more: micro-batches in a step: {}; raise train.batch_size or lower train.micro_batch_tokens",
                grouped(*ranks as u64),
                grouped(self.micro_batches as u64)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Network = Network {
        bandwidth: 1e30,
        latency: 0.0,
        memory: 1e30,
    };

    fn step(ranks: usize, network: Network, micro_batches: &[usize]) -> [f64; 3] {
        Simulation::of(ranks, 4e6, network, 0.01).step(micro_batches)
    }

    #[test]
    fn without_a_price_of_messages_only_the_largest_share_counts() {
        let micro_batches = [500, 400, 500, 300, 500];
        for ranks in 1..=5 {
            let largest = deal(&micro_batches, ranks).into_iter();
            let largest = largest.map(|share| micro_batches[share].iter().sum::<usize>());
            let expected = 0.01 * largest.max().unwrap() as f64;
            let [seconds, ..] = step(ranks, FAST, &micro_batches);
            assert!((seconds - expected).abs() < 1e-9, "{ranks}: {seconds}");
        }
    }

    /// By hand: tensors down, micro-batches, 5 s of computing, gradients up.
    #[test]
    fn two_ranks_send_two_copies_and_a_share() {
        let network = Network {
            bandwidth: 1e6,
            latency: 0.5,
            memory: 1e30,
        };
        let [seconds, sent, at_rank_0] = step(2, network, &[500, 500]);
        let share = TOKEN * 500.0;
        assert!((sent - (8e6 + share)).abs() < 1e-6);
        assert!((at_rank_0 - sent).abs() < 1e-6);
        let expected = 3.0 * 0.5 + sent / 1e6 + 5.0;
        assert!((seconds - expected).abs() < 1e-9, "{seconds}");
    }

    /// Rank 0 sends and receives log2(ranks) copies, not one for each rank.
    #[test]
    fn what_rank_0_sends_grows_with_the_logarithm() {
        let network = Network {
            bandwidth: 1e9,
            latency: 0.0,
            memory: 1e30,
        };
        let micro_batches = [100; 1024];
        let shares = |ranks: usize| TOKEN * 100.0 * (1024 - 1024 / ranks) as f64;
        for (ranks, levels) in [(2, 1.0), (8, 3.0), (64, 6.0), (1024, 10.0)] {
            let [_, sent, at_rank_0] = step(ranks, network, &micro_batches);
            assert!((at_rank_0 - shares(ranks) - 2.0 * levels * 4e6).abs() < 1e-3);
            assert!((sent - shares(ranks) - 2.0 * 4e6 * (ranks - 1) as f64).abs() < 1e-3);
        }
    }
}
