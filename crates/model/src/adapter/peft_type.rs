//! PEFT's types of adapters: the `peft_type` of a configuration, and which keys that has.

use serde_json::{Value, json};
use simmer_files::size::counted;

use super::AdapterError;
use super::adaption_prompt::ATTENTION;
use super::config::{AdapterConfig, sorted};
use super::keys::ConfigKeys;
use super::kind::{self, GateActivation};
use super::names::Targets;

/// A type of adapters.
pub struct PeftType {
    /// `peft_type` in the configuration.
    pub name: &'static str,
    /// The table of a recipe in `[method]`.
    pub table: &'static str,
    /// Whether modules can be trained whole beside it.
    pub saves_modules: bool,
    /// Why PEFT does not load it, as the end of a sentence, if it is a type of simmer's own.
    pub unknown_to_peft: Option<&'static str>,
    /// What it is about, as one of the tags of a model card.
    pub(super) tag: &'static str,
    /// Reads a configuration.
    pub(super) read: fn(&mut ConfigKeys<'_>) -> Result<AdapterConfig, AdapterError>,
    /// The keys of this type alone, as PEFT writes them.
    pub(super) entries: fn(&AdapterConfig) -> Vec<(&'static str, Value)>,
    /// The settings, as the middle of a sentence.
    pub(super) settings: fn(&AdapterConfig) -> String,
}

/// All types.
static ALL: [&PeftType; 4] = [&LORA, &IA3, &ADAPTION_PROMPT, &LLAMA_ADAPTER];

/// What to say of another type.
pub(super) const READS: &str =
    "simmer reads adapters of the types LORA, IA3, ADAPTION_PROMPT and LLAMA_ADAPTER";

/// LoRA and what is built on it.
pub(super) static LORA: PeftType = PeftType {
    name: "LORA",
    table: "lora",
    saves_modules: true,
    unknown_to_peft: None,
    tag: "lora",
    read: |keys| keys.lora(),
    entries: AdapterConfig::lora_entries,
    settings: |config| {
        let AdapterConfig { r, lora_alpha, .. } = config;
        let stabilised = if config.use_rslora {
            ", rank-stabilised"
        } else {
            ""
        };
        format!("rank {r}, alpha {lora_alpha}{stabilised}")
    },
};

/// (IA)³.
pub(super) static IA3: PeftType = PeftType {
    name: "IA3",
    table: "ia3",
    saves_modules: true,
    unknown_to_peft: None,
    tag: "ia3",
    read: ia3,
    entries: |config| {
        vec![
            ("exclude_modules", sorted(config.exclude_modules.as_ref())),
            ("fan_in_fan_out", json!(false)),
            (
                "feedforward_modules",
                sorted(config.feedforward_modules.as_ref()),
            ),
            ("init_ia3_weights", json!(config.init_ia3_weights)),
            ("modules_to_save", json!(config.modules_to_save)),
            ("target_modules", sorted(config.target_modules.as_ref())),
        ]
    },
    settings: |config| match &config.feedforward_modules {
        Some(targets) if !targets.is_empty() => format!("on the input of {targets}"),
        _ => "on outputs".to_owned(),
    },
};

fn ia3(keys: &mut ConfigKeys<'_>) -> Result<AdapterConfig, AdapterError> {
    // PEFT corrects it: it says how the base model stores its weights
    keys.map.shift_remove("fan_in_fan_out");
    let default = || Targets::Names(vec!["down_proj".to_owned()]);
    let feedforward = keys.take("feedforward_modules", Targets::EXPECTED)?;
    Ok(AdapterConfig {
        kind: &kind::IA3,
        target_modules: keys.take("target_modules", Targets::EXPECTED)?,
        exclude_modules: keys.take("exclude_modules", Targets::EXPECTED)?,
        // PEFT's default for every family that it has one for
        feedforward_modules: feedforward.or_else(|| Some(default())),
        modules_to_save: keys.take("modules_to_save", "a list of module names")?,
        init_ia3_weights: keys
            .take("init_ia3_weights", "true or false")?
            .unwrap_or(true),
        ..keys.common()?
    })
}

/// LLaMA-Adapter.
pub(super) static ADAPTION_PROMPT: PeftType = PeftType {
    name: "ADAPTION_PROMPT",
    table: "adaption_prompt",
    saves_modules: false,
    unknown_to_peft: None,
    tag: "llama-adapter",
    read: adaption_prompt,
    entries: |config| {
        vec![
            ("adapter_layers", json!(config.adapter_layers)),
            ("adapter_len", json!(config.adapter_len)),
            ("target_modules", json!(ATTENTION)),
        ]
    },
    settings: prompts,
};

/// LLaMA-Adapter as published, with a gate for each head.
pub(super) static LLAMA_ADAPTER: PeftType = PeftType {
    name: "LLAMA_ADAPTER",
    table: "adaption_prompt",
    saves_modules: false,
    unknown_to_peft: Some(
        "its adaption prompts have one gate a layer, and this one has one a head",
    ),
    tag: "llama-adapter",
    read: |keys| {
        let gate_activation = keys.take("gate_activation", "\"tanh\" or \"none\"")?;
        Ok(AdapterConfig {
            kind: &kind::LLAMA_ADAPTER,
            gate_activation: gate_activation.unwrap_or_default(),
            ..adaption_prompt(keys)?
        })
    },
    entries: |config| {
        let mut entries = (ADAPTION_PROMPT.entries)(config);
        entries.push(("gate_activation", json!(config.gate_activation)));
        entries
    },
    settings: |config| {
        let gate = match config.gate_activation {
            GateActivation::Tanh => "a gate for each head",
            GateActivation::None => "a gate for each head, without tanh",
        };
        format!("{}, {gate}", prompts(config))
    },
};

/// How many prompts, and where.
pub(super) fn prompts(config: &AdapterConfig) -> String {
    let prompts = counted(config.adapter_len, "prompt");
    match config.adapter_layers {
        1 => format!("{prompts} in the last layer"),
        layers => format!("{prompts} in each of the upper {layers} layers"),
    }
}

fn adaption_prompt(keys: &mut ConfigKeys<'_>) -> Result<AdapterConfig, AdapterError> {
    let target: Option<String> = keys.take("target_modules", "the name of a module")?;
    if let Some(other) = target.filter(|name| name != ATTENTION) {
        let why = "the attention of these models is `self_attn`";
        return Err(keys.unsupported("target_modules", &json!(other), why));
    }
    let mut count = |key: &str| {
        let expected = "a whole number above 0";
        match keys.take(key, expected)? {
            Some(count) if count > 0 => Ok(count),
            Some(_) => Err(keys.wrong(key, expected, "0".to_owned())),
            None => Err(keys.wrong(key, expected, "null".to_owned())),
        }
    };
    let (adapter_len, adapter_layers) = (count("adapter_len")?, count("adapter_layers")?);
    Ok(AdapterConfig {
        kind: &kind::ADAPTION_PROMPT,
        target_modules: Some(Targets::Names(vec![ATTENTION.to_owned()])),
        adapter_len,
        adapter_layers,
        ..keys.common()?
    })
}

impl PeftType {
    /// The type with this `peft_type`.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|known| known.name == name)
    }
}
