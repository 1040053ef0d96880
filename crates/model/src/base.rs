//! The base model: loaded from a checkpoint, or randomly initialised.

use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use simmer_checkpoint::config::{ConfigError, ModelConfig};
use simmer_checkpoint::layout::tensors;
use simmer_checkpoint::numbers::{convert as convert_bytes, count_not_finite};
use simmer_checkpoint::{Checkpoint, CheckpointError, Dtype, Layout, Pretrained, PretrainedError};
use simmer_hint::Hint;
use simmer_kernels::mix;

use crate::layer::{Embedding, Linear, LmHead, RmsNorm};
use crate::llama::{
    DecoderLayer, EMBEDDING, HEAD, LlamaForCausalLM, LlamaModel, Mlp, SelfAttention,
};
use crate::random::normal;
use crate::tensor_file::{ReadData, burn_dtype, stored_dtype};

/// The recipe's `[base]` table: the model to fine-tune.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct BaseConfig {
    /// The base model: a Hugging Face folder, a folder in Meta's layout, a `.gguf` file, or a name on the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The configuration of a randomly initialised model, instead of `path`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<ModelConfig>,
    /// The folder of the tokenizer, or a name on the hub; required with `init`. Default: the tokenizer of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Words to add as tokens, each with a row in the embedding and the output head.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_tokens: Vec<String>,
    /// Special tokens to add, such as `<|im_start|>`. Generated text is shown without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_special_tokens: Vec<String>,
    /// The padding token for other programs, named in `tokenizer_config.json`: a special token, added if the tokenizer
    /// does not have it. simmer itself does not pad. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token: Option<String>,
    /// The dtype of frozen weights in memory. Layers compute in `compute` whatever it is. Default: as stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// The dtype that the layers compute in: `"f32"` (default) or, on devices of libtorch only, `"bf16"`. Sums, the
    /// loss and trained tensors stay in f32.
    #[serde(default, skip_serializing_if = "Compute::is_default")]
    pub compute: Compute,
    /// Local paths of `path` and `tokenizer`, see [`BaseConfig::locate`].
    #[serde(skip)]
    located: [Option<PathBuf>; 2],
}

/// Dtype of frozen weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(schemars::JsonSchema)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits, the exponent range of f32.
    Bf16,
    /// 16 bits, IEEE.
    F16,
}

impl Precision {
    /// Burn's name of the dtype.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// Dtype of the activations between layers, and of the matrix multiplications.
///
/// Accumulation within an operation, the loss, and trainable parameters are always f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(schemars::JsonSchema)]
pub enum Compute {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, the exponent range of f32: half the memory, and the fastest dtype on a GPU.
    Bf16,
}

impl Compute {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A base model that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The configuration `[base] init` is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model on disk is damaged or not supported.
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    /// A tensor cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Neither or both of `path` and `init` are set.
    #[error("[base] needs either `path` (a checkpoint) or `init` (random weights), found {found}")]
    Source {
        /// Which of them are set.
        found: &'static str,
    },
    /// The device cannot compute in the dtype.
    #[error("`base.compute`: the device `cpu` computes only in f32, found bf16")]
    Compute,
    /// A weight that is NaN or infinite.
    #[error("{}: tensor `{tensor}`: {count} of {of} values are NaN or infinite", path.display())]
    NotFinite {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The number of such values in it.
        count: usize,
        /// The number of its values.
        of: usize,
    },
    /// `path` does not exist.
    #[error("base model {}: no such folder or file", path.display())]
    NoPath {
        /// As given.
        path: PathBuf,
    },
}

impl Hint for BaseError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPath { .. } => Some(
                "use a Hugging Face folder (config.json, *.safetensors), a Meta folder \
                 (params.json, consolidated.*.pth) or a .gguf file"
                    .to_owned(),
            ),
            Self::NotFinite { .. } => Some(
                "download the model again; if it is one that you trained or converted, that has failed"
                    .to_owned(),
            ),
            Self::Compute => Some(
                "remove `base.compute`, or compute on a GPU with device = \"libtorch-cuda:0\" \
                 (docs/guide/gpu.md); base.precision = \"bf16\" saves memory on every device"
                    .to_owned(),
            ),
            Self::Pretrained(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Config(_) | Self::Source { .. } => None,
        }
    }
}

