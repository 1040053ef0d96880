//! Low-rank branches that start at the error of a quantised weight, so that the model starts nearer to the one that was not
//! quantised (`init_lora_weights = "loftq"`, `"qera"`).
//!
//! With the error `E = W - Q` of a quantised weight Q, LoftQ (with one iteration) starts at the r largest singular values of E. This
//! is best for an input whose features are of one size. QERA takes those of `E S`, where S is the diagonal of the root mean squares
//! of the input features, and `A = Aₛ S⁻¹`: best for the output of the layer, if features do not depend on each other.
//!
//! The singular values are found by a randomised decomposition.
//!
//! Source: Li et al. 2023 (LoftQ), algorithm 1; Zhang et al. 2024 (QERA), theorem 2 (QERA-approx).
//!
//! Axes: O output features, I input features, r rank.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use simmer_checkpoint::layout::TensorLayout;

use super::attach::{AT_A_TIME, peft_keys};
use super::decomposition::{Matrix, randomised};
use super::init::{Factors, Init};
use super::kind;
use super::peft::KEY_PREFIX;
use super::targets::{Selected, Selection};
use crate::base::{Base, BaseError};
use crate::input_squares::InputSquares;
use crate::llama::LlamaForCausalLM;
use crate::sequence::Sequence;

/// Products with the error and its transpose. The singular values of an error differ little, so that more of them are needed than for
/// a weight.
const ITERATIONS: usize = 8;
/// The smallest size of a feature, as a fraction of the mean of all: a feature that is always zero would be divided by zero.
const SMALLEST: f32 = 0.01;

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
    let quantised: Vec<&Selected> = selection
        .adapted
        .iter()
        .filter(|module| base.type_on_load(&weight(base, module)).is_some())
        .collect();
    let mut sizes = vec![None; quantised.len()];
    if init == Init::Qera {
        sizes = sizes_of_inputs(&mut model, &quantised, rows, tokens);
    }
    let mut rest = &quantised[..];
    let mut starts = Vec::with_capacity(quantised.len());
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest));
        let errors = now
            .iter()
            .map(|module| error(&mut model, module, base, seed));
        let errors: Vec<Vec<f32>> = errors.collect::<Result<_, _>>()?;
        let factors = now.par_iter().zip(errors).zip(sizes.par_drain(..now.len()));
        let factors =
            factors.map(|((module, error), sizes)| factors_of(module, error, sizes, seed));
        starts.extend(factors.collect::<Vec<_>>());
        rest = later;
    }
    Ok(with_factors(model, &quantised, starts))
}

/// How many of the first modules are decomposed at the same time.
fn fitting(modules: &[&Selected]) -> usize {
    let mut elements = 0;
    let fit = modules.iter().take_while(|module| {
        elements += module.shape.iter().product::<usize>();
        elements <= AT_A_TIME
    });
    fit.count().max(1)
}

/// The model with these factors in the branches of modules.
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
    for (module, Factors { a, b }) in modules.iter().zip(factors) {
        for (tensor, new) in [(of_a, a), (of_b, b)] {
            let key = format!("{KEY_PREFIX}{}{}", module.name, tensor.end);
            if let Some(name) = names.get(&key) {
                let count = new.len();
                let new = Tensor::from_data(TensorData::new(new, [count]), &device);
                values.insert(name.clone(), new);
            }
        }
    }
    model.with_trainable(&values)
}

fn weight(base: &Base, module: &Selected) -> TensorLayout {
    TensorLayout::weight(&base.config, module.module, module.layer)
}

/// The root mean squares of what modules read.
fn sizes_of_inputs(
    model: &mut LlamaForCausalLM,
    modules: &[&Selected],
    rows: &[&[u32]],
    tokens: usize,
) -> Vec<Option<Vec<f32>>> {
    let squares: Vec<InputSquares> = modules
        .iter()
        .map(|module| {
            let squares = InputSquares::default();
            watch(model, module, Some(squares.clone()));
            squares
        })
        .collect();
    let watched = model.valid();
    let context = model.config().max_position_embeddings;
    let mut rest: Vec<&[u32]> = rows
        .iter()
        .map(|row| &row[..row.len().min(context)])
        .collect();
    while !rest.is_empty() {
        let mut count = 0;
        let fitting = rest.iter().take_while(|row| {
            count += row.len();
            count <= tokens
        });
        let fitting = fitting.count().max(1);
        watched.hidden(&Sequence::from_rows(&rest[..fitting]), None);
        rest.drain(..fitting);
    }
    for module in modules {
        watch(model, module, None);
    }
    squares.iter().map(InputSquares::root_means).collect()
}

fn watch(model: &mut LlamaForCausalLM, module: &Selected, squares: Option<InputSquares>) {
    if let Some(linear) = model.linear_mut(module.layer, module.module.role) {
        linear.watched = squares;
    }
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

/// The factors of a module. Ranks beyond the sides of the weight stay zero.
fn factors_of(
    module: &Selected,
    mut error: Vec<f32>,
    sizes: Option<Vec<f32>>,
    seed: u64,
) -> Factors {
    let ([outputs, inputs], rank) = (module.shape, module.rank);
    let sizes = sizes.map(without_zeros);
    if let Some(sizes) = &sizes {
        by_column(&mut error, sizes, |error, size| error * size);
    }
    let most = rank.min(outputs).min(inputs);
    let matrix = Matrix {
        values: &error,
        shape: module.shape,
    };
    let stream = format!("{}.error", module.name);
    let found = randomised(matrix, most, ITERATIONS, seed, &stream);
    let Factors { mut a, b } = Factors::of_values(found, module.scaling);
    if let Some(sizes) = &sizes {
        by_column(&mut a, sizes, |a, size| a / size);
    }
    a.resize(rank * inputs, 0.0);
    let b = b.chunks_exact(most).flat_map(|row| {
        let rest = std::iter::repeat_n(0.0, rank - most);
        row.iter().copied().chain(rest)
    });
    Factors { a, b: b.collect() }
}

/// Sizes by which one can divide.
fn without_zeros(mut sizes: Vec<f32>) -> Vec<f32> {
    let mean = sizes.iter().sum::<f32>() / sizes.len() as f32;
    let least = (SMALLEST * mean).max(f32::MIN_POSITIVE);
    for size in &mut sizes {
        *size = size.max(least);
    }
    sizes
}

/// Changes each element of a matrix by the size of its column.
fn by_column(matrix: &mut [f32], sizes: &[f32], f: fn(f32, f32) -> f32) {
    for row in matrix.chunks_exact_mut(sizes.len()) {
        for (value, size) in row.iter_mut().zip(sizes) {
            *value = f(*value, *size);
        }
    }
}

#[cfg(test)]
mod tests;
