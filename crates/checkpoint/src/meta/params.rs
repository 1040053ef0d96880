//! `params.json`: the configuration of a model in Meta's layout.
//!
//! The file lacks the feed-forward size (a rule determines it), the maximum context and, for LLaMA 1 and 2, the vocabulary
//! size. These are taken from the weights and from the published models.
//!
//! Source: meta-llama/llama (`llama/model.py`), meta-llama/llama-models (`models/llama3/args.py`),
//! and transformers, `convert_llama_weights_to_hf.py`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::MetaError;
use super::layout::FAMILY;
use crate::config::{ConfigError, Keys, ModelConfig, RopeScaling};

/// Values that all Llama 3 models share and that have no key in `params.json`.
const LOW_FREQ_FACTOR: f64 = 1.0;
const HIGH_FREQ_FACTOR: f64 = 4.0;
const ORIGINAL_CONTEXT: usize = 8192;
/// Default base of the rotary frequencies.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;
const DEFAULT_MULTIPLE_OF: usize = 256;

/// The contents of a `params.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// Features of a token between layers.
    pub dim: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Rows of the embedding; `None` if the file has -1.
    pub vocab_size: Option<usize>,
    /// The feed-forward size is a multiple of this.
    pub multiple_of: usize,
    /// Factor of the feed-forward size.
    pub ffn_dim_multiplier: Option<f64>,
    /// Epsilon of RMSNorm: added to the mean square before the square root.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies for longer contexts.
    pub rope_scaling: RopeScaling,
    /// Maximum context in tokens: from the file, or from the published model of this kind.
    pub max_seq_len: usize,
}

impl Params {
    /// Reads the contents of a `params.json`; `path` is for messages.
    ///
    /// # Errors
    /// If keys are missing, have another type, or have values that simmer does not support.
    pub fn from_json(json: &Value, path: &Path) -> Result<Self, ConfigError> {
        let json = json
            .get("model")
            .filter(|model| model.is_object())
            .unwrap_or(json);
        let keys = Keys { json, path };
        for (key, expected) in [
            ("quantization_args", "none (weights in f16, bf16 or f32)"),
            ("lora_args", "none (a model without an adapter)"),
            ("moe", "none (a model without experts)"),
            ("moe_args", "none (a model without experts)"),
            ("vision_model", "none (a text model)"),
        ] {
            if let Some(found) = keys.get(key) {
                return Err(keys.error(key, expected, Some(found)));
            }
        }
        let dim = keys.size("dim")?;
        let n_heads = keys.size("n_heads")?;
        if !dim.is_multiple_of(n_heads) {
            let expected = format!("a divisor of `dim` ({dim})");
            return Err(keys.error("n_heads", &expected, keys.get("n_heads")));
        }
        let mut params = Self {
            dim,
            n_layers: keys.size("n_layers")?,
            n_heads,
            n_kv_heads: keys.size_or("n_kv_heads", n_heads)?,
            vocab_size: match keys.get("vocab_size") {
                Some(found) if found.as_i64() == Some(-1) => None,
                None => None,
                Some(_) => Some(keys.size("vocab_size")?),
            },
            multiple_of: keys.size_or("multiple_of", DEFAULT_MULTIPLE_OF)?,
            ffn_dim_multiplier: match keys.get("ffn_dim_multiplier") {
                None => None,
                Some(_) => Some(keys.number_or("ffn_dim_multiplier", 1.0)?),
            },
            norm_eps: keys.number_or("norm_eps", 1e-5)?,
            rope_theta: keys.number_or("rope_theta", DEFAULT_ROPE_THETA)?,
            rope_scaling: RopeScaling::Default,
            max_seq_len: 0,
        };
        if keys.flag("use_scaled_rope")? {
            params.rope_scaling = RopeScaling::Llama3 {
                factor: keys.number_or("rope_scaling_factor", params.published_factor())?,
                low_freq_factor: LOW_FREQ_FACTOR,
                high_freq_factor: keys.number_or("rope_high_freq_factor", HIGH_FREQ_FACTOR)?,
                original_max_position_embeddings: ORIGINAL_CONTEXT,
            };
        }
        params.max_seq_len = keys.size_or("max_seq_len", params.published_context())?;
        Ok(params)
    }

