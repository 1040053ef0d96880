//! The time of a step on a GPU: each operation at a rate of its own, and the time in which the host launches them.
//!
//! The rates are shares of two that are measured on the GPU itself, those of matrix multiplications and of memory. The
//! shares were measured on an NVIDIA H200 (torch 2.11, bf16; docs/performance.md), in profiles of LLaMA 7B and
//! Llama-3-8B shapes. They were not checked on another GPU.

use simmer_checkpoint::ModelConfig;
use simmer_model::Recompute;
use simmer_model::base::Compute;

use super::load::Load;
use super::time::Work;

/// What a GPU does in a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// Floating-point operations in matrix multiplications.
    pub(super) products: f64,
    /// The same with the weights of linear modules, which may be in fp8.
    pub(super) linear: f64,
    /// Bytes of memory, read and written.
    pub(super) memory: f64,
}

/// Shares of the rate of matrix multiplications.
const LINEAR: f64 = 0.97;
const HEAD: f64 = 0.86;

/// The share that attention reaches, for rows of so many tokens.
const ATTENTION: [(f64, f64); 3] = [(160.0, 0.059), (512.0, 0.31), (4096.0, 0.525)];

/// Shares of the memory's rate.
const LOW_RANK: f64 = 0.62;
const ROPE: f64 = 0.88;
const GATED: f64 = 0.99;
const NORM: f64 = 0.66;
const REST: f64 = 0.47;

/// Operations of a layer, forward and backward, without those of low-rank branches.
const OPERATIONS: f64 = 26.0;
/// Seconds in which the host launches an operation.
const LAUNCH: f64 = 70e-6;
/// Seconds of a trainable tensor's place in the flat buffer, in which the GPU waits.
const UPDATE: f64 = 20e-6;
/// The share of the shorter of both times, the GPU's and the host's, in which the other one waits.
const ALONE: f64 = 0.3;
/// The share of a layer's operations that gradient checkpointing repeats.
const AGAIN: f64 = 0.5;

/// Bytes that the GPU moves in a second for each operation in a second, on the H200: for the rate of a GPU that is not here.
const MEMORY_OF_PRODUCTS: f64 = 4300e9 / 787e12;

/// The rate of matrix multiplications in fp8 for that in bf16, with the quantising of their left factors. Not measured: the
/// peaks of an H100 and an H200 are 1,979 and 989 TFLOP/s, and row scales and exact sums take a part of the difference.
const FP8_OF_PRODUCTS: f64 = 1.5;

impl Rates {
    /// Of a GPU of which only the rate of matrix multiplications in 16 or 32 bits is known.
    pub(super) fn of_products(products: f64, compute: Compute) -> Self {
        let linear = match compute {
            Compute::F32 | Compute::Bf16 => products,
            Compute::Fp8 => products * FP8_OF_PRODUCTS,
        };
        Self {
            products,
            linear,
            memory: products * MEMORY_OF_PRODUCTS,
        }
    }
}

/// The low-rank branches of a run, or what is trained in their place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trained {
    /// Input and output features of all modules with a low-rank branch.
    pub(super) features: f64,
    /// Trainable tensors.
    pub(super) tensors: usize,
}

