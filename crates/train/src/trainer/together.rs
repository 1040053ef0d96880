//! Steps and validation losses that several ranks compute together.

use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use simmer_checkpoint::Dtype;
use simmer_checkpoint::numbers::floats;
use simmer_data::Example;
use simmer_kernels::profile;

use super::{Evaluation, Trainer};
use crate::gradient::Partial;
use crate::packing::{Packed, PackedSequence};
use crate::ranks::{
    Message, Order, Part, Place, Ranks, RanksError, Share, TreeSum, connect, connect_all, deal,
    exchange, receive_down, send_down,
};

impl Trainer {
    /// Computes the steps together with other ranks, and adds micro-batches in this order. Full fine-tuning adds them one
    /// after another: each sum that is held would be a copy of the whole model.
    ///
    /// # Errors
    /// Several ranks where the order or full fine-tuning allows only one.
    pub(crate) fn with_ranks(
        mut self,
        ranks: Rc<dyn Ranks>,
        order: Order,
    ) -> Result<Self, RanksError> {
        let size = ranks.size();
        self.order = if self.trained.is_flat() {
            order
        } else {
            Order::Sequential
        };
        if size > 1 && self.order == Order::Sequential {
            return Err(if self.trained.is_flat() {
                RanksError::Sequential { ranks: size }
            } else {
                RanksError::Full { ranks: size }
            });
        }
        self.ranks = ranks;
        Ok(self)
    }

    /// Connects this rank's GPU with those of the others, by the id that rank 0 has sent.
    ///
    /// # Errors
    /// If they cannot be connected.
    pub(crate) fn connect_gpus(&mut self, id: &[u8]) -> Result<(), RanksError> {
        self.ranks = connect(&self.ranks, id, &self.trained.device())?;
        Ok(())
    }

    /// The same as rank 0, if all ranks have GPUs that can be connected, and a text for the user.
    ///
    /// # Errors
    /// If they cannot be connected.
    pub(crate) fn connect_all_gpus(
        &mut self,
        places: &[Place],
    ) -> Result<Option<String>, RanksError> {
        let connected = connect_all(&self.ranks, places, &self.trained.device())?;
        if let Some(ranks) = connected.ranks {
            self.ranks = ranks;
        }
        Ok(connected.notice)
    }

    /// Sends the other ranks the trained tensors, if they have changed, and their shares of a step.
    pub(super) fn start_others(
        &mut self,
        packed: &Packed,
        factor: f64,
        shares: &[Range<usize>],
    ) -> Result<(), RanksError> {
        let size = self.ranks.size();
        if self.optimizer.updates() == 0 && packed.sequences.len() < size {
            return Err(RanksError::TooMany {
                micro_batches: packed.sequences.len(),
                ranks: size,
            });
        }
        self.update_others()?;
        self.others_compute = true;
        for (rank, share) in shares.iter().enumerate().skip(1) {
            let parts = packed.sequences[share.clone()].iter();
            let message = Message::Step(Share {
                factor: factor.to_bits(),
                shares: shares.to_vec(),
                parts: parts.map(PackedSequence::part).collect(),
            });
            self.ranks.send(rank, message.encode())?;
        }
        Ok(())
    }

    fn update_others(&mut self) -> Result<(), RanksError> {
        if !self.others_are_up_to_date
            && let Some(buffer) = self.trained.buffer()
        {
            for rank in 1..self.ranks.size() {
                self.ranks.send(rank, Message::Weights.encode())?;
            }
            if let Some(gpus) = self.ranks.gpus() {
                gpus.copy_of_first(buffer)?;
                self.others_are_up_to_date = true;
                return Ok(());
            }
            let values: Vec<f32> = buffer.into_data().iter::<f32>().collect();
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            send_down(&*self.ranks, &bytes)?;
        }
        self.others_are_up_to_date = true;
        Ok(())
    }

    /// Adds up the sums of all ranks; rank 0 gets the result.
    pub(super) fn exchange(
        &self,
        shares: &[Range<usize>],
        own: TreeSum<Partial>,
    ) -> Result<Option<Partial>, RanksError> {
        let _phase = profile::phase("ranks");
        let device = self.trained.device();
        let segments = self.trained.segments();
        if let Some(gpus) = self.ranks.gpus() {
            let own = own.of_own(Partial::plus);
            let own = own.map_or_else(
                || Partial::zeros(segments, &device),
                |own| own.joined(segments, &device),
            );
            let sum = gpus.sum(own)?;
            let is_first = self.ranks.rank() == 0;
            return Ok(is_first.then(|| Partial::parted(sum, segments)));
        }
        let decode = |bytes: Vec<u8>, from| Partial::decode(&bytes, from, segments, &device);
        exchange(
            &*self.ranks,
            shares,
            own,
            Partial::plus,
            Partial::encode,
            decode,
        )
    }

