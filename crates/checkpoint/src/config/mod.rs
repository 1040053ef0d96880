//! The configuration of a model: Hugging Face's `config.json` of transformers 4 and 5.

mod attention;
mod error;
mod keys;
mod refused;
mod rope;
mod text;
mod which;
mod windows;

use std::path::Path;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

pub(crate) use attention::rotating_except_every;
pub use attention::{LayerType, Positions};
pub use error::ConfigError;
pub(crate) use keys::Keys;
pub use rope::RopeScaling;
pub use text::{ConfigFile, RawObject};

use crate::MAX_TEXT_BYTES;
use crate::family::{self, Family, LLAMA};
use crate::quantised::Method;

/// Larger than in any model, and small enough that products of sizes do not overflow.
const MAX_LAYERS: usize = 10_000;
const MAX_FEATURES: usize = 1 << 20;
const MAX_ROWS: usize = 1 << 27;
const MAX_CONTEXT: usize = 1 << 40;
/// Maximum of every size in the file.
const MAX_SIZE: usize = 1 << 40;

/// The sizes and constants of a model; field names are Hugging Face's.
///
/// Sizes are numbers of features, heads and layers; `max_position_embeddings` is in tokens. Two configurations are equal if
/// they describe the same model, whatever else their files contain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct ModelConfig {
    /// The family of the model.
    #[serde(
        rename = "model_type",
        default = "default_family",
        serialize_with = "write_family",
        deserialize_with = "read_family"
    )]
    #[schemars(with = "String")]
    pub family: &'static Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Features of a token between layers.
    pub hidden_size: usize,
    /// Features inside the feed-forward block.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Features of a head; `hidden_size / num_attention_heads` if the file has no `head_dim`.
    pub head_dim: usize,
    /// Epsilon of RMSNorm: added to the mean square before the square root.
    #[serde(default = "default_rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies for longer contexts.
    #[serde(default)]
    pub rope_scaling: RopeScaling,
    /// Maximum context of the model, in tokens.
    #[serde(default = "default_max_position_embeddings")]
    pub max_position_embeddings: usize,
    /// Whether the four attention projections have biases.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether the three feed-forward projections have biases.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Tokens that a query sees in layers with a window, its own included. Default: no layer has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Which layers have the window, if the family does not say so. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_types: Vec<LayerType>,
    /// For each layer 1 if it has rotary positions, 0 if not. Default: all have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_rope_layers: Vec<u8>,
    /// Base of the rotary frequencies of layers with a window. Default: as in the other layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_local_base_freq: Option<f64>,
    /// The part of each head that has rotary positions.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub partial_rotary_factor: f64,
    /// The scores have the factor `1 / √` of this. Default: `head_dim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_pre_attn_scalar: Option<f64>,
    /// Soft cap c of the scores, `c · tanh(s / c)`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attn_logit_softcapping: Option<f64>,
    /// Soft cap of the logits. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_logit_softcapping: Option<f64>,
    /// Factor of the embedding, in Granite.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub embedding_multiplier: f64,
    /// Factor of the scores. Default: `1 / √head_dim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_multiplier: Option<f64>,
    /// Factor of what a layer adds to its input.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub residual_multiplier: f64,
    /// Divisor of the logits.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub logits_scaling: f64,
    /// Whether the output head shares the embedding's weight.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Standard deviation of random initial weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
    /// Beginning-of-sequence token.
    #[serde(default)]
    pub bos_token_id: Option<u32>,
    /// End-of-sequence tokens.
    #[serde(default)]
    pub eos_token_id: Vec<u32>,
    /// The file that it was read from, with the keys that simmer does not know.
    #[serde(skip)]
    pub file: ConfigFile,
}

fn default_family() -> &'static Family {
    &LLAMA
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn write_family<S: Serializer>(family: &&'static Family, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(family.model_type)
}

