//! SmolLM3.
//!
//! Source: transformers, `modeling_smollm3.py` and `configuration_smollm3.py`.

use super::{Defaults, Family, GgufFamily, Module, Windows};

/// The SmolLM3 family: some layers have no rotary positions.
pub(super) static SMOLLM3: Family = Family {
    model_type: "smollm3",
    class: "SmolLM3ForCausalLM",
    gguf: GgufFamily {
        no_rope_layer_interval: Some(4),
        ..GgufFamily::of("smollm3")
    },
    layer: &[
        Module::QUERY.attention_bias().pairs(),
        Module::KEY.attention_bias().pairs(),
        Module::VALUE.attention_bias(),
        Module::ATTENTION_OUTPUT.attention_bias(),
        Module::GATE.mlp_bias(),
        Module::UP.mlp_bias(),
        Module::DOWN.mlp_bias(),
        Module::INPUT_NORM,
        Module::MLP_NORM,
    ],
    windows: Windows::LayersWithoutPositions,
    layers_without_positions: true,
    defaults: Defaults {
        num_key_value_heads: Some(4),
        max_position_embeddings: 32_768,
        rope_theta: 2_000_000.0,
        tie_word_embeddings: true,
        ..Defaults::STANDARD
    },
    ..Family::STANDARD
};
