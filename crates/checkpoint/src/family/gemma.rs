//! Gemma, Gemma 2, and the text models of Gemma 3.
//!
//! Source: transformers, `modeling_gemma.py`, `modeling_gemma2.py`, `modeling_gemma3.py` and their configurations; Gemma Team
//! 2024 and 2025.

use super::ConfigNumber::{AttnLogitSoftcapping, FinalLogitSoftcapping};
use super::Size::Head;
use super::{
    Absent, Defaults, EmbeddingScale, Family, GatedBy, GgufFamily, GgufHead, GgufWindows, Module,
    NormWeight, Windows,
};

/// What all of them share: normalisations by `1 + weight`, an embedding scaled by the root of its size, GELU.
const SHARED: Family = Family {
    gated_by: GatedBy::GeluTanh,
    norm_weight: NormWeight::PlusOne,
    embedding_scale: EmbeddingScale::RootOfHidden,
    defaults: Defaults {
        head_dim: Some(256),
        max_position_embeddings: 8192,
        tie_word_embeddings: true,
        ..Defaults::STANDARD
    },
    ..Family::STANDARD
};

/// The Gemma family.
pub(super) static GEMMA: Family = Family {
    model_type: "gemma",
    class: "GemmaForCausalLM",
    gguf: GgufFamily {
        head: GgufHead::Never,
        ..GgufFamily::of("gemma")
    },
    layer: &[
        Module::QUERY.attention_bias().default_target(),
        Module::KEY.attention_bias(),
        Module::VALUE.attention_bias().default_target(),
        Module::ATTENTION_OUTPUT.attention_bias(),
        Module::GATE,
        Module::UP,
        Module::DOWN,
        Module::INPUT_NORM,
        Module::MLP_NORM,
    ],
    defaults: Defaults {
        num_key_value_heads: Some(16),
        ..SHARED.defaults
    },
    ..SHARED
};

/// The Gemma 2 family: outputs are normalised, too; scores and logits have soft caps; every second layer has a window.
pub(super) static GEMMA2: Family = Family {
    model_type: "gemma2",
    class: "Gemma2ForCausalLM",
    gguf: GgufFamily {
        head: GgufHead::Never,
        windows: GgufWindows::Applied {
            default: Some(4096),
        },
        // the model of 27B parameters
        layers_with_scalar_of_hidden: Some(46),
        numbers: &[
            AttnLogitSoftcapping.gguf("attn_logit_softcapping", Absent::Default(50.0)),
            FinalLogitSoftcapping.gguf("final_logit_softcapping", Absent::Default(30.0)),
        ],
        ..GgufFamily::of("gemma2")
    },
    activation_key: "hidden_activation",
    layer: &[
        Module::QUERY.attention_bias().default_target(),
        Module::KEY.attention_bias(),
        Module::VALUE.attention_bias().default_target(),
        Module::ATTENTION_OUTPUT.attention_bias(),
        Module::GATE,
        Module::UP,
        Module::DOWN,
        Module::INPUT_NORM,
        Module::ATTENTION_OUTPUT_NORM,
        Module::PRE_MLP_NORM,
        Module::MLP_OUTPUT_NORM,
    ],
    windows: Windows::ExceptEvery(2),
    soft_caps: true,
    caps_scores: true,
    defaults: Defaults {
        num_key_value_heads: Some(4),
        sliding_window: Some(4096),
        query_pre_attn_scalar: Some(256.0),
        attn_logit_softcapping: Some(50.0),
        final_logit_softcapping: Some(30.0),
        ..SHARED.defaults
    },
    ..SHARED
};

/// The text models of Gemma 3: queries and keys are normalised; five of six layers have a window and another rotary base.
pub(super) static GEMMA3: Family = Family {
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    gguf: GgufFamily {
        windows: GgufWindows::Applied { default: None },
        // the model of 27B parameters
        layers_with_scalar_of_hidden: Some(62),
        numbers: &[FinalLogitSoftcapping.gguf("final_logit_softcapping", Absent::Unused)],
        ..GgufFamily::of("gemma3")
    },
    activation_key: "hidden_activation",
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
        Module::ATTENTION_OUTPUT_NORM,
        Module::PRE_MLP_NORM,
        Module::MLP_OUTPUT_NORM,
    ],
    windows: Windows::ExceptEvery(6),
    soft_caps: true,
    local_rotary: true,
    defaults: Defaults {
        num_key_value_heads: Some(4),
        max_position_embeddings: 131_072,
        sliding_window: Some(4096),
        rope_theta: 1_000_000.0,
        query_pre_attn_scalar: Some(256.0),
        ..SHARED.defaults
    },
    ..SHARED
};
