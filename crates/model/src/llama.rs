//! The LLaMA decoder over packed sequences.
//!
//! Source: Touvron et al. 2023, section 2.2; transformers `modeling_llama.py`.
//!
//! Axes: T tokens of all rows, S keys, N query heads, K key heads, D head_dim, H hidden size,
//! V vocabulary.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use simmer_checkpoint::config::ModelConfig;
use simmer_kernels::{Rows, attention, rope, swiglu};

use crate::cache::KvCache;
use crate::layer::{Embedding, Linear, LmHead, RmsNorm};
use crate::lora::Lora;
use crate::rotary::{Rotary, RotarySettings};
use crate::sequence::{Sequence, Target, ids};

/// A causal language model of the LLaMA family.
#[derive(Module, Debug)]
pub struct LlamaForCausalLM {
    /// Everything below the head.
    pub model: LlamaModel,
    /// The output head.
    pub lm_head: LmHead,
    #[module(skip)]
    pub(crate) config: ModelConfig,
    /// Whether embedding and head differ from those of the base model on disk; the adapter holds them then.
    #[module(skip)]
    pub(crate) own_vocabulary: bool,
}

/// Embedding, decoder layers and the last normalisation.
#[derive(Module, Debug)]
pub struct LlamaModel {
    /// Token embedding.
    pub embed_tokens: Embedding,
    /// Decoder layers, lowest first.
    pub layers: Vec<DecoderLayer>,
    /// Normalisation before the head.
    pub norm: RmsNorm,
}

/// One decoder layer.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Normalisation before attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: SelfAttention,
    /// Normalisation before the feed-forward block.
    pub post_attention_layernorm: RmsNorm,
    /// Feed-forward block.
    pub mlp: Mlp,
}

/// Causal attention with rotary positions and grouped heads.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// Queries, `[N·D, H]`.
    pub q_proj: Linear,
    /// Keys, `[K·D, H]`.
    pub k_proj: Linear,
    /// Values, `[K·D, H]`.
    pub v_proj: Linear,
    /// Output, `[H, N·D]`.
    pub o_proj: Linear,
}

/// The gated feed-forward block.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Gate, `[intermediate, H]`.
    pub gate_proj: Linear,
    /// Value, `[intermediate, H]`.
    pub up_proj: Linear,
    /// Output, `[H, intermediate]`.
    pub down_proj: Linear,
}

/// What all layers of a forward pass share.
pub(crate) struct Pass<'a> {
    config: &'a ModelConfig,
    rotary: Rotary,
    rows: &'a Rows,
    dropout_keys: Option<&'a Arc<[u64]>>,
}

impl Pass<'_> {
    /// The same without automatic differentiation.
    pub(crate) fn valid(&self) -> Self {
        Self {
            rotary: self.rotary.valid(),
            ..*self
        }
    }
}

impl LlamaForCausalLM {
    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether tokens were added to the base model; an adapter then holds the full embedding and head.
    pub fn has_own_vocabulary(&self) -> bool {
        self.own_vocabulary
    }

    /// Whether training uses dropout. Its masks depend on the row that a token is in.
    pub fn has_dropout(&self) -> bool {
        let layers = self.model.layers.iter().flat_map(|layer| {
            let DecoderLayer { self_attn, mlp, .. } = layer;
            let attention = [
                &self_attn.q_proj,
                &self_attn.k_proj,
                &self_attn.v_proj,
                &self_attn.o_proj,
            ];
            attention
                .into_iter()
                .chain([&mlp.gate_proj, &mlp.up_proj, &mlp.down_proj])
        });
        layers
            .filter_map(|linear| linear.adapter.as_ref())
            .chain(&self.lm_head.adapter)
            .any(Lora::has_dropout)
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.model.embed_tokens.weight.val().device()
    }

    /// Hidden states after the last layer, before the last normalisation.
    ///
    /// With a cache, the rows of the sequence may continue tokens of the cache.
    ///
    /// # Shapes
    /// Result: `[T, H]`.
    ///
    /// # Panics
    /// If a token is outside the vocabulary, or if the number of keys that the rows see is not the length of
    /// the cache after this pass.
    pub fn hidden(&self, sequence: &Sequence, mut cache: Option<&mut KvCache>) -> Tensor<2> {
        let pass = self.pass(sequence, cache.as_deref());
        let mut x = self.embed(sequence); // [T, H]
        for (index, layer) in self.model.layers.iter().enumerate() {
            x = layer.forward(x, &pass, cache.as_deref_mut().map(|cache| (cache, index)));
        }
        if let Some(cache) = cache {
            cache.advance(sequence.len());
        }
        x
    }

