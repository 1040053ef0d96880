//! The recipe's `[method.adaption_prompt]` table, and which layers an adapter of prompts changes.

use serde::{Deserialize, Serialize};
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::family::Role;
use simmer_checkpoint::layout::{ModuleKind, ModuleLayout};

use super::AdapterError;
use super::config::AdapterConfig;
use super::continued::Continued;
use super::kind::{ADAPTION_PROMPT, GateActivation, Kind, LLAMA_ADAPTER, Trained};
use super::settings::as_setting;
use super::table::AdapterTable;
use super::targets::{Selection, SelectionError, Targets};

/// The attention module of a layer, which PEFT's configuration names.
pub(super) const ATTENTION: &str = "self_attn";
/// The families that PEFT has adaption prompts for.
const FAMILIES: [&str; 2] = ["llama", "mistral"];
/// The most prompts of a layer in a recipe.
const MOST_PROMPTS: usize = 4096;

/// What has a gate of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Gate {
    /// Each layer, as in PEFT.
    #[default]
    Layer,
    /// Each head, through tanh, as in the paper.
    Head,
}

/// The recipe's `[method.adaption_prompt]` table: LLaMA-Adapter, trained prompts in the attention of the upper layers, which gates
/// add. It has no dropout, and cannot be merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct AdaptionPromptConfig {
    /// The prompts of each layer, from 1 to 4096.
    pub adapter_len: usize,
    /// The number of layers with prompts, counted from the top.
    pub adapter_layers: usize,
    /// What has a gate of its own: `"layer"`, as in PEFT, or `"head"`, as in the paper, where each gate passes through tanh. PEFT does
    /// not load the latter.
    pub gate: Gate,
    /// The adapter to continue training: a folder, or a name on the hub. It sets every key above; no other key may be set
    /// with it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Continued>,
}

impl Default for AdaptionPromptConfig {
    fn default() -> Self {
        Self {
            adapter_len: 10,
            adapter_layers: 30,
            gate: Gate::Layer,
            from: None,
        }
    }
}

impl AdapterTable for AdaptionPromptConfig {
    fn kind(&self) -> &'static Kind {
        match self.gate {
            Gate::Layer => &ADAPTION_PROMPT,
            Gate::Head => &LLAMA_ADAPTER,
        }
    }

    fn to_peft(&self, base_name: &str) -> AdapterConfig {
        AdapterConfig {
            kind: self.kind(),
            base_model_name_or_path: Some(base_name.to_owned()),
            task_type: Some("CAUSAL_LM".to_owned()),
            target_modules: Some(Targets::Names(vec![ATTENTION.to_owned()])),
            adapter_len: self.adapter_len,
            adapter_layers: self.adapter_layers,
            ..AdapterConfig::default()
        }
    }

    fn check(&self) -> Result<(), AdapterError> {
        let table = self.kind().peft.table;
        if let Some(from) = &self.from {
            let alone = Self {
                from: Some(from.clone()),
                ..Self::default()
            };
            return from.check_alone(table, self, &alone, &[]);
        }
        let wrong = |key, why| Err(as_setting(table, AdapterError::Conflict { key, why }));
        if !(1..=MOST_PROMPTS).contains(&self.adapter_len) {
            let (found, nearest) = (self.adapter_len, self.adapter_len.clamp(1, MOST_PROMPTS));
            let why = format!(
                "expected a whole number from 1 to {MOST_PROMPTS}, found {found}; the nearest valid value is {nearest}"
            );
            return wrong("adapter_len", why);
        }
        if self.adapter_layers == 0 {
            let why = "expected at least 1, found 0".to_owned();
            return wrong("adapter_layers", why);
        }
        Ok(())
    }

    fn continued(&self) -> Option<&Continued> {
        self.from.as_ref()
    }

    fn continued_mut(&mut self) -> Option<&mut Continued> {
        self.from.as_mut()
    }
}

/// The attention of a layer with an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectedAttention {
    /// Its module path.
    pub name: String,
    /// The kind of its adapter.
    pub adapter: &'static Kind,
    /// Its layer.
    pub layer: usize,
    /// The number of prompts.
    pub prompts: usize,
    /// The hidden size.
    pub hidden: usize,
    /// The number of query heads.
    pub heads: usize,
    /// What gates of heads pass through.
    pub activation: GateActivation,
}

impl SelectedAttention {
    /// The tensors of its adapter, and their shapes.
    pub fn tensors(&self) -> impl Iterator<Item = (&'static Trained, Vec<usize>)> {
        let form = self.adapter.attention.as_ref();
        let tensors = form.map_or(&[][..], |form| form.tensors);
        let shape = [self.heads, self.hidden];
        tensors
            .iter()
            .map(move |tensor| (tensor, tensor.dims(shape, self.prompts)))
    }
}

