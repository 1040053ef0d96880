//! The factors that low-rank branches start at, of all modules of a model.

use rayon::prelude::*;
use simmer_checkpoint::layout::ModuleKind;

use super::AdapterError;
use super::attach::{Starts, no_field};
use super::init::Factors;
use super::targets::{Selected, Selection};
use crate::groups::groups;
use crate::llama::LlamaForCausalLM;

/// The most elements of weights that are decomposed at the same time.
const AT_A_TIME: usize = 1 << 26;

/// Modules in groups whose weights are decomposed at the same time.
pub(super) fn decomposed_together<M: AsRef<Selected>>(modules: &[M]) -> impl Iterator<Item = &[M]> {
    groups(modules, AT_A_TIME, |module| {
        module.as_ref().shape.iter().product()
    })
}

/// The factors that the adapters of modules start with; `None` for those that do not start at factors of their weight.
///
/// Those of a checkpoint are zero until it is loaded. So are those of a module in `without_start`, from whose weight the start has
/// been subtracted.
///
/// # Errors
/// A module of the family's table for which the model has no field.
pub(super) fn starting_factors(
    model: &mut LlamaForCausalLM,
    selection: &Selection,
    seed: u64,
    starts: Starts,
    without_start: &dyn Fn(&str) -> bool,
) -> Result<Vec<Option<Factors>>, AdapterError> {
    let is_zero = |module: &Selected| starts == Starts::OfCheckpoint || without_start(&module.name);
    let mut found = Vec::with_capacity(selection.adapted.len());
    for modules in decomposed_together(&selection.adapted) {
        let weights = modules.iter().map(|module| {
            let is_computed = module.init.is_of_weight() && !is_zero(module);
            let weight = is_computed.then(|| starting_weight(model, module));
            weight.transpose()
        });
        let weights: Vec<Option<Vec<f32>>> = weights.collect::<Result<_, _>>()?;
        let factors = modules.par_iter().zip(weights);
        let factors = factors.map(|(module, weight)| match weight {
            Some(weight) => module.factors(&weight, seed),
            None => module.no_factors(),
        });
        found.extend(factors.collect::<Vec<_>>());
    }
    Ok(found)
}

/// The elements of a weight that an adapter starts at.
fn starting_weight(
    model: &mut LlamaForCausalLM,
    module: &Selected,
) -> Result<Vec<f32>, AdapterError> {
    let is_embedding = module.kind == ModuleKind::Embedding;
    let device = model.device_of_module(module.layer, is_embedding);
    let weight = if module.kind == ModuleKind::OutputHead {
        model.lm_head.weight(&model.model.embed_tokens)
    } else {
        let linear = model.linear_mut(module.layer, module.module.role);
        &linear.ok_or_else(|| no_field(&module.name))?.weight
    };
    let values = weight.tensor(&device).inner().into_data();
    Ok(values.iter::<f32>().collect())
}
