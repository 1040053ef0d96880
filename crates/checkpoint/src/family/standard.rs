//! The modules that most families have, with their names in Hugging Face and in GGUF.
//!
//! Source: transformers, the `modeling_*.py` of each family; llama.cpp, `gguf-py/gguf/constants.py` and `tensor_mapping.py`.

use super::Activation::{
    self, AttentionInput, AttentionOutput, AttentionValues, Gated, HeadInput, LastHidden,
    LayerInput, Middle, MlpInput, MlpOutput, Tokens,
};
use super::Size::{Hidden, Intermediate, Keys, Queries, Vocabulary};
use super::{HasBias, Module, ModuleKind, Role, Size};

/// The path of the list of layers.
pub(super) const LAYERS: &str = "model.layers";

impl Module {
    pub(super) const EMBEDDING: Self = Self::new(
        Role::Embedding,
        "model.embed_tokens",
        ModuleKind::Embedding,
        &[Vocabulary, Hidden],
        Tokens,
    )
    .gguf("token_embd");

    pub(super) const HEAD: Self = Self::new(
        Role::Head,
        "lm_head",
        ModuleKind::OutputHead,
        &[Vocabulary, Hidden],
        HeadInput,
    )
    .gguf("output");

    pub(super) const FINAL_NORM: Self =
        Self::hidden_norm(Role::FinalNorm, "model.norm", LastHidden).gguf("output_norm");

    pub(super) const QUERY: Self = Self::linear(
        Role::Query,
        "self_attn.q_proj",
        &[Queries, Hidden],
        AttentionInput,
    )
    .gguf("attn_q");

    pub(super) const KEY: Self = Self::linear(
        Role::Key,
        "self_attn.k_proj",
        &[Keys, Hidden],
        AttentionInput,
    )
    .gguf("attn_k");

    pub(super) const VALUE: Self = Self::linear(
        Role::Value,
        "self_attn.v_proj",
        &[Keys, Hidden],
        AttentionInput,
    )
    .gguf("attn_v");

    pub(super) const ATTENTION_OUTPUT: Self = Self::linear(
        Role::AttentionOutput,
        "self_attn.o_proj",
        &[Hidden, Queries],
        AttentionValues,
    )
    .gguf("attn_output");

    pub(super) const GATE: Self = Self::linear(
        Role::Gate,
        "mlp.gate_proj",
        &[Intermediate, Hidden],
        MlpInput,
    )
    .gguf("ffn_gate");

    pub(super) const UP: Self =
        Self::linear(Role::Up, "mlp.up_proj", &[Intermediate, Hidden], MlpInput).gguf("ffn_up");

    pub(super) const DOWN: Self =
        Self::linear(Role::Down, "mlp.down_proj", &[Hidden, Intermediate], Gated).gguf("ffn_down");

    /// The normalisation before attention.
    pub(super) const INPUT_NORM: Self =
        Self::hidden_norm(Role::AttentionNorm, "input_layernorm", LayerInput).gguf("attn_norm");

    /// The normalisation before the MLP, where only the inputs of both halves are normalised.
    pub(super) const MLP_NORM: Self =
        Self::hidden_norm(Role::MlpNorm, "post_attention_layernorm", Middle).gguf("ffn_norm");

    /// The normalisation before the MLP, where outputs are normalised, too.
    pub(super) const PRE_MLP_NORM: Self =
        Self::hidden_norm(Role::MlpNorm, "pre_feedforward_layernorm", Middle).gguf("ffn_norm");

    /// The normalisation of the output of attention.
    pub(super) const ATTENTION_OUTPUT_NORM: Self = Self::hidden_norm(
        Role::AttentionOutputNorm,
        "post_attention_layernorm",
        AttentionOutput,
    )
    .gguf("post_attention_norm");

    /// The normalisation of the output of the MLP.
    pub(super) const MLP_OUTPUT_NORM: Self =
        Self::hidden_norm(Role::MlpOutputNorm, "post_feedforward_layernorm", MlpOutput)
            .gguf("post_ffw_norm");

    /// The normalisation of the queries, over so many features.
    pub(super) const fn query_norm(features: &'static [Size]) -> Self {
        Self::norm(
            Role::QueryNorm,
            "self_attn.q_norm",
            features,
            Activation::Queries,
        )
        .gguf("attn_q_norm")
    }

    /// The normalisation of the keys, over so many features.
    pub(super) const fn key_norm(features: &'static [Size]) -> Self {
        Self::norm(
            Role::KeyNorm,
            "self_attn.k_norm",
            features,
            Activation::Keys,
        )
        .gguf("attn_k_norm")
    }

    /// A normalisation of hidden states.
    const fn hidden_norm(role: Role, name: &'static str, reads: Activation) -> Self {
        Self::norm(role, name, &[Hidden], reads)
    }

    /// It has a bias if `attention_bias` is set.
    pub(super) const fn attention_bias(self) -> Self {
        self.bias(HasBias::AttentionBias)
    }

    /// It has a bias if `mlp_bias` is set.
    pub(super) const fn mlp_bias(self) -> Self {
        self.bias(HasBias::MlpBias)
    }
}
