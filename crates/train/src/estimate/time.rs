//! The work of a step and of a forward pass, and the rates of devices.

use std::time::Instant;

use burn::tensor::{Distribution, Tensor};
use simmer_checkpoint::ModelConfig;
use simmer_checkpoint::family::Half;
use simmer_checkpoint::layout::{ModuleKind, modules};
use simmer_kernels::{FP8_STEP, FrozenWeight, StoredWeight, linear};
use simmer_model::base::{Compute, Precision};
use simmer_model::{Recompute, device};

use super::gpu::Rates;
use super::load::Load;
use super::memory::Layers;
use crate::error::TrainError;

/// A step's time relative to that of its matrix multiplications; the rest is attention, norms, copies and the optimizer.
/// Measured on SmolLM2-135M, where matrix multiplications took 3/4 of a step; the rest is smaller in larger models.
pub(super) const REST: f64 = 1.33;

/// Floating-point operations of a step, by operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Matrix multiplications of the layers.
    pub(super) linear: f64,
    /// Scores and weighted sums.
    pub(super) attention: f64,
    /// The output head.
    pub(super) head: f64,
}

impl Work {
    pub(super) fn total(&self) -> f64 {
        self.linear + self.attention + self.head
    }
}

/// Floating-point operations of a step's matrix multiplications and attention.
pub(super) fn flops(
    config: &ModelConfig,
    layers: &Layers,
    load: &Load,
    recompute: Recompute,
) -> Work {
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
    for (index, layer) in layers.each.iter().enumerate() {
        let flops = 2.0 * layer.again as f64 * load.step_tokens;
        forward += flops;
        if index > lowest || layers.embedding {
            backward += flops;
        }
    }
    // attention: scores and weighted sums, once forward and two and a half times backward
    let heads = (config.num_attention_heads * config.head_dim) as f64;
    let once = 4.0 * load.step_tokens * load.context * heads;
    let all_layers = once * config.num_hidden_layers as f64;
    let backward_layers = config.num_hidden_layers - lowest.min(config.num_hidden_layers);
    let attention = all_layers + 2.5 * once * backward_layers as f64;
    let [linear_again, attention_again] = match recompute {
        Recompute::None => [0.0, 0.0],
        Recompute::Mlp => [mlp, 0.0],
        Recompute::Layer => [forward, all_layers],
    };
    let head = 2.0 * (config.vocab_size * config.hidden_size) as f64 * load.step_targets;
    Work {
        linear: forward + backward + linear_again,
        attention: attention + attention_again,
        head: 2.0 * head,
    }
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

/// Tokens in the matrix multiplication that is timed on a processor, and at most on a GPU, which needs many to be fast.
const TOKENS: usize = 256;
const TOKENS_ON_GPU: usize = 8192;

/// Elements of the sum that the rate of a GPU's memory is measured with.
const ELEMENTS: usize = 256 << 20;

/// The shortest of a few times. A GPU has finished only when a result is read.
fn shortest(run: impl Fn() -> Tensor<2>) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..4 {
        let begin = Instant::now();
        let _ = run().slice([0..1, 0..1]).into_scalar::<f32>();
        best = best.min(begin.elapsed().as_secs_f64());
    }
    best
}

/// Floating-point operations per second of a matrix multiplication with the model's shape and activations in this dtype,
/// measured now.
pub(super) fn rate(
    config: &ModelConfig,
    device: &str,
    precision: Precision,
    compute: Compute,
) -> Result<f64, TrainError> {
    let device = device::named(device)?;
    let [i, o] = [config.hidden_size, config.intermediate_size];
    // the time does not depend on the values, and random ones of a large model take seconds to draw
    let filled = |shape: [usize; 2]| Tensor::<2>::full(shape, 0.01, &device);
    let x = filled([TOKENS, i]).cast(compute.dtype());
    let weight = as_multiplied(filled([o, i]).cast(precision.dtype()), compute);
    let best = shortest(|| linear(x.clone(), weight.clone()));
    Ok(2.0 * (TOKENS * i * o) as f64 / best)
}

/// The rates of a GPU, measured now: of a matrix multiplication with the model's shape in the dtype of the activations, for
/// as many tokens as a micro-batch has, and of its memory.
pub(super) fn gpu_rates(
    config: &ModelConfig,
    device: &str,
    compute: Compute,
    tokens: usize,
) -> Result<Rates, TrainError> {
    let device = device::named(device)?;
    let [i, o] = [config.hidden_size, config.intermediate_size];
    let tokens = tokens.clamp(TOKENS, TOKENS_ON_GPU);
    // products of equal values take less power, and so run faster
    let dtype = compute.dtype();
    let random = |shape: [usize; 2]| {
        Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device).cast(dtype)
    };
    let (x, weight) = (random([tokens, i]), random([o, i]));
    let products = |weight: FrozenWeight| {
        let seconds = shortest(|| linear(x.clone(), weight.clone()));
        2.0 * (tokens * i * o) as f64 / seconds
    };
    let rate = products(weight.clone().into());
    let columns = 1 << 12;
    let list = Tensor::<2>::zeros([ELEMENTS / columns, columns], (&device, dtype));
    let sum = shortest(|| list.clone() + 1.0);
    Ok(Rates {
        products: rate,
        linear: match compute {
            Compute::F32 | Compute::Bf16 => rate,
            Compute::Fp8 => products(as_multiplied(weight, compute)),
        },
        memory: 2.0 * (ELEMENTS * dtype.size()) as f64 / sum,
    })
}

/// A weight as a linear module multiplies it.
fn as_multiplied(weight: Tensor<2>, compute: Compute) -> FrozenWeight {
    let are_steps = weight.dims().iter().all(|size| size % FP8_STEP == 0);
    if compute == Compute::Fp8 && are_steps {
        let device = weight.device();
        FrozenWeight::Stored(StoredWeight::fp8_of_dense(&weight.into_data(), &device))
    } else {
        weight.into()
    }
}
