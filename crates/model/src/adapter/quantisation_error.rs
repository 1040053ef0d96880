//! Low-rank branches that start at the error of a quantised weight, so that the model starts nearer to the one that was not
//! quantised (`init_lora_weights = "loftq"`, `"qera"`).
//!
//! With the error `E = W - Q` of a quantised weight Q, LoftQ (with one iteration) starts at the r largest singular values of E. This
//! is best if nothing is known of the layer's inputs. QERA takes the branch that leaves the least error of the layer's outputs,
//! `‖(E - B A) Xᵀ‖`, for the inputs X of some training rows: the columns of B are the first left singular vectors U of `E Xᵀ`, and
//! `B A = U Uᵀ E`.
//!
//! The authors of QERA give the same branch by the square root of `XᵀX`, which takes I² of memory and I³ of time for each layer. Here
//! `E Xᵀ` is not formed either: its singular vectors are found by a randomised decomposition, which multiplies E and X with thin matrices.
//!
//! Source: Li et al. 2023 (LoftQ), algorithm 1; Zhang et al. 2024 (QERA), theorem 1 (QERA-exact).
//!
//! Axes: O output features, I input features, T tokens, r rank.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use simmer_checkpoint::layout::TensorLayout;

use self::walk::Walk;
use super::decomposition::{Matrix, Outputs, Products, Truncated, randomised};
use super::init::{Factors, Init};
use super::kind;
use super::peft::KEY_PREFIX;
use super::saved::peft_keys;
use super::starting_factors::decomposed_together;
use super::targets::{Selected, Selection};
use crate::base::{Base, BaseError};
use crate::llama::LlamaForCausalLM;

mod walk;

/// Products with the error and its transpose. The singular values of an error differ little, so that more of them are needed than for
/// a weight.
const ITERATIONS: usize = 8;
/// The smallest part of a layer's outputs that a branch makes up for, as a fraction of the largest: A would be large for less.
const SMALLEST: f64 = 1e-4;

/// Sets A and B of a new adapter so that they make up for the error of the weights that are quantised while they are loaded. `rows`
/// are training rows, for QERA; at most `tokens` of them are computed at a time.
///
/// # Errors
/// If the weights cannot be read again.
pub fn make_up_for_quantisation(
    mut model: LlamaForCausalLM,
    selection: &Selection,
    init: Init,
    base: &Base,
    rows: &[&[u32]],
    tokens: usize,
    seed: u64,
) -> Result<LlamaForCausalLM, BaseError> {
    let adapted = selection.adapted.iter();
    let mut quantised: Vec<&Selected> = adapted
        .filter(|module| base.type_on_load(&weight(base, module)).is_some())
        .collect();
    quantised.sort_by_key(|module| module.layer);
    let mut walk = (init == Init::Qera).then(|| Walk::new(&model, rows, tokens));
    let mut starts = Vec::with_capacity(quantised.len());
    for modules in quantised.chunk_by(|one, next| one.layer == next.layer) {
        let mut inputs = match (&mut walk, modules[0].layer) {
            (Some(walk), Some(layer)) => walk.inputs(&mut model, layer, modules),
            _ => vec![None; modules.len()],
        };
        for modules in decomposed_together(modules) {
            let errors = modules
                .iter()
                .map(|module| error(&mut model, module, base, seed));
            let errors: Vec<Vec<f32>> = errors.collect::<Result<_, _>>()?;
            let inputs = inputs.par_drain(..modules.len());
            let factors = modules.par_iter().zip(errors).zip(inputs);
            let factors =
                factors.map(|((module, error), inputs)| factors_of(module, &error, inputs, seed));
            starts.extend(factors.collect::<Vec<_>>());
        }
    }
    Ok(with_factors(model, &quantised, starts))
}

