//! Where a run's weights come from: a checkpoint, or chance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use simmer_kernels::mix;

use crate::checkpoint::{self, Checkpoint, CheckpointError, Dtype, ReadData};
use crate::config::{ConfigError, ModelConfig};
use crate::layer::{Embedding, Linear, LmHead, RmsNorm};
use crate::layout;
use crate::llama::{DecoderLayer, LlamaForCausalLM, LlamaModel, Mlp, SelfAttention};
use crate::random::normal;

/// The recipe's `[base]` table: what is fine-tuned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseConfig {
    /// Folder of a Hugging Face checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Shape of a model that starts from random weights, instead of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<ModelConfig>,
    /// Folder of the tokenizer; that of `path` where it is not given.
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
    /// `config.json` is absent or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights' files are absent or damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The weights are not those of the configuration.
    #[error("the weights in {folder} do not fit its config.json:\n{difference}")]
    Difference {
        /// The checkpoint.
        folder: PathBuf,
        /// Everything that differs.
        difference: checkpoint::Difference,
    },
    /// A weight has a number type that is not one of those that models use.
    #[error("{folder}: tensor {tensor} is stored as {found:?}, expected F32, BF16 or F16")]
    Dtype {
        /// The checkpoint.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
        /// As stored.
        found: Dtype,
    },
    /// A tied head that is not the embedding.
    #[error(
        "{folder}: config.json says `tie_word_embeddings`: true, but lm_head.weight differs from \
         model.embed_tokens.weight"
    )]
    TiedHead {
        /// The checkpoint.
        folder: PathBuf,
    },
    /// Neither or both of `path` and `init`.
    #[error("[base] needs either `path` (a checkpoint) or `init` (random weights), found {found}")]
    Source {
        /// Which of them there are.
        found: &'static str,
    },
    /// `path` is no folder.
    #[error("base model {path}: there is no such folder")]
    NoFolder {
        /// As given.
        path: PathBuf,
    },
}

impl BaseError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoFolder { .. } => {
                "give the folder of a Hugging Face checkpoint (config.json, *.safetensors, \
                 tokenizer.json); this version does not download models by their hub name"
            }
            Self::TiedHead { .. } => {
                "set `tie_word_embeddings` to false if the head was trained on its own, else \
                 remove lm_head.weight"
            }
            Self::Checkpoint(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl BaseConfig {
    /// A base in a folder, weights kept as stored.
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            ..Self::default()
        }
    }

    /// The folder of the checkpoint, or `None` for random weights.
    ///
    /// # Errors
    /// Where neither or both are given, and where the folder does not exist.
    pub fn folder(&self) -> Result<Option<&Path>, BaseError> {
        match (&self.path, &self.init) {
            (Some(path), None) if path.is_dir() => Ok(Some(path)),
            (Some(path), None) => Err(BaseError::NoFolder { path: path.clone() }),
            (None, Some(_)) => Ok(None),
            (None, None) => Err(BaseError::Source { found: "neither" }),
            (Some(_), Some(_)) => Err(BaseError::Source { found: "both" }),
        }
    }

    /// The model's shape.
    ///
    /// # Errors
    /// As [`BaseConfig::folder`], and where the configuration is wrong.
    pub fn model_config(&self) -> Result<ModelConfig, BaseError> {
        Ok(match (self.folder()?, &self.init) {
            (Some(folder), _) => ModelConfig::from_folder(folder)?,
            (None, Some(init)) => {
                init.check(Path::new("[base] init"))?;
                init.clone()
            }
            (None, None) => return Err(BaseError::Source { found: "neither" }),
        })
    }

    /// The folder that the tokenizer is in.
    ///
    /// # Errors
    /// Where neither `tokenizer` nor `path` says.
    pub fn tokenizer_folder(&self) -> Result<&Path, BaseError> {
        let folder = self.tokenizer.as_deref().or(self.path.as_deref());
        folder.ok_or(BaseError::Source {
            found: "`init` without `tokenizer`",
        })
    }
}

/// Loads the base, every weight frozen.
///
/// The model records what is trained; [`Module::valid`](burn::module::Module::valid) gives one for
/// inference. Weights of a checkpoint stay mapped from their files, in their stored precision; a widened copy
/// exists only within an operation. Random weights are drawn from `seed`, in f32 where `precision`
/// says nothing.
///
/// # Errors
/// Everything that does not fit, in one error; see [`BaseError`].
pub fn load(base: &BaseConfig, seed: u64, device: &Device) -> Result<LlamaForCausalLM, BaseError> {
    let device = &device.clone().autodiff();
    let config = base.model_config()?;
    let precision = base.precision.map(Precision::dtype);
    let Some(folder) = base.folder()? else {
        let mut draw = |tensor: &str, shape: &[usize]| {
            Ok(convert(random(&config, tensor, shape, seed), precision))
        };
        return build(&config, &mut draw, device);
    };
    let checkpoint = open(folder, &config)?;
    let mut read = |tensor: &str, _: &[usize]| Ok(convert(checkpoint.data(tensor)?, precision));
    build(&config, &mut read, device)
}

/// Opens a checkpoint and holds its tensors against the configuration.
///
/// # Errors
/// Missing, unexpected and misshapen tensors together, number types that models do not use, and a
/// tied head that is not the embedding.
pub fn open(folder: &Path, config: &ModelConfig) -> Result<Checkpoint, BaseError> {
    const HEAD: &str = "lm_head.weight";
    let checkpoint = Checkpoint::open(folder)?;
    let expected: BTreeMap<String, Vec<usize>> = layout::tensors(config)
        .into_iter()
        .map(|tensor| (tensor.name, tensor.shape))
        .collect();
    let mut found: BTreeMap<String, Vec<usize>> = checkpoint
        .tensors()
        .map(|(name, info)| (name.to_owned(), info.shape.clone()))
        .collect();
    if config.tie_word_embeddings && found.remove(HEAD).is_some() {
        let embedding = checkpoint.bytes("model.embed_tokens.weight")?;
        if checkpoint.bytes(HEAD)? != embedding {
            return Err(BaseError::TiedHead {
                folder: folder.to_owned(),
            });
        }
    }
    checkpoint::compare(&expected, &found).map_err(|difference| BaseError::Difference {
        folder: folder.to_owned(),
        difference,
    })?;
    for (tensor, info) in checkpoint.tensors() {
        if !matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            return Err(BaseError::Dtype {
                folder: folder.to_owned(),
                tensor: tensor.to_owned(),
                found: info.dtype,
            });
        }
    }
    Ok(checkpoint)
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