fn read_family<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static Family, D::Error> {
    let name = String::deserialize(deserializer)?;
    Family::of_model_type(&name).ok_or_else(|| {
        if let Some(refused) = refused::of_model_type(&name) {
            return D::Error::custom(format!("`model_type`: `{name}` is {}", refused.is));
        }
        let known = family::ALL.into_iter().map(|family| family.model_type);
        D::Error::custom(format!(
            "`model_type`: expected {}, found {name:?}",
            family::quoted(known)
        ))
    })
}

fn one() -> f64 {
    1.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    clippy::float_cmp,
    reason = "serde passes a reference; only the default itself is left out"
)]
fn is_one(number: &f64) -> bool {
    *number == 1.0
}

fn default_rms_norm_eps() -> f64 {
    1e-6
}
fn default_rope_theta() -> f64 {
    10_000.0
}
fn default_max_position_embeddings() -> usize {
    2048
}
fn default_initializer_range() -> f64 {
    0.02
}

impl ModelConfig {
    /// Reads `config.json` from a model's folder.
    ///
    /// # Errors
    /// If the file is missing, is not JSON, or describes another architecture.
    pub fn from_folder(folder: &Path) -> Result<Self, ConfigError> {
        let path = folder.join("config.json");
        let text =
            simmer_files::read_text(&path, MAX_TEXT_BYTES).map_err(|source| ConfigError::Read {
                path: path.clone(),
                source,
            })?;
        let json: Value = serde_json::from_str(&text).map_err(|source| ConfigError::Json {
            path: path.clone(),
            source,
        })?;
        let mut config = Self::from_json(&json, &path)?;
        let read = config.to_json();
        // a method that is not read was refused
        let method = Method::of(&json).unwrap_or_default();
        config.file = ConfigFile::new(text, read, method)
            .map_err(|source| ConfigError::Json { path, source })?;
        Ok(config)
    }

    /// Reads the contents of a `config.json`; `path` is for error messages.
    ///
    /// # Errors
    /// As [`ModelConfig::from_folder`].
    pub fn from_json(json: &Value, path: &Path) -> Result<Self, ConfigError> {
        let keys = Keys { json, path };
        let family = keys.family()?;
        let defaults = &family.defaults;
        let num_attention_heads = keys.size("num_attention_heads")?;
        let hidden_size = keys.size("hidden_size")?;
        let own_heads = match json.get("num_key_value_heads") {
            None => defaults.num_key_value_heads,
            Some(_) => None,
        };
        let own_dim = match json.get("head_dim") {
            None => defaults.head_dim,
            Some(_) => None,
        };
        let full = keys.of_full_attention(family);
        let (rope_theta, rope_scaling) = Keys {
            json: full.as_ref().unwrap_or(json),
            path,
        }
        .rope(defaults.rope_theta)?;
        let mut config = Self {
            vocab_size: keys.size("vocab_size")?,
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            num_hidden_layers: keys.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: keys.size_or(
                "num_key_value_heads",
                own_heads.unwrap_or(num_attention_heads),
            )?,
            head_dim: keys.size_or(
                "head_dim",
                own_dim.unwrap_or(hidden_size / num_attention_heads),
            )?,
            rms_norm_eps: keys.number_or("rms_norm_eps", defaults.rms_norm_eps)?,
            rope_theta,
            rope_scaling,
            max_position_embeddings: keys.size_or(
                "max_position_embeddings",
                keys.size_or("max_sequence_length", defaults.max_position_embeddings)?,
            )?,
            attention_bias: keys.flag("attention_bias")?,
            mlp_bias: keys.flag("mlp_bias")?,
            tie_word_embeddings: keys
                .flag_or("tie_word_embeddings", defaults.tie_word_embeddings)?,
            initializer_range: keys.number_or("initializer_range", default_initializer_range())?,
            bos_token_id: keys.ids("bos_token_id")?.first().copied(),
            eos_token_id: keys.ids("eos_token_id")?,
            ..Self::of_family(family)
        };
        config.read_family_keys(&keys)?;
        keys.check_foreign_keys(family)?;
        config.check(path)?;
        Ok(config)
    }

