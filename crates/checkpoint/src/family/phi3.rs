//! Phi-3, Phi-3.5, Phi-4 and Phi-4-mini.
//!
//! Source: transformers, `modeling_phi3.py` and `configuration_phi3.py`.

use super::Activation::{AttentionInput, MlpInput};
use super::Size::{GateAndUp, Hidden, QueriesKeysValues};
use super::{Defaults, Family, GgufFamily, GgufLongRope, GgufWindows, Module, Role, Windows};

/// The Phi-3 family: queries, keys and values are one matrix, as are gate and gated features. PEFT has no default targets for it.
pub(super) static PHI3: Family = Family {
    model_type: "phi3",
    class: "Phi3ForCausalLM",
    gguf: GgufFamily {
        own_head_dim: false,
        long_rope: GgufLongRope::WithoutType,
        windows: GgufWindows::IgnoredButRequired,
        ..GgufFamily::of("phi3")
    },
    layer: &[
        Module::ATTENTION_OUTPUT,
        Module::linear(
            Role::QueryKeyValue,
            "self_attn.qkv_proj",
            &[QueriesKeysValues, Hidden],
            AttentionInput,
        )
        .gguf("attn_qkv"),
        Module::linear(
            Role::GateUp,
            "mlp.gate_up_proj",
            &[GateAndUp, Hidden],
            MlpInput,
        )
        .gguf("ffn_up"),
        Module::DOWN,
        Module::INPUT_NORM,
        Module::MLP_NORM,
    ],
    windows: Windows::EveryLayer,
    partial_rotary: true,
    defaults: Defaults {
        rms_norm_eps: 1e-5,
        max_position_embeddings: 4096,
        ..Defaults::STANDARD
    },
    ..Family::STANDARD
};
