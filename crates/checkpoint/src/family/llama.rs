//! LLaMA 1 to 3, and models of the same architecture: SmolLM2, TinyLlama.
//!
//! Sources: transformers, `modeling_llama.py`; PEFT, `utils/constants.py` (default targets); llama.cpp,
//! `gguf-py/gguf/constants.py` and `convert_hf_to_gguf.py` (`LlamaModel`); meta-llama/llama and llama-models (the parallel
//! layers of fairscale) with transformers' `convert_llama_weights_to_hf.py`.

use super::Activation::{
    AttentionInput, AttentionValues, Gated, LastHidden, LayerInput, Middle, MlpInput,
};
use super::HasBias::{AttentionBias, MlpBias};
use super::Size::{Hidden, Intermediate, Keys, Queries};
use super::{Family, Module, Role, Split};

/// The LLaMA family.
pub static LLAMA: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    gguf: "llama",
    hidden_act: "silu",
    embedding: Module::embedding("model.embed_tokens")
        .gguf("token_embd")
        // by rows in Llama 3
        .meta("tok_embeddings", Split::Columns),
    layers: "model.layers",
    layer: &[
        Module::linear(
            Role::Query,
            "self_attn.q_proj",
            &[Queries, Hidden],
            AttentionInput,
        )
        .bias(AttentionBias)
        .default_target()
        .gguf("attn_q")
        .meta("attention.wq", Split::Rows)
        .pairs(),
        Module::linear(
            Role::Key,
            "self_attn.k_proj",
            &[Keys, Hidden],
            AttentionInput,
        )
        .bias(AttentionBias)
        .gguf("attn_k")
        .meta("attention.wk", Split::Rows)
        .pairs(),
        Module::linear(
            Role::Value,
            "self_attn.v_proj",
            &[Keys, Hidden],
            AttentionInput,
        )
        .bias(AttentionBias)
        .default_target()
        .gguf("attn_v")
        .meta("attention.wv", Split::Rows),
        Module::linear(
            Role::AttentionOutput,
            "self_attn.o_proj",
            &[Hidden, Queries],
            AttentionValues,
        )
        .bias(AttentionBias)
        .gguf("attn_output")
        .meta("attention.wo", Split::Columns),
        Module::linear(
            Role::Gate,
            "mlp.gate_proj",
            &[Intermediate, Hidden],
            MlpInput,
        )
        .bias(MlpBias)
        .gguf("ffn_gate")
        .meta("feed_forward.w1", Split::Rows),
        Module::linear(Role::Up, "mlp.up_proj", &[Intermediate, Hidden], MlpInput)
            .bias(MlpBias)
            .gguf("ffn_up")
            .meta("feed_forward.w3", Split::Rows),
        Module::linear(Role::Down, "mlp.down_proj", &[Hidden, Intermediate], Gated)
            .bias(MlpBias)
            .gguf("ffn_down")
            .meta("feed_forward.w2", Split::Columns),
        Module::norm(Role::AttentionNorm, "input_layernorm", LayerInput)
            .gguf("attn_norm")
            .meta("attention_norm", Split::Whole),
        Module::norm(Role::MlpNorm, "post_attention_layernorm", Middle)
            .gguf("ffn_norm")
            .meta("ffn_norm", Split::Whole),
    ],
    norm: Module::norm(Role::FinalNorm, "model.norm", LastHidden)
        .gguf("output_norm")
        .meta("norm", Split::Whole),
    head: Module::head("lm_head")
        .gguf("output")
        .meta("output", Split::Rows),
};
