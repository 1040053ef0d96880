//! Loss and gradients of a run, with all activations kept or with those of one layer at a time.
//!
//! Axes: T tokens, H hidden size.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use simmer_kernels::profile;

use crate::llama::{LlamaForCausalLM, Pass};
use crate::parameters::{Parameters, Path, add, gradients_of, is_trained};
use crate::run::{Run, Target};

/// What the backward pass computes again instead of keeping it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing: every layer's activations are kept.
    #[default]
    None,
    /// A layer keeps its input alone and runs again: memory of one layer, time of one more
    /// forward pass.
    Layer,
}

impl LlamaForCausalLM {
    /// The loss as [`LlamaForCausalLM::loss`] gives it, and the gradients of `factor` times it.
    ///
    /// A trained tensor that the loss does not depend on has no gradient.
    ///
    /// # Panics
    /// As [`LlamaForCausalLM::loss`].
    pub fn loss_and_gradients(
        &self,
        run: &Run,
        targets: &[Target],
        factor: f64,
        recompute: Recompute,
    ) -> (Tensor<1>, Parameters) {
        match recompute {
            Recompute::None => self.keeping_all(run, targets, factor),
            Recompute::Layer => self.layer_by_layer(run, targets, factor),
        }
    }

    fn keeping_all(&self, run: &Run, targets: &[Target], factor: f64) -> (Tensor<1>, Parameters) {
        let forward = profile::phase("forward");
        let loss = self.loss(run, targets);
        drop(forward);
        let _backward = profile::phase("backward");
        let value = loss.clone().inner();
        let mut gradients = (loss * factor).backward();
        (value, self.gradients(&mut gradients))
    }

    fn layer_by_layer(
        &self,
        run: &Run,
        targets: &[Target],
        factor: f64,
    ) -> (Tensor<1>, Parameters) {
        let forward = profile::phase("forward");
        let pass = self.pass(run, None);
        let embedded = self.embed(run);
        let mut inputs = self.inputs_of_layers(&embedded, &pass);
        drop(forward);
        let _backward = profile::phase("backward");
        // The lowest layer whose input still has a gradient to pass on.
        let lowest = if embedded.is_tracked() {
            0
        } else {
            self.model
                .layers
                .iter()
                .position(is_trained)
                .map_or(usize::MAX, |layer| layer + 1)
        };
        let mut take_input = || {
            let wanted = inputs.len() > lowest;
            let x = Tensor::from_inner(inputs.pop()?);
            Some(if wanted { x.require_grad() } else { x })
        };
        let Some(x) = take_input() else {
            unreachable!("the last layer has a result")
        };
        let loss = self.loss_of_hidden(x.clone(), run, targets);
        let value = loss.clone().inner();
        let mut recorded = (loss * factor).backward();
        let mut found = self.gradients(&mut recorded);
        let mut dx = x.grad_remove(&mut recorded); // [T, H]
        for (index, layer) in self.model.layers.iter().enumerate().rev() {
            let (Some(dy), Some(x)) = (dx.take(), take_input()) else {
                break;
            };
            let _layer = profile::phase("layer again");
            let y = layer.forward(x.clone(), &pass, None);
            // the derivative of this sum by y is dy
            let mut recorded = (y * Tensor::from_inner(dy)).sum().backward();
            add(
                &mut found,
                gradients_of(layer, Path::of_layer(index), &mut recorded),
            );
            dx = x.grad_remove(&mut recorded);
        }
        if let Some(dx) = dx {
            let mut recorded = (embedded * Tensor::from_inner(dx)).sum().backward();
            add(&mut found, self.gradients(&mut recorded));
        }
        (value, found)
    }

    /// The input of every layer, and the last one's result, without recording.
    fn inputs_of_layers(&self, embedded: &Tensor<2>, pass: &Pass<'_>) -> Vec<Tensor<2>> {
        let mut inputs = vec![embedded.clone().inner()];
        let plain = pass.valid();
        for layer in &self.model.layers {
            let x = inputs[inputs.len() - 1].clone();
            inputs.push(layer.valid().forward(x, &plain, None));
        }
        inputs
    }
}
