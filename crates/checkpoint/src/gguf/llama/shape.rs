//! The configuration of a model in the metadata of a file.

use std::path::Path;

use super::ROPE_FACTORS;
use crate::config::{ConfigError, ModelConfig, RopeScaling};
use crate::family::{self, Family, HasBias, Module};
use crate::gguf::metadata::required;
use crate::gguf::{GgmlType, Gguf, GgufError, Metadata, blocks, rope};
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
    keys.expect("rope.dimension_count", head_dim, head_dim)?;
    keys.expect("expert_count", 0, 0)?;
    let rope_theta = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let weight = |module: &Module| gguf.tensor(&format!("{}.weight", module.gguf.name));
    let embedding = weight(&family.embedding);
    let rows = embedding.and_then(|tensor| tensor.shape.first().copied());
    let config = ModelConfig {
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
        rope_scaling: rope_scaling(gguf, files, &keys, rope_theta, head_dim)?,
        max_position_embeddings: keys.size("context_length")?,
        attention_bias: has_biases(gguf, family, HasBias::AttentionBias),
        mlp_bias: has_biases(gguf, family, HasBias::MlpBias),
        tie_word_embeddings: weight(&family.head).is_none(),
        bos_token_id: token(metadata, "bos")?,
        eos_token_id: ends(metadata)?,
        ..ModelConfig::of_family(family)
    };
    check(&config)?;
    Ok(config)
}

/// The metadata of a file with a model of this configuration, without the tokenizer; `kind` is the type of its matrices.
///
/// # Errors
/// If GGUF cannot hold a size.
pub fn metadata(config: &ModelConfig, name: &str, kind: GgmlType) -> Result<Metadata, GgufError> {
    let architecture = config.family.gguf;
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", architecture);
    metadata.set("general.type", "model");
    metadata.set("general.name", name);
    for (key, field, size) in [
        ("block_count", "num_hidden_layers", config.num_hidden_layers),
        (
            "context_length",
            "max_position_embeddings",
            config.max_position_embeddings,
        ),
        ("embedding_length", "hidden_size", config.hidden_size),
        (
            "feed_forward_length",
            "intermediate_size",
            config.intermediate_size,
        ),
        (
            "attention.head_count",
            "num_attention_heads",
            config.num_attention_heads,
        ),
        (
            "attention.head_count_kv",
            "num_key_value_heads",
            config.num_key_value_heads,
        ),
        ("attention.key_length", "head_dim", config.head_dim),
        ("attention.value_length", "head_dim", config.head_dim),
        ("rope.dimension_count", "head_dim", config.head_dim),
        ("vocab_size", "vocab_size", config.vocab_size),
    ] {
        let size = u32::try_from(size).map_err(|_| GgufError::Inexpressible {
            architecture,
            key: field,
            found: format!("is {size}"),
        })?;
        metadata.set(format!("{architecture}.{key}"), size);
    }
    let mut set = |key: &str, number: f64| {
        metadata.set(format!("{architecture}.{key}"), number as f32);
    };
    set("attention.layer_norm_rms_epsilon", config.rms_norm_eps);
    set("rope.freq_base", config.rope_theta);
    match &config.rope_scaling {
        RopeScaling::Default | RopeScaling::Llama3 { .. } => {}
        RopeScaling::Linear { factor } => {
            metadata.set(format!("{architecture}.rope.scaling.type"), "linear");
            let key = format!("{architecture}.rope.scaling.factor");
            metadata.set(key, *factor as f32);
        }
        RopeScaling::Dynamic { .. } | RopeScaling::Yarn { .. } | RopeScaling::LongRope { .. } => {
            return Err(GgufError::Key {
                key: "rope_scaling".to_owned(),
                expected: "default, linear or llama3 for a GGUF file".to_owned(),
                found: config.rope_scaling.kind().to_owned(),
            });
        }
    }
    // llama.cpp's file types: "all" or "mostly" of a type
    let file_type = match kind {
        GgmlType::F32 => 0u32,
        GgmlType::F16 => 1,
        GgmlType::Q8_0 => 7,
        GgmlType::BF16 => 32,
        kind => {
            return Err(GgufError::UnsupportedType {
                tensor: None,
                kind,
                supported: blocks::ENCODED,
            });
        }
    };
    metadata.set("general.file_type", file_type);
    metadata.set("general.quantization_version", 2u32);
    Ok(metadata)
}

