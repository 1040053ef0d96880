//! Meta's tensor names, and how each tensor is split.
//!
//! Source: meta-llama/llama and llama-models (the parallel layers of fairscale), and transformers,
//! `convert_llama_weights_to_hf.py`.

use super::Split;
use crate::{ModelConfig, layout};

/// Meta's name, Hugging Face's name, and the dimension along which the tensor is split. Names that start with a dot are
/// those of tensors in a layer.
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

/// Both names of the embedding.
pub(super) const EMBEDDING: (&str, &str) = ("tok_embeddings.weight", "model.embed_tokens.weight");
/// Both names of the head.
pub(super) const HEAD: (&str, &str) = ("output.weight", "lm_head.weight");
/// Both names of the rotary frequencies, which the configuration determines.
pub(super) const ROTARY: (&str, &str) = ("rope.freqs", "rotary_emb.inv_freq");

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

/// All tensors of a model, always including the head.
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

/// Meta's name of a weight with this Hugging Face name; Meta has no biases.
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
