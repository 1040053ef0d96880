//! Where a run's weights come from: a checkpoint, or chance.

use std::path::{Path, PathBuf};

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use simmer_kernels::mix;

use crate::checkpoint::{Checkpoint, CheckpointError, Pretrained, PretrainedError, ReadData};
use crate::config::{ConfigError, ModelConfig};
use crate::layer::{Embedding, Linear, LmHead, RmsNorm};
use crate::llama::{DecoderLayer, LlamaForCausalLM, LlamaModel, Mlp, SelfAttention};
use crate::random::normal;

/// The recipe's `[base]` table: what is fine-tuned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseConfig {
    /// A Hugging Face folder, a Meta folder or a `.gguf` file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Shape of a model that starts from random weights, instead of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<ModelConfig>,
    /// Where the tokenizer is; that of `path` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// How frozen weights are kept in memory; as stored where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
}

/// Number type of frozen weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits, the exponent range of f32.
    Bf16,
    /// 16 bits, IEEE.
    F16,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// Why a base cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The shape of `[base] init` is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model on disk is damaged, or not one that simmer can use.
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    /// A tensor cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Neither or both of `path` and `init`.
    #[error("[base] needs either `path` (a checkpoint) or `init` (random weights), found {found}")]
    Source {
        /// Which of them there are.
        found: &'static str,
    },
    /// `path` is nothing that there is.
    #[error("base model {}: there is no such folder or file", path.display())]
    NoPath {
        /// As given.
        path: PathBuf,
    },
}

impl BaseError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoPath { .. } => Some(
                "give a Hugging Face folder (config.json, *.safetensors), a Meta folder \
                 (params.json, consolidated.*.pth) or a .gguf file"
                    .to_owned(),
            ),
            Self::Pretrained(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Config(_) | Self::Source { .. } => None,
        }
    }
}

/// A base that was found: what shape it has, and where its weights come from.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its shape.
    pub config: ModelConfig,
    /// Its weights; chance where there are none.
    checkpoint: Option<Checkpoint>,
    precision: Option<Precision>,
}

impl BaseConfig {
    /// A base on disk, weights kept as stored.
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            ..Self::default()
        }
    }

    /// Finds the base, and reads all about it but the weights themselves.
    ///
    /// # Errors
    /// Where neither or both of `path` and `init` are given, where there is nothing at `path`, and
    /// everything about it that does not fit, in one error.
    pub fn open(&self) -> Result<Base, BaseError> {
        let (config, checkpoint) = match (&self.path, &self.init) {
            (Some(path), None) if path.exists() => {
                let Pretrained { config, checkpoint } = Pretrained::open(path)?;
                (config, Some(checkpoint))
            }
            (Some(path), None) => return Err(BaseError::NoPath { path: path.clone() }),
            (None, Some(init)) => {
                init.check(Path::new("[base] init"))?;
                (init.clone(), None)
            }
            (None, None) => return Err(BaseError::Source { found: "neither" }),
            (Some(_), Some(_)) => return Err(BaseError::Source { found: "both" }),
        };
        Ok(Base {
            config,
            checkpoint,
            precision: self.precision,
        })
    }

    /// Where the tokenizer is: a folder, or the `.gguf` file.
    ///
    /// # Errors
    /// Where neither `tokenizer` nor `path` says.
    pub fn tokenizer_path(&self) -> Result<&Path, BaseError> {
        let path = self.tokenizer.as_deref().or(self.path.as_deref());
        path.ok_or(BaseError::Source {
            found: "`init` without `tokenizer`",
        })
    }
}

impl Base {
    /// The weights on disk; none where they are drawn.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Loads the base, every weight frozen.
    ///
    /// The model records what is trained; [`Module::valid`](burn::module::Module::valid) gives one
    /// for inference. Weights of a checkpoint that lie there as they are wanted stay mapped from
    /// their files, in their stored precision; a widened copy exists only within an operation.
    /// Random weights are drawn from `seed`, in f32 where `precision` says nothing.
    ///
    /// # Errors
    /// A number type that Burn does not have.
    pub fn load(&self, seed: u64, device: &Device) -> Result<LlamaForCausalLM, BaseError> {
        let device = &device.clone().autodiff();
        let precision = self.precision.map(Precision::dtype);
        let mut source = |tensor: &str, shape: &[usize]| {
            let data = match &self.checkpoint {
                Some(checkpoint) => checkpoint.data(tensor)?,
                None => random(&self.config, tensor, shape, seed),
            };
            Ok(convert(data, precision))
        };
        build(&self.config, &mut source, device)
    }
}

