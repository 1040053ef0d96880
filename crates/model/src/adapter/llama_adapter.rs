//! Checkpoints of the original LLaMA-Adapter, as its training code saves them.
//!
//! ```text
//! adapter_query.weight     [L·P, H]       the prompts of the upper L layers, from below
//! layers.I.attention.gate  [1, N, 1, 1]   the gates of layer I, through tanh
//! ```
//!
//! Files have the gates of all layers; those below the prompts are zero and not used. The first version, of March 2023, has one gate a
//! layer, `[1]`, and no tanh: the form that PEFT has. Neither L nor P is in the file.
//!
//! Source: github.com/OpenGVLab/LLaMA-Adapter, `alpaca_finetuning_v1`: `llama/model.py` and
//! `extract_adapter_from_checkpoint.py`; `example.py`, which takes P to be 10.
//!
//! Axes: L layers with prompts, P prompts of a layer, N query heads, H hidden size.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::family::Role;
use simmer_checkpoint::{Dtype, Tensor, TensorSpec, layout, pth};
use simmer_files::{Existing, WriteError};

use super::adaption_prompt::{ATTENTION, SelectedAttention};
use super::kind::{ADAPTION_PROMPT, GATE, GateActivation, Kind, LLAMA_ADAPTER, PROMPT};
use super::names::Targets;
use super::peft::{AdapterFolder, AdapterTensors, KEY_PREFIX};
use super::peft_type::prompts;
use super::{AdapterConfig, AdapterError, Card};
use crate::numbers::to_f64;

/// The prompts of all layers.
const QUERY: &str = "adapter_query.weight";
/// What surrounds the index of a layer in the key of its gates.
const GATE_KEY: [&str; 2] = ["layers.", ".attention.gate"];
/// No model has more layers.
const MOST_LAYERS: usize = 10_000;
/// The prompts of a layer in the original's code for inference.
const PROMPTS: usize = 10;

/// A checkpoint under PEFT's keys.
pub(super) struct Original {
    pub(super) tensors: Vec<(String, Tensor)>,
    pub(super) config: AdapterConfig,
    /// What was found, as a sentence after the name of the file.
    pub(super) note: String,
}

/// Whether these are the tensors of an original checkpoint.
pub(super) fn is_original(tensors: &[(String, Tensor)]) -> bool {
    tensors.iter().any(|(key, _)| key == QUERY)
}

/// Reads the tensors of a checkpoint; `prompts` are those of a layer, if a configuration says so.
///
/// # Errors
/// Keys of later versions of LLaMA-Adapter, and shapes and numbers of layers that do not belong together.
pub(super) fn read(
    file: &Path,
    tensors: Vec<(String, Tensor)>,
    prompts: Option<usize>,
) -> Result<Original, AdapterError> {
    let wrong = |why: String| AdapterError::Original {
        file: file.into(),
        why,
    };
    let (query, gates) = parts(tensors).map_err(&wrong)?;
    let kind = kind_of(&gates).map_err(&wrong)?;
    let rows = query.shape[0];
    let per_layer = prompts_of_a_layer(rows, &gates, prompts).map_err(&wrong)?;
    let layers = rows / per_layer;
    let tensors = under_peft_keys(&query, gates, per_layer).map_err(&wrong)?;
    let config = AdapterConfig {
        kind,
        task_type: Some("CAUSAL_LM".to_owned()),
        target_modules: Some(Targets::Names(vec![ATTENTION.to_owned()])),
        adapter_len: per_layer,
        adapter_layers: layers,
        ..AdapterConfig::default()
    };
    Ok(Original {
        tensors,
        note: note(&config),
        config,
    })
}

