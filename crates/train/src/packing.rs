//! Packing: the examples of a step as packed sequences for the model.

use std::sync::Arc;

use simmer_data::{Batch, Cursor, Dataset, Example, MicroBatch, pack};
use simmer_kernels::mix;
use simmer_model::{Sequence, Sharing, Target};

use crate::error::TrainError;
use crate::ranks::Part;

/// How examples are packed. Holds nothing on a device, so that a step can be packed while another one is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    pub(crate) micro_batch_tokens: usize,
    /// Whether a prefix that rows share is in a sequence only once; ignored with dropout.
    pub(crate) share_prefixes: bool,
    /// Which rows share prefixes.
    pub(crate) sharing: Sharing,
    /// The seed of dropout; `None` without dropout.
    pub(crate) dropout: Option<u64>,
}

/// The examples of one step, packed.
#[derive(Debug)]
pub struct Packed {
    /// Tokens of the examples.
    pub tokens: u64,
    /// Labels: tokens that the loss is computed on.
    pub targets: u64,
    /// The micro-batches with labels.
    pub sequences: Vec<PackedSequence>,
}

/// One micro-batch.
#[derive(Debug)]
pub struct PackedSequence {
    /// The packed sequence.
    pub sequence: Sequence,
    /// The labels and their places in the sequence.
    pub targets: Vec<Target>,
    /// Tokens of its rows, with a shared prefix counted in each of them.
    pub tokens: usize,
    /// What it was packed from, for another rank to pack again.
    pub(crate) micro_batch: MicroBatch,
}

impl PackedSequence {
    /// What another rank needs of it.
    pub(crate) fn part(&self) -> Part {
        Part {
            micro_batch: self.micro_batch.clone(),
            dropout_keys: self.sequence.dropout_keys.as_deref().map(<[u64]>::to_vec),
        }
    }
}

impl Packing {
    /// Packs a step's batch; `examples` are those of its rows, in the same order.
    pub(crate) fn batch(&self, batch: &Batch, examples: &[Example]) -> Packed {
        self.pack(examples, |micro_batch| {
            let seed = self.dropout?;
            Some(dropout_keys(seed, batch, micro_batch))
        })
    }

    /// Packs examples for measuring a loss, without dropout.
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
        let sequences = micro_batches.into_iter();
        let sequences = sequences.filter(|micro_batch| micro_batch.target_count() > 0);
        Packed {
            tokens: chosen
                .iter()
                .map(|example| example.tokens.len() as u64)
                .sum(),
            targets: chosen.iter().map(|example| example.targets() as u64).sum(),
            sequences: sequences
                .map(|micro_batch| {
                    let keys = keys(&micro_batch);
                    self.sequence(micro_batch, keys)
                })
                .collect(),
        }
    }

    /// The sequence of a micro-batch from another rank.
    pub(crate) fn of_part(&self, part: Part) -> PackedSequence {
        self.sequence(part.micro_batch, part.dropout_keys.map(Arc::from))
    }

    fn sequence(&self, micro_batch: MicroBatch, keys: Option<Arc<[u64]>>) -> PackedSequence {
        let bounds = micro_batch.rows.windows(2);
        let rows = bounds.map(|row| &micro_batch.tokens[row[0]..row[1]]);
        let rows: Vec<&[u32]> = rows.collect();
        let (sequence, places) = if self.share_prefixes && keys.is_none() {
            let shared = self.sharing.packed(&rows);
            (shared.sequence, shared.places.concat())
        } else {
            let sequence = Sequence {
                dropout_keys: keys,
                ..Sequence::from_rows(&rows)
            };
            let places = (0..sequence.len() as u32).collect();
            (sequence, places)
        };
        // Masked tokens have a negative target.
        let targets = micro_batch.targets.iter().zip(places);
        let targets = targets.filter_map(|(token, place)| {
            let token = u32::try_from(*token).ok()?;
            Some(Target { place, token })
        });
        PackedSequence {
            sequence,
            targets: targets.collect(),
            tokens: micro_batch.tokens.len(),
            micro_batch,
        }
    }
}

/// A step that has been read, tokenised and packed.
pub(crate) struct Ready {
    /// Where its examples start in the data.
    pub(crate) at: Cursor,
    /// Where the examples of the next step start.
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

/// The keys of dropout's random numbers, one per token. A key depends on the seed, the epoch, the example and the token's
/// position in it, but not on how the batch is packed.
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
