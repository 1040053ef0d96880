//! `adapter_config.json`: PEFT's configuration of an adapter. Its type decides which keys it has ([`super::PeftType`]).
//!
//! Source: `LoraConfig` and `PeftConfigMixin` of PEFT 0.21 (src/peft/tuners/lora/config.py and
//! src/peft/config.py).

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use simmer_checkpoint::MAX_TEXT_BYTES;

use super::AdapterError;
use super::init::Init;
use super::keys::ConfigKeys;
use super::kind::{self, GateActivation, Kind, LORA};
use super::mlx;
use super::peft_type::{self, PeftType};
use super::targets::{Layers, Names, Patterns, Targets};
use super::tokens::TokenIndices;

/// The file's name.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The PEFT version whose file format is written.
const PEFT_VERSION: &str = "0.21.2";

/// Which biases of the base model are trained in addition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Bias {
    /// No bias.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// The biases of target modules.
    LoraOnly,
}

/// PEFT's configuration of an adapter.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "keys of a file")]
pub struct AdapterConfig {
    /// The kind of adapter.
    pub kind: &'static Kind,
    /// Name or path of the base model.
    pub base_model_name_or_path: Option<String>,
    /// Revision of the base model on the hub.
    pub revision: Option<String>,
    /// "CAUSAL_LM" for language models.
    pub task_type: Option<String>,
    /// The class of the base model, which PEFT names in `auto_mapping` if there is no task type.
    pub base_class: Option<String>,
    /// The version of PEFT that wrote the file, if given.
    pub peft_version: Option<String>,
    /// Rank of modules that `rank_pattern` does not match.
    pub r: usize,
    /// Alpha, the numerator of the scale, of modules that `alpha_pattern` does not match.
    pub lora_alpha: f64,
    /// Dropout probability of a low-rank branch's input during training.
    pub lora_dropout: f64,
    /// Scale by alpha/√r instead of alpha/r.
    pub use_rslora: bool,
    /// Biases that are trained in addition.
    pub bias: Bias,
    /// The target modules; `None`: PEFT's default for LLaMA, q_proj and v_proj.
    pub target_modules: Option<Targets>,
    /// Modules that are excluded from the targets.
    pub exclude_modules: Option<Targets>,
    /// Restricts targets given by name to these layers.
    pub layers_to_transform: Option<Layers>,
    /// Name of the list of layers in a module path.
    pub layers_pattern: Option<Names>,
    /// Ranks of individual modules.
    pub rank_pattern: Patterns<usize>,
    /// Alphas of individual modules.
    pub alpha_pattern: Patterns<f64>,
    /// Modules that are trained fully.
    pub modules_to_save: Option<Vec<String>>,
    /// Tokens whose rows of the embedding or of the output head are trained.
    pub trainable_token_indices: Option<TokenIndices>,
    /// How A and B were initialised: a boolean or a name.
    pub init_lora_weights: Value,
    /// Whether simmer saves an adapter that started at factors of the weight as plain LoRA; not in the file.
    pub convert_to_lora: bool,
    /// Keep adapters of tied weights tied.
    pub ensure_weight_tying: bool,
    /// The target modules whose input an adapter of (IA)³ changes.
    pub feedforward_modules: Option<Targets>,
    /// Whether the factors of (IA)³ started at 1.
    pub init_ia3_weights: bool,
    /// The prompts of each layer with adaption prompts.
    pub adapter_len: usize,
    /// The number of upper layers with adaption prompts.
    pub adapter_layers: usize,
    /// What the gates of heads with adaption prompts pass through.
    pub gate_activation: GateActivation,
}

impl Default for AdapterConfig {
    /// PEFT's defaults.
    fn default() -> Self {
        Self {
            kind: &LORA,
            base_model_name_or_path: None,
            revision: None,
            task_type: None,
            base_class: None,
            peft_version: None,
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            bias: Bias::None,
            target_modules: None,
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            modules_to_save: None,
            trainable_token_indices: None,
            init_lora_weights: Value::Bool(true),
            convert_to_lora: true,
            ensure_weight_tying: false,
            feedforward_modules: None,
            init_ia3_weights: true,
            adapter_len: 0,
            adapter_layers: 0,
            gate_activation: GateActivation::Tanh,
        }
    }
}

