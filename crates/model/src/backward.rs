//! Loss and gradients of a packed sequence, with or without gradient checkpointing.
//!
//! Axes: T tokens, H hidden size.

use std::ops::Range;

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
use crate::stages::Flight;

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
        let mut flight = Flight::new(self, segments, (sequence, targets), factor, recompute);
        for place in 0..self.places() {
            flight.forward(place);
        }
        for place in (0..self.places()).rev() {
            flight.backward(place);
        }
        flight.finish()
    }

    /// A backward pass through some layers, which run again. `dx` is the gradient of the hidden states above them; the result is
    /// that of those below them, if it is needed.
    pub(crate) fn again(
        &self,
        layers: Range<usize>,
        kept: KeptInputs<'_>,
        mut dx: Option<Tensor<2>>,
        segments: &Segments,
        found: &mut SegmentGradients,
    ) -> Option<Tensor<2>> {
        let KeptInputs {
            pass,
            lowest,
            mut saved,
        } = kept;
        for index in layers.rev() {
            let layer = &self.model.layers[index];
            let (Some(dy), Some(Some(saved))) = (dx.take(), saved.pop()) else {
                break;
            };
            let below = index.checked_sub(1).filter(|below| below + 1 >= lowest);
            self.enter(Part::Layer(index), below.map(Part::Layer));
            let _layer = profile::phase("layer again");
            let mut through = |y: Tensor<2>, dy: Tensor<2>| {
                let mut recorded = backward_from(y, dy);
                segments.take_layer(layer, index, &mut recorded, found);
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
        dx
    }

    /// The lowest layer whose input needs a gradient.
    pub(crate) fn lowest_wanted(&self, embedded: &Tensor<2>) -> usize {
        if embedded.is_tracked() {
            return 0;
        }
        let lowest = self.model.layers.iter().position(is_trained);
        lowest.map_or(usize::MAX, |layer| layer + 1)
    }

    /// Runs some layers on hidden states. Returns what each layer keeps for the backward pass (nothing below the lowest trainable
    /// layer), and the hidden states after the last of them.
    pub(crate) fn keeping_inputs<'a>(
        &self,
        layers: Range<usize>,
        mut hidden: Tensor<2>,
        pass: Pass<'a>,
        lowest: usize,
        recompute: Recompute,
    ) -> (KeptInputs<'a>, Tensor<2>) {
        let mut saved = Vec::new();
        let plain = pass.valid();
        for index in layers {
            let layer = &self.model.layers[index];
            self.enter(Part::Layer(index), Some(self.above(index)));
            let x = leaf(hidden.clone(), index >= lowest);
            let needed = index.saturating_add(1) >= lowest;
            let (kept, y) = match recompute {
                Recompute::Mlp if needed => {
                    let mid = layer.attention_half(x.clone(), &pass, None);
                    let y = layer.valid().mlp_half(mid.clone().inner(), &plain);
                    (Some(SavedTensors { x, mid: Some(mid) }), y)
                }
                _ => {
                    let y = layer.valid().forward(hidden, &plain, None);
                    (needed.then_some(SavedTensors { x, mid: None }), y)
                }
            };
            saved.push(kept);
            hidden = y;
        }
        let kept = KeptInputs {
            pass,
            lowest,
            saved,
        };
        (kept, hidden)
    }
}

/// What some layers keep for a backward pass in which they run again.
pub(crate) struct KeptInputs<'a> {
    pass: Pass<'a>,
    /// The lowest layer whose input needs a gradient.
    lowest: usize,
    /// One for each layer; `None` below the lowest trainable layer.
    saved: Vec<Option<SavedTensors>>,
}

/// What a layer keeps for the backward pass.
struct SavedTensors {
    /// Its input.
    x: Tensor<2>,
    /// The recorded result of its attention half; `None` if the whole layer runs again.
    mid: Option<Tensor<2>>,
}

/// A backward pass that begins at `y`, whose gradient is `dy`.
pub(crate) fn backward_from(y: Tensor<2>, dy: Tensor<2>) -> Gradients {
    let dy = Tensor::from_inner(dy.cast(y.dtype()));
    given_gradient(y, dy).backward()
}

/// A leaf of the autodiff graph, which records a gradient if `wanted`.
pub(crate) fn leaf(x: Tensor<2>, wanted: bool) -> Tensor<2> {
    let x = Tensor::from_inner(x);
    if wanted { x.require_grad() } else { x }
}