/// Seconds of a step.
pub(super) fn seconds(
    config: &ModelConfig,
    work: &Work,
    load: &Load,
    trained: Trained,
    recompute: Recompute,
    element: u64,
    rates: Rates,
) -> f64 {
    let layers = config.num_hidden_layers as f64;
    let bytes = load.step_tokens * element as f64;
    let heads =
        ((config.num_attention_heads + config.num_key_value_heads) * config.head_dim) as f64;
    let hidden = config.hidden_size as f64;
    // inputs and results, of the forward and of the backward pass
    let low_rank = 3.0 * trained.features;
    let rope = 4.0 * heads * layers;
    let gated = 8.0 * config.intermediate_size as f64 * layers;
    let norm = 5.0 * hidden * (2.0 * layers + 1.0);
    let passes = low_rank / LOW_RANK + rope / ROPE + gated / GATED + norm / NORM;
    // sums of residuals, and copies
    let rest = 13.0 * hidden * layers / REST;
    let [again, launched] = match recompute {
        Recompute::Layer => [1.0 + AGAIN * 2.0 / 3.0, 1.0 + AGAIN],
        Recompute::None | Recompute::Mlp => [1.0, 1.0],
    };
    let products = work.attention / attention(2.0 * load.context) + work.head / HEAD;
    let products = products / rates.products + work.linear / LINEAR / rates.linear;
    let gpu = products + bytes * (passes * again + rest) / rates.memory;
    let micro_batches = (load.step_tokens / load.tokens.max(1) as f64)
        .ceil()
        .max(1.0);
    // the two matrices of a branch are one operation each way
    let operations = OPERATIONS * layers + trained.tensors as f64;
    let host = operations * launched * micro_batches * LAUNCH;
    gpu.max(host) + ALONE * gpu.min(host) + trained.tensors as f64 * UPDATE
}

/// The share of the rate of matrix multiplications for rows of `length` tokens; shorter rows reach less in proportion.
fn attention(length: f64) -> f64 {
    let [(shortest, first), .., (_, last)] = ATTENTION;
    if length < shortest {
        return first * length.max(1.0) / shortest;
    }
    let mut between = ATTENTION.windows(2);
    between
        .find(|pair| length < pair[1].0)
        .map_or(last, |pair| {
            let [(low, from), (high, to)] = [pair[0], pair[1]];
            from + (to - from) * (length / low).ln() / (high / low).ln()
        })
}

#[cfg(test)]
mod tests {
    use simmer_checkpoint::sizes;
    use simmer_model::Recompute::None;

    use super::super::time::flops;
    use super::*;
    use crate::estimate::memory::Layers;
    use crate::recipe::Method;

    const H200: Rates = Rates {
        products: 787e12,
        linear: 787e12,
        memory: 4300e9,
    };
    const ATTENTION_ONLY: &str = r#"["q_proj", "k_proj", "v_proj", "o_proj"]"#;
    const ALL: &str = r#""all-linear""#;

    fn estimated(size: &str, targets: &str, load: &Load, recompute: Recompute) -> f64 {
        let config = sizes::named(size).unwrap();
        let method = format!("[lora]\nrank = 16\nalpha = 32\ntargets = {targets}");
        let Method::Lora(lora) = toml::from_str(&method).unwrap() else {
            panic!("not a lora");
        };
        let selection = simmer_model::adapter::selection(&lora, &config).unwrap();
        let shapes = simmer_model::adapter::peft::tensor_shapes(&selection);
        let numbers: usize = shapes
            .values()
            .map(|shape| shape.iter().product::<usize>())
            .sum();
        let trained = Trained {
            features: numbers as f64 / 16.0,
            tensors: shapes.len(),
        };
        let layers = Layers::of(&selection, &config, false);
        let work = flops(&config, &layers, load, recompute);
        seconds(&config, &work, load, trained, recompute, 2, H200)
    }

    /// Steps as measured on an H200 (docs/performance.md): tokens per step with shared prefixes counted once, per
    /// micro-batch and per row, and seconds.
    #[test]
    fn steps_take_as_long_as_on_an_h200() {
        for (size, targets, [step, micro, row], recompute, measured) in [
            ("llama-3-8b", ALL, [32768, 8192, 4096], None, 2.135),
            ("llama-7b", ATTENTION_ONLY, [3592, 3592, 200], None, 0.204),
            ("smollm2-135m", ALL, [3592, 3592, 100], None, 0.094),
        ] {
            let load = Load {
                tokens: micro,
                targets: micro,
                longest: row,
                step_tokens: step as f64,
                step_targets: step as f64,
                context: row as f64 / 2.0,
            };
            let ratio = estimated(size, targets, &load, recompute) / measured;
            assert!(
                (0.85..1.15).contains(&ratio),
                "{size} {recompute:?}: {ratio:.2} of what was measured"
            );
        }
    }
}
