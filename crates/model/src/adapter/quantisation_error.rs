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
    let keys = peft_keys(&model);
    let device = model.device().without_autodiff();
    let [of_a, of_b] = kind::factors(false);
    let mut values = model.trainable();
    let mut all = quantised.into_iter().zip(sizes).peekable();
    while all.peek().is_some() {
        let mut elements = 0;
        let mut together = Vec::new();
        while let Some((module, _)) = all.peek()
            && (together.is_empty()
                || elements + module.shape.iter().product::<usize>() <= AT_A_TIME)
        {
            elements += module.shape.iter().product::<usize>();
            let Some((module, sizes)) = all.next() else {
                break;
            };
            let error = error(&mut model, module, base, seed)?;
            together.push((module, error, sizes));
        }
        let found: Vec<(&Selected, Factors)> = together
            .into_par_iter()
            .map(|(module, error, sizes)| (module, factors(module, error, sizes, seed)))
            .collect();
        for (module, Factors { a, b }) in found {
            for (tensor, new) in [(of_a, a), (of_b, b)] {
                let key = format!("{KEY_PREFIX}{}{}", module.name, tensor.end);
                let name = keys.iter().find(|(_, other)| **other == key);
                if let Some((name, _)) = name {
                    let count = new.len();
                    let new = Tensor::from_data(TensorData::new(new, [count]), &device);
                    values.insert(name.clone(), new);
                }
            }
        }
    }
    Ok(model.with_trainable(&values))
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
fn factors(module: &Selected, mut error: Vec<f32>, sizes: Option<Vec<f32>>, seed: u64) -> Factors {
    let Selected {
        name,
        shape,
        rank,
        scaling,
        ..
    } = module;
    let [outputs, inputs] = *shape;
    let sizes = sizes.map(|mut sizes| {
        let mean = sizes.iter().sum::<f32>() / inputs as f32;
        for size in &mut sizes {
            *size = size.max(SMALLEST * mean).max(f32::MIN_POSITIVE);
        }
        sizes
    });
    if let Some(sizes) = &sizes {
        for row in error.chunks_exact_mut(inputs) {
            for (error, size) in row.iter_mut().zip(sizes) {
                *error *= size;
            }
        }
    }
    let most = (*rank).min(outputs).min(inputs);
    let matrix = Matrix {
        values: &error,
        shape: *shape,
    };
    let found = randomised(matrix, most, ITERATIONS, seed, &format!("{name}.error"));
    let Factors { mut a, b } = Factors::of_values(found, *scaling);
    if let Some(sizes) = &sizes {
        for row in a.chunks_exact_mut(inputs) {
            for (a, size) in row.iter_mut().zip(sizes) {
                *a /= size;
            }
        }
    }
    a.resize(rank * inputs, 0.0);
    let wide = b.chunks_exact(most).flat_map(|row| {
        let rest = std::iter::repeat_n(0.0, rank - most);
        row.iter().copied().chain(rest)
    });
    Factors {
        a,
        b: wide.collect(),
    }
}

#[cfg(test)]
mod tests;
