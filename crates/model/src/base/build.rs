//! The modules of the model, filled from a source of tensors.

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::family::{Family, Module, Role};
use simmer_checkpoint::layout::TensorLayout;

use super::BaseError;
use crate::layer::{Embedding, Linear, LmHead, RmsNorm};
use crate::llama::{DecoderLayer, LlamaForCausalLM, LlamaModel, Mlp, SelfAttention};

pub(super) type Source<'a> = &'a mut dyn FnMut(&TensorLayout) -> Result<TensorData, BaseError>;

/// Builds the model from a source of tensors.
pub(super) fn build(
    config: &ModelConfig,
    source: Source<'_>,
    device: &Device,
) -> Result<LlamaForCausalLM, BaseError> {
    let mut weights = Weights {
        config,
        source,
        device,
    };
    let Family {
        embedding,
        norm,
        head,
        ..
    } = config.family;
    let embed_tokens = Embedding {
        weight: weights.weight(embedding, None)?,
        adapter: None,
        compute: DType::F32,
    };
    let layers = (0..config.num_hidden_layers)
        .map(|layer| weights.layer(layer))
        .collect::<Result<_, _>>()?;
    let norm = weights.norm(norm, None)?;
    let head = if config.tie_word_embeddings {
        None
    } else {
        Some(weights.weight(head, None)?)
    };
    Ok(LlamaForCausalLM {
        model: LlamaModel {
            embed_tokens,
            layers,
            norm,
        },
        lm_head: LmHead {
            weight: head,
            adapter: None,
        },
        config: config.clone(),
        own_vocabulary: false,
    })
}

struct Weights<'a, 'b> {
    config: &'a ModelConfig,
    source: Source<'b>,
    device: &'a Device,
}

impl Weights<'_, '_> {
    fn frozen<const D: usize>(
        &mut self,
        tensor: &TensorLayout,
    ) -> Result<Param<Tensor<D>>, BaseError> {
        let data = (self.source)(tensor)?;
        let dtype = data.dtype();
        let value = Tensor::from_data(data, (self.device, dtype));
        Ok(Param::initialized(ParamId::new(), value))
    }

    /// The weight and the bias of a module.
    fn module<const D: usize>(
        &mut self,
        module: &'static Module,
        layer: Option<usize>,
    ) -> Result<(Param<Tensor<D>>, Option<Param<Tensor<1>>>), BaseError> {
        let weight = self.frozen(&TensorLayout::weight(self.config, module, layer))?;
        let bias = TensorLayout::bias(self.config, module, layer);
        let bias = bias.map(|bias| self.frozen(&bias)).transpose()?;
        Ok((weight, bias))
    }

    /// The weight of a module without a bias.
    fn weight<const D: usize>(
        &mut self,
        module: &'static Module,
        layer: Option<usize>,
    ) -> Result<Param<Tensor<D>>, BaseError> {
        let (weight, _) = self.module(module, layer)?;
        Ok(weight)
    }

    fn norm(
        &mut self,
        module: &'static Module,
        layer: Option<usize>,
    ) -> Result<RmsNorm, BaseError> {
        let weight = self.weight(module, layer)?;
        Ok(RmsNorm::new(weight, self.config.rms_norm_eps))
    }

    fn layer(&mut self, layer: usize) -> Result<DecoderLayer, BaseError> {
        let family = self.config.family;
        let module = |role| {
            family.in_layer(role).ok_or(BaseError::NoModule {
                model_type: family.model_type,
                role,
            })
        };
        let input_layernorm = self.norm(module(Role::AttentionNorm)?, Some(layer))?;
        let post_attention_layernorm = self.norm(module(Role::MlpNorm)?, Some(layer))?;
        let mut linear = |role| {
            let (weight, bias) = self.module(module(role)?, Some(layer))?;
            Ok::<_, BaseError>(Linear {
                weight,
                bias,
                adapter: None,
            })
        };
        Ok(DecoderLayer {
            input_layernorm,
            self_attn: SelfAttention {
                q_proj: linear(Role::Query)?,
                k_proj: linear(Role::Key)?,
                v_proj: linear(Role::Value)?,
                o_proj: linear(Role::AttentionOutput)?,
            },
            post_attention_layernorm,
            mlp: Mlp {
                gate_proj: linear(Role::Gate)?,
                up_proj: linear(Role::Up)?,
                down_proj: linear(Role::Down)?,
            },
        })
    }
}
