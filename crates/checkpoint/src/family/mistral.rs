//! Mistral 7B, Mistral NeMo, Mistral Small.
//!
//! Sources: transformers, `modeling_mistral.py` and `configuration_mistral.py`; llama.cpp's converter stores it as the
//! architecture `llama`.

use super::{Defaults, Family, GgufFamily, Module, Windows};

/// The Mistral family.
pub(super) static MISTRAL: Family = Family {
    model_type: "mistral",
    class: "MistralForCausalLM",
    gguf: GgufFamily::like_llama("llama"),
    layer: &[
        Module::QUERY.default_target().pairs(),
        Module::KEY.pairs(),
        Module::VALUE.default_target(),
        Module::ATTENTION_OUTPUT,
        Module::GATE,
        Module::UP,
        Module::DOWN,
        Module::INPUT_NORM,
        Module::MLP_NORM,
    ],
    windows: Windows::EveryLayer,
    defaults: Defaults {
        num_key_value_heads: Some(8),
        max_position_embeddings: 131_072,
        sliding_window: Some(4096),
        ..Defaults::STANDARD
    },
    ..Family::STANDARD
};