    /// What the layers share in a forward pass over a packed sequence.
    pub(crate) fn pass<'a>(&'a self, sequence: &'a Sequence, cache: Option<&KvCache>) -> Pass<'a> {
        let vocab = self.config.vocab_size;
        if let Some(token) = sequence
            .tokens
            .iter()
            .find(|token| **token as usize >= vocab)
        {
            panic!("token {token} is outside the vocabulary of {vocab}");
        }
        if let Some(cache) = cache {
            let places = cache.length_after(sequence.len());
            assert_eq!(
                sequence.rows.keys(),
                places,
                "keys of the rows, and the length of the cache"
            );
        }
        Pass {
            config: &self.config,
            rotary: Rotary::new(
                &RotarySettings::of(&self.config),
                &sequence.rows,
                &self.device(),
            ),
            rows: &sequence.rows,
            dropout_keys: sequence.dropout_keys.as_ref(),
        }
    }

    /// The embeddings of a sequence's tokens, `[T, H]`.
    pub(crate) fn embed(&self, sequence: &Sequence) -> Tensor<2> {
        let tokens = ids(sequence.tokens.iter().copied(), &self.device());
        self.model.embed_tokens.forward(tokens)
    }

    /// Logits of the next token from hidden states.
    ///
    /// # Shapes
    /// `hidden`: `[T, H]`, from [`LlamaForCausalLM::hidden`]. Result: `[T, V]`, f32.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let hidden = self.model.norm.forward(hidden);
        let logits = self.lm_head.forward(hidden, &self.model.embed_tokens);
        logits.cast(DType::F32)
    }

    /// Sum of the targets' negative log-probabilities (natural logarithm).
    ///
    /// The last normalisation and the head compute only positions with a target.
    ///
    /// # Shapes
    /// Result: `[1]`.
    ///
    /// # Panics
    /// If there is no target.
    pub fn loss(&self, sequence: &Sequence, targets: &[Target]) -> Tensor<1> {
        self.loss_of_hidden(self.hidden(sequence, None), sequence, targets)
    }

    /// The loss from hidden states, `[T, H]`, from [`LlamaForCausalLM::hidden`].
    pub(crate) fn loss_of_hidden(
        &self,
        hidden: Tensor<2>,
        sequence: &Sequence,
        targets: &[Target],
    ) -> Tensor<1> {
        assert!(
            !targets.is_empty(),
            "a sequence without targets has no loss"
        );
        let device = self.device();
        let keys: Option<Arc<[u64]>> = sequence.dropout_keys.as_ref().map(|keys| {
            let targets = targets.iter();
            targets.map(|target| keys[target.place as usize]).collect()
        });
        let places = ids(targets.iter().map(|target| target.place), &device);
        let tokens = ids(targets.iter().map(|target| target.token), &device);
        let hidden = self.model.norm.forward(hidden.select(0, places)); // [N, H]
        self.lm_head
            .loss(hidden, tokens, &self.model.embed_tokens, keys.as_ref())
    }
}

impl DecoderLayer {
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        pass: &Pass<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let x = self.attention_half(x, pass, cache);
        self.mlp_half(x, pass)
    }

    pub(crate) fn attention_half(
        &self,
        x: Tensor<2>,
        pass: &Pass<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let normed = self.input_layernorm.forward(x.clone());
        x + self.self_attn.forward(normed, pass, cache)
    }

    pub(crate) fn mlp_half(&self, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let normed = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(normed, pass)
    }
}

impl SelfAttention {
    fn forward(
        &self,
        x: Tensor<2>,
        pass: &Pass<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let [t, _] = x.dims();
        let config = pass.config;
        let dim = config.head_dim;
        let project = |linear: &Linear, heads: usize| {
            linear
                .forward(x.clone(), pass.dropout_keys)
                .reshape([t, heads, dim]) // [T, heads, D]
        };
        let rotate = |x| rope(x, pass.rotary.cos.clone(), pass.rotary.sin.clone());
        let q = rotate(project(&self.q_proj, config.num_attention_heads)); // [T, N, D]
        let k = rotate(project(&self.k_proj, config.num_key_value_heads)); // [T, K, D]
        let v = project(&self.v_proj, config.num_key_value_heads); // [T, K, D]
        let [k, v] = match cache {
            None => [k, v],
            Some((cache, layer)) => cache.extend(layer, k, v), // [S, K, D]
        };
        let scale = 1.0 / (dim as f64).sqrt();
        let mixed = attention(q, k, v, pass.rows, scale) // [T, N, D]
            .reshape([t, config.num_attention_heads * dim]);
        self.o_proj.forward(mixed, pass.dropout_keys)
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let gate = self.gate_proj.forward(x.clone(), pass.dropout_keys); // [T, intermediate]
        let up = self.up_proj.forward(x, pass.dropout_keys); // [T, intermediate]
        self.down_proj.forward(swiglu(gate, up), pass.dropout_keys)
    }
}
