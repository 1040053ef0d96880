//! The recipe's `[base]` table.

use std::fmt;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use serde::{Deserialize, Serialize};
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::hub::{HubName, Place};
use simmer_checkpoint::{Checkpoint, Pretrained};

use super::{Base, BaseError, Offload};

/// The recipe's `[base]` table: the model to fine-tune.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// How frozen weights are held in memory: a dtype, or a quantised type for the linear modules of an ordinary
    /// base model (QLoRA: `"nf4"`). Layers compute in `compute` whatever it is. Default: as stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<BasePrecision>,
    /// Whether the scales of `"nf4"` and `"fp4"` are quantised once more, as in QLoRA: 4.13 bits a weight instead of
    /// 4.5. Default: true.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub double_quant: bool,
    /// The dtype that the layers compute in: `"f32"`, `"bf16"`, or `"fp8"`: bf16, with the products of frozen
    /// linear weights in e4m3, on GPUs that multiply in it (libtorch; NVIDIA's from compute capability 8.9 on). Sums, the
    /// loss and trained tensors stay in f32. Default: `"bf16"` for a base model in bf16 on a device that is faster in it (a GPU,
    /// a processor with AMX, or AMD's with `avx512_bf16`), else `"f32"`; `method.full`: `"f32"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// Where the frozen weights are while they are not used, for a base model that is larger than the memory of its device:
    /// `"disk"`, in their files, on the device `cpu`; `"host"`, those of the layers in main memory, on GPUs (libtorch). It needs
    /// `train.recompute = "layer"` or `"mlp"`. Default: in the memory of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload: Option<Offload>,
    /// Local paths of `path` and `tokenizer`, see [`BaseConfig::locate`].
    #[serde(skip)]
    located: [Option<PathBuf>; 2],
}

/// How frozen weights are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(schemars::JsonSchema)]
pub enum BasePrecision {
    /// 32 bits.
    F32,
    /// 16 bits, the exponent range of f32.
    Bf16,
    /// 16 bits, IEEE.
    F16,
    /// Four bits, quantiles of the normal distribution, with a scale for each 64 weights.
    Nf4,
    /// Four bits, floating point, with a scale for each 64 weights.
    Fp4,
    /// Eight bits, with a scale for each row.
    Int8,
}

impl BasePrecision {
    /// The dtype, if it is one.
    pub fn float(self) -> Option<Precision> {
        match self {
            Self::F32 => Some(Precision::F32),
            Self::Bf16 => Some(Precision::Bf16),
            Self::F16 => Some(Precision::F16),
            Self::Nf4 | Self::Fp4 | Self::Int8 => None,
        }
    }

    /// Whether it is a quantised type, and not a dtype.
    pub fn is_quantised(self) -> bool {
        self.float().is_none()
    }

    /// Burn's name of the dtype, if it is one.
    pub fn dtype(self) -> Option<DType> {
        self.float().map(Precision::dtype)
    }

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Nf4 => "nf4",
            Self::Fp4 => "fp4",
            Self::Int8 => "int8",
        }
    }
}

/// How the linear weights of an ordinary base model are quantised while it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantisedOnLoad {
    /// The type: nf4, fp4 or int8.
    pub precision: BasePrecision,
    /// Whether the scales of nf4 and fp4 are quantised once more.
    pub double_quant: bool,
}

impl QuantisedOnLoad {
    /// The recipe's table for a base model that is loaded in this way; `None`: one whose weights are as stored.
    pub fn config(quantised: Option<Self>, path: impl Into<PathBuf>) -> BaseConfig {
        BaseConfig {
            precision: quantised.map(|quantised| quantised.precision),
            double_quant: quantised.is_none_or(|quantised| quantised.double_quant),
            ..BaseConfig::from_path(path)
        }
    }
}

impl fmt::Display for QuantisedOnLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.precision.name())?;
        match (self.precision, self.double_quant) {
            (BasePrecision::Nf4 | BasePrecision::Fp4, true) => {
                f.write_str(" with double quantisation")
            }
            (BasePrecision::Nf4 | BasePrecision::Fp4, false) => {
                f.write_str(" without double quantisation")
            }
            _ => Ok(()),
        }
    }
}

fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_true(value: &bool) -> bool {
    *value
}

/// A dtype of weights.
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
    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(schemars::JsonSchema)]
pub enum Compute {
    /// 32 bits.
    F32,
    /// 16 bits, the exponent range of f32: half the memory, and on a GPU several times as fast.
    Bf16,
    /// Bf16, and the products of frozen linear weights in 8 bits: weights, activations and gradients are quantised to e4m3
    /// with a scale for each row. On GPUs that multiply in it.
    Fp8,
}

impl Compute {
    /// The dtype of the activations.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 | Self::Fp8 => DType::BF16,
        }
    }

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
        }
    }
}

impl Default for BaseConfig {
    fn default() -> Self {
        Self {
            path: None,
            hub_name: None,
            init: None,
            tokenizer: None,
            add_tokens: Vec::new(),
            add_special_tokens: Vec::new(),
            pad_token: None,
            precision: None,
            double_quant: true,
            compute: None,
            offload: None,
            located: [None, None],
        }
    }
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

    /// How `precision` quantises its linear weights while it is loaded, if it does.
    pub fn quantised_on_load(&self) -> Option<QuantisedOnLoad> {
        let precision = self.precision.filter(|wanted| wanted.is_quantised())?;
        Some(QuantisedOnLoad {
            precision,
            double_quant: self.double_quant,
        })
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
                self.check_not_quantised(&checkpoint)?;
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
            double_quant: self.double_quant,
            compute: self.compute,
            offload: self.offload,
            new_rows: 0..0,
        })
    }

    /// # Errors
    /// If the weights are quantised, and are to be quantised while they are loaded.
    fn check_not_quantised(&self, checkpoint: &Checkpoint) -> Result<(), BaseError> {
        let Some(wanted) = self.quantised_on_load() else {
            return Ok(());
        };
        match checkpoint.most_quantised() {
            None => Ok(()),
            Some((_, stored)) => Err(BaseError::QuantisedAlready {
                precision: wanted.precision.name(),
                path: checkpoint.path().to_owned(),
                stored,
            }),
        }
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
