//! Micro-batches on their way through the places of a model, forward and backward, several at a time.
//!
//! Each place records its layers as a graph of its own: hidden states enter it as a leaf, and its backward pass begins at the
//! gradient that the place above it found. With one place there is one graph.
//!
//! A device computes its work in the order in which it was queued. So a place must be given the forward pass of the next micro-batch
//! before the backward pass of this one, which waits for the places above. The order is that of PipeDream-Flush, "one forward, one
//! backward" (Narayanan et al. 2021, section 2.2): place p of P keeps the activations of P - p micro-batches.
//!
//! Axes: P places, T tokens, H hidden size.

use std::collections::VecDeque;

use burn::tensor::Tensor;
use simmer_kernels::{given_gradient, profile};

use crate::backward::{KeptInputs, Recompute, backward_from, leaf};
use crate::llama::LlamaForCausalLM;
use crate::offload::Part;
use crate::segments::{SegmentGradients, Segments};
use crate::sequence::{Sequence, Target};

/// A micro-batch between its passes.
pub(crate) struct Flight<'a> {
    model: &'a LlamaForCausalLM,
    segments: &'a Segments,
    micro_batch: (&'a Sequence, &'a [Target]),
    /// Factor of the loss whose gradients are computed.
    factor: f64,
    recompute: Recompute,
    /// The lowest layer whose input needs a gradient.
    lowest: usize,
    /// What each place keeps for its backward pass.
    kept: Vec<Kept<'a>>,
    /// Hidden states for the next place, `[T, H]`.
    hidden: Option<Tensor<2>>,
    /// Their gradient for the place below, `[T, H]`.
    gradient: Option<Tensor<2>>,
    loss: Option<Tensor<1>>,
    found: SegmentGradients,
}

/// What a place keeps for its backward pass.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each place of a micro-batch that is on its way"
)]
enum Kept<'a> {
    /// The recorded result of its layers, and what they read unless it is the embedding.
    Layers { x: Option<Tensor<2>>, y: Tensor<2> },
    /// The recorded loss.
    Loss {
        x: Option<Tensor<2>>,
        loss: Tensor<1>,
    },
    /// The inputs of layers, which run again.
    Inputs {
        x: Tensor<2>,
        inputs: KeptInputs<'a>,
        hidden: Tensor<2>,
    },
}

impl<'a> Flight<'a> {
    pub(crate) fn new(
        model: &'a LlamaForCausalLM,
        segments: &'a Segments,
        micro_batch: (&'a Sequence, &'a [Target]),
        factor: f64,
        recompute: Recompute,
    ) -> Self {
        Self {
            model,
            segments,
            micro_batch,
            factor,
            recompute,
            lowest: 0,
            kept: Vec::new(),
            hidden: None,
            gradient: None,
            loss: None,
            found: vec![None; segments.all().len()],
        }
    }

    fn is_last(&self, place: usize) -> bool {
        place + 1 == self.model.places()
    }

    /// The forward pass of a place, after those of the places below.
    pub(crate) fn forward(&mut self, place: usize) {
        let _forward = profile::phase("forward");
        let (model, (sequence, targets)) = (self.model, self.micro_batch);
        let pass = model.pass(sequence, None, place);
        let x = self.entering(place);
        let kept = if self.recompute == Recompute::None {
            let input = (place > 0).then(|| x.clone());
            let y = model.through(model.layers_of(place), x, &pass, None);
            if self.is_last(place) {
                model.enter(Part::Head, Some(Part::Layer(0)));
                let loss = model.loss_of_hidden(y, sequence, targets);
                self.loss = Some(loss.clone().inner());
                Kept::Loss { x: input, loss }
            } else {
                self.hidden = Some(y.clone().inner());
                Kept::Layers { x: input, y }
            }
        } else {
            let (lowest, recompute) = (self.lowest, self.recompute);
            let layers = model.layers_of(place);
            let inner = x.clone().inner();
            let (inputs, hidden) = model.keeping_inputs(layers, inner, pass, lowest, recompute);
            if !self.is_last(place) {
                self.hidden = Some(hidden.clone());
            }
            Kept::Inputs { x, inputs, hidden }
        };
        self.kept.push(kept);
    }

    /// What the layers of a place read.
    fn entering(&mut self, place: usize) -> Tensor<2> {
        let model = self.model;
        let Some(hidden) = self.hidden.take() else {
            let embedded = model.embed(self.micro_batch.0);
            if model.places() > 1 || self.recompute != Recompute::None {
                self.lowest = model.lowest_wanted(&embedded);
            }
            return embedded;
        };
        let first = model.layers_of(place).start;
        leaf(model.at(place, hidden), first >= self.lowest)
    }

