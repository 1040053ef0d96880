//! Adapters that started at factors of the weights, saved as plain LoRA for the untouched base model.
//!
//! `s (B A - B₀ A₀) = s [B, -B₀] [A; A₀]`: twice the rank, and an alpha that leaves the scale as it is.
//!
//! Source: PEFT 0.21, `PeftModel.save_pretrained` with `path_initial_model_for_weight_conversion`. PEFT refuses rank-stabilised
//! adapters with patterns; here every rank and every alpha is changed, so that each scale stays.
//!
//! Axes: O output features, I input features, r rank.

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use serde_json::Value;

use super::config::AdapterConfig;
use super::kind::{self, LORA, pissa::START};
use super::names::Patterns;
use super::peft::KEY_PREFIX;
use crate::llama::LlamaForCausalLM;

/// The configuration and the tensors as which an adapter is saved.
pub(super) fn as_saved(
    model: &LlamaForCausalLM,
    config: &AdapterConfig,
    mut tensors: BTreeMap<String, TensorData>,
) -> (AdapterConfig, BTreeMap<String, TensorData>) {
    if !config.init().is_of_weight() || !config.convert_to_lora {
        return (config.clone(), tensors);
    }
    for (name, start) in model.starts() {
        let Some((module, field)) = name.rsplit_once('.') else {
            continue;
        };
        let start: Vec<f32> = start.into_data().iter::<f32>().collect();
        let is_a = field == START[0];
        let tensor = kind::factors(false)[usize::from(!is_a)];
        let key = format!("{KEY_PREFIX}{module}{}", tensor.end);
        if let Some(now) = tensors.get_mut(&key) {
            *now = if is_a {
                below(now, &start)
            } else {
                beside_negative(now, &start)
            };
        }
    }
    (doubled(config), tensors)
}

/// `[A; A₀]`, `[2r, I]`.
fn below(now: &TensorData, start: &[f32]) -> TensorData {
    let mut values: Vec<f32> = now.iter::<f32>().collect();
    values.extend(start);
    let [rank, columns] = [now.shape()[0], now.shape()[1]];
    TensorData::new(values, [2 * rank, columns])
}

/// `[B, -B₀]`, `[O, 2r]`.
fn beside_negative(now: &TensorData, start: &[f32]) -> TensorData {
    let values: Vec<f32> = now.iter::<f32>().collect();
    let [rows, rank] = [now.shape()[0], now.shape()[1]];
    let sides = values.chunks(rank).zip(start.chunks(rank));
    let joined = sides.flat_map(|(now, start)| {
        let start = start.iter().map(|value| -value);
        now.iter().copied().chain(start)
    });
    TensorData::new(joined.collect::<Vec<f32>>(), [rows, 2 * rank])
}

/// The configuration with twice the rank, and every scale as it was.
fn doubled(config: &AdapterConfig) -> AdapterConfig {
    let factor = if config.use_rslora {
        std::f64::consts::SQRT_2
    } else {
        2.0
    };
    let ranks = config.rank_pattern.iter();
    let ranks = ranks.map(|(module, rank)| (module.clone(), 2 * rank));
    let alphas = config.alpha_pattern.iter();
    let alphas = alphas.map(|(module, alpha)| (module.clone(), alpha * factor));
    AdapterConfig {
        kind: &LORA,
        r: 2 * config.r,
        lora_alpha: config.lora_alpha * factor,
        rank_pattern: Patterns(ranks.collect()),
        alpha_pattern: Patterns(alphas.collect()),
        init_lora_weights: Value::Bool(true),
        ..config.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Init;

    #[test]
    fn every_scale_stays() {
        for use_rslora in [false, true] {
            let config = AdapterConfig {
                r: 6,
                lora_alpha: 9.0,
                use_rslora,
                rank_pattern: Patterns(vec![("q_proj".to_owned(), 4)]),
                alpha_pattern: Patterns(vec![("v_proj".to_owned(), 3.0)]),
                init_lora_weights: Init::Pissa.to_peft(),
                ..AdapterConfig::default()
            };
            let twice = doubled(&config);
            for module in ["layers.0.q_proj", "layers.0.v_proj", "layers.0.o_proj"] {
                let of = |config: &AdapterConfig| {
                    let rank = config.rank_of(module).unwrap();
                    (rank, config.scaling(config.alpha_of(module).unwrap(), rank))
                };
                let ((rank, scale), (twice, again)) = (of(&config), of(&twice));
                assert_eq!(twice, 2 * rank);
                // two roundings in f64
                assert!((scale - again).abs() < 1e-15, "{module}");
            }
        }
    }
}