    /// The `params.json` of a model.
    ///
    /// # Errors
    /// All properties that the file cannot express.
    pub fn of(config: &ModelConfig) -> Result<Self, MetaError> {
        let problems = problems(config);
        if !problems.is_empty() {
            return Err(MetaError::Inexpressible { problems });
        }
        let (multiple_of, ffn_dim_multiplier) =
            feed_forward_rule(config.hidden_size, config.intermediate_size);
        Ok(Self {
            dim: config.hidden_size,
            n_layers: config.num_hidden_layers,
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads,
            vocab_size: Some(config.vocab_size),
            multiple_of,
            ffn_dim_multiplier,
            norm_eps: config.rms_norm_eps,
            rope_theta: config.rope_theta,
            rope_scaling: config.rope_scaling.clone(),
            max_seq_len: config.max_position_embeddings,
        })
    }

    /// The JSON of the file. Keys with their default value are omitted, because Meta's programs refuse keys that are newer
    /// than the program.
    #[expect(
        clippy::float_cmp,
        reason = "a key is omitted if its value is exactly the default"
    )]
    pub fn to_json(&self) -> Value {
        let mut json = Map::new();
        let mut set = |key: &str, value: Value| json.insert(key.to_owned(), value);
        set("dim", json!(self.dim));
        if let Some(multiplier) = self.ffn_dim_multiplier {
            set("ffn_dim_multiplier", json!(multiplier));
        }
        set("multiple_of", json!(self.multiple_of));
        set("n_heads", json!(self.n_heads));
        if self.n_kv_heads != self.n_heads {
            set("n_kv_heads", json!(self.n_kv_heads));
        }
        set("n_layers", json!(self.n_layers));
        set("norm_eps", json!(self.norm_eps));
        if self.rope_theta != DEFAULT_ROPE_THETA {
            set("rope_theta", json!(self.rope_theta));
        }
        if let RopeScaling::Llama3 {
            factor,
            high_freq_factor,
            ..
        } = self.rope_scaling
        {
            set("use_scaled_rope", json!(true));
            if factor != self.published_factor() {
                set("rope_scaling_factor", json!(factor));
            }
            if high_freq_factor != HIGH_FREQ_FACTOR {
                set("rope_high_freq_factor", json!(high_freq_factor));
            }
        }
        if self.max_seq_len != self.published_context() {
            set("max_seq_len", json!(self.max_seq_len));
        }
        set(
            "vocab_size",
            self.vocab_size.map_or(json!(-1), |size| json!(size)),
        );
        Value::Object(json)
    }

    /// Features inside the feed-forward block by Meta's rule; `None` on overflow.
    ///
    /// `int(2 * 4 dim / 3)`, times `ffn_dim_multiplier`, truncated again, and rounded up to a multiple of `multiple_of`.
    pub fn intermediate_size(&self) -> Option<usize> {
        feed_forward_size(self.dim, self.multiple_of, self.ffn_dim_multiplier)
    }

    /// The scaling factor of the published model with this shape: 32 for the two small models of Llama 3.2, whose
    /// `params.json` does not contain it, otherwise 8.
    fn published_factor(&self) -> f64 {
        match (self.dim, self.n_layers) {
            (2048, 16) | (3072, 28) => 32.0,
            _ => 8.0,
        }
    }

    /// The maximum context of the published models of this kind, in tokens.
    fn published_context(&self) -> usize {
        let first = self.norm_eps < 5e-6 || (self.dim == 8192 && self.n_kv_heads == self.n_heads);
        match self.rope_theta {
            _ if self.rope_scaling != RopeScaling::Default => 131_072,
            // Llama 3
            500_000.0 => 8192,
            // Code Llama
            theta if theta > DEFAULT_ROPE_THETA => 16_384,
            _ if first => 2048,
            // Llama 2
            _ => 4096,
        }
    }
}

