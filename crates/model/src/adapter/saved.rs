//! Saves the adapter of a model as PEFT does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use simmer_files::Existing;

use super::AdapterError;
use super::card::Card;
use super::config::AdapterConfig;
use super::kind;
use super::limits::{Limit, limits};
use super::peft::{AdapterFolder, KEY_PREFIX, frozen_key};
use super::since_start::as_saved;
use super::tokens;
use crate::layer::Embedding;
use crate::llama::LlamaForCausalLM;
use crate::weight::Weight;

/// Saves the trainable tensors of `model` as an adapter in PEFT's layout, with a README from `card` and copies of
/// the files `beside` (the tokenizer). If tokens were added to the base model, the full embedding and head are
/// saved, too. Returns the programs that do not take what was saved.
///
/// Source: PEFT 0.21, `save_embedding_layers="auto"`. It omits an untied head beside an adapted embedding, and so
/// loses the head's new rows; simmer always saves both.
///
/// # Errors
/// If the folder cannot be written.
pub fn save(
    model: &LlamaForCausalLM,
    config: &AdapterConfig,
    folder: &Path,
    beside: &[PathBuf],
    card: &Card,
    existing: Existing,
) -> Result<Vec<Limit>, AdapterError> {
    let shapes = model.trainable_shapes();
    let keys = PeftKeys::new(model);
    let mut tensors: BTreeMap<String, TensorData> = model
        .trainable()
        .into_iter()
        .map(|(name, value)| {
            let values: Vec<f32> = value.into_data().iter::<f32>().collect();
            let data = TensorData::new(values, shapes[&name].clone());
            (keys.of(&name), data)
        })
        .collect();
    if model.own_vocabulary {
        add_frozen_ends(model, &mut tensors);
    }
    let (before, (config, tensors)) = (config, as_saved(model, config, tensors));
    let converted = (before.kind != config.kind).then_some((before.kind.name, before.r));
    let rows = model.config.vocab_size;
    let vocab_size = card.vocab_size.or(model.own_vocabulary.then_some(rows));
    let card = Card {
        vocab_size,
        converted,
        ..card.clone()
    };
    AdapterFolder::save(folder, &config, &tensors, beside, &card, existing)?;
    Ok(limits(&config, vocab_size.is_some()))
}

/// PEFT's key of each trainable tensor, by its name in [`LlamaForCausalLM::trainable`].
pub fn peft_keys(model: &LlamaForCausalLM) -> BTreeMap<String, String> {
    let keys = PeftKeys::new(model);
    let names = model.trainable_shapes().into_keys();
    names.map(|name| (name.clone(), keys.of(&name))).collect()
}

/// Module path of embedding and head, whether the module has a low-rank branch, whether it has trained rows, and its weight. A tied head
/// has the embedding's weight.
fn ends(model: &LlamaForCausalLM) -> [(&'static str, bool, bool, &Weight); 2] {
    let embedding = &model.model.embed_tokens;
    let Embedding {
        weight,
        adapter,
        token_adapter,
        ..
    } = embedding;
    let family = model.config.family;
    let head = model.lm_head.weight.as_ref().unwrap_or(weight);
    [
        (
            family.embedding.name,
            adapter.is_some(),
            token_adapter.is_some(),
            weight,
        ),
        (
            family.head.name,
            model.lm_head.adapter.is_some(),
            model.lm_head.token_rows(embedding).is_some(),
            head,
        ),
    ]
}

/// Adds the frozen weights of embedding and head to the tensors of an adapter: those that came with it, or both.
///
/// In new adapters an end with trained rows has those of all new tokens, so that its frozen weight is left out. PEFT has it beside the
/// rows, and all of a tied embedding once more for the head.
fn add_frozen_ends(model: &LlamaForCausalLM, tensors: &mut BTreeMap<String, TensorData>) {
    let embedding = model.config.family.embedding.name;
    let is_tied = model.lm_head.weight.is_none();
    let key = |module: &str, end: &str| format!("{KEY_PREFIX}{module}{end}");
    for (module, adapted, has_rows, weight) in ends(model) {
        // rows of the head are those of the embedding if the two are tied
        let stored = if has_rows && is_tied {
            embedding
        } else {
            module
        };
        let came = &model.frozen_ends;
        let is_saved = if came.is_empty() {
            !has_rows
        } else {
            came.iter().any(|end| end == stored)
        };
        if weight.is_trained() || !is_saved {
            continue;
        }
        let device = model.device_of_module(None, module == embedding || is_tied);
        let frozen = weight.tensor(&device).inner().into_data();
        if !has_rows {
            tensors.insert(frozen_key(module, adapted), frozen);
            continue;
        }
        tensors.insert(key(module, tokens::FROZEN), frozen);
        if is_tied && let Some(rows) = tensors.get(&key(embedding, tokens::ROWS)) {
            tensors.insert(key(module, tokens::ROWS), rows.clone());
        }
    }
}

/// Maps names of trainable tensors to PEFT's keys.
pub(super) struct PeftKeys {
    /// Modules whose weight PEFT wraps in `base_layer`, and their bias with it.
    adapted: BTreeSet<String>,
}

impl PeftKeys {
    pub(super) fn new(model: &LlamaForCausalLM) -> Self {
        let adapted = model
            .trainable_shapes()
            .into_keys()
            .filter_map(|name| Some(kind::split(&name)?.0.to_owned()))
            .collect();
        Self { adapted }
    }

    pub(super) fn of(&self, name: &str) -> String {
        let bias = name.strip_suffix(".bias");
        match bias.filter(|module| self.adapted.contains(*module)) {
            Some(module) => format!("base_model.model.{module}.base_layer.bias"),
            None => format!("base_model.model.{name}"),
        }
    }
}