/// [`BaseConfig::open`] and [`Base::load`] in one.
///
/// # Errors
/// As these.
pub fn load(base: &BaseConfig, seed: u64, device: &Device) -> Result<LlamaForCausalLM, BaseError> {
    base.open()?.load(seed, device)
}

fn convert(data: TensorData, precision: Option<DType>) -> TensorData {
    match precision {
        Some(dtype) if dtype != data.dtype() => data.convert_dtype(dtype),
        _ => data,
    }
}

/// Initial value of a tensor: ones for norms, zeros for biases, else normal.
///
/// Source: transformers `LlamaPreTrainedModel._init_weights`.
fn random(config: &ModelConfig, tensor: &str, shape: &[usize], seed: u64) -> TensorData {
    let size = shape.iter().product();
    let values = if tensor.ends_with("norm.weight") {
        vec![1.0; size]
    } else if tensor.rsplit('.').next() == Some("bias") {
        vec![0.0; size]
    } else {
        let std = config.initializer_range as f32;
        let mut values = normal(mix(seed), tensor, size);
        for value in &mut values {
            *value *= std;
        }
        values
    };
    TensorData::new(values, shape.to_vec())
}

type Source<'a> = &'a mut dyn FnMut(&str, &[usize]) -> Result<TensorData, BaseError>;

/// Puts the model together from a source of tensors.
fn build(
    config: &ModelConfig,
    source: Source<'_>,
    device: &Device,
) -> Result<LlamaForCausalLM, BaseError> {
    let mut weights = Weights {
        config,
        source,
        device,
    };
    let eps = config.rms_norm_eps;
    let [vocab, hidden] = [config.vocab_size, config.hidden_size];
    let embed_tokens = Embedding {
        weight: weights.frozen("model.embed_tokens.weight", [vocab, hidden])?,
        adapter: None,
    };
    let layers = (0..config.num_hidden_layers)
        .map(|layer| weights.layer(&format!("model.layers.{layer}")))
        .collect::<Result<_, _>>()?;
    let norm = RmsNorm::new(weights.frozen("model.norm.weight", [hidden])?, eps);
    let head = if config.tie_word_embeddings {
        None
    } else {
        Some(weights.frozen("lm_head.weight", [vocab, hidden])?)
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
        name: &str,
        shape: [usize; D],
    ) -> Result<Param<Tensor<D>>, BaseError> {
        let data = (self.source)(name, &shape)?;
        let dtype = data.dtype();
        let value = Tensor::from_data(data, (self.device, dtype));
        Ok(Param::initialized(ParamId::new(), value))
    }

    fn linear(&mut self, name: &str, shape: [usize; 2], bias: bool) -> Result<Linear, BaseError> {
        let weight = self.frozen(&format!("{name}.weight"), shape)?;
        let bias = if bias {
            Some(self.frozen(&format!("{name}.bias"), [shape[0]])?)
        } else {
            None
        };
        Ok(Linear {
            weight,
            bias,
            adapter: None,
        })
    }

    fn layer(&mut self, path: &str) -> Result<DecoderLayer, BaseError> {
        let config = self.config;
        let hidden = config.hidden_size;
        let inner = config.intermediate_size;
        let query = config.num_attention_heads * config.head_dim;
        let key = config.num_key_value_heads * config.head_dim;
        let [attention, mlp] = [config.attention_bias, config.mlp_bias];
        let mut norm = |name: &str| -> Result<RmsNorm, BaseError> {
            let weight = self.frozen(&format!("{path}.{name}.weight"), [hidden])?;
            Ok(RmsNorm::new(weight, config.rms_norm_eps))
        };
        let input_layernorm = norm("input_layernorm")?;
        let post_attention_layernorm = norm("post_attention_layernorm")?;
        let mut linear =
            |name: &str, shape, bias| self.linear(&format!("{path}.{name}"), shape, bias);
        Ok(DecoderLayer {
            input_layernorm,
            self_attn: SelfAttention {
                q_proj: linear("self_attn.q_proj", [query, hidden], attention)?,
                k_proj: linear("self_attn.k_proj", [key, hidden], attention)?,
                v_proj: linear("self_attn.v_proj", [key, hidden], attention)?,
                o_proj: linear("self_attn.o_proj", [hidden, query], attention)?,
            },
            post_attention_layernorm,
            mlp: Mlp {
                gate_proj: linear("mlp.gate_proj", [inner, hidden], mlp)?,
                up_proj: linear("mlp.up_proj", [inner, hidden], mlp)?,
                down_proj: linear("mlp.down_proj", [hidden, inner], mlp)?,
            },
        })
    }
}