/// An opened base model: its configuration, and where its weights come from.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its configuration.
    pub config: ModelConfig,
    /// Its weights; `None` for random initialisation.
    checkpoint: Option<Checkpoint>,
    precision: Option<Precision>,
    compute: Compute,
    /// Rows of tokens that were added to the tokenizer.
    new_rows: Range<usize>,
}

impl BaseConfig {
    /// A base model on disk, with weights kept in their stored dtype.
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            ..Self::default()
        }
    }

    /// Sets the local paths of `path` and `tokenizer` when these are names on the hub. Recipes and
    /// adapters keep the names.
    pub fn locate(&mut self, path: Option<PathBuf>, tokenizer: Option<PathBuf>) {
        self.located = [path, tokenizer];
    }

    /// Local path of the base model; `None` for random initialisation.
    pub fn found_path(&self) -> Option<&Path> {
        self.located[0].as_deref().or(self.path.as_deref())
    }

    /// Local path of the tokenizer; `None` if it is the base model's own.
    pub fn found_tokenizer(&self) -> Option<&Path> {
        self.located[1].as_deref().or(self.tokenizer.as_deref())
    }

    /// Opens the base model and checks everything about it, without reading the weights.
    ///
    /// # Errors
    /// If neither or both of `path` and `init` are set, if `path` does not exist, and if the model is damaged
    /// or not supported: everything that is wrong with it, in one error.
    pub fn open(&self) -> Result<Base, BaseError> {
        let (config, checkpoint) = match (self.found_path(), &self.init) {
            (Some(path), None) if path.exists() => {
                let Pretrained { config, checkpoint } = Pretrained::open(path)?;
                (config, Some(checkpoint))
            }
            (Some(path), None) => {
                let path = path.to_owned();
                return Err(BaseError::NoPath { path });
            }
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
            compute: self.compute,
            new_rows: 0..0,
        })
    }

    /// Path of the tokenizer: a folder, or the `.gguf` file.
    ///
    /// # Errors
    /// If neither `tokenizer` nor `path` is set.
    pub fn tokenizer_path(&self) -> Result<&Path, BaseError> {
        let path = self.found_tokenizer().or(self.found_path());
        path.ok_or(BaseError::Source {
            found: "`init` without `tokenizer`",
        })
    }
}

impl Base {
    /// The weights on disk; `None` for random initialisation.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Dtype of frozen weights in memory; if they have several, that of the first tensor.
    pub fn precision(&self) -> Precision {
        let stored = self.checkpoint.as_ref().and_then(|checkpoint| {
            let (_, info) = checkpoint.tensors().next()?;
            match info.dtype {
                Dtype::BF16 => Some(Precision::Bf16),
                Dtype::F16 => Some(Precision::F16),
                _ => None,
            }
        });
        self.precision.or(stored).unwrap_or(Precision::F32)
    }

    /// Bytes that the weights take, and how many of them stay memory-mapped, so that the operating system can drop them and
    /// read them again when memory is short.
    pub fn bytes(&self) -> [u64; 2] {
        let numbers = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        let wanted = self.precision.map(Precision::dtype);
        let Some(checkpoint) = &self.checkpoint else {
            let each = wanted.unwrap_or(DType::F32).size() as u64;
            let all = tensors(&self.config);
            return [
                all.iter().map(|tensor| each * numbers(&tensor.shape)).sum(),
                0,
            ];
        };
        let plain = checkpoint.layout() == Layout::HuggingFace;
        let [mut bytes, mut mapped] = [0, 0];
        for (_, info) in checkpoint.tensors() {
            let stored = burn_dtype(info.dtype).unwrap_or(DType::F32);
            let dtype = wanted.unwrap_or(stored);
            let size = numbers(&info.shape) * dtype.size() as u64;
            bytes += size;
            // a converted tensor is a copy in memory, and its mapped source is dropped
            if plain && dtype == stored {
                mapped += size;
            }
        }
        [bytes, mapped]
    }

