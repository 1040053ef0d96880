//! Meta's names for the tensors, and how each is split.
//!
//! Source: meta-llama/llama and llama-models (the parallel layers of fairscale), and transformers,
//! `convert_llama_weights_to_hf.py`.

use super::Split;
use crate::{ModelConfig, layout};

/// Meta's name, Hugging Face's, and along which dimension the parts of a model have it; within a
/// layer where both begin with a dot.
const NAMES: &[(&str, &str, Split)] = &[
    ("tok_embeddings", "model.embed_tokens", Split::Columns),
    ("norm", "model.norm", Split::Whole),
    ("output", "lm_head", Split::Rows),
    (".attention.wq", ".self_attn.q_proj", Split::Rows),
    (".attention.wk", ".self_attn.k_proj", Split::Rows),
    (".attention.wv", ".self_attn.v_proj", Split::Rows),
    (".attention.wo", ".self_attn.o_proj", Split::Columns),
    (".feed_forward.w1", ".mlp.gate_proj", Split::Rows),
    (".feed_forward.w2", ".mlp.down_proj", Split::Columns),
    (".feed_forward.w3", ".mlp.up_proj", Split::Rows),
    (".attention_norm", ".input_layernorm", Split::Whole),
    (".ffn_norm", ".post_attention_layernorm", Split::Whole),
];

/// The embedding by both names.
pub(super) const EMBEDDING: (&str, &str) = ("tok_embeddings.weight", "model.embed_tokens.weight");
/// The head by both names.
pub(super) const HEAD: (&str, &str) = ("output.weight", "lm_head.weight");
/// The rotary frequencies by both names; they follow from the configuration.
pub(super) const ROTARY: (&str, &str) = ("rope.freqs", "rotary_emb.inv_freq");

/// A tensor of a model in Meta's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MetaTensor {
    /// Meta's name.
    pub(super) name: String,
    /// Hugging Face's name.
    pub(super) hugging_face: String,
    /// Shape of the whole.
    pub(super) shape: Vec<usize>,
    /// How the parts of a model have it.
    pub(super) split: Split,
    /// Features of a head where the rows of each head lie in pairs.
    pub(super) paired: Option<usize>,
}

impl MetaTensor {
    /// The shape of one of `shards` parts; rounded up where it does not divide.
    pub(super) fn shard_shape(&self, shards: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(split) = self.split.dimension() {
            shape[split] = shape[split].div_ceil(shards);
        }
        shape
    }
}

/// Every tensor of a model, its head always among them.
pub(super) fn tensors(config: &ModelConfig, embedding: Split) -> Vec<MetaTensor> {
    let untied = ModelConfig {
        tie_word_embeddings: false,
        ..config.clone()
    };
    let tensors = layout::tensors(&untied).into_iter().filter_map(|tensor| {
        let (name, split) = meta_name(&tensor.name)?;
        let is_embedding = name == EMBEDDING.0;
        let paired = name.ends_with(".wq.weight") || name.ends_with(".wk.weight");
        Some(MetaTensor {
            name,
            hugging_face: tensor.name,
            shape: tensor.shape,
            split: if is_embedding { embedding } else { split },
            paired: paired.then_some(config.head_dim),
        })
    });
    tensors.collect()
}

/// Meta's name for a weight of Hugging Face's; it has none for biases.
fn meta_name(hugging_face: &str) -> Option<(String, Split)> {
    let module = hugging_face.strip_suffix(".weight")?;
    let (layer, module) = match module.strip_prefix("model.layers.") {
        Some(rest) => rest.split_at(rest.find('.')?),
        None => ("", module),
    };
    let (meta, _, split) = NAMES.iter().find(|(_, name, _)| *name == module)?;
    let path = if layer.is_empty() { "" } else { "layers." };
    Some((format!("{path}{layer}{meta}.weight"), *split))
}
