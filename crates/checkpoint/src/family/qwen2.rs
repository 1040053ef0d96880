//! Qwen2 and Qwen2.5.
//!
//! Source: transformers, `modeling_qwen2.py` and `configuration_qwen2.py`.

use super::{Defaults, Family, GgufFamily, HasBias, Module, Windows};

/// The Qwen2 family: biases on queries, keys and values.
pub(super) static QWEN2: Family = Family {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    gguf: GgufFamily {
        own_head_dim: false,
        ..GgufFamily::of("qwen2")
    },
    layer: &[
        Module::QUERY.bias(HasBias::Always).default_target(),
        Module::KEY.bias(HasBias::Always),
        Module::VALUE.bias(HasBias::Always).default_target(),
        Module::ATTENTION_OUTPUT,
        Module::GATE,
        Module::UP,
        Module::DOWN,
        Module::INPUT_NORM,
        Module::MLP_NORM,
    ],
    windows: Windows::LastLayers,
    defaults: Defaults {
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        sliding_window: Some(4096),
        ..Defaults::STANDARD
    },
    ..Family::STANDARD
};
