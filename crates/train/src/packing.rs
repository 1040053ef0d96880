//! What one step computes: its examples as sequences of the model.

use std::sync::Arc;

use simmer_data::{Batch, Cursor, Dataset, Example, MicroBatch, pack};
use simmer_kernels::mix;
use simmer_model::{Sequence, Target};

use crate::error::TrainError;

/// How examples become sequences. Knows nothing of devices, so that a step can be packed while another is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    pub(crate) micro_batch_tokens: usize,
    /// What rows have in common at their beginning is in a sequence once, where there is no dropout.
    pub(crate) share_prefixes: bool,
    /// The seed of dropout, where there is any.
    pub(crate) dropout: Option<u64>,
}

/// The examples of one step, packed.
#[derive(Debug)]
pub struct Packed {
    /// Tokens that the model sees.
    pub tokens: u64,
    /// Tokens that it is to predict.
    pub targets: u64,
    /// Micro-batches with something to predict.
    pub sequences: Vec<PackedSequence>,
}

/// One micro-batch.
#[derive(Debug)]
pub struct PackedSequence {
    /// What the model sees.
    pub sequence: Sequence,
    /// What it is to predict.
    pub targets: Vec<Target>,
    /// Tokens of its rows: those of `sequence`, and those that it has only once.
    pub tokens: usize,
}

impl Packing {
    /// A step's batch; `examples` are those of its rows, in their order.
    pub(crate) fn batch(&self, batch: &Batch, examples: &[Example]) -> Packed {
        self.pack(examples, |micro_batch| {
            let seed = self.dropout?;
            Some(dropout_keys(seed, batch, micro_batch))
        })
    }

    /// Examples that a loss is measured on, without dropout.
    pub(crate) fn measured(&self, examples: &[Example]) -> Packed {
        self.pack(examples, |_| None)
    }

    fn pack(
        &self,
        examples: &[Example],
        keys: impl Fn(&MicroBatch) -> Option<Arc<[u64]>>,
    ) -> Packed {
        let chosen: Vec<&Example> = examples.iter().collect();
        let micro_batches = pack(&chosen, self.micro_batch_tokens);
        let sequences = micro_batches.iter();
        let sequences = sequences.filter(|micro_batch| micro_batch.target_count() > 0);
        Packed {
            tokens: chosen
                .iter()
                .map(|example| example.tokens.len() as u64)
                .sum(),
            targets: chosen.iter().map(|example| example.targets() as u64).sum(),
            sequences: sequences
                .map(|micro_batch| self.sequence(micro_batch, keys(micro_batch)))
                .collect(),
        }
    }

    fn sequence(&self, micro_batch: &MicroBatch, keys: Option<Arc<[u64]>>) -> PackedSequence {
        let bounds = micro_batch.rows.windows(2);
        let rows = bounds.map(|row| &micro_batch.tokens[row[0]..row[1]]);
        let rows: Vec<&[u32]> = rows.collect();
        let (sequence, places) = if self.share_prefixes && keys.is_none() {
            let shared = Sequence::sharing_prefixes(&rows);
            (shared.sequence, shared.places.concat())
        } else {
            let sequence = Sequence {
                dropout_keys: keys,
                ..Sequence::from_rows(&rows)
            };
            let places = (0..sequence.len() as u32).collect();
            (sequence, places)
        };
        // What is not trained on has a negative target.
        let targets = micro_batch.targets.iter().zip(places);
        let targets = targets.filter_map(|(token, place)| {
            let token = u32::try_from(*token).ok()?;
            Some(Target { place, token })
        });
        PackedSequence {
            sequence,
            targets: targets.collect(),
            tokens: micro_batch.tokens.len(),
        }
    }
}

/// A step that has been read, tokenised and packed.
pub(crate) struct Ready {
    /// Where its examples begin.
    pub(crate) at: Cursor,
    /// Where those of the step after it do.
    pub(crate) next: Cursor,
    pub(crate) examples: Vec<Example>,
    pub(crate) packed: Packed,
}

impl Ready {
    /// Reads and packs the examples at `at`.
    pub(crate) fn make(
        data: &mut Dataset,
        packing: Packing,
        at: Cursor,
    ) -> Result<Self, TrainError> {
        let (batch, examples) = data.batch(at)?;
        Ok(Self {
            at,
            next: batch.next,
            packed: packing.batch(&batch, &examples),
            examples,
        })
    }
}

/// What dropout draws from, one key a token: the seed, the epoch, the example and the token's
/// place in it, and nothing of how the batch was packed.
fn dropout_keys(seed: u64, batch: &Batch, micro_batch: &MicroBatch) -> Arc<[u64]> {
    let epoch = mix(mix(seed) ^ batch.epoch);
    let rows = micro_batch.rows.windows(2).zip(&micro_batch.examples);
    let keys = rows.flat_map(|(bounds, example)| {
        let visit = mix(epoch ^ batch.rows[*example] as u64);
        let positions = &micro_batch.positions[bounds[0]..bounds[1]];
        positions
            .iter()
            .map(move |position| mix(visit ^ u64::from(*position)))
    });
    keys.collect()
}
