//! Reads `adapter_config.json` key by key.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::AdapterError;
use super::config::AdapterConfig;
use super::init::Init;
use super::kind::{self, Kind, LORA};
use super::names::{Layers, Names, Targets};
use super::tokens::{self, TokenIndices};

/// Keys that do not affect what an adapter computes.
const NEUTRAL: &[&str] = &[
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
];

/// Keys that must be unset, and what they do if they are set.
pub(super) const VARIANTS: &[(&str, &str)] = &[
    (
        "alora_invocation_tokens",
        "activated LoRA applies only from its invocation tokens on",
    ),
    ("arrow_config", "Arrow routes between several adapters"),
    (
        "fan_in_fan_out",
        "it is for transposed base weights, which LLaMA does not have",
    ),
    ("kasa_config", "KaSA truncates the base weights"),
    ("layer_replication", "it repeats layers of the base model"),
    ("lora_bias", "lora_B has a bias"),
    ("megatron_config", "it is for Megatron's parallel layers"),
    ("monteclora_config", "MonteCLoRA samples its weights"),
    (
        "target_parameters",
        "it adapts parameters that are not modules",
    ),
    ("use_bdlora", "its factors are block-diagonal"),
    ("use_qalora", "QALoRA pools its inputs"),
    ("velora_config", "VeLoRA compresses its inputs"),
];

/// The entries of the file, removed one by one as they are read.
pub(super) struct ConfigKeys<'a> {
    pub(super) map: Map<String, Value>,
    pub(super) file: &'a Path,
    /// Collects unsupported keys as warnings; `None`: they are errors.
    pub(super) tolerated: Option<Vec<String>>,
}