/// The prompts of all layers, which are a matrix, and the gates by layer. The error is the end of a sentence.
fn parts(tensors: Vec<(String, Tensor)>) -> Result<(Tensor, BTreeMap<usize, Tensor>), String> {
    let mut query = None;
    let mut gates = BTreeMap::new();
    for (key, tensor) in tensors {
        if key == QUERY {
            query = Some(tensor);
        } else if let Some(layer) = layer_of(&key) {
            gates.insert(layer, tensor);
        } else {
            return Err(format!(
                "unexpected tensor `{key}`: simmer reads version 1, which has `{QUERY}` and `layers.N.attention.gate` alone"
            ));
        }
    }
    let query = query.ok_or_else(|| format!("`{QUERY}` is missing"))?;
    if query.shape.len() != 2 {
        let found = &query.shape;
        return Err(format!("`{QUERY}`: expected a matrix, found {found:?}"));
    }
    Ok((query, gates))
}

/// Gates and prompts of the upper layers, those with `per_layer` prompts each. The error is the end of a sentence.
///
/// `query`: `[L·P, H]`.
fn under_peft_keys(
    query: &Tensor,
    mut gates: BTreeMap<usize, Tensor>,
    per_layer: usize,
) -> Result<Vec<(String, Tensor)>, String> {
    let (rows, hidden) = (query.shape[0], query.shape[1]);
    let layers = rows / per_layer;
    let last = gates.keys().max().map_or(0, |last| last + 1);
    let first = last.checked_sub(layers).ok_or_else(|| {
        format!(
            "{rows} prompts are {per_layer} for each of {layers} layers, and there are gates of {last} layers alone"
        )
    })?;
    let mut found = Vec::with_capacity(2 * layers);
    let bytes = query.bytes.len() / layers;
    for (at, layer) in (first..last).enumerate() {
        let key = |end: &str| format!("{KEY_PREFIX}model.layers.{layer}.{ATTENTION}{end}");
        let Some(gate) = gates.remove(&layer) else {
            return Err(format!("`{}` is missing", gate_key(layer)));
        };
        let values = gate.shape.iter().product();
        let gate = Tensor {
            shape: vec![values],
            ..gate
        };
        let of_layer = Tensor {
            dtype: query.dtype,
            shape: vec![1, per_layer, hidden],
            bytes: query.bytes.slice(at * bytes..(at + 1) * bytes),
        };
        found.push((key(GATE.end), gate));
        found.push((key(PROMPT.end), of_layer));
    }
    Ok(found)
}

fn note(config: &AdapterConfig) -> String {
    let gates = if *config.kind == LLAMA_ADAPTER {
        "a gate for each head, through tanh as in its training code; its code for inference leaves tanh out"
    } else {
        "one gate a layer, as in PEFT"
    };
    let prompts = prompts(config);
    format!("a checkpoint of the original LLaMA-Adapter: {prompts}, {gates}")
}

/// The layer of a gate's key.
fn layer_of(key: &str) -> Option<usize> {
    let [before, after] = GATE_KEY;
    let layer = key.strip_prefix(before)?.strip_suffix(after)?;
    layer.parse().ok().filter(|layer| *layer < MOST_LAYERS)
}

fn gate_key(layer: usize) -> String {
    let [before, after] = GATE_KEY;
    format!("{before}{layer}{after}")
}

/// The kind of adapter that gates of this shape are of. The error is the end of a sentence.
fn kind_of(gates: &BTreeMap<usize, Tensor>) -> Result<&'static Kind, String> {
    let Some((_, first)) = gates.first_key_value() else {
        return Err("it has no gates, `layers.N.attention.gate`".to_owned());
    };
    if let Some((layer, other)) = gates.iter().find(|(_, gate)| gate.shape != first.shape) {
        let (key, expected, found) = (gate_key(*layer), &first.shape, &other.shape);
        return Err(format!("`{key}`: expected {expected:?}, found {found:?}"));
    }
    match first.shape[..] {
        [1] => Ok(&ADAPTION_PROMPT),
        [1, _, 1, 1] => Ok(&LLAMA_ADAPTER),
        ref found => Err(format!(
            "gates of the shape {found:?}; expected [1, heads, 1, 1], or [1]"
        )),
    }
}

