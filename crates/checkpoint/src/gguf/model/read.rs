//! The configuration of a model in the metadata of a file.

use std::path::Path;

use super::{gguf_weight, limits, numbers, rotary, windows};
use crate::config::{ConfigError, ModelConfig, rotating_except_every};
use crate::family::{self, Family, GgufHead, HasBias, Windows};
use crate::gguf::metadata::required;
use crate::gguf::{Gguf, GgufError, GgufTensor, Metadata};
use crate::layout::gguf_name;

/// The configuration of the model in a file.
///
/// # Errors
/// If the file holds something else, keys are missing or have values that simmer does not support, or the rotary divisors
/// do not follow Llama 3's rule. `files` are the parsed bytes.
pub fn config(gguf: &Gguf, files: &[&[u8]]) -> Result<ModelConfig, GgufError> {
    let metadata = gguf.metadata();
    if gguf.tensors().is_empty() && metadata.string("tokenizer.ggml.model")?.is_some() {
        return Err(GgufError::VocabularyOnly);
    }
    let family = family(metadata)?;
    let keys = Keys { metadata, family };
    let num_attention_heads = keys.size("attention.head_count")?;
    let hidden_size = keys.size("embedding_length")?;
    let num_hidden_layers = keys.size("block_count")?;
    if num_hidden_layers > gguf.tensors().len() {
        let tensors = format!("at most the number of tensors ({})", gguf.tensors().len());
        return Err(keys.wrong("block_count", &tensors, &num_hidden_layers.to_string()));
    }
    let default_head = hidden_size / num_attention_heads.max(1);
    let head_dim = keys.size_or("attention.key_length", default_head)?;
    keys.expect("attention.value_length", head_dim, default_head)?;
    let rotary_dim = keys.size_or("rope.dimension_count", head_dim)?;
    if !family.partial_rotary {
        keys.expect("rope.dimension_count", head_dim, head_dim)?;
    }
    keys.expect("expert_count", 0, 0)?;
    let rope_theta = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let embedding = gguf.tensor(&gguf_weight(&family.embedding));
    let rows = embedding.and_then(|tensor| tensor.shape.first().copied());
    let mut config = ModelConfig {
        vocab_size: keys.size_or("vocab_size", rows.unwrap_or(0))?,
        hidden_size,
        intermediate_size: keys.size("feed_forward_length")?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads: keys.size_or("attention.head_count_kv", num_attention_heads)?,
        head_dim,
        rms_norm_eps: required(
            &keys.name("attention.layer_norm_rms_epsilon"),
            keys.number("attention.layer_norm_rms_epsilon")?,
        )?,
        rope_theta,
        rope_scaling: rotary::read(gguf, files, &keys, rope_theta, rotary_dim)?,
        partial_rotary_factor: part(rotary_dim, head_dim),
        max_position_embeddings: keys.size("context_length")?,
        attention_bias: has_biases(gguf, family, HasBias::AttentionBias),
        mlp_bias: has_biases(gguf, family, HasBias::MlpBias),
        tie_word_embeddings: is_tied(gguf, files, family),
        bos_token_id: token(metadata, "bos")?,
        eos_token_id: ends(metadata)?,
        ..ModelConfig::of_family(family)
    };
    if let Some(interval) = family.gguf.no_rope_layer_interval {
        config.no_rope_layers = rotating_except_every(interval, num_hidden_layers);
    }
    if family.local_rotary {
        let base = keys.number("rope.freq_base_swa")?;
        config.rope_local_base_freq = Some(base.unwrap_or(10_000.0));
    }
    if family.soft_caps {
        config.query_pre_attn_scalar = Some(limits::query_pre_attn_scalar(&config));
    }
    windows::read(&keys, &mut config)?;
    numbers::read(&keys, &mut config)?;
    check(&config)?;
    Ok(config)
}

/// The family of the model in a file.
fn family(metadata: &Metadata) -> Result<&'static Family, GgufError> {
    let refuse = |found: String| {
        let expected = format!("a model of the {} architecture", architectures());
        Err(GgufError::NotAModel { found, expected })
    };
    match metadata.string("general.type")? {
        None | Some("model") => {}
        Some("adapter") => return refuse("holds an adapter".to_owned()),
        Some(other) => return refuse(format!("holds a {other:?}")),
    }
    match metadata.string("general.architecture")? {
        Some(name) => {
            // only Mistral and LLaMA have the same architecture
            let window = metadata.size(&format!("{name}.attention.sliding_window"))?;
            let has_windows = |family: &&Family| family.windows != Windows::Never;
            let families = || Family::of_gguf(name);
            let with_windows = window.and_then(|_| families().find(has_windows));
            with_windows.or_else(|| families().next()).map_or_else(
                || refuse(format!("holds a model of the {name:?} architecture")),
                Ok,
            )
        }
        None => refuse("has no key `general.architecture`".to_owned()),
    }
}