impl ConfigKeys<'_> {
    /// The keys that a configuration of any type has.
    pub(super) fn common(&mut self) -> Result<AdapterConfig, AdapterError> {
        Ok(AdapterConfig {
            base_model_name_or_path: self.take("base_model_name_or_path", "a string")?,
            revision: self.take("revision", "a string")?,
            task_type: self.take("task_type", "a string")?,
            base_class: self.base_class()?,
            peft_version: self.take("peft_version", "a string")?,
            ..AdapterConfig::default()
        })
    }

    /// The configuration of LoRA, or of a kind that a key of LoRA's chooses.
    pub(super) fn lora(&mut self) -> Result<AdapterConfig, AdapterError> {
        self.refuse_variants()?;
        let default = AdapterConfig::default();
        let mut config = AdapterConfig {
            kind: self.kind()?,
            r: self.take("r", "a whole number")?.unwrap_or(default.r),
            lora_alpha: self
                .take("lora_alpha", "a number")?
                .unwrap_or(default.lora_alpha),
            lora_dropout: self.take("lora_dropout", "a number")?.unwrap_or_default(),
            use_rslora: self
                .take("use_rslora", "true or false")?
                .unwrap_or_default(),
            bias: self
                .take("bias", "\"none\", \"all\" or \"lora_only\"")?
                .unwrap_or_default(),
            target_modules: self.take("target_modules", Targets::EXPECTED)?,
            exclude_modules: self.take("exclude_modules", Targets::EXPECTED)?,
            layers_to_transform: self.take("layers_to_transform", Layers::EXPECTED)?,
            layers_pattern: self.take("layers_pattern", Names::EXPECTED)?,
            rank_pattern: self
                .take("rank_pattern", "a table of module names and ranks")?
                .unwrap_or_default(),
            alpha_pattern: self
                .take("alpha_pattern", "a table of module names and numbers")?
                .unwrap_or_default(),
            modules_to_save: self.take("modules_to_save", "a list of module names")?,
            trainable_token_indices: self
                .take(tokens::KEY, TokenIndices::EXPECTED)?
                .filter(|indices: &TokenIndices| !indices.is_empty()),
            init_lora_weights: self
                .map
                .shift_remove("init_lora_weights")
                .unwrap_or(default.init_lora_weights),
            convert_to_lora: default.convert_to_lora,
            ensure_weight_tying: self
                .take("ensure_weight_tying", "true or false")?
                .unwrap_or_default(),
            ..self.common()?
        };
        if config.r == 0 {
            return Err(self.wrong("r", "at least 1", "0".to_owned()));
        }
        if !(0.0..1.0).contains(&config.lora_dropout) {
            let found = config.lora_dropout.to_string();
            return Err(self.wrong("lora_dropout", "a number from 0 to less than 1", found));
        }
        self.check_init(&config.init_lora_weights)?;
        if config.init().is_of_weight() {
            if *config.kind != LORA {
                let why = "with this key PEFT takes the magnitudes of what the start leaves of the weights";
                self.refuse("init_lora_weights", &config.init_lora_weights, why)?;
            }
            config.kind = config.init().kind();
        }
        Ok(config)
    }

    /// The kind of adapter, which a key of its own chooses.
    fn kind(&mut self) -> Result<&'static Kind, AdapterError> {
        let mut chosen: &'static Kind = &LORA;
        for kind in kind::ALL {
            let Some(key) = kind.switch else { continue };
            if self.take(key, "true or false")? == Some(true) {
                chosen = kind;
            }
        }
        Ok(chosen)
    }

    /// The class in `auto_mapping`: `{"base_model_class": "LlamaModel", "parent_library": "transformers..."}`.
    fn base_class(&mut self) -> Result<Option<String>, AdapterError> {
        let expected = "an object with the text `base_model_class`";
        let Some(mapping) = self.take::<Map<String, Value>>("auto_mapping", expected)? else {
            return Ok(None);
        };
        match mapping.get("base_model_class") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(class)) => Ok(Some(class.clone())),
            Some(_) => {
                let found = Value::Object(mapping).to_string();
                Err(self.wrong("auto_mapping", expected, found))
            }
        }
    }

    /// Removes a key and parses its value; `None` if it is missing or null.
    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<T>, AdapterError> {
        match self.map.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let found = value.to_string();
                serde_json::from_value(value)
                    .map(Some)
                    .map_err(|_| self.wrong(key, expected, found))
            }
        }
    }

    /// Refuses initialisations that change the base weights in a way that simmer does not compute again: the change is not in
    /// the adapter's file.
    fn check_init(&mut self, init: &Value) -> Result<(), AdapterError> {
        let Value::String(name) = init else {
            return if init.is_boolean() || init.is_null() {
                Ok(())
            } else {
                Err(self.wrong(
                    "init_lora_weights",
                    "true, false or a name",
                    init.to_string(),
                ))
            };
        };
        if Init::named(name).is_some() {
            return Ok(());
        }
        let altering = ["pissa", "corda", "lora_ga", "loftq"];
        if altering.iter().any(|prefix| name.starts_with(prefix)) {
            let why = "this initialisation changes the base weights, and the file does not contain the \
                       change; save the adapter with PEFT's \
                       `path_initial_model_for_weight_conversion` to convert it to plain LoRA";
            return self.refuse("init_lora_weights", init, why);
        }
        if !["gaussian", "eva", "orthogonal"].contains(&name.as_str()) {
            let why = "simmer does not know whether it changes the base weights";
            return self.refuse("init_lora_weights", init, why);
        }
        Ok(())
    }

    fn refuse_variants(&mut self) -> Result<(), AdapterError> {
        for (key, why) in VARIANTS {
            if let Some(value) = self.map.shift_remove(*key)
                && !is_unset(&value)
            {
                self.refuse(key, &value, why)?;
            }
        }
        Ok(())
    }

    /// Reports a key that simmer does not support: as an error, or as a warning for inspection.
    fn refuse(&mut self, key: &str, found: &Value, why: &'static str) -> Result<(), AdapterError> {
        let error = self.unsupported(key, found, why);
        match &mut self.tolerated {
            None => Err(error),
            Some(tolerated) => {
                tolerated.push(error.to_string());
                Ok(())
            }
        }
    }

    /// Checks the remaining keys, which no known version of PEFT writes. PEFT enables variants with `true` or an
    /// object, so such a key is refused; any other is a warning.
    pub(super) fn rest(mut self) -> Result<Vec<String>, AdapterError> {
        for key in NEUTRAL {
            self.map.shift_remove(*key);
        }
        let mut warnings = Vec::new();
        for (key, value) in &std::mem::take(&mut self.map) {
            if matches!(value, Value::Bool(true) | Value::Object(_)) && !is_unset(value) {
                let why = "the key is unknown and may change what the adapter computes";
                self.refuse(key, value, why)?;
                continue;
            }
            warnings.push(format!(
                "{}: unknown key `{key}` = {value} is ignored",
                self.file.display()
            ));
        }
        let tolerated = self.tolerated.unwrap_or_default();
        Ok(tolerated.into_iter().chain(warnings).collect())
    }

    pub(super) fn wrong(&self, key: &str, expected: &'static str, found: String) -> AdapterError {
        AdapterError::ConfigValue {
            file: self.file.into(),
            key: key.to_owned(),
            expected,
            found,
        }
    }

    pub(super) fn unsupported(&self, key: &str, found: &Value, why: &'static str) -> AdapterError {
        AdapterError::Unsupported {
            file: self.file.into(),
            key: key.to_owned(),
            found: found.to_string(),
            why,
        }
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}
