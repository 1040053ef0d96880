//! The modules of a model by their place in the table of its family: the layer, and the role.
//!
//! A module of the table for which the model has no field is not found; no other module stands in for it.

use simmer_checkpoint::family::Role;

use crate::layer::{Linear, RmsNorm};
use crate::llama::{DecoderLayer, LlamaForCausalLM};

impl LlamaForCausalLM {
    /// A linear module; `None` if the model has no such field.
    pub(crate) fn linear_mut(&mut self, layer: Option<usize>, role: Role) -> Option<&mut Linear> {
        let layer = self.layer_mut(layer)?;
        match role {
            Role::Query => Some(&mut layer.self_attn.q_proj),
            Role::Key => Some(&mut layer.self_attn.k_proj),
            Role::Value => Some(&mut layer.self_attn.v_proj),
            Role::AttentionOutput => Some(&mut layer.self_attn.o_proj),
            Role::Gate => Some(&mut layer.mlp.gate_proj),
            Role::Up => Some(&mut layer.mlp.up_proj),
            Role::Down => Some(&mut layer.mlp.down_proj),
            Role::Embedding
            | Role::AttentionNorm
            | Role::MlpNorm
            | Role::FinalNorm
            | Role::Head => None,
        }
    }

    /// A normalisation; `None` if the model has no such field.
    pub(crate) fn norm_mut(&mut self, layer: Option<usize>, role: Role) -> Option<&mut RmsNorm> {
        match role {
            Role::AttentionNorm => Some(&mut self.layer_mut(layer)?.input_layernorm),
            Role::MlpNorm => Some(&mut self.layer_mut(layer)?.post_attention_layernorm),
            Role::FinalNorm => Some(&mut self.model.norm),
            Role::Embedding
            | Role::Query
            | Role::Key
            | Role::Value
            | Role::AttentionOutput
            | Role::Gate
            | Role::Up
            | Role::Down
            | Role::Head => None,
        }
    }

    fn layer_mut(&mut self, layer: Option<usize>) -> Option<&mut DecoderLayer> {
        self.model.layers.get_mut(layer?)
    }
}
