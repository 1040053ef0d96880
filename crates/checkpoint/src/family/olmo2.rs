//! OLMo 2.
//!
//! Source: transformers, `modeling_olmo2.py` and `configuration_olmo2.py`.

use super::Activation::{LayerInput, Middle};
use super::Size::{Keys, Queries};
use super::{Defaults, Family, GgufFamily, GgufHead, Module};

/// The OLMo 2 family: outputs are normalised instead of inputs, and queries and keys over all heads together.
pub(super) static OLMO2: Family = Family {
    model_type: "olmo2",
    class: "Olmo2ForCausalLM",
    gguf: GgufFamily {
        biases: &[],
        head: GgufHead::Always,
        own_head_dim: false,
        ..GgufFamily::of("olmo2")
    },
    layer: &[
        Module::QUERY.attention_bias().reads(LayerInput),
        Module::KEY.attention_bias().reads(LayerInput),
        Module::VALUE.attention_bias().reads(LayerInput),
        Module::ATTENTION_OUTPUT.attention_bias(),
        Module::query_norm(&[Queries]),
        Module::key_norm(&[Keys]),
        Module::GATE.reads(Middle),
        Module::UP.reads(Middle),
        Module::DOWN,
        Module::ATTENTION_OUTPUT_NORM,
        Module::MLP_OUTPUT_NORM,
    ],
    defaults: Defaults {
        rms_norm_eps: 1e-5,
        ..Defaults::STANDARD
    },
    ..Family::STANDARD
};