    /// The backward pass of a place, after those of the places above.
    pub(crate) fn backward(&mut self, place: usize) {
        let _backward = profile::phase("backward");
        let (model, segments) = (self.model, self.segments);
        let above = self.gradient.take().map(|dy| model.at(place, dy));
        let Some(kept) = self.kept.pop() else { return };
        self.gradient = match kept {
            Kept::Loss { x, loss } => {
                let mut recorded = (loss * self.factor).backward();
                segments.take(model, 0, &mut recorded, &mut self.found);
                x.and_then(|x| x.grad_remove(&mut recorded))
            }
            Kept::Layers { x, y } => above.filter(|_| y.is_tracked()).and_then(|dy| {
                let mut recorded = given_gradient(y, Tensor::from_inner(dy)).backward();
                if place == 0 {
                    let embedding = &model.model.embed_tokens;
                    segments.take(embedding, 0, &mut recorded, &mut self.found);
                }
                for index in model.layers_of(place) {
                    let layer = &model.model.layers[index];
                    segments.take_layer(layer, index, &mut recorded, &mut self.found);
                }
                x.and_then(|x| x.grad_remove(&mut recorded))
            }),
            Kept::Inputs { x, inputs, hidden } => {
                let dx = if self.is_last(place) {
                    self.through_head(hidden)
                } else {
                    above
                };
                let layers = model.layers_of(place);
                let dx = model.again(layers, inputs, dx, segments, &mut self.found);
                if let (0, Some(dx)) = (place, &dx) {
                    let mut recorded = backward_from(x, dx.clone());
                    segments.take(model, 0, &mut recorded, &mut self.found);
                }
                dx
            }
        };
    }

    /// The loss of the hidden states after the last layer, and their gradient.
    fn through_head(&mut self, hidden: Tensor<2>) -> Option<Tensor<2>> {
        let (model, (sequence, targets)) = (self.model, self.micro_batch);
        let count = model.model.layers.len();
        let x = leaf(hidden, self.lowest <= count);
        model.enter(Part::Head, count.checked_sub(1).map(Part::Layer));
        let loss = model.loss_of_hidden(x.clone(), sequence, targets);
        self.loss = Some(loss.clone().inner());
        let mut recorded = (loss * self.factor).backward();
        self.segments.take(model, 0, &mut recorded, &mut self.found);
        x.grad_remove(&mut recorded) // [T, H]
    }

    /// The loss and the gradients, after all passes.
    pub(crate) fn finish(self) -> (Tensor<1>, SegmentGradients) {
        let Some(loss) = self.loss else {
            unreachable!("the last place has computed the loss");
        };
        (loss, self.found)
    }
}

/// A pass of one micro-batch through one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    place: usize,
    micro_batch: usize,
    is_forward: bool,
}

/// The order in which the host queues the passes of so many micro-batches through so many places. A pass comes after those that it
/// waits for. Place p of P begins with P - p forward passes; then backward and forward passes take turns. So with one place a
/// micro-batch comes after another.
fn schedule(places: usize, micro_batches: usize) -> Vec<Task> {
    let mut programs: Vec<VecDeque<Task>> = (0..places)
        .map(|place| {
            let task = |micro_batch, is_forward| Task {
                place,
                micro_batch,
                is_forward,
            };
            let ahead = (places - place).min(micro_batches);
            let first = (0..ahead).map(|at| task(at, true));
            let turns = (0..micro_batches).flat_map(|at| {
                let next = (at + ahead < micro_batches).then(|| task(at + ahead, true));
                std::iter::once(task(at, false)).chain(next)
            });
            first.chain(turns).collect()
        })
        .collect();
    // micro-batches whose passes are queued, by place
    let mut forward = vec![0; places];
    let mut backward = vec![0; places];
    let mut all = Vec::new();
    while programs.iter().any(|program| !program.is_empty()) {
        for place in 0..places {
            // up to the next backward pass, so that no place waits long for its share of the host
            let mut taken = 0;
            while let Some(task) = programs[place].front().copied() {
                let at = task.micro_batch;
                let ready = if task.is_forward {
                    place == 0 || forward[place - 1] > at
                } else {
                    place + 1 == places || backward[place + 1] > at
                };
                if !ready || (taken > 0 && !task.is_forward) {
                    break;
                }
                let passes = if task.is_forward {
                    &mut forward
                } else {
                    &mut backward
                };
                passes[place] += 1;
                taken += 1;
                programs[place].pop_front();
                all.push(task);
            }
        }
    }
    all
}

impl LlamaForCausalLM {
    /// As [`LlamaForCausalLM::loss_and_segment_gradients`] of several micro-batches, which are passed to `finished` in their order.
    /// If several devices share the layers, some micro-batches are on their way at a time, so that all devices compute.
    ///
    /// `goes_on` is asked before each micro-batch; if it says no, the result is `false`, and those on their way are dropped.
    ///
    /// # Panics
    /// As [`LlamaForCausalLM::loss`].
    pub fn each_loss_and_gradients(
        &self,
        segments: &Segments,
        micro_batches: &[(&Sequence, &[Target])],
        factor: f64,
        recompute: Recompute,
        goes_on: &dyn Fn() -> bool,
        finished: &mut dyn FnMut(Tensor<1>, SegmentGradients),
    ) -> bool {
        let mut flights: VecDeque<Flight<'_>> = VecDeque::new();
        let mut done = 0;
        for task in schedule(self.places(), micro_batches.len()) {
            let Task {
                place,
                micro_batch,
                is_forward,
            } = task;
            if is_forward && place == 0 {
                if !goes_on() {
                    return false;
                }
                let one = micro_batches[micro_batch];
                flights.push_back(Flight::new(self, segments, one, factor, recompute));
            }
            let flight = &mut flights[micro_batch - done];
            if is_forward {
                flight.forward(place);
            } else {
                flight.backward(place);
            }
            if !is_forward
                && place == 0
                && let Some(flight) = flights.pop_front()
            {
                done += 1;
                let (loss, gradients) = flight.finish();
                finished(loss, gradients);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
