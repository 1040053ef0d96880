//! The modules of the model, filled from a source of tensors.

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use simmer_blocks::Quantised;
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::family::{Family, Module, NormWeight, Role};
use simmer_checkpoint::layout::TensorLayout;
use simmer_kernels::{HostMemory, StoredWeight, upload_weight};

use super::BaseError;
use crate::decoder::{DecoderLayer, Mlp, Place, SelfAttention};
use crate::layer::{Embedding, Linear, LmHead, RmsNorm};
use crate::llama::{LlamaForCausalLM, LlamaModel};
use crate::placement::Placement;
use crate::weight::Weight;

/// A tensor of the base model.
pub(super) enum Source {
    Dense(TensorData),
    Quantised(Quantised),
    /// On its device, for products in fp8.
    Fp8(StoredWeight),
}

/// Where the tensors come from.
pub(super) type Sources<'a> = &'a mut dyn FnMut(&TensorLayout) -> Result<Source, BaseError>;

/// Builds the model from a source of tensors, each on its device. `host` keeps the weights of the layers, if they are only
/// copied there.
pub(super) fn build(
    config: &ModelConfig,
    source: Sources<'_>,
    placement: &Placement,
    host: Option<HostMemory>,
) -> Result<LlamaForCausalLM, BaseError> {
    let mut weights = Weights {
        config,
        source,
        device: placement.first(),
        host,
    };
    let Family {
        embedding,
        norm,
        head,
        ..
    } = config.family;
    let embed_tokens = Embedding {
        weight: weights.matrix(embedding, None)?,
        adapter: None,
        token_adapter: None,
        scale: config.embedding_scale(),
        compute: DType::F32,
    };
    let layers = (0..config.num_hidden_layers)
        .map(|layer| {
            weights.device = placement.of_layer(layer);
            weights.layer(layer)
        })
        .collect::<Result<_, _>>()?;
    weights.device = placement.last();
    let norm = weights.norm(norm, None)?;
    let is_tied = config.tie_word_embeddings;
    let copy = if is_tied && placement.devices().len() > 1 {
        Some(weights.matrix(embedding, None)?)
    } else {
        None
    };
    let head = if is_tied {
        None
    } else {
        Some(weights.matrix(head, None)?)
    };
    Ok(LlamaForCausalLM {
        model: LlamaModel {
            embed_tokens,
            layers,
            norm,
        },
        lm_head: LmHead {
            weight: head,
            copy,
            adapter: None,
            token_adapter: None,
        },
        config: config.clone(),
        places: placement.places().clone(),
        own_vocabulary: false,
        frozen_ends: Vec::new(),
        offloaded: None,
    })
}

/// A quantised matrix in f32.
pub(super) fn widened(matrix: &Quantised) -> TensorData {
    let [rows, columns] = matrix.shape();
    TensorData::new(matrix.rows(0..rows), [rows, columns])
}

struct Weights<'a, 'b> {
    config: &'a ModelConfig,
    source: Sources<'b>,
    device: &'a Device,
    /// Where the weights of layers are, if they are copied to the device while they are used.
    host: Option<HostMemory>,
}

impl Weights<'_, '_> {
    fn frozen<const D: usize>(
        &mut self,
        tensor: &TensorLayout,
    ) -> Result<Param<Tensor<D>>, BaseError> {
        let data = match (self.source)(tensor)? {
            Source::Dense(data) => data,
            // only matrices are quantised
            Source::Quantised(matrix) => widened(&matrix),
            Source::Fp8(_) => unreachable!("only matrices are multiplied in fp8"),
        };
        let value = upload_weight(data, self.device);
        Ok(Param::initialized(ParamId::new(), value))
    }

    /// The weight of a linear module, the embedding or the head.
    fn matrix(
        &mut self,
        module: &'static Module,
        layer: Option<usize>,
    ) -> Result<Weight, BaseError> {
        let tensor = TensorLayout::weight(self.config, module, layer);
        let found = (self.source)(&tensor)?;
        if let Some(host) = self.host.as_mut().filter(|_| layer.is_some()) {
            return Ok(Weight::of_stored(match found {
                Source::Dense(data) => host.dense(&data),
                Source::Quantised(matrix) => host.quantised(&matrix),
                Source::Fp8(weight) => host.moved(&weight),
            }));
        }
        Ok(match found {
            Source::Dense(data) => Weight::frozen(upload_weight(data, self.device)),
            Source::Quantised(matrix) => Weight::of_stored(StoredWeight::new(matrix, self.device)),
            Source::Fp8(weight) => Weight::of_stored(weight),
        })
    }

