//! Qwen3, the dense models.
//!
//! Source: transformers, `modeling_qwen3.py` and `configuration_qwen3.py`.

use super::Size::Head;
use super::{Defaults, Family, GgufFamily, Module, Windows};

/// The Qwen3 family: queries and keys are normalised, head by head.
pub(super) static QWEN3: Family = Family {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    gguf: GgufFamily::of("qwen3"),
    layer: &[
        Module::QUERY.attention_bias().default_target(),
        Module::KEY.attention_bias(),
        Module::VALUE.attention_bias().default_target(),
        Module::ATTENTION_OUTPUT.attention_bias(),
        Module::query_norm(&[Head]),
        Module::key_norm(&[Head]),
        Module::GATE,
        Module::UP,
        Module::DOWN,
        Module::INPUT_NORM,
        Module::MLP_NORM,
    ],
    windows: Windows::LastLayers,
    defaults: Defaults {
        num_key_value_heads: Some(32),
        head_dim: Some(128),
        max_position_embeddings: 32_768,
        sliding_window: Some(4096),
        ..Defaults::STANDARD
    },
    ..Family::STANDARD
};
