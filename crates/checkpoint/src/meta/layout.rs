//! Meta's tensor names, and how each tensor is split.
//!
//! Source: meta-llama/llama and llama-models (the parallel layers of fairscale), and transformers,
//! `convert_llama_weights_to_hf.py`.

use super::Split;
use crate::family::{Family, LLAMA, Module, ModuleKind, Role};
use crate::{ModelConfig, layout};

/// The family of the models in this layout.
pub(super) static FAMILY: &Family = &LLAMA;
/// Both names of the rotary frequencies, which the configuration determines.
pub(super) const ROTARY: (&str, &str) = ("rope.freqs", "rotary_emb.inv_freq");

/// Meta's name of the embedding.
pub(super) fn embedding() -> String {
    outside(&FAMILY.embedding)
}

/// Meta's name of the head.
pub(super) fn head() -> String {
    outside(&FAMILY.head)
}

fn outside(module: &Module) -> String {
    let name = module.meta.map_or("", |meta| meta.name);
    format!("{name}.weight")
}

/// Meta's name of a weight in the first layer.
pub(super) fn in_first_layer(role: Role) -> String {
    let module = FAMILY.in_layer(role).and_then(|module| module.meta);
    let name = module.map_or("", |meta| meta.name);
    format!("layers.0.{name}.weight")
}

/// A tensor of a model in Meta's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MetaTensor {
    /// Meta's name.
    pub(super) name: String,
    /// Hugging Face's name.
    pub(super) hugging_face: String,
    /// Shape of the whole tensor.
    pub(super) shape: Vec<usize>,
    /// How it is split.
    pub(super) split: Split,
    /// Features of a head, if the rows of each head are stored as rotary pairs.
    pub(super) paired: Option<usize>,
}

impl MetaTensor {
    /// The shape of one of `shards` parts, rounded up if it is not divisible.
    pub(super) fn shard_shape(&self, shards: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(split) = self.split.dimension() {
            shape[split] = shape[split].div_ceil(shards);
        }
        shape
    }
}

/// All tensors of a model, always including the head; without those that have no name in this layout
/// ([`Params::of`](super::Params::of) refuses them).
pub(super) fn tensors(config: &ModelConfig, embedding: Split) -> Vec<MetaTensor> {
    let untied = ModelConfig {
        tie_word_embeddings: false,
        ..config.clone()
    };
    let tensors = layout::tensors(&untied).into_iter().filter_map(|tensor| {
        let meta = tensor.module.meta?;
        let is_embedding = tensor.module.kind == ModuleKind::Embedding;
        Some(MetaTensor {
            name: tensor.meta_name()?,
            hugging_face: tensor.name,
            shape: tensor.shape,
            split: if is_embedding { embedding } else { meta.split },
            paired: meta.pairs.then_some(config.head_dim),
        })
    });
    tensors.collect()
}
