//! The metadata of a file, from the configuration of a model.

use super::{FileType, limits, numbers, rotary, windows};
use crate::config::ModelConfig;
use crate::gguf::{GgufError, Metadata};

/// The metadata of a file with a model of this configuration, without the tokenizer; `kinds` are the types of its matrices.
///
/// # Errors
/// If GGUF cannot hold a size, or llama.cpp would compute something else than the model.
pub fn metadata(
    config: &ModelConfig,
    name: &str,
    kinds: impl Into<FileType>,
) -> Result<Metadata, GgufError> {
    limits::check(config)?;
    let architecture = config.family.gguf.architecture;
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", architecture);
    metadata.set("general.type", "model");
    metadata.set("general.name", name);
    for (key, field, size) in sizes(config) {
        let size = u32::try_from(size).map_err(|_| GgufError::Inexpressible {
            architecture,
            key: field,
            found: format!("is {size}"),
        })?;
        metadata.set(format!("{architecture}.{key}"), size);
    }
    let epsilon = format!("{architecture}.attention.layer_norm_rms_epsilon");
    metadata.set(epsilon, config.rms_norm_eps as f32);
    rotary::write(config, &mut metadata);
    windows::write(config, &mut metadata);
    numbers::write(config, &mut metadata)?;
    metadata.set("general.file_type", kinds.into().number()?);
    metadata.set("general.quantization_version", 2u32);
    Ok(metadata)
}

/// Keys, the fields that they hold, and the values.
fn sizes(config: &ModelConfig) -> [(&'static str, &'static str, usize); 10] {
    [
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
        ("rope.dimension_count", "head_dim", config.rotary_dim()),
        ("vocab_size", "vocab_size", config.vocab_size),
    ]
}