    /// Adds rows to the embedding and the output head for tokens that were added to the tokenizer. Each new row is
    /// the mean of the rows below `rows.start`, which are those of the existing tokens. Spare rows of a padded
    /// vocabulary are reused; otherwise the matrix grows. With random initialisation the rows are drawn like all
    /// others.
    ///
    /// Source: Alpaca's `smart_tokenizer_and_embedding_resize`.
    ///
    /// # Panics
    /// If there is a gap between the last row of the embedding and `rows`.
    pub fn add_rows(&mut self, rows: Range<usize>) {
        assert!(
            rows.start <= self.config.vocab_size,
            "a gap before the new rows"
        );
        self.config.vocab_size = self.config.vocab_size.max(rows.end);
        self.new_rows = rows;
    }

    /// Loads the base model with every weight frozen.
    ///
    /// The model records gradients; [`Module::valid`](burn::module::Module::valid) returns a model for inference.
    /// Weights that are stored in the requested dtype stay memory-mapped; a widened copy exists only within an
    /// operation. Random weights are drawn from `seed`, in f32 unless `precision` is set.
    ///
    /// # Errors
    /// A dtype that Burn does not support, or that the device does not compute in.
    pub fn load(&self, seed: u64, device: &Device) -> Result<LlamaForCausalLM, BaseError> {
        if self.compute != Compute::F32 && *device == Device::flex() {
            return Err(BaseError::Compute);
        }
        let device = &device.clone().autodiff();
        let precision = self.precision.map(Precision::dtype);
        let mut source = |tensor: &str, shape: &[usize]| {
            let data = match &self.checkpoint {
                Some(checkpoint) => {
                    let data = checkpoint.data(tensor)?;
                    check_finite(checkpoint, tensor, &data, precision)?;
                    self.with_new_rows(tensor, data)
                }
                None => random(&self.config, tensor, shape, seed),
            };
            Ok(convert(data, precision))
        };
        let mut model = build(&self.config, &mut source, device)?;
        model.model.embed_tokens.compute = self.compute.dtype();
        model.own_vocabulary = !self.new_rows.is_empty();
        Ok(model)
    }

    fn with_new_rows(&self, tensor: &str, data: TensorData) -> TensorData {
        let module = tensor.strip_suffix(".weight");
        match module {
            Some(EMBEDDING | HEAD) if !self.new_rows.is_empty() => mean_rows(data, &self.new_rows),
            _ => data,
        }
    }
}

/// [`BaseConfig::open`], then [`Base::load`].
///
/// # Errors
/// The errors of both.
pub fn load(base: &BaseConfig, seed: u64, device: &Device) -> Result<LlamaForCausalLM, BaseError> {
    base.open()?.load(seed, device)
}

/// Checks that the values of a tensor are finite, if they are read now anyway or are few: loading must not read a large
/// mapped tensor.
fn check_finite(
    checkpoint: &Checkpoint,
    tensor: &str,
    data: &TensorData,
    precision: Option<DType>,
) -> Result<(), BaseError> {
    /// A tensor of this many bytes is checked whatever happens to it.
    const FEW: usize = 1 << 20;
    let copied = checkpoint.layout() != Layout::HuggingFace
        || precision.is_some_and(|dtype| dtype != data.dtype());
    let float = match data.dtype() {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => return Ok(()),
    };
    if !copied && data.as_bytes().len() > FEW {
        return Ok(());
    }
    match count_not_finite(data.as_bytes(), float) {
        0 => Ok(()),
        count => Err(BaseError::NotFinite {
            path: checkpoint.path().to_owned(),
            tensor: tensor.to_owned(),
            count,
            of: data.num_elements(),
        }),
    }
}