/// The upper layers of a model.
pub(super) fn select(
    config: &AdapterConfig,
    modules: &[ModuleLayout],
) -> Result<Vec<SelectedAttention>, SelectionError> {
    let hidden = modules
        .iter()
        .find(|module| module.kind == ModuleKind::Embedding);
    let hidden = hidden.and_then(|module| module.shape.last().copied());
    let end = format!(".{ATTENTION}");
    let all: Vec<&ModuleLayout> = modules
        .iter()
        .filter(|module| module.kind == ModuleKind::Container && module.name.ends_with(&end))
        .collect();
    let Some(first) = all.len().checked_sub(config.adapter_layers) else {
        return Err(SelectionError::Conflict {
            key: "adapter_layers",
            why: format!(
                "{} layers with prompts, but the base model has {}",
                config.adapter_layers,
                all.len()
            ),
        });
    };
    let upper = all[first..].iter().filter_map(|module| {
        Some(SelectedAttention {
            name: module.name.clone(),
            adapter: config.kind,
            layer: module.layer?,
            prompts: config.adapter_len,
            hidden: hidden?,
            heads: module.heads,
            activation: config.gate_activation,
        })
    });
    Ok(upper.collect())
}

/// Checks that a base model can have adaption prompts, and those of PEFT's form as PEFT computes them.
pub(super) fn check_model(selection: &Selection, model: &ModelConfig) -> Result<(), AdapterError> {
    let Some(first) = selection.attention.first() else {
        return Ok(());
    };
    let wrong = |why: String| {
        Err(AdapterError::BaseModel {
            kind: first.adapter.name,
            why,
        })
    };
    let family = model.family;
    let has = |role| family.in_layer(role).is_some();
    let is_peft = *first.adapter != LLAMA_ADAPTER;
    if !FAMILIES.contains(&family.model_type) || !has(Role::Key) {
        let (families, found) = (FAMILIES.join(" and "), family.model_type);
        return wrong(if is_peft {
            format!("PEFT has adaption prompts for {families}, and this is {found}")
        } else {
            format!("simmer has its prompts for {families}, and this is {found}")
        });
    }
    if !is_peft {
        return Ok(());
    }
    let features = model.num_attention_heads * model.head_dim;
    if features != model.hidden_size {
        return wrong(format!(
            "its heads have {features} features, and its hidden size is {}: PEFT takes the two to be equal",
            model.hidden_size
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use simmer_checkpoint::sizes;

    use super::*;
    use crate::adapter::{peft, selection};

    #[test]
    fn peft_and_the_paper_count_the_same_parameters_on_7b() {
        let model = sizes::named("llama-7b").unwrap();
        let shapes = |gate| {
            let table = AdaptionPromptConfig {
                gate,
                ..AdaptionPromptConfig::default()
            };
            peft::tensor_shapes(&selection(&table, &model).unwrap())
        };
        let parameters = |gate| -> usize {
            let shapes = shapes(gate).into_values();
            shapes.map(|of| of.iter().product::<usize>()).sum()
        };
        // 30 layers with 10 prompts of 4096 features, and a gate, or one for each of 32 heads
        assert_eq!(parameters(Gate::Layer), 1_228_830);
        assert_eq!(parameters(Gate::Head), 1_229_760);
        let shapes = shapes(Gate::Layer);
        let key = |layer, end| format!("base_model.model.model.layers.{layer}.self_attn.{end}");
        assert_eq!(shapes[&key(31, "adaption_gate")], [1]);
        assert_eq!(shapes[&key(2, "adaption_prompt")], [1, 10, 4096]);
        assert!(!shapes.contains_key(&key(1, "adaption_gate")));
    }

    #[test]
    fn models_that_peft_cannot_give_prompts_are_refused() {
        let model = sizes::named("llama-7b").unwrap();
        let said = |config: AdaptionPromptConfig, model: &ModelConfig| {
            selection(&config, model).unwrap_err().to_string()
        };
        let default = AdaptionPromptConfig::default;
        let mut other = model.clone();
        other.head_dim = 64;
        insta::assert_snapshot!(said(default(), &other), @"LLaMA-Adapter cannot be used with this base model: its heads have 2048 features, and its hidden size is 4096: PEFT takes the two to be equal");
        other.family = simmer_checkpoint::family::ALL
            .into_iter()
            .find(|family| family.model_type == "qwen2")
            .unwrap();
        insta::assert_snapshot!(said(default(), &other), @"LLaMA-Adapter cannot be used with this base model: PEFT has adaption prompts for llama and mistral, and this is qwen2");
        let deep = AdaptionPromptConfig {
            adapter_layers: 33,
            ..default()
        };
        insta::assert_snapshot!(said(deep, &model), @"[method.adaption_prompt] `adapter_layers`: 33 layers with prompts, but the base model has 32");
        let none = AdaptionPromptConfig {
            adapter_len: 0,
            ..default()
        };
        insta::assert_snapshot!(said(none, &model), @"[method.adaption_prompt] `adapter_len`: expected a whole number from 1 to 4096, found 0; the nearest valid value is 1");
    }
}
