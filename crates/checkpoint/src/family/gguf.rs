//! A family in GGUF: the keys of its architecture, and which models llama.cpp computes with it.
//!
//! Sources: llama.cpp, `src/models/*.cpp` (`load_arch_hparams` and `load_arch_tensors`), `src/llama-model.cpp`, and the
//! converter, `conversion/*.py`.

use super::Role;

/// A family in GGUF.
#[derive(Debug, Clone, Copy)]
pub struct GgufFamily {
    /// `general.architecture`, which is also the prefix of its keys.
    pub architecture: &'static str,
    /// The modules that may have a bias; llama.cpp refuses a file with any other.
    pub biases: &'static [Role],
    /// Whether the file has a tensor of the output head.
    pub head: GgufHead,
    /// Whether `head_dim` may differ from `hidden_size / num_attention_heads`.
    pub own_head_dim: bool,
    /// Whether llama.cpp reads the divisors of rotary frequencies (`rope_freqs.weight`), for Llama 3's scaling.
    pub rotary_divisors: bool,
    /// Whether llama.cpp reads the divisors of LongRoPE.
    pub long_rope: GgufLongRope,
    /// What llama.cpp does with windows.
    pub windows: GgufWindows,
    /// Every n-th layer has no rotary positions; a file cannot say otherwise.
    pub no_rope_layer_interval: Option<usize>,
    /// With this number of layers, llama.cpp assumes a `query_pre_attn_scalar` of `hidden_size / num_attention_heads`; with any
    /// other, of `head_dim`.
    pub layers_with_scalar_of_hidden: Option<usize>,
    /// Further numbers of the configuration.
    pub numbers: &'static [GgufNumber],
}

impl GgufFamily {
    /// A family whose architecture is LLaMA's, except for biases and divisors.
    pub(super) const fn of(architecture: &'static str) -> Self {
        Self {
            architecture,
            biases: &[Role::Query, Role::Key, Role::Value],
            head: GgufHead::Untied,
            own_head_dim: true,
            rotary_divisors: false,
            long_rope: GgufLongRope::Never,
            windows: GgufWindows::Ignored,
            no_rope_layer_interval: None,
            layers_with_scalar_of_hidden: None,
            numbers: &[],
        }
    }

    /// A family that llama.cpp computes as LLaMA.
    pub(super) const fn like_llama(architecture: &'static str) -> Self {
        Self {
            biases: &[
                Role::Query,
                Role::Key,
                Role::Value,
                Role::AttentionOutput,
                Role::Gate,
                Role::Up,
                Role::Down,
            ],
            rotary_divisors: true,
            long_rope: GgufLongRope::WithType,
            ..Self::of(architecture)
        }
    }
}

/// Whether a file has a tensor of the output head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufHead {
    /// If the head is not tied to the embedding.
    Untied,
    /// Always; a tied head is a copy of the embedding.
    Always,
    /// Never: llama.cpp has only tied heads.
    Never,
}

/// Whether llama.cpp reads the divisors of LongRoPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufLongRope {
    /// It refuses a file with them.
    Never,
    /// If the file names the type of scaling.
    WithType,
    /// If the file has them; the converter does not name the type.
    WithoutType,
}

/// What llama.cpp does with windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufWindows {
    /// It ignores them. simmer writes and reads their keys nevertheless.
    Ignored,
    /// It ignores them, but some versions require the key: 0 stands for none.
    IgnoredButRequired,
    /// It applies them.
    Applied {
        /// The window of a file without the key.
        default: Option<usize>,
    },
}

/// A number of the configuration in GGUF.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GgufNumber {
    /// The key, after the architecture.
    pub key: &'static str,
    /// The number of the configuration.
    pub number: ConfigNumber,
    /// The meaning of a file without the key.
    pub absent: Absent,
}

/// The meaning of a file without a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Absent {
    /// The model does without; so does a file with 0.
    Unused,
    /// This value; the architecture cannot do without.
    Default(f64),
    /// llama.cpp refuses the file.
    Refused,
}

/// A number of the configuration that only some families have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of keys")]
pub enum ConfigNumber {
    AttnLogitSoftcapping,
    FinalLogitSoftcapping,
    EmbeddingMultiplier,
    AttentionMultiplier,
    ResidualMultiplier,
    LogitsScaling,
}

impl ConfigNumber {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AttnLogitSoftcapping,
        Self::FinalLogitSoftcapping,
        Self::EmbeddingMultiplier,
        Self::AttentionMultiplier,
        Self::ResidualMultiplier,
        Self::LogitsScaling,
    ];

    /// Its key in `config.json`.
    pub fn key(self) -> &'static str {
        match self {
            Self::AttnLogitSoftcapping => "attn_logit_softcapping",
            Self::FinalLogitSoftcapping => "final_logit_softcapping",
            Self::EmbeddingMultiplier => "embedding_multiplier",
            Self::AttentionMultiplier => "attention_multiplier",
            Self::ResidualMultiplier => "residual_multiplier",
            Self::LogitsScaling => "logits_scaling",
        }
    }

    /// The number in GGUF under this key.
    pub(super) const fn gguf(self, key: &'static str, absent: Absent) -> GgufNumber {
        GgufNumber {
            key,
            number: self,
            absent,
        }
    }
}