    /// A configuration without sizes, and with the family's forward pass: what another layout does not say.
    pub(crate) fn of_family(family: &'static Family) -> Self {
        let defaults = &family.defaults;
        Self {
            family,
            vocab_size: 0,
            hidden_size: 0,
            intermediate_size: 0,
            num_hidden_layers: 0,
            num_attention_heads: 0,
            num_key_value_heads: 0,
            head_dim: 0,
            rms_norm_eps: defaults.rms_norm_eps,
            rope_theta: defaults.rope_theta,
            rope_scaling: RopeScaling::Default,
            max_position_embeddings: defaults.max_position_embeddings,
            attention_bias: false,
            mlp_bias: false,
            sliding_window: None,
            layer_types: Vec::new(),
            no_rope_layers: Vec::new(),
            rope_local_base_freq: None,
            partial_rotary_factor: 1.0,
            query_pre_attn_scalar: None,
            attn_logit_softcapping: None,
            final_logit_softcapping: None,
            embedding_multiplier: 1.0,
            attention_multiplier: None,
            residual_multiplier: 1.0,
            logits_scaling: 1.0,
            tie_word_embeddings: defaults.tie_word_embeddings,
            initializer_range: default_initializer_range(),
            bos_token_id: None,
            eos_token_id: Vec::new(),
            file: ConfigFile::default(),
        }
    }

    /// Checks the conditions of the forward pass.
    ///
    /// # Errors
    /// If a size contradicts another; `path` is the file or recipe that defines them.
    pub fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key: &str, expected: String, found: usize| ConfigError::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            expected,
            found: found.to_string(),
        };
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
        ] {
            if size == 0 {
                return Err(wrong(key, "a positive integer".into(), size));
            }
        }
        for (key, size, most) in [
            ("vocab_size", self.vocab_size, MAX_ROWS),
            ("hidden_size", self.hidden_size, MAX_FEATURES),
            ("intermediate_size", self.intermediate_size, MAX_FEATURES),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            (
                "num_attention_heads",
                self.num_attention_heads,
                MAX_FEATURES,
            ),
            ("head_dim", self.head_dim, MAX_FEATURES),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                MAX_CONTEXT,
            ),
        ] {
            if size > most {
                return Err(wrong(key, format!("at most {most}"), size));
            }
        }
        let query = self.num_attention_heads * self.head_dim;
        if query > MAX_FEATURES {
            let heads = self.num_attention_heads;
            let expected = format!("at most {} with {heads} heads", MAX_FEATURES / heads);
            return Err(wrong("head_dim", expected, self.head_dim));
        }
        self.check_numbers(path)?;
        let heads = self.num_attention_heads;
        if !heads.is_multiple_of(self.num_key_value_heads) {
            let expected = format!("a divisor of num_attention_heads ({heads})");
            return Err(wrong(
                "num_key_value_heads",
                expected,
                self.num_key_value_heads,
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            let expected = "an even number (rotary embeddings rotate pairs)".into();
            return Err(wrong("head_dim", expected, self.head_dim));
        }
        self.check_family_keys(&|key, expected, found| ConfigError::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            expected,
            found,
        })
    }

    /// Checks that results of these numbers are finite.
    fn check_numbers(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key: &str, expected: &str, found: f64| ConfigError::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: format!("{found:?}"),
        };
        // these comparisons are false for NaN
        let small = |number: f64| number > 0.0 && number <= 1.0;
        for (key, number) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("initializer_range", self.initializer_range),
        ] {
            if !small(number) {
                return Err(wrong(key, "a number above 0, at most 1", number));
            }
        }
        if !(1.0..=1e15).contains(&self.rope_theta) {
            return Err(wrong(
                "rope_theta",
                "a number from 1 to 1e15",
                self.rope_theta,
            ));
        }
        self.rope_scaling.check(
            self.rope_theta,
            self.rotary_dim(),
            &|key, expected, found| ConfigError::Key {
                path: path.to_owned(),
                key: key.to_owned(),
                expected,
                found,
            },
        )
    }
}

#[cfg(test)]
mod tests;
