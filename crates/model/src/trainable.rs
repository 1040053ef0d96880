//! Which tensors of a model are trained: their values, shapes and gradients, by name.

use std::collections::BTreeMap;

use burn::tensor::Gradients;

use crate::llama::LlamaForCausalLM;
use crate::parameters::{
    Parameters, all_trained, shapes_of, starts_of, values_of, with_starts, with_values,
};
use crate::segments::Segments;

impl LlamaForCausalLM {
    /// The values of all trainable tensors.
    pub fn trainable(&self) -> Parameters {
        values_of(self)
    }

    /// The shapes of all trainable tensors.
    pub fn trainable_shapes(&self) -> BTreeMap<String, Vec<usize>> {
        shapes_of(self)
    }

    /// Takes the gradients of all trainable tensors out of `gradients`.
    ///
    /// A tensor that the loss does not depend on has no entry.
    pub fn gradients(&self, gradients: &mut Gradients) -> Parameters {
        let segments = Segments::of(self);
        segments.named_gradients(segments.take_all(self, gradients))
    }

    /// The model with new values for its trainable tensors.
    ///
    /// # Panics
    /// If a trainable tensor has no value, or a value of another size.
    pub fn with_trainable(self, values: &Parameters) -> Self {
        with_values(self, values)
    }

    /// What adapters that start at factors of the weights started with, by name. It is not trained, but a training checkpoint
    /// needs it.
    pub fn starts(&self) -> Parameters {
        starts_of(self)
    }

    /// The model with other starts; those without a value stay.
    ///
    /// # Panics
    /// If a start has a value of another size.
    #[must_use]
    pub fn with_starts(self, values: &Parameters) -> Self {
        with_starts(self, values)
    }

    /// The model with every weight in f32 and trainable.
    pub fn train_all(self) -> Self {
        all_trained(self)
    }
}
