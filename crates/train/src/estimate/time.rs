//! The time of a step and of a forward pass.

use std::time::Instant;

use burn::tensor::Tensor;
use simmer_checkpoint::ModelConfig;
use simmer_checkpoint::family::Half;
use simmer_checkpoint::layout::{ModuleKind, modules};
use simmer_kernels::linear;
use simmer_model::base::Precision;
use simmer_model::{Recompute, device};

use super::load::Load;
use super::memory::Layers;
use crate::error::TrainError;

/// A step's time relative to that of its matrix multiplications; the rest is attention, norms, copies and the optimizer.
/// Measured on SmolLM2-135M, where matrix multiplications took 3/4 of a step; the rest is smaller in larger models.
pub(super) const REST: f64 = 1.33;

/// Floating-point operations of a step's matrix multiplications and attention.
pub(super) fn flops(
    config: &ModelConfig,
    layers: &Layers,
    load: &Load,
    recompute: Recompute,
) -> f64 {
    let lowest = layers.lowest().unwrap_or(config.num_hidden_layers);
    let features = |module: &[usize]| module.iter().product::<usize>() as f64;
    let (mut forward, mut backward, mut mlp) = (0.0, 0.0, 0.0);
    for module in modules(config) {
        if module.kind != ModuleKind::Linear {
            continue;
        }
        let half = module.module.map(|row| row.reads.half());
        let flops = 2.0 * features(&module.shape) * load.step_tokens;
        forward += flops;
        if half == Some(Half::Mlp) {
            mlp += flops;
        }
        // the gradient of the weight
        if layers.whole {
            backward += flops;
        }
        // the gradient of the input, if anything below needs it
        if module
            .layer
            .is_some_and(|layer| layer > lowest || layers.embedding)
        {
            backward += flops;
        }
    }
    // attention: scores and weighted sums, once forward and two and a half times backward
    let heads = (config.num_attention_heads * config.head_dim) as f64;
    let attention = 4.0 * load.step_tokens * load.context * heads;
    forward += attention * config.num_hidden_layers as f64;
    backward +=
        2.5 * attention * (config.num_hidden_layers - lowest.min(config.num_hidden_layers)) as f64;
    let again = match recompute {
        Recompute::None => 0.0,
        Recompute::Mlp => mlp,
        Recompute::Layer => forward,
    };
    let head = 2.0 * (config.vocab_size * config.hidden_size) as f64 * load.step_targets;
    forward + backward + again + 2.0 * head
}

/// Floating-point operations of a forward pass with its loss. `context` is the mean number of earlier tokens that a token
/// attends to.
pub(super) fn forward(config: &ModelConfig, tokens: f64, targets: f64, context: f64) -> f64 {
    let linear = modules(config)
        .into_iter()
        .filter(|module| module.kind == ModuleKind::Linear);
    let parameters: usize = linear
        .map(|module| module.shape.iter().product::<usize>())
        .sum();
    let heads = (config.num_attention_heads * config.head_dim) as f64;
    let attention = 4.0 * context * heads * config.num_hidden_layers as f64;
    let head = 2.0 * (config.vocab_size * config.hidden_size) as f64;
    tokens * (2.0 * parameters as f64 + attention) + targets * head
}

/// Tokens in the matrix multiplication that is timed.
const TOKENS: usize = 256;

/// Floating-point operations per second of a matrix multiplication with the model's shape, measured now.
pub(super) fn rate(
    config: &ModelConfig,
    device: &str,
    precision: Precision,
) -> Result<f64, TrainError> {
    let device = device::named(device)?;
    let [i, o] = [config.hidden_size, config.intermediate_size];
    // the time does not depend on the values, and random ones of a large model take seconds to draw
    let filled = |shape: [usize; 2]| Tensor::<2>::full(shape, 0.01, &device);
    let (x, weight) = (filled([TOKENS, i]), filled([o, i]).cast(precision.dtype()));
    let product = || linear(x.clone(), weight.clone());
    let mut best = f64::MAX;
    for _ in 0..4 {
        let begin = Instant::now();
        // a GPU has finished only when the result is read
        let _ = product().sum().into_scalar::<f32>();
        best = best.min(begin.elapsed().as_secs_f64());
    }
    Ok(2.0 * (TOKENS * i * o) as f64 / best)
}
