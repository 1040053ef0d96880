//! A causal language model of any family over packed sequences.
//!
//! Source: Touvron et al. 2023, section 2.2; transformers, the `modeling_*.py` of each family.
//!
//! Axes: T tokens of all rows, N targets, H hidden size, V vocabulary.

use std::ops::Range;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use simmer_checkpoint::config::ModelConfig;
use simmer_kernels::{Capabilities, Rows, soft_capped};

use crate::cache::KvCache;
use crate::decoder::{DecoderLayer, Needed, Pass};
use crate::layer::{Embedding, LmHead, RmsNorm};
use crate::offload::{Offloaded, Part};
use crate::placement::Places;
use crate::rotary::{Rotary, RotarySettings};
use crate::sequence::{Sequence, Target, ids};
use crate::steps::KINDS;

/// A causal language model of the LLaMA family.
#[derive(Module, Debug)]
pub struct LlamaForCausalLM {
    /// Everything below the head.
    pub model: LlamaModel,
    /// The output head.
    pub lm_head: LmHead,
    #[module(skip)]
    pub(crate) config: ModelConfig,
    /// The layers of each device.
    #[module(skip)]
    pub(crate) places: Places,
    /// Whether embedding and head differ from those of the base model on disk; the adapter holds them then.
    #[module(skip)]
    pub(crate) own_vocabulary: bool,
    /// The modules among embedding and head whose frozen weight came with an adapter.
    #[module(skip)]
    pub(crate) frozen_ends: Vec<String>,
    /// Where the weights of the layers are while they are not used, if that is not in the memory of the device.
    #[module(skip)]
    pub(crate) offloaded: Option<Offloaded>,
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
        let layers = self.model.layers.iter();
        layers
            .flat_map(DecoderLayer::adapters)
            .chain(&self.lm_head.adapter)
            .any(|adapter| adapter.has_dropout())
    }

    /// The dtype that the decoder layers compute in.
    pub fn computes_in(&self) -> DType {
        self.model.embed_tokens.compute
    }

    /// The device of the weights; if several devices share the layers, the one with the embedding and the lowest layers.
    pub fn device(&self) -> Device {
        self.device_of(0)
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
    pub fn hidden(&self, sequence: &Sequence, cache: Option<&mut KvCache>) -> Tensor<2> {
        self.through_layers(sequence, cache, None)
    }

    /// Hidden states as [`LlamaForCausalLM::hidden`] has them, at `places` alone, which are ascending. Without automatic
    /// differentiation. On a processor the last layer computes no more than these, and the keys and values of the others.
    ///
    /// # Shapes
    /// Result: `[N, H]`.
    ///
    /// # Panics
    /// As [`LlamaForCausalLM::hidden`], and if the sequence has dropout, or places are not ascending.
    pub fn hidden_at(
        &self,
        sequence: &Sequence,
        cache: Option<&mut KvCache>,
        places: &[u32],
    ) -> Tensor<2> {
        assert!(sequence.dropout_keys.is_none(), "without dropout");
        if places.len() == sequence.len() {
            return self.hidden(sequence, cache);
        }
        let left_out = sequence.len() - places.len();
        let are_most = left_out * 8 < sequence.len();
        // on a GPU the launch of more kernels costs more than the products save
        if are_most || !Capabilities::of(&self.device()).reads_in_place {
            let hidden = self.hidden(sequence, cache);
            let places = ids(places.iter().copied(), &hidden.device());
            return hidden.select(0, places);
        }
        self.through_layers(sequence, cache, Some(places))
    }

    fn through_layers(
        &self,
        sequence: &Sequence,
        mut cache: Option<&mut KvCache>,
        places: Option<&[u32]>,
    ) -> Tensor<2> {
        let mut pass = self.pass(sequence, cache.as_deref(), 0);
        let mut x = self.embed(sequence); // [T, H]
        for place in 0..self.places() {
            if place > 0 {
                pass = self.pass(sequence, cache.as_deref(), place);
                x = self.at(place, x);
            }
            let Range { start, end } = self.layers_of(place);
            let top = places.filter(|_| place + 1 == self.places());
            let below = if top.is_some() { end - 1 } else { end };
            x = self.through(start..below, x, &pass, cache.as_deref_mut());
            if let Some(places) = top {
                pass.needed = Some(Needed::new(places, &pass, &self.device_of(place)));
                x = self.through(below..end, x, &pass, cache.as_deref_mut());
            }
        }
        if let Some(cache) = cache {
            cache.advance(sequence.len());
        }
        x
    }

    /// Hidden states after some layers of a place.
    pub(crate) fn through(
        &self,
        layers: Range<usize>,
        mut x: Tensor<2>,
        pass: &Pass<'_>,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<2> {
        for index in layers {
            self.enter(Part::Layer(index), Some(self.above(index)));
            let layer = &self.model.layers[index];
            x = layer.forward(x, pass, cache.as_deref_mut().map(|cache| (cache, index)));
        }
        x
    }

    /// Is called before a part of the model computes, with the part that computes next.
    pub(crate) fn enter(&self, now: Part, next: Option<Part>) {
        if let Some(offloaded) = &self.offloaded {
            offloaded.enter(now, next);
        }
    }

    /// The part that computes after a layer in a forward pass.
    pub(crate) fn above(&self, layer: usize) -> Part {
        if layer + 1 < self.model.layers.len() {
            Part::Layer(layer + 1)
        } else {
            Part::Head
        }
    }

    /// What the layers of a place share in a forward pass over a packed sequence.
    pub(crate) fn pass<'a>(
        &'a self,
        sequence: &'a Sequence,
        cache: Option<&KvCache>,
        place: usize,
    ) -> Pass<'a> {
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
            rotary: self.rotary(&sequence.rows, place),
            rows: &sequence.rows,
            dropout_keys: sequence.dropout_keys.as_ref(),
            step: None,
            needed: None,
        }
    }

    /// The rotary tables that the layers use, on the device of a place.
    fn rotary(&self, rows: &Rows, place: usize) -> [Option<Rotary>; 2] {
        KINDS.map(|kind| {
            let settings = RotarySettings::of(&self.config, kind);
            self.has_positions(kind)
                .then(|| Rotary::new(&settings, rows, &self.device_of(place)))
        })
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
        self.enter(Part::Head, Some(Part::Layer(0)));
        let hidden = self.for_head(hidden);
        let logits = self.lm_head.forward(hidden, &self.model.embed_tokens);
        soft_capped(logits.cast(DType::F32), self.config.final_logit_softcapping)
    }

    /// What the head reads, from hidden states: a divisor of the logits divides them here already.
    fn for_head(&self, hidden: Tensor<2>) -> Tensor<2> {
        let hidden = self.model.norm.forward(hidden);
        match self.config.logits_scaling {
            1.0 => hidden,
            divisor => hidden / divisor,
        }
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
        let hidden = self.hidden(sequence, None);
        self.enter(Part::Head, Some(Part::Layer(0)));
        self.loss_of_hidden(hidden, sequence, targets)
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
        let device = hidden.device();
        let keys: Option<Arc<[u64]>> = sequence.dropout_keys.as_ref().map(|keys| {
            let targets = targets.iter();
            targets.map(|target| keys[target.place as usize]).collect()
        });
        let places = ids(targets.iter().map(|target| target.place), &device);
        let tokens = ids(targets.iter().map(|target| target.token), &device);
        let hidden = self.for_head(hidden.select(0, places)); // [N, H]
        self.lm_head.loss(
            hidden,
            tokens,
            &self.model.embed_tokens,
            keys.as_ref(),
            self.config.final_logit_softcapping,
        )
    }
}