/// The properties that a `params.json` cannot express.
fn problems(config: &ModelConfig) -> Vec<String> {
    let mut problems = Vec::new();
    if config.family != FAMILY {
        let (expected, found) = (FAMILY.model_type, config.family.model_type);
        problems.push(format!(
            "`model_type`: expected {expected:?}, found {found:?}"
        ));
    }
    for module in config.family.modules() {
        if module.bias.of(config) {
            let problem = match module.bias.key() {
                Some(key) => format!("`{key}`: expected false, found true"),
                None => format!("{}: expected no bias, found one", module.name),
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    if config.head_dim * config.num_attention_heads != config.hidden_size {
        problems.push(format!(
            "`head_dim`: expected hidden_size / num_attention_heads ({} / {}), found {}",
            config.hidden_size, config.num_attention_heads, config.head_dim
        ));
    }
    let expected =
        "default, or llama3 with low_freq_factor 1 and original_max_position_embeddings 8192";
    match &config.rope_scaling {
        RopeScaling::Linear { factor } => problems.push(format!(
            "`rope_scaling`: expected {expected}, found linear with factor {factor}"
        )),
        RopeScaling::Llama3 {
            low_freq_factor: low,
            original_max_position_embeddings: original,
            ..
        } if *low != LOW_FREQ_FACTOR || *original != ORIGINAL_CONTEXT => problems.push(format!(
            "`rope_scaling`: expected {expected}, found {low} and {original}"
        )),
        RopeScaling::Default | RopeScaling::Llama3 { .. } => {}
        other => problems.push(format!(
            "`rope_scaling`: expected {expected}, found {}",
            other.kind()
        )),
    }
    problems
}

fn feed_forward_size(dim: usize, multiple_of: usize, multiplier: Option<f64>) -> Option<usize> {
    let plain = plain_size(dim)?;
    let size = multiplier.map_or(plain, |multiplier| (multiplier * plain as f64) as usize);
    size.div_ceil(multiple_of).checked_mul(multiple_of)
}

/// Two thirds of four times the features, truncated.
fn plain_size(dim: usize) -> Option<usize> {
    Some(dim.checked_mul(8)? / 3)
}

/// A `multiple_of` and `ffn_dim_multiplier` that give this feed-forward size: the usual values if they give it, otherwise
/// the multiplier with the fewest decimals.
fn feed_forward_rule(dim: usize, size: usize) -> (usize, Option<f64>) {
    let multiples = [256, 1024, 4096, 512, 2048, 128, 64, 32, 16, 8, 4, 2, 1];
    let multiples = || {
        multiples
            .into_iter()
            .filter(|&multiple| size.is_multiple_of(multiple))
    };
    let makes = |multiple, multiplier| feed_forward_size(dim, multiple, multiplier) == Some(size);
    if let Some(multiple) = multiples().find(|&multiple| makes(multiple, None)) {
        return (multiple, None);
    }
    let ratio = size as f64 / plain_size(dim).unwrap_or(1).max(1) as f64;
    for decimals in 1..=15 {
        let scale = 10_f64.powi(decimals);
        for multiplier in [
            (ratio * scale).floor() / scale,
            (ratio * scale).ceil() / scale,
        ] {
            if let Some(multiple) = multiples().find(|&multiple| makes(multiple, Some(multiplier)))
            {
                return (multiple, Some(multiplier));
            }
        }
    }
    // truncation removes the additional half feature
    (
        1,
        Some((size as f64 + 0.5) / plain_size(dim).unwrap_or(1).max(1) as f64),
    )
}