/// P: as a configuration says; or so that the upper layers with gates other than zero are those with prompts, for gates below
/// are never trained; or as the original's code for inference takes it. The error is the end of a sentence.
fn prompts_of_a_layer(
    rows: usize,
    gates: &BTreeMap<usize, Tensor>,
    given: Option<usize>,
) -> Result<usize, String> {
    let divides = |prompts: &usize| *prompts > 0 && rows > 0 && rows.is_multiple_of(*prompts);
    if let Some(given) = given {
        return Some(given).filter(divides).ok_or_else(|| {
            format!(
                "`{QUERY}` has {rows} rows, which are not a multiple of `adapter_len` = {given}"
            )
        });
    }
    let is_trained = |gate: &&Tensor| {
        let values = to_f64(&gate.bytes, gate.dtype);
        values.iter().any(|value| *value != 0.0)
    };
    let trained = gates.values().filter(is_trained).count();
    // some files have no gates of the layers below
    let starts_above = gates.keys().next().is_some_and(|first| *first > 0);
    let all = gates.len();
    [(all, starts_above), (trained, true)]
        .into_iter()
        .filter(|(layers, counts)| *counts && *layers > 0 && rows.is_multiple_of(*layers))
        .map(|(layers, _)| rows / layers)
        .chain([PROMPTS])
        .find(divides)
        .ok_or_else(|| {
            format!(
                "the prompts of a layer are not known: `{QUERY}` has {rows} rows, and gates of {trained} layers are trained"
            )
        })
}

/// Writes an adapter with a gate for each head as a checkpoint of the original, for a base model with this configuration.
///
/// # Errors
/// An adapter of another kind, or that does not fit the base model; if the output exists or cannot be written.
pub fn to_original(
    folder: &AdapterFolder,
    base: &ModelConfig,
    out: &Path,
) -> Result<(), AdapterError> {
    if out.exists() {
        let path = out.to_owned();
        return Err(WriteError::OutputExists { path }.into());
    }
    if *folder.config().kind != LLAMA_ADAPTER {
        return Err(AdapterError::OtherForm {
            folder: folder.folder().into(),
            form: "the original LLaMA-Adapter's",
            why: format!(
                "its code loads prompts with a gate for each head, and this adapter is of the type {}",
                folder.config().kind.peft.name
            ),
        });
    }
    let (attention, tensors) = layers_of(folder, base)?;
    let spec = |name, shape| TensorSpec {
        name,
        dtype: Dtype::F32,
        shape,
    };
    let heads = base.num_attention_heads;
    let mut written: Vec<(TensorSpec, Vec<u8>)> = Vec::new();
    let mut query = Vec::new();
    for layer in 0..base.num_hidden_layers {
        let selected = attention.iter().find(|selected| selected.layer == layer);
        let gates = match selected {
            Some(selected) => {
                query.extend(bytes_of(&tensors, selected, PROMPT.end));
                bytes_of(&tensors, selected, GATE.end)
            }
            None => vec![0; 4 * heads],
        };
        written.push((spec(gate_key(layer), vec![1, heads, 1, 1]), gates));
    }
    let rows = attention.len() * folder.config().adapter_len;
    let shape = vec![rows, base.hidden_size];
    written.push((spec(QUERY.to_owned(), shape), query));
    let root = out.file_stem().map(|name| name.to_string_lossy());
    let root = root.as_deref().unwrap_or("adapter");
    let file = pth::encode(root, &written).map_err(AdapterError::io(out, "write"))?;
    Ok(simmer_files::write_file(out, |written| {
        written.write_all(&file)
    })?)
}