impl AdapterConfig {
    /// Reads `adapter_config.json` of any PEFT version, or of mlx-lm. The targets of the latter are in the weight file.
    ///
    /// Returns the configuration and a warning for each ignored key.
    ///
    /// # Errors
    ///
    /// Values of a wrong type, and keys that make the adapter compute something that simmer does not.
    pub fn read(file: &Path) -> Result<(Self, Vec<String>), AdapterError> {
        Self::from_json(object(file)?, file)
    }

    /// The same for inspection: keys that make the adapter compute something that simmer does not are warnings
    /// instead of errors.
    ///
    /// # Errors
    ///
    /// Values of a wrong type, and methods that simmer does not have.
    pub fn describe(file: &Path) -> Result<(Self, Vec<String>), AdapterError> {
        Self::from_keys(ConfigKeys {
            map: object(file)?,
            file,
            tolerated: Some(Vec::new()),
        })
    }

    /// [`Self::read`] for a parsed file; `file` appears only in errors.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn from_json(
        map: Map<String, Value>,
        file: &Path,
    ) -> Result<(Self, Vec<String>), AdapterError> {
        Self::from_keys(ConfigKeys {
            map,
            file,
            tolerated: None,
        })
    }

    fn from_keys(mut keys: ConfigKeys<'_>) -> Result<(Self, Vec<String>), AdapterError> {
        if mlx::is_mlx(&keys.map) {
            return Ok((mlx::config(keys.map, keys.file)?, Vec::new()));
        }
        let method: Option<String> = keys.take("peft_type", "the name of a method")?;
        let Some(of_type) = method.as_deref().and_then(PeftType::named) else {
            let found = method.map_or(Value::Null, Value::String);
            return Err(keys.unsupported("peft_type", &found, peft_type::READS));
        };
        let config = (of_type.read)(&mut keys)?;
        let warnings = keys.rest()?;
        Ok((config, warnings))
    }

    /// How A and B started.
    pub fn init(&self) -> Init {
        Init::of_peft(&self.init_lora_weights)
    }

    /// Checks the settings that a recipe may get wrong, with the recipe's names for them.
    ///
    /// # Errors
    ///
    /// The first setting that is out of range, with the nearest valid value.
    pub fn check(&self) -> Result<(), AdapterError> {
        let wrong = |key, why| Err(AdapterError::Conflict { key, why });
        if let Some(why) = wrong_rank(self.r) {
            return wrong("rank", why);
        }
        if let Some(why) = wrong_alpha(self.lora_alpha) {
            return wrong("alpha", why);
        }
        if let Some(why) = wrong_dropout(self.lora_dropout) {
            return wrong("dropout", why);
        }
        for (module, rank) in self.rank_pattern.iter() {
            if let Some(why) = wrong_rank(*rank) {
                return wrong("rank_pattern", format!("`{module}`: {why}"));
            }
        }
        for (module, alpha) in self.alpha_pattern.iter() {
            if let Some(why) = wrong_alpha(*alpha) {
                return wrong("alpha_pattern", format!("`{module}`: {why}"));
            }
        }
        Ok(())
    }

    /// The text of the file as PEFT writes it: all keys, sorted, indented by two spaces, without a final newline.
    ///
    /// `rank_pattern` and `alpha_pattern` keep their order, which PEFT's writer loses: if two patterns match, the
    /// first one in the file applies.
    pub fn to_json(&self) -> String {
        let of_type = self.kind.peft;
        let mut entries = vec![
            ("auto_mapping", Value::Null),
            (
                "base_model_name_or_path",
                json!(self.base_model_name_or_path),
            ),
            ("inference_mode", json!(true)),
            ("peft_type", json!(of_type.name)),
            ("peft_version", json!(PEFT_VERSION)),
            ("revision", json!(self.revision)),
            ("task_type", json!(self.task_type)),
        ];
        entries.extend((of_type.entries)(self));
        entries.sort_by_key(|(key, _)| *key);
        let map: Map<String, Value> = entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        escaped(&format!("{:#}", Value::Object(map)))
    }

    /// The settings of its type, as the middle of a sentence.
    pub fn settings(&self) -> String {
        (self.kind.peft.settings)(self)
    }

    /// The keys of LoRA alone.
    pub(super) fn lora_entries(&self) -> Vec<(&'static str, Value)> {
        let mut entries = vec![
            ("alpha_pattern", number_patterns(&self.alpha_pattern)),
            ("bias", json!(self.bias)),
            ("ensure_weight_tying", json!(self.ensure_weight_tying)),
            ("exclude_modules", sorted(self.exclude_modules.as_ref())),
            ("fan_in_fan_out", json!(false)),
            ("init_lora_weights", self.init_lora_weights.clone()),
            ("layers_pattern", json!(self.layers_pattern)),
            ("layers_to_transform", json!(self.layers_to_transform)),
            ("loftq_config", json!({})),
            ("lora_alpha", number(self.lora_alpha)),
            ("lora_bias", json!(false)),
            ("lora_dropout", json!(self.lora_dropout)),
            ("megatron_core", json!("megatron.core")),
            ("modules_to_save", json!(self.modules_to_save)),
            ("qalora_group_size", json!(16)),
            ("r", json!(self.r)),
            ("rank_pattern", json!(self.rank_pattern)),
            ("target_modules", sorted(self.target_modules.as_ref())),
            (
                "trainable_token_indices",
                json!(self.trainable_token_indices),
            ),
            ("use_qalora", json!(false)),
            ("use_rslora", json!(self.use_rslora)),
        ];
        for kind in kind::ALL {
            entries.extend(kind.switch.map(|key| (key, json!(kind == self.kind))));
        }
        let unset = UNSET.iter().map(|key| (*key, Value::Null));
        entries.extend(unset);
        entries
    }
}