fn convert(data: TensorData, precision: Option<DType>) -> TensorData {
    match precision {
        Some(dtype) if dtype != data.dtype() => data.convert_dtype(dtype),
        _ => data,
    }
}

/// Sets the rows `rows` of a matrix to the mean of the rows below them, summed in f64 and rounded once to
/// the stored dtype.
fn mean_rows(data: TensorData, rows: &Range<usize>) -> TensorData {
    /// Rows widened to f32 at a time.
    const BLOCK: usize = 256;
    let dtype = data.dtype();
    let stored = stored_dtype(dtype).unwrap_or(Dtype::F32);
    let columns = data.shape()[1];
    let row_bytes = columns * dtype.size();
    let bytes = data.as_bytes();
    let (before, rest) = bytes.split_at(rows.start * row_bytes);
    let mut sums = vec![0.0_f64; columns];
    for block in before.chunks(BLOCK * row_bytes) {
        let wide = convert_bytes(block, stored, Dtype::F32);
        for (number, sum) in wide.chunks_exact(4).zip((0..columns).cycle()) {
            sums[sum] += f64::from(f32::from_le_bytes([
                number[0], number[1], number[2], number[3],
            ]));
        }
    }
    let count = rows.start.max(1) as f64;
    let mean = sums
        .iter()
        .flat_map(|sum| ((sum / count) as f32).to_le_bytes());
    let mean = convert_bytes(&mean.collect::<Vec<u8>>(), Dtype::F32, stored);
    let mut out = Vec::with_capacity(bytes.len().max(rows.end * row_bytes));
    out.extend_from_slice(before);
    for _ in rows.clone() {
        out.extend_from_slice(&mean);
    }
    out.extend_from_slice(rest.get(rows.len() * row_bytes..).unwrap_or_default());
    let shape = [out.len() / row_bytes, columns];
    TensorData::from_bytes_vec(out, shape, dtype)
}

/// Random initialisation of a tensor: ones for norms, zeros for biases, otherwise normal.
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

/// Builds the model from a source of tensors.
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
        weight: weights.frozen(&format!("{EMBEDDING}.weight"), [vocab, hidden])?,
        adapter: None,
        compute: DType::F32,
    };
    let layers = (0..config.num_hidden_layers)
        .map(|layer| weights.layer(&format!("model.layers.{layer}")))
        .collect::<Result<_, _>>()?;
    let norm = RmsNorm::new(weights.frozen("model.norm.weight", [hidden])?, eps);
    let head = if config.tie_word_embeddings {
        None
    } else {
        Some(weights.frozen(&format!("{HEAD}.weight"), [vocab, hidden])?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(data: &TensorData) -> Vec<f32> {
        data.iter::<f32>().collect()
    }

    #[test]
    fn new_rows_are_the_mean_of_those_below() {
        let data = TensorData::new(vec![1.0_f32, 4.0, 3.0, 8.0, 9.0, 9.0], [3, 2]);
        let rows = |rows: Range<usize>| numbers(&mean_rows(data.clone(), &rows));
        // after the last row, from the last row on, one row in the middle
        assert_eq!(rows(3..5)[6..], [13.0 / 3.0, 7.0, 13.0 / 3.0, 7.0]);
        assert_eq!(rows(2..4), [1.0, 4.0, 3.0, 8.0, 2.0, 6.0, 2.0, 6.0]);
        assert_eq!(rows(1..2), [1.0, 4.0, 1.0, 4.0, 9.0, 9.0]);
    }

    #[test]
    fn means_are_summed_in_f64_and_rounded_once() {
        // A sum in bf16 would stop growing at 256, in f32 at 2^24.
        let values = vec![1.0_f32; 300]
            .into_iter()
            .chain([1.1; 300])
            .collect::<Vec<_>>();
        let data = TensorData::new(values, [600, 1]).convert_dtype(DType::BF16);
        let grown = mean_rows(data, &(600..601));
        // 1.1 is 1.1015625 in bf16. The mean is halfway between two bf16 values; the even one is the lower.
        assert_eq!(numbers(&grown)[600..], [1.046_875]);
    }
}
