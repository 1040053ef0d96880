//! Loss and gradients of a packed sequence, with or without gradient checkpointing.
//!
//! Axes: T tokens, H hidden size.

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};
use serde::{Deserialize, Serialize};
use simmer_kernels::{given_gradient, profile};

use crate::decoder::Pass;
use crate::llama::LlamaForCausalLM;
use crate::offload::Part;
use crate::parameters::{Parameters, is_trained};
use crate::segments::{SegmentGradients, Segments};
use crate::sequence::{Sequence, Target};

/// Gradient checkpointing: which activations the backward pass recomputes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Recompute {
    /// None: the activations of every layer are kept.
    #[default]
    None,
    /// Those of the MLPs, which are the largest. An MLP keeps only its input and runs again; attention keeps its
    /// activations.
    Mlp,
    /// Those of every decoder layer. A layer keeps only its input and runs again: activations of one layer at a
    /// time, for the time of one more forward pass.
    Layer,
}

impl LlamaForCausalLM {
    /// The loss, as [`LlamaForCausalLM::loss`], and the gradients of `factor` times the loss.
    ///
    /// A trainable tensor that the loss does not depend on has no gradient.
    ///
    /// # Panics
    /// As [`LlamaForCausalLM::loss`].
    pub fn loss_and_gradients(
        &self,
        sequence: &Sequence,
        targets: &[Target],
        factor: f64,
        recompute: Recompute,
    ) -> (Tensor<1>, Parameters) {
        let segments = Segments::of(self);
        let (loss, gradients) =
            self.loss_and_segment_gradients(&segments, sequence, targets, factor, recompute);
        (loss, segments.named_gradients(gradients))
    }

    /// As [`LlamaForCausalLM::loss_and_gradients`], with the gradients of the model's segments in order.
    ///
    /// # Panics
    /// As [`LlamaForCausalLM::loss`].
    pub fn loss_and_segment_gradients(
        &self,
        segments: &Segments,
        sequence: &Sequence,
        targets: &[Target],
        factor: f64,
        recompute: Recompute,
    ) -> (Tensor<1>, SegmentGradients) {
        match recompute {
            Recompute::None => self.keeping_all(segments, sequence, targets, factor),
            Recompute::Mlp | Recompute::Layer => {
                self.layer_by_layer(segments, sequence, targets, factor, recompute)
            }
        }
    }

    fn keeping_all(
        &self,
        segments: &Segments,
        sequence: &Sequence,
        targets: &[Target],
        factor: f64,
    ) -> (Tensor<1>, SegmentGradients) {
        let forward = profile::phase("forward");
        let loss = self.loss(sequence, targets);
        drop(forward);
        let _backward = profile::phase("backward");
        let value = loss.clone().inner();
        let mut gradients = (loss * factor).backward();
        (value, segments.take_all(self, &mut gradients))
    }

    fn layer_by_layer(
        &self,
        segments: &Segments,
        sequence: &Sequence,
        targets: &[Target],
        factor: f64,
        recompute: Recompute,
    ) -> (Tensor<1>, SegmentGradients) {
        let forward = profile::phase("forward");
        let pass = self.pass(sequence, None);
        let embedded = self.embed(sequence);
        let lowest = self.lowest_wanted(&embedded);
        let (mut saved, hidden) = self.keeping_inputs(&embedded, &pass, lowest, recompute);
        drop(forward);
        let _backward = profile::phase("backward");
        let x = leaf(hidden, lowest <= self.model.layers.len());
        let top = self.model.layers.len().checked_sub(1);
        self.enter(Part::Head, top.map(Part::Layer));
        let loss = self.loss_of_hidden(x.clone(), sequence, targets);
        let value = loss.clone().inner();
        let mut recorded = (loss * factor).backward();
        let mut found = segments.take_all(self, &mut recorded);
        let mut dx = x.grad_remove(&mut recorded); // [T, H]
        for (index, layer) in self.model.layers.iter().enumerate().rev() {
            let (Some(dy), Some(Some(saved))) = (dx.take(), saved.pop()) else {
                break;
            };
            let below = index.checked_sub(1).filter(|below| below + 1 >= lowest);
            self.enter(Part::Layer(index), below.map(Part::Layer));
            let _layer = profile::phase("layer again");
            let mut through = |y: Tensor<2>, dy: Tensor<2>| {
                let mut recorded = backward_from(y, dy);
                segments.take_layer(layer, index, &mut recorded, &mut found);
                recorded
            };
            let SavedTensors { x, mid } = saved;
            dx = match mid {
                None => {
                    let mut recorded = through(layer.forward(x.clone(), &pass, None), dy);
                    x.grad_remove(&mut recorded)
                }
                Some(mid) => {
                    let input = leaf(mid.clone().inner(), mid.is_tracked());
                    let mut recorded = through(layer.mlp_half(input.clone(), &pass), dy);
                    let dmid = input.grad_remove(&mut recorded);
                    drop(recorded);
                    dmid.and_then(|dmid| x.grad_remove(&mut through(mid, dmid)))
                }
            };
        }
        if let Some(dx) = dx {
            let mut recorded = backward_from(embedded, dx);
            segments.take(self, 0, &mut recorded, &mut found);
        }
        (value, found)
    }

    /// The lowest layer whose input needs a gradient.
    fn lowest_wanted(&self, embedded: &Tensor<2>) -> usize {
        if embedded.is_tracked() {
            return 0;
        }
        let lowest = self.model.layers.iter().position(is_trained);
        lowest.map_or(usize::MAX, |layer| layer + 1)
    }

    /// Runs the layers. Returns what each layer keeps for the backward pass (`None` below the lowest
    /// trainable layer), and the hidden states after the last layer.
    fn keeping_inputs(
        &self,
        embedded: &Tensor<2>,
        pass: &Pass<'_>,
        lowest: usize,
        recompute: Recompute,
    ) -> (Vec<Option<SavedTensors>>, Tensor<2>) {
        let mut hidden = embedded.clone().inner();
        let mut all = Vec::new();
        let plain = pass.valid();
        for (index, layer) in self.model.layers.iter().enumerate() {
            self.enter(Part::Layer(index), Some(self.above(index)));
            let x = leaf(hidden.clone(), index >= lowest);
            let needed = index.saturating_add(1) >= lowest;
            let (saved, y) = match recompute {
                Recompute::Mlp if needed => {
                    let mid = layer.attention_half(x.clone(), pass, None);
                    let y = layer.valid().mlp_half(mid.clone().inner(), &plain);
                    (Some(SavedTensors { x, mid: Some(mid) }), y)
                }
                _ => {
                    let y = layer.valid().forward(hidden, &plain, None);
                    (needed.then_some(SavedTensors { x, mid: None }), y)
                }
            };
            all.push(saved);
            hidden = y;
        }
        (all, hidden)
    }
}

/// What a layer keeps for the backward pass.
struct SavedTensors {
    /// Its input.
    x: Tensor<2>,
    /// The recorded result of its attention half; `None` if the whole layer runs again.
    mid: Option<Tensor<2>>,
}

/// A backward pass that begins at `y`, whose gradient is `dy`.
fn backward_from(y: Tensor<2>, dy: Tensor<2>) -> Gradients {
    let dy = Tensor::from_inner(dy.cast(y.dtype()));
    given_gradient(y, dy).backward()
}

/// A leaf of the autodiff graph, which records a gradient if `wanted`.
fn leaf(x: Tensor<2>, wanted: bool) -> Tensor<2> {
    let x = Tensor::from_inner(x);
    if wanted { x.require_grad() } else { x }
}