/// The family of the model in a file.
fn family(metadata: &Metadata) -> Result<&'static Family, GgufError> {
    let refuse = |found: String| {
        let names: Vec<&str> = family::ALL.iter().map(|family| family.gguf).collect();
        let expected = format!("a model of the {} architecture", names.join(" or "));
        Err(GgufError::NotAModel { found, expected })
    };
    match metadata.string("general.type")? {
        None | Some("model") => {}
        Some("adapter") => return refuse("holds an adapter".to_owned()),
        Some(other) => return refuse(format!("holds a {other:?}")),
    }
    match metadata.string("general.architecture")? {
        Some(name) => Family::of_gguf(name).map_or_else(
            || refuse(format!("holds a model of the {name:?} architecture")),
            Ok,
        ),
        None => refuse("has no key `general.architecture`".to_owned()),
    }
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

fn rope_scaling(
    gguf: &Gguf,
    files: &[&[u8]],
    keys: &Keys<'_>,
    theta: f64,
    head_dim: usize,
) -> Result<RopeScaling, GgufError> {
    let old = keys.number("rope.scale_linear")?;
    let factor = keys.number("rope.scaling.factor")?.or(old);
    // llama.cpp writes zero if there is none
    let factor = factor.filter(|&factor| factor != 0.0);
    let scaling = match (keys.string("rope.scaling.type")?, factor) {
        (Some("none"), _) | (Some("linear") | None, None) => RopeScaling::Default,
        (Some("linear") | None, Some(factor)) => RopeScaling::Linear { factor },
        (Some(other), _) => {
            return Err(keys.wrong("rope.scaling.type", "\"none\" or \"linear\"", other));
        }
    };
    let Some(tensor) = gguf.tensor(ROPE_FACTORS) else {
        return Ok(scaling);
    };
    let half = head_dim / 2;
    if tensor.shape != [half] || scaling != RopeScaling::Default {
        let shape = &tensor.shape;
        return Err(GgufError::RopeFactors {
            found: format!("{shape:?} for {half} frequencies, with {scaling:?} scaling"),
        });
    }
    let mut factors = vec![0.0; half];
    let file = files.get(tensor.file).copied().unwrap_or_default();
    let bytes = file.get(tensor.range.clone()).unwrap_or_default();
    blocks::dequantize(tensor.kind, bytes, &mut factors)?;
    rope::scaling(&factors, theta, head_dim)
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
            key: config.family.gguf.to_owned(),
            expected: "the configuration of a model".to_owned(),
            found: other.to_string(),
        },
    })
}

/// The keys of the architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    family: &'static Family,
}

impl Keys<'_> {
    /// The whole name of a key.
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.family.gguf)
    }

    fn size(&self, key: &str) -> Result<usize, GgufError> {
        let key = self.name(key);
        required(&key, self.metadata.size(&key)?)
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize, GgufError> {
        let size = self.metadata.size(&self.name(key))?;
        Ok(size.unwrap_or(default))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.metadata.number(&self.name(key))
    }

    fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.metadata.string(&self.name(key))
    }

    fn expect(&self, key: &str, expected: usize, default: usize) -> Result<(), GgufError> {
        let found = self.size_or(key, default)?;
        if found == expected {
            return Ok(());
        }
        Err(self.wrong(key, &expected.to_string(), &found.to_string()))
    }

    fn wrong(&self, key: &str, expected: &str, found: &str) -> GgufError {
        GgufError::Key {
            key: self.name(key),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }
}