    /// Replaces the trained tensors by those of rank 0, which it sends now.
    ///
    /// # Errors
    /// If a rank has ended.
    pub(crate) fn receive_trained(&mut self) -> Result<(), RanksError> {
        if let (Some(gpus), Some(buffer)) = (self.ranks.gpus(), self.trained.buffer()) {
            let value = gpus.copy_of_first(buffer)?;
            self.trained.put_buffer(value);
        } else {
            let bytes = receive_down(&*self.ranks)?;
            self.trained.put_flat(floats(&bytes, Dtype::F32));
        }
        Ok(())
    }

    /// Computes this rank's share of a step, and takes part in the sum.
    ///
    /// # Errors
    /// If another rank has ended.
    pub(crate) fn compute_share(&self, share: Share) -> Result<(), RanksError> {
        let sequences: Vec<PackedSequence> = share
            .parts
            .into_iter()
            .map(|part| self.packing.of_part(part))
            .collect();
        let own = &share.shares[self.ranks.rank()];
        let leaves = share.shares.iter().map(|share| share.end).max();
        let factor = f64::from_bits(share.factor);
        let never = AtomicBool::new(false);
        let sums = self.partial_sums(&sequences, own.start, leaves.unwrap_or(0), factor, &never);
        // nothing interrupts it
        if let Ok(sums) = sums {
            self.exchange(&share.shares, sums)?;
        }
        Ok(())
    }

    /// The summed loss of each micro-batch of another rank, without dropout.
    pub(crate) fn measure_parts(&self, parts: Vec<Part>) -> Vec<f64> {
        let sequences = parts.into_iter().map(|part| self.packing.of_part(part));
        let sequences: Vec<PackedSequence> = sequences.collect();
        self.measure(&sequences)
    }

    fn measure(&self, sequences: &[PackedSequence]) -> Vec<f64> {
        let model = self.trained.computing().valid();
        let loss = |packed: &PackedSequence| {
            let loss = model.loss(&packed.sequence, &packed.targets);
            loss.into_scalar::<f64>()
        };
        sequences.iter().map(loss).collect()
    }

    /// Tells the other ranks that the run has ended. One that has ended already is no error.
    pub(crate) fn end_others(&self) {
        if self.others_compute {
            // in the middle of a step they wait for this rank; the launcher ends them with it
            return;
        }
        for rank in 1..self.ranks.size() {
            if self.ranks.send(rank, Message::End.encode()).is_err() {
                return;
            }
        }
        self.ranks.end();
    }

    /// As [`Trainer::evaluate`], together with the other ranks.
    ///
    /// # Errors
    /// If another rank has ended.
    pub(crate) fn evaluate_together(
        &mut self,
        examples: &[Example],
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Option<Evaluation>, RanksError> {
        if self.ranks.size() == 1 {
            return Ok(self.evaluate(examples, stop, progress));
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let packed = self.packing.measured(examples);
        let tokens: Vec<usize> = packed.sequences.iter().map(|one| one.tokens).collect();
        let shares = deal(&tokens, self.ranks.size());
        self.update_others()?;
        for (rank, share) in shares.iter().enumerate().skip(1) {
            let parts = packed.sequences[share.clone()].iter();
            let message = Message::Measure(parts.map(PackedSequence::part).collect());
            self.ranks.send(rank, message.encode())?;
        }
        let mut losses = self.measure(&packed.sequences[shares[0].clone()]);
        for (rank, share) in shares.iter().enumerate().skip(1) {
            let bytes = match self.ranks.receive(rank) {
                Err(RanksError::Stopped) => {
                    self.others_compute = true;
                    return Ok(None);
                }
                received => received?,
            };
            let (found, _) = bytes.as_chunks::<8>();
            if found.len() != share.len() {
                let why = format!("expected {} losses, found {}", share.len(), found.len());
                return Err(RanksError::Message { rank, why });
            }
            losses.extend(found.iter().copied().map(f64::from_le_bytes));
            progress(losses.len(), tokens.len());
        }
        // in the order of one rank
        let mut sum = 0.0;
        for loss in losses {
            sum += loss;
        }
        let targets = packed.targets;
        let loss = sum / targets.max(1) as f64;
        Ok(Some(Evaluation { loss, targets }))
    }
}
