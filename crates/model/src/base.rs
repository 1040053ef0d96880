//! The base model: loaded from a checkpoint, or randomly initialised.

use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use simmer_checkpoint::config::{ConfigError, ModelConfig};
use simmer_checkpoint::family::{Family, Module, ModuleKind, Role};
use simmer_checkpoint::hub::{HubName, Place};
use simmer_checkpoint::layout::{Part, TensorLayout, tensors};
use simmer_checkpoint::numbers::{convert as convert_bytes, count_not_finite};
use simmer_checkpoint::{Checkpoint, CheckpointError, Dtype, Layout, Pretrained, PretrainedError};
use simmer_hint::Hint;
use simmer_kernels::{Capabilities, mix};

use crate::layer::{Embedding, Linear, LmHead, RmsNorm};
use crate::llama::{DecoderLayer, LlamaForCausalLM, LlamaModel, Mlp, SelfAttention};
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
    /// The base model's name on the hub, `ORG/NAME`, if `path` is a local folder or file: the adapter's card and
    /// configuration name it as their base model. Default: `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_name: Option<String>,
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
    #[error("`base.compute`: the device `{device}` computes only in {}, found {}", names(computes), dtype.name())]
    Compute {
        /// Name of the device.
        device: String,
        /// The dtypes that it computes in.
        computes: &'static [DType],
        /// The dtype of the recipe.
        dtype: DType,
    },
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
    /// A family without a module that the forward pass has.
    #[error("the family `{model_type}` has no module with the role {role:?}")]
    NoModule {
        /// The family.
        model_type: &'static str,
        /// What the module computes.
        role: Role,
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
            Self::Compute { .. } => Some(
                "remove `base.compute`, or compute on a GPU with device = \"libtorch-cuda:0\" \
                 (docs/guide/gpu.md); base.precision = \"bf16\" saves memory on every device"
                    .to_owned(),
            ),
            Self::Pretrained(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Config(_) | Self::Source { .. } | Self::NoModule { .. } => None,
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

    /// Its name on the hub with its revision, if it has one: `hub_name`, or `path` if that is such a name.
    pub fn on_hub(&self) -> Option<HubName> {
        if let Some(name) = &self.hub_name {
            return name.parse().ok();
        }
        match Place::of(self.path.as_deref()?) {
            Ok(Place::Hub { name, .. }) => Some(name),
            _ => None,
        }
    }

    /// Its name and revision in the configuration of an adapter. A local path stands there as given.
    pub fn for_adapters(&self) -> (String, Option<String>) {
        let Some(name) = self.on_hub() else {
            let path = self.path.as_deref().map(Path::to_string_lossy);
            return (path.unwrap_or_default().into_owned(), None);
        };
        let revision = name.has_revision().then(|| name.revision().to_owned());
        (name.repo().to_owned(), revision)
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
        let can = Capabilities::of(device);
        let dtype = self.compute.dtype();
        if !can.computes.contains(&dtype) {
            return Err(BaseError::Compute {
                device: can.name(),
                computes: can.computes,
                dtype,
            });
        }
        let device = &device.clone().autodiff();
        let precision = self.precision.map(Precision::dtype);
        let mut source = |tensor: &TensorLayout| {
            let data = match &self.checkpoint {
                Some(checkpoint) => {
                    let data = checkpoint.data(&tensor.name)?;
                    check_finite(checkpoint, &tensor.name, &data, precision)?;
                    self.with_new_rows(tensor.module, data)
                }
                None => random(&self.config, tensor, seed),
            };
            Ok(stored(convert(data, precision), &can))
        };
        let mut model = build(&self.config, &mut source, device)?;
        model.model.embed_tokens.compute = self.compute.dtype();
        model.own_vocabulary = !self.new_rows.is_empty();
        Ok(model)
    }

    fn with_new_rows(&self, module: &Module, data: TensorData) -> TensorData {
        if module.is_outermost() && !self.new_rows.is_empty() {
            mean_rows(data, &self.new_rows)
        } else {
            data
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

/// In f32, if the device does not hold weights in the dtype.
fn stored(data: TensorData, can: &Capabilities) -> TensorData {
    if can.stores.contains(&data.dtype()) {
        data
    } else {
        data.convert_dtype(DType::F32)
    }
}

/// The names of dtypes, separated by commas.
fn names(dtypes: &[DType]) -> String {
    let names: Vec<&str> = dtypes.iter().map(DType::name).collect();
    names.join(", ")
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
fn random(config: &ModelConfig, tensor: &TensorLayout, seed: u64) -> TensorData {
    let size = tensor.shape.iter().product();
    let values = match (tensor.part, tensor.module.kind) {
        (Part::Bias, _) => vec![0.0; size],
        (Part::Weight, ModuleKind::Norm) => vec![1.0; size],
        (Part::Weight, _) => {
            let std = config.initializer_range as f32;
            let mut values = normal(mix(seed), &tensor.name, size);
            for value in &mut values {
                *value *= std;
            }
            values
        }
    };
    TensorData::new(values, tensor.shape.clone())
}

type Source<'a> = &'a mut dyn FnMut(&TensorLayout) -> Result<TensorData, BaseError>;

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
