//! Training rows on their way through a model, one layer at a time, so that the inputs of one layer are in memory and not those of all.
//!
//! Axes: T tokens, I input features, H hidden size.

use burn::module::Module;
use burn::tensor::Tensor;

use super::super::targets::Selected;
use crate::groups::groups;
use crate::input_record::InputRecord;
use crate::llama::LlamaForCausalLM;
use crate::sequence::Sequence;

/// Tokens whose inputs are kept: more change little.
const TOKENS: usize = 8192;

/// Rows before a layer.
pub(super) struct Walk {
    batches: Vec<Batch>,
    /// The layer that they enter next.
    next: usize,
    /// Of so many tokens the inputs of one are kept.
    every: usize,
}

struct Batch {
    sequence: Sequence,
    /// `[T, H]`
    hidden: Tensor<2>,
}

impl Walk {
    /// Rows before the first layer, as far as the model's context takes them; at most `tokens` are computed at a time, and one row
    /// at least.
    pub(super) fn new(model: &LlamaForCausalLM, rows: &[&[u32]], tokens: usize) -> Self {
        let model = model.valid();
        let context = model.config().max_position_embeddings;
        let rows = rows.iter().map(|row| &row[..row.len().min(context)]);
        let rows: Vec<&[u32]> = rows.collect();
        let batches = groups(&rows, tokens, |row| row.len()).map(|rows| {
            let sequence = Sequence::from_rows(rows);
            let hidden = model.embed(&sequence);
            Batch { sequence, hidden }
        });
        let all: usize = rows.iter().map(|row| row.len()).sum();
        Self {
            batches: batches.collect(),
            next: 0,
            every: all.div_ceil(TOKENS),
        }
    }

    /// Takes the rows through the layers up to one, and returns what modules of that layer read; `None` for a module that is no linear
    /// layer. Layers are asked for in ascending order.
    ///
    /// # Shapes
    /// Results: `[T, I]`.
    pub(super) fn inputs(
        &mut self,
        model: &mut LlamaForCausalLM,
        layer: usize,
        modules: &[&Selected],
    ) -> Vec<Option<Vec<f32>>> {
        while self.next < layer {
            self.step(&model.valid());
        }
        let records: Vec<Option<InputRecord>> = modules
            .iter()
            .map(|module| {
                let record = InputRecord::of_every(self.every);
                let linear = model.linear_mut(module.layer, module.module.role)?;
                linear.watched = Some(record.clone());
                Some(record)
            })
            .collect();
        self.step(&model.valid());
        for module in modules {
            if let Some(linear) = model.linear_mut(module.layer, module.module.role) {
                linear.watched = None;
            }
        }
        let inputs = records.into_iter();
        inputs
            .map(|record| record.map(|record| record.take()))
            .collect()
    }

    /// Takes the rows through the next layer.
    fn step(&mut self, model: &LlamaForCausalLM) {
        let (layer, place) = (self.next, model.places.of_layer(self.next));
        for Batch { sequence, hidden } in &mut self.batches {
            let pass = model.pass(sequence, None, place);
            let x = model.at(place, hidden.clone());
            *hidden = model.through(layer..layer + 1, x, &pass, None);
        }
        self.next += 1;
    }
}