/// The model with these factors in the branches of modules. Rows of A that are zero keep their random start, as in LoRA: B is zero beside
/// them, and no gradient would reach either.
fn with_factors(
    model: LlamaForCausalLM,
    modules: &[&Selected],
    factors: Vec<Factors>,
) -> LlamaForCausalLM {
    let names: BTreeMap<String, String> = peft_keys(&model)
        .into_iter()
        .map(|(name, key)| (key, name))
        .collect();
    let device = model.device().without_autodiff();
    let [of_a, of_b] = kind::factors(false);
    let mut values = model.trainable();
    for (module, Factors { mut a, b }) in modules.iter().zip(factors) {
        let name = |end: &str| names.get(&format!("{KEY_PREFIX}{}{end}", module.name));
        let (Some(name_of_a), Some(name_of_b)) = (name(of_a.end), name(of_b.end)) else {
            continue;
        };
        if let Some(random) = values.get(name_of_a) {
            let random: Vec<f32> = random.to_data().iter::<f32>().collect();
            replace_zero_rows(&mut a, &random, module.shape[1]);
        }
        for (name, new) in [(name_of_a, a), (name_of_b, b)] {
            let count = new.len();
            let new = Tensor::from_data(TensorData::new(new, [count]), &device);
            values.insert(name.clone(), new);
        }
    }
    model.with_trainable(&values)
}

/// Replaces the rows of a matrix that are zero by those of another.
fn replace_zero_rows(matrix: &mut [f32], others: &[f32], columns: usize) {
    let pairs = matrix.chunks_mut(columns).zip(others.chunks(columns));
    for (row, other) in pairs.filter(|(row, _)| row.iter().all(|value| *value == 0.0)) {
        row.copy_from_slice(other);
    }
}

fn weight(base: &Base, module: &Selected) -> TensorLayout {
    TensorLayout::weight(&base.config, module.module, module.layer)
}

/// `W - Q`
///
/// # Shapes
/// Result: `[O, I]`.
fn error(
    model: &mut LlamaForCausalLM,
    module: &Selected,
    base: &Base,
    seed: u64,
) -> Result<Vec<f32>, BaseError> {
    let mut error = base.before_quantisation(&weight(base, module), seed)?;
    let device = model.device_of_module(module.layer, false);
    if let Some(linear) = model.linear_mut(module.layer, module.module.role) {
        let quantised = linear.weight.tensor(&device).inner().into_data();
        for (error, quantised) in error.iter_mut().zip(quantised.iter::<f32>()) {
            *error -= quantised;
        }
    }
    Ok(error)
}

/// The factors of a module. Ranks beyond the sides of the weight, and beyond the number of inputs, are zero.
///
/// # Shapes
/// `error`: `[O, I]`. `inputs`: `[T, I]`.
fn factors_of(module: &Selected, error: &[f32], inputs: Option<Vec<f32>>, seed: u64) -> Factors {
    let ([outputs, features], rank) = (module.shape, module.rank);
    let most = rank.min(outputs).min(features);
    let error = Matrix {
        values: error,
        shape: module.shape,
    };
    let stream = format!("{}.error", module.name);
    let found = match &inputs {
        None => randomised(error, most, ITERATIONS, seed, &stream),
        Some(inputs) => {
            let tokens = inputs.len() / features;
            let inputs = Matrix {
                values: inputs,
                shape: [tokens, features],
            };
            let weight = error;
            let outputs = Outputs { weight, inputs };
            let found = randomised(outputs, most, ITERATIONS, seed, &stream);
            projected(found, error, tokens)
        }
    };
    let count = found.values.len();
    let Factors { mut a, b } = Factors::of_values(found, module.scaling);
    a.resize(rank * features, 0.0);
    let row = |at| {
        let row = &b[at * count..][..count];
        let rest = std::iter::repeat_n(0.0, rank - count);
        row.iter().copied().chain(rest)
    };
    let b = (0..outputs).flat_map(row).collect();
    Factors { a, b }
}

/// `U Uᵀ E`, where U are the left vectors of the decomposition of `E Xᵀ`. The values become root mean squares over tokens, so that a
/// column of B is as long as what its row of A computes from the inputs.
fn projected(mut found: Truncated, error: Matrix<'_>, tokens: usize) -> Truncated {
    let least = SMALLEST * found.values.first().copied().unwrap_or_default();
    found.right = error.transposed_times(&found.left);
    for (row, value) in found.right.iter_mut().zip(&mut found.values) {
        let is_small = *value <= least;
        *value = if is_small {
            0.0
        } else {
            *value / (tokens as f64).sqrt()
        };
        let factor = if is_small { 0.0 } else { value.recip() };
        for element in row {
            *element *= factor;
        }
    }
    found
}

#[cfg(test)]
mod tests;