    fn norm(
        &mut self,
        module: &'static Module,
        layer: Option<usize>,
    ) -> Result<RmsNorm, BaseError> {
        let weight = self.frozen(&TensorLayout::weight(self.config, module, layer))?;
        let plus_one = self.config.family.norm_weight == NormWeight::PlusOne;
        Ok(RmsNorm::new(weight, self.config.rms_norm_eps, plus_one))
    }

    /// A linear module of a layer, if the family has one.
    fn linear_or_none(&mut self, layer: usize, role: Role) -> Result<Option<Linear>, BaseError> {
        let Some(module) = self.config.family.in_layer(role) else {
            return Ok(None);
        };
        let weight = self.matrix(module, Some(layer))?;
        let bias = TensorLayout::bias(self.config, module, Some(layer));
        let bias = bias.map(|bias| self.frozen(&bias)).transpose()?;
        let adapter = None;
        Ok(Some(Linear {
            weight,
            bias,
            adapter,
            watched: None,
        }))
    }

    fn linear(&mut self, layer: usize, role: Role) -> Result<Linear, BaseError> {
        let linear = self.linear_or_none(layer, role)?;
        linear.ok_or_else(|| self.no_module(role))
    }

    fn no_module(&self, role: Role) -> BaseError {
        BaseError::NoModule {
            model_type: self.config.family.model_type,
            role,
        }
    }

    /// A normalisation of a layer by the last part of its name, if the family has one.
    fn norm_or_none(&mut self, layer: usize, name: &str) -> Result<Option<RmsNorm>, BaseError> {
        let mut modules = self.config.family.layer.iter();
        let module = modules.find(|module| module.last_part() == name);
        module
            .map(|module| self.norm(module, Some(layer)))
            .transpose()
    }

    fn attention(&mut self, layer: usize) -> Result<SelfAttention, BaseError> {
        let qkv_proj = self.linear_or_none(layer, Role::QueryKeyValue)?;
        let mut separate = |role| match qkv_proj {
            Some(_) => Ok(None),
            None => self.linear(layer, role).map(Some),
        };
        Ok(SelfAttention {
            adapter: None,
            q_proj: separate(Role::Query)?,
            k_proj: separate(Role::Key)?,
            v_proj: separate(Role::Value)?,
            o_proj: self.linear(layer, Role::AttentionOutput)?,
            q_norm: self.norm_or_none(layer, "q_norm")?,
            k_norm: self.norm_or_none(layer, "k_norm")?,
            qkv_proj,
        })
    }

    fn mlp(&mut self, layer: usize) -> Result<Mlp, BaseError> {
        let gate_up_proj = self.linear_or_none(layer, Role::GateUp)?;
        let mut separate = |role| match gate_up_proj {
            Some(_) => Ok(None),
            None => self.linear(layer, role).map(Some),
        };
        Ok(Mlp {
            gate_proj: separate(Role::Gate)?,
            up_proj: separate(Role::Up)?,
            down_proj: self.linear(layer, Role::Down)?,
            gate_up_proj,
        })
    }

    fn layer(&mut self, layer: usize) -> Result<DecoderLayer, BaseError> {
        let post_attention = self.norm_or_none(layer, "post_attention_layernorm")?;
        Ok(DecoderLayer {
            input_layernorm: self.norm_or_none(layer, "input_layernorm")?,
            self_attn: self.attention(layer)?,
            post_attention_layernorm: post_attention
                .ok_or_else(|| self.no_module(Role::MlpNorm))?,
            pre_feedforward_layernorm: self.norm_or_none(layer, "pre_feedforward_layernorm")?,
            post_feedforward_layernorm: self.norm_or_none(layer, "post_feedforward_layernorm")?,
            mlp: self.mlp(layer)?,
            place: Place {
                positions: self.config.positions(layer),
                window: self.config.window(layer),
            },
        })
    }
}
