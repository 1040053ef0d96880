//! Granite 3.0 to 3.3, the dense models. (Granite 4 is another architecture, `granitemoehybrid`.)
//!
//! Source: transformers, `modeling_granite.py` and `configuration_granite.py`.

use super::ConfigNumber::{
    AttentionMultiplier, EmbeddingMultiplier, LogitsScaling, ResidualMultiplier,
};
use super::{Absent, EmbeddingScale, Family, GgufFamily, Module};

/// The Granite family: LLaMA with four multipliers.
pub(super) static GRANITE: Family = Family {
    model_type: "granite",
    class: "GraniteForCausalLM",
    gguf: GgufFamily {
        numbers: &[
            EmbeddingMultiplier.gguf("embedding_scale", Absent::Unused),
            AttentionMultiplier.gguf("attention.scale", Absent::Unused),
            ResidualMultiplier.gguf("residual_scale", Absent::Unused),
            LogitsScaling.gguf("logit_scale", Absent::Refused),
        ],
        ..GgufFamily::like_llama("granite")
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
    embedding_scale: EmbeddingScale::Multiplier,
    multipliers: true,
    ..Family::STANDARD
};
