//! The modules of a model by their place in the table of its family: the layer, and the role.
//!
//! A module of the table for which the model has no field is not found; no other module stands in for it.

use simmer_checkpoint::family::Role;

use crate::decoder::DecoderLayer;
use crate::layer::{Linear, RmsNorm};
use crate::llama::LlamaForCausalLM;

impl LlamaForCausalLM {
    /// A linear module; `None` if the model has no such field.
    pub(crate) fn linear_mut(&mut self, layer: Option<usize>, role: Role) -> Option<&mut Linear> {
        let DecoderLayer { self_attn, mlp, .. } = self.layer_mut(layer)?;
        match role {
            Role::Query => self_attn.q_proj.as_mut(),
            Role::Key => self_attn.k_proj.as_mut(),
            Role::Value => self_attn.v_proj.as_mut(),
            Role::QueryKeyValue => self_attn.qkv_proj.as_mut(),
            Role::AttentionOutput => Some(&mut self_attn.o_proj),
            Role::Gate => mlp.gate_proj.as_mut(),
            Role::Up => mlp.up_proj.as_mut(),
            Role::GateUp => mlp.gate_up_proj.as_mut(),
            Role::Down => Some(&mut mlp.down_proj),
            Role::Embedding
            | Role::AttentionNorm
            | Role::QueryNorm
            | Role::KeyNorm
            | Role::AttentionOutputNorm
            | Role::MlpNorm
            | Role::MlpOutputNorm
            | Role::FinalNorm
            | Role::Head => None,
        }
    }

    /// A normalisation; `None` if the model has no such field.
    pub(crate) fn norm_mut(&mut self, layer: Option<usize>, role: Role) -> Option<&mut RmsNorm> {
        let family = self.config.family;
        match role {
            Role::FinalNorm => Some(&mut self.model.norm),
            Role::QueryNorm => self.layer_mut(layer)?.self_attn.q_norm.as_mut(),
            Role::KeyNorm => self.layer_mut(layer)?.self_attn.k_norm.as_mut(),
            Role::AttentionNorm
            | Role::AttentionOutputNorm
            | Role::MlpNorm
            | Role::MlpOutputNorm => {
                let name = family.in_layer(role)?.last_part();
                self.layer_mut(layer)?.norm_mut(name)
            }
            Role::Embedding
            | Role::Query
            | Role::Key
            | Role::Value
            | Role::QueryKeyValue
            | Role::AttentionOutput
            | Role::Gate
            | Role::Up
            | Role::GateUp
            | Role::Down
            | Role::Head => None,
        }
    }

    fn layer_mut(&mut self, layer: Option<usize>) -> Option<&mut DecoderLayer> {
        self.model.layers.get_mut(layer?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use burn::tensor::Device;
    use serde_json::json;
    use simmer_checkpoint::family::{self, Family, ModuleKind};
    use simmer_checkpoint::layout::{self, ModuleLayout};
    use simmer_checkpoint::{Dtype, ModelConfig, Pretrained};

    use super::*;
    use crate::base::BaseConfig;
    use crate::export::save_model;
    use crate::parameters::trained;

    /// A small model with every module that the family can have.
    fn model(family: &'static Family) -> LlamaForCausalLM {
        let json = json!({
            "model_type": family.model_type, "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
            "attention_bias": true, "mlp_bias": true
        });
        let mut base = BaseConfig::default();
        base.init = Some(ModelConfig::from_json(&json, Path::new("config.json")).unwrap());
        base.open().unwrap().load(0, &Device::flex()).unwrap()
    }

    #[test]
    fn the_fields_have_the_names_and_shapes_of_the_table() {
        for family in family::ALL {
            let model = model(family).train_all();
            let expected: BTreeMap<String, Vec<usize>> = layout::tensors(model.config())
                .into_iter()
                .map(|tensor| (tensor.name, tensor.shape))
                .collect();
            assert_eq!(model.trainable_shapes(), expected, "{family:?}");
        }
    }

    #[test]
    fn every_module_is_found_by_its_place() {
        for family in family::ALL {
            let frozen = model(family);
            for module in layout::modules(frozen.config()) {
                let Some(role) = module.module.map(|row| row.role) else {
                    continue;
                };
                let mut model = frozen.clone();
                match module.kind {
                    ModuleKind::Linear => {
                        let linear = model.linear_mut(module.layer, role).unwrap();
                        linear.weight = linear.weight.trained(&Device::flex().autodiff());
                        assert!(frozen.clone().norm_mut(module.layer, role).is_none());
                    }
                    ModuleKind::Norm => {
                        let norm = model.norm_mut(module.layer, role).unwrap();
                        norm.weight = trained(norm.weight.val());
                        assert!(frozen.clone().linear_mut(module.layer, role).is_none());
                    }
                    ModuleKind::OutputHead | ModuleKind::Embedding | ModuleKind::Container => {
                        continue;
                    }
                }
                let ModuleLayout { name, shape, .. } = module;
                let only = BTreeMap::from([(format!("{name}.weight"), shape)]);
                assert_eq!(model.trainable_shapes(), only);
            }
        }
    }

    /// A random model of each family is saved under its own name, and read again.
    #[test]
    fn a_family_is_saved_under_its_name() {
        for family in family::ALL {
            let model = model(family);
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            save_model(&model, &out, Dtype::F32, &[]).unwrap();
            let read = Pretrained::open(&out).unwrap().config;
            assert_eq!(read, *model.config());
            let text = read.to_text(None);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["model_type"], family.model_type);
            assert_eq!(json["architectures"], json!([family.class]));
        }
    }
}
