//! Which models llama.cpp can compute: a file of any other would load and answer something else, or not load at all.

use super::{rotary, windows};
use crate::config::{ModelConfig, RopeScaling, rotating_except_every};
use crate::family::{GgufHead, GgufWindows};
use crate::gguf::GgufError;
use crate::layout::{self, Part};

/// Checks that llama.cpp computes a model of this configuration as it is.
///
/// # Errors
/// [`GgufError::Inexpressible`], with the key.
pub(super) fn check(config: &ModelConfig) -> Result<(), GgufError> {
    let gguf = &config.family.gguf;
    let refuse = |key, found: String| {
        Err(GgufError::Inexpressible {
            architecture: gguf.architecture,
            key,
            found,
        })
    };
    let share = config.hidden_size / config.num_attention_heads.max(1);
    if !gguf.own_head_dim && config.head_dim * config.num_attention_heads != config.hidden_size {
        let found = format!(
            "is {}, not hidden_size / num_attention_heads ({share})",
            config.head_dim
        );
        return refuse("head_dim", found);
    }
    let mut tensors = layout::tensors(config).into_iter();
    let bias = tensors
        .find(|tensor| tensor.part == Part::Bias && !gguf.biases.contains(&tensor.module.role));
    if let Some(bias) = bias {
        let key = bias.module.bias.key().unwrap_or("bias");
        return refuse(key, format!("is true, with `{}`", bias.name));
    }
    if gguf.head == GgufHead::Never && !config.tie_word_embeddings {
        return refuse("tie_word_embeddings", "is false".to_owned());
    }
    rotary::check(config)?;
    if let Some(interval) = gguf.no_rope_layer_interval
        && config.no_rope_layers != rotating_except_every(interval, config.num_hidden_layers)
    {
        let found = format!("does not have 0 for every {interval}th layer, and 1 for the others");
        return refuse("no_rope_layers", found);
    }
    if let Some(found) = config.query_pre_attn_scalar {
        let assumed = query_pre_attn_scalar(config);
        if found.to_bits() != assumed.to_bits() {
            return refuse(
                "query_pre_attn_scalar",
                format!("is {found}, not {assumed}, as llama.cpp assumes"),
            );
        }
    }
    windows::check(config)
}

/// What a user has to know about the file of a model, one sentence each.
pub fn notes(config: &ModelConfig) -> Vec<String> {
    let context = config.max_position_embeddings;
    let mut notes = Vec::new();
    let ignored = !matches!(config.family.gguf.windows, GgufWindows::Applied { .. });
    if let Some(window) = config
        .sliding_window
        .filter(|&window| window < context && ignored)
    {
        notes.push(format!(
            "llama.cpp ignores the window of {} models: beyond `sliding_window` ({window} tokens) of a context of up to \
             `max_position_embeddings` ({context}), its answers differ from those of this model\n\
             hint: use llama.cpp with a context of at most {window} tokens (-c {window})",
            config.family.model_type
        ));
    }
    if let Some((n, assumed)) = windows::written_period(config) {
        notes.push(format!(
            "all layers have a window except every n-th, and n is {n}: versions of llama.cpp that do not read \
             `{}.attention.sliding_window_pattern` assume {assumed}, and answer something else",
            config.family.gguf.architecture
        ));
    }
    if let RopeScaling::LongRope {
        original_max_position_embeddings: original,
        ..
    } = config.rope_scaling
    {
        notes.push(format!(
            "LongRoPE: llama.cpp takes `long_factor` if its context (-c) is longer than {original} tokens, this model if the \
             text is longer\n\
             hint: for texts of up to {original} tokens, use llama.cpp with a context of at most that (-c {original})"
        ));
    }
    notes
}

/// What llama.cpp assumes.
pub(super) fn query_pre_attn_scalar(config: &ModelConfig) -> f64 {
    let of_hidden = config.family.gguf.layers_with_scalar_of_hidden;
    let features = if of_hidden == Some(config.num_hidden_layers) {
        config.hidden_size / config.num_attention_heads.max(1)
    } else {
        config.head_dim
    };
    features as f64
}