/// Writes an adapter with a gate for each head in PEFT's form, which has one a layer, for a base model with this configuration.
///
/// # Errors
/// Gates of a layer that differ, and a base model whose output projection has a bias, which PEFT adds once more: PEFT's form would compute
/// something else. As [`to_original`].
pub fn to_peft(folder: &AdapterFolder, base: &ModelConfig, out: &Path) -> Result<(), AdapterError> {
    let other = |why: String| AdapterError::OtherForm {
        folder: folder.folder().into(),
        form: "PEFT's",
        why,
    };
    let config = folder.config();
    if *config.kind != LLAMA_ADAPTER {
        return Err(other("it is in PEFT's form already".to_owned()));
    }
    let (attention, mut tensors) = layers_of(folder, base)?;
    check_base_for_peft(base).map_err(other)?;
    for selected in &attention {
        let key = format!("{KEY_PREFIX}{}{}", selected.name, GATE.end);
        if let Some(gates) = tensors.trained.get_mut(&key) {
            *gates = one_gate(gates, config.gate_activation, &selected.name).map_err(other)?;
        }
    }
    let config = AdapterConfig {
        kind: &ADAPTION_PROMPT,
        gate_activation: GateActivation::Tanh,
        ..config.clone()
    };
    let trained_with = folder.trained_with().cloned().unwrap_or_default();
    let card = Card {
        templates: trained_with.templates,
        base: trained_with.base,
        ..Card::default()
    };
    AdapterFolder::save(out, &config, &tensors.trained, &[], &card, Existing::Refuse)
}

/// Checks that PEFT's form computes the same for this base model. The error is the end of a sentence.
fn check_base_for_peft(base: &ModelConfig) -> Result<(), String> {
    let (features, hidden) = (base.num_attention_heads * base.head_dim, base.hidden_size);
    if features != hidden {
        return Err(format!(
            "the heads of its base model have {features} features, and its hidden size is {hidden}: PEFT takes the two to be equal"
        ));
    }
    let output = layout::modules(base).into_iter();
    let mut output = output.filter(|module| {
        module
            .module
            .is_some_and(|of| of.role == Role::AttentionOutput)
    });
    if output.any(|module| module.bias) {
        let why = "the output projection of its base model has a bias, which PEFT adds once more";
        return Err(why.to_owned());
    }
    Ok(())
}

/// The gate that all heads of a layer have, behind its activation. The error is the end of a sentence.
///
/// `gates`: `[N]`.
fn one_gate(
    gates: &TensorData,
    activation: GateActivation,
    layer: &str,
) -> Result<TensorData, String> {
    let effective = gates.iter::<f32>().map(|gate| match activation {
        GateActivation::Tanh => gate.tanh(),
        GateActivation::None => gate,
    });
    let effective: Vec<f32> = effective.collect();
    let first = effective.first().copied().unwrap_or_default();
    if effective
        .iter()
        .any(|gate| gate.to_bits() != first.to_bits())
    {
        let least = effective.iter().copied().fold(f32::INFINITY, f32::min);
        let most = effective.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        return Err(format!(
            "PEFT has one gate for all heads of a layer, and those of `{layer}` differ: they scale by {least:.4} to {most:.4}"
        ));
    }
    Ok(TensorData::new(vec![first], [1]))
}

/// The layers with prompts, and their tensors.
fn layers_of(
    folder: &AdapterFolder,
    base: &ModelConfig,
) -> Result<(Vec<SelectedAttention>, AdapterTensors), AdapterError> {
    let selection = folder.select(&layout::modules(base))?;
    super::adaption_prompt::check_model(&selection, base)?;
    let tensors = folder.tensors(&selection)?;
    Ok((selection.attention, tensors))
}

/// The values of a tensor in f32.
fn bytes_of(tensors: &AdapterTensors, selected: &SelectedAttention, end: &str) -> Vec<u8> {
    // loading has checked that the key exists
    let data = tensors
        .trained
        .get(&format!("{KEY_PREFIX}{}{end}", selected.name));
    let values = data.into_iter().flat_map(|data| data.iter::<f32>());
    values.flat_map(f32::to_le_bytes).collect()
}

#[cfg(test)]
mod tests;