/// Targets as PEFT writes them.
pub(super) fn sorted(targets: Option<&Targets>) -> Value {
    match targets.cloned() {
        Some(Targets::Names(mut names)) => {
            names.sort();
            names.dedup();
            json!(names)
        }
        other => json!(other),
    }
}

/// The largest rank of a recipe. No weight of a published LLaMA has a higher one: their largest hidden size is 16,384.
const MOST_RANK: usize = 16_384;
/// The largest alpha of a recipe.
const MOST_ALPHA: f64 = 1e6;

/// Why a rank is out of range, if it is.
fn wrong_rank(rank: usize) -> Option<String> {
    let nearest = rank.clamp(1, MOST_RANK);
    (rank != nearest).then(|| {
        format!(
            "expected a whole number from 1 to {MOST_RANK}, found {rank}; the nearest valid value is {nearest}"
        )
    })
}

/// Why an alpha is out of range, if it is.
fn wrong_alpha(alpha: f64) -> Option<String> {
    let valid = alpha > 0.0 && alpha <= MOST_ALPHA;
    let instead = if alpha > MOST_ALPHA {
        format!("the nearest valid value is {MOST_ALPHA}")
    } else {
        "usual values are the rank and twice the rank".to_owned()
    };
    (!valid).then(|| {
        format!("expected a number above 0 and at most {MOST_ALPHA}, found {alpha}; {instead}")
    })
}

/// Why a dropout is out of range, if it is.
fn wrong_dropout(dropout: f64) -> Option<String> {
    let instead = if dropout < 0.0 {
        "the nearest valid value is 0".to_owned()
    } else if dropout > 1.0 && dropout < 100.0 {
        format!("{dropout}% is {}", dropout / 100.0)
    } else {
        "usual values are 0 to 0.1".to_owned()
    };
    (!(0.0..1.0).contains(&dropout))
        .then(|| format!("expected a number from 0 to below 1, found {dropout}; {instead}"))
}

fn object(file: &Path) -> Result<Map<String, Value>, AdapterError> {
    let text = simmer_files::read(file, MAX_TEXT_BYTES).map_err(AdapterError::io(file, "read"))?;
    serde_json::from_slice(&text).map_err(|source| AdapterError::ConfigJson {
        file: file.into(),
        source,
    })
}

/// Keys that are written as null.
const UNSET: &[&str] = &[
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "eva_config",
    "kasa_config",
    "layer_replication",
    "lora_ga_config",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "velora_config",
];

/// Writes 16.0 as `16`: alphas in PEFT are integers unless the user wrote a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn number_patterns(patterns: &Patterns<f64>) -> Value {
    let entries = patterns
        .iter()
        .map(|(key, value)| (key.clone(), number(*value)));
    Value::Object(entries.collect())
}

/// Escapes all characters outside ASCII, as Python does.
fn escaped(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            ascii.push(letter);
        } else {
            let mut units = [0; 2];
            let escapes = letter.encode_utf16(&mut units).iter();
            ascii.extend(escapes.map(|unit| format!("\\u{unit:04x}")));
        }
    }
    ascii
}

#[cfg(test)]
mod tests;