/// The names of all architectures.
fn architectures() -> String {
    let mut names: Vec<&str> = Vec::new();
    for family in family::ALL {
        if !names.contains(&family.gguf.architecture) {
            names.push(family.gguf.architecture);
        }
    }
    let last = names.pop().unwrap_or_default();
    format!("{} or {last}", names.join(", "))
}

/// Whether the head shares the embedding's weight: the file has no tensor for it, or a copy if llama.cpp requires one.
fn is_tied(gguf: &Gguf, files: &[&[u8]], family: &'static Family) -> bool {
    let Some(head) = gguf.tensor(&gguf_weight(&family.head)) else {
        return true;
    };
    let bytes = |tensor: &GgufTensor| {
        let file = files.get(tensor.file).copied();
        file.and_then(|file| file.get(tensor.range.clone()))
    };
    let embedding = gguf.tensor(&gguf_weight(&family.embedding));
    family.gguf.head == GgufHead::Always
        && embedding.is_some_and(|embedding| {
            (embedding.kind, &embedding.shape) == (head.kind, &head.shape)
                && bytes(embedding).is_some()
                && bytes(embedding) == bytes(head)
        })
}

/// The part of a head that has rotary positions, so that its product with `head_dim` is the number of features again.
fn part(rotary_dim: usize, head_dim: usize) -> f64 {
    let factor = rotary_dim as f64 / head_dim.max(1) as f64;
    if ((head_dim as f64 * factor) as usize) < rotary_dim {
        return factor.next_up();
    }
    factor
}

/// Whether the modules whose biases depend on a key of the configuration have them: the first one in layer 0 tells.
fn has_biases(gguf: &Gguf, family: &'static Family, bias: HasBias) -> bool {
    let module = family.layer.iter().find(|module| module.bias == bias);
    module.is_some_and(|module| {
        let name = gguf_name(module, Some(0));
        gguf.tensor(&format!("{name}.bias")).is_some()
    })
}

/// One of the special tokens.
fn token(metadata: &Metadata, name: &str) -> Result<Option<u32>, GgufError> {
    let id = metadata.unsigned(&format!("tokenizer.ggml.{name}_token_id"))?;
    // some writers set all bits if there is none
    Ok(id
        .and_then(|id| u32::try_from(id).ok())
        .filter(|&id| id != u32::MAX))
}

/// The tokens that end a sequence or a turn.
fn ends(metadata: &Metadata) -> Result<Vec<u32>, GgufError> {
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        let id = token(metadata, name)?;
        ends.extend(id.filter(|id| !ends.contains(id)));
    }
    Ok(ends)
}

/// [`ModelConfig::check`] with the error type of this module.
fn check(config: &ModelConfig) -> Result<(), GgufError> {
    config.check(Path::new("")).map_err(|error| match error {
        ConfigError::Key {
            key,
            expected,
            found,
            ..
        } => GgufError::Key {
            key,
            expected,
            found,
        },
        other => GgufError::Key {
            key: config.family.gguf.architecture.to_owned(),
            expected: "the configuration of a model".to_owned(),
            found: other.to_string(),
        },
    })
}

/// The keys of the architecture.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) family: &'static Family,
}

impl Keys<'_> {
    /// The whole name of a key.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.family.gguf.architecture)
    }

    pub(super) fn size(&self, key: &str) -> Result<usize, GgufError> {
        let key = self.name(key);
        required(&key, self.metadata.size(&key)?)
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, GgufError> {
        self.metadata.size(&self.name(key))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize, GgufError> {
        Ok(self.optional_size(key)?.unwrap_or(default))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.metadata.number(&self.name(key))
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.metadata.string(&self.name(key))
    }

    fn expect(&self, key: &str, expected: usize, default: usize) -> Result<(), GgufError> {
        let found = self.size_or(key, default)?;
        if found == expected {
            return Ok(());
        }
        Err(self.wrong(key, &expected.to_string(), &found.to_string()))
    }

    pub(super) fn wrong(&self, key: &str, expected: &str, found: &str) -> GgufError {
        GgufError::Key {
            key: self.name(key),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }
}
