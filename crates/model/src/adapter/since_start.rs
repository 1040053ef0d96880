//! Adapters that started at factors of the weights: PEFT's form, and plain LoRA for the untouched base model.
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
use simmer_checkpoint::layout::ModuleKind;

use super::AdapterError;
use super::config::{AdapterConfig, CONFIG_FILE};
use super::kind::{self, LORA, pissa::START};
use super::names::Patterns;
use super::peft::{AdapterFolder, AdapterTensors, KEY_PREFIX};
use super::targets::Selection;
use crate::llama::LlamaForCausalLM;

/// Refuses `convert_to_lora = false` where PEFT would compute something else from what is saved: an output head that is tied to the
/// embedding, from which PEFT subtracts the start, too; and one with new tokens, whose weight is saved.
///
/// # Errors
/// [`AdapterError::Setting`] for `convert_to_lora`.
pub(super) fn check_peft_form(
    config: &AdapterConfig,
    selection: &Selection,
    model: &LlamaForCausalLM,
) -> Result<(), AdapterError> {
    let is_peft_form = config.init().is_of_weight() && !config.convert_to_lora;
    if !is_peft_form || !has_head(selection) {
        return Ok(());
    }
    let why = if model.lm_head.weight.is_none() {
        "the output head is tied to the embedding, from which PEFT would subtract the start, too"
    } else if model.own_vocabulary {
        "tokens were added, and the weight of the output head is saved with the adapter, less the start"
    } else {
        return Ok(());
    };
    Err(AdapterError::Setting {
        table: config.kind.peft.table,
        key: "convert_to_lora",
        why: format!("false is not possible with `lm_head` among the targets: {why}"),
        hint: Some(
            "remove convert_to_lora, so that plain LoRA is saved, or leave `lm_head` out of the targets".to_owned(),
        ),
    })
}

/// Refuses an adapter in PEFT's form for a tied output head whose weight is not in its file.
///
/// # Errors
/// [`AdapterError::Unsupported`] for `init_lora_weights`.
pub(crate) fn check_tied_head(
    adapter: &AdapterFolder,
    selection: &Selection,
    tensors: &AdapterTensors,
    is_tied: bool,
) -> Result<(), AdapterError> {
    let config = adapter.config();
    if !config.init().is_of_weight() || !is_tied || !has_head(selection) {
        return Ok(());
    }
    let mut adapted = selection.adapted.iter();
    let is_saved = adapted.any(|module| {
        module.kind == ModuleKind::OutputHead && tensors.base_weights.contains_key(&module.name)
    });
    if is_saved {
        return Ok(());
    }
    Err(AdapterError::Unsupported {
        file: adapter.folder().join(CONFIG_FILE),
        key: "init_lora_weights".to_owned(),
        found: config.init_lora_weights.to_string(),
        why: "`lm_head` is a target and tied to the embedding; PEFT subtracts the start from both, and the file has neither",
    })
}

/// Whether the output head is adapted.
fn has_head(selection: &Selection) -> bool {
    let mut adapted = selection.adapted.iter();
    adapted.any(|module| module.kind == ModuleKind::OutputHead)
}

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
