//! Why a base model cannot be opened or loaded.

use std::path::PathBuf;

use burn::tensor::DType;
use simmer_checkpoint::config::ConfigError;
use simmer_checkpoint::family::Role;
use simmer_checkpoint::{CheckpointError, PretrainedError};
use simmer_files::size::are;
use simmer_hint::Hint;
use simmer_kernels::NoFp8;

use super::Offload;

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
    /// The device does not multiply in fp8.
    #[error("`base.compute`: the device `{device}` {}", no_fp8(*why))]
    Fp8 {
        /// Name of the device.
        device: String,
        /// Why not.
        why: NoFp8,
    },
    /// The weights are quantised already.
    #[error(
        "`base.precision` = \"{precision}\" quantises an ordinary model, and {} is stored in {stored}", path.display()
    )]
    QuantisedAlready {
        /// `base.precision`.
        precision: &'static str,
        /// The model.
        path: PathBuf,
        /// The type of most of its quantised weights.
        stored: &'static str,
    },
    /// Weights cannot be quantised in two ways.
    #[error(
        "`base.compute` = \"fp8\" quantises the weights of linear modules, and `base.precision` = \"{precision}\" does too"
    )]
    Fp8Precision {
        /// `base.precision`.
        precision: &'static str,
    },
    /// A weight that is NaN or infinite.
    #[error("{}: tensor `{tensor}`: {count} of {} NaN or infinite", path.display(), are(*of, "value"))]
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
    /// The device cannot leave weights where `base.offload` says.
    #[error("`base.offload`: {}", no_offload(device, *offload))]
    OffloadDevice {
        /// Name of the device.
        device: String,
        /// As given.
        offload: Offload,
    },
    /// Several devices share the layers.
    #[error("`base.offload`: expected one device, found {devices} that share the layers")]
    OffloadShared {
        /// Their number.
        devices: usize,
    },
    /// More devices than layers.
    #[error(
        "`device`: expected at most {layers} devices, one for each layer of the base model, found {devices}"
    )]
    Devices {
        /// Their number.
        devices: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// Random weights are in no file.
    #[error("`base.offload`: random weights (`base.init`) are in no file")]
    OffloadRandom,
    /// A weight is a copy in memory, because it is converted when it is loaded.
    #[error("`base.offload`: {}: tensor `{tensor}`: {}", path.display(), copied(stored, *precision))]
    OffloadCopy {
        /// The checkpoint.
        path: PathBuf,
        /// The first such tensor.
        tensor: String,
        /// Its type in the files.
        stored: String,
        /// `base.precision`.
        precision: Option<&'static str>,
    },
    /// The system starts no thread.
    #[error("cannot start the thread that reads layers (`base.offload`): {0}")]
    Thread(std::io::Error),
    /// A weight that cannot be quantised.
    #[error("{}: tensor `{tensor}` cannot be quantised: {source}", path.display())]
    Quantise {
        /// The checkpoint; empty for random weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why not.
        source: Box<simmer_blocks::BlocksError>,
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

/// The names of dtypes, separated by commas.
fn names(dtypes: &[DType]) -> String {
    let names: Vec<&str> = dtypes.iter().map(DType::name).collect();
    names.join(", ")
}

fn no_fp8(why: NoFp8) -> String {
    match why {
        NoFp8::Device => "does not multiply in fp8".to_owned(),
        NoFp8::Capability { major, minor } => format!(
            "has compute capability {major}.{minor}, and \"fp8\" needs 8.9 or higher (NVIDIA's Ada, Hopper and later)"
        ),
    }
}

fn no_offload(device: &str, offload: Offload) -> String {
    match offload {
        Offload::Host => format!(
            "the device `{device}` computes in main memory, so that \"host\" would save nothing"
        ),
        Offload::Disk => format!(
            "the device `{device}` copies weights before it computes with them, so that they cannot stay in their files (\"disk\")"
        ),
    }
}

fn copied(stored: &str, precision: Option<&str>) -> String {
    match precision {
        Some(precision) => format!(
            "stored in {stored}, and converted to {precision} when it is loaded (`base.precision`): a copy in memory"
        ),
        None => format!(
            "stored in {stored}, and joined, aligned or widened when it is loaded: a copy in memory"
        ),
    }
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
            Self::Fp8 {
                why: NoFp8::Device, ..
            } => Some(
                "set base.compute = \"bf16\", or compute on a GPU with device = \"libtorch-cuda:0\" (docs/guide/gpu.md)"
                    .to_owned(),
            ),
            Self::Fp8 {
                why: NoFp8::Capability { .. },
                ..
            } => Some("set base.compute = \"bf16\"".to_owned()),
            Self::QuantisedAlready { .. } => Some(
                "remove the precision: the weights stay as they are stored (with f32 or bf16 they are widened)".to_owned(),
            ),
            Self::Fp8Precision { .. } => Some(
                "remove `base.precision`, or set base.compute = \"bf16\"".to_owned(),
            ),
            Self::OffloadDevice { offload, .. } => {
                let other = match offload {
                    Offload::Host => Offload::Disk,
                    Offload::Disk => Offload::Host,
                };
                Some(format!("set base.offload = \"{}\", or remove it", other.name()))
            }
            Self::OffloadShared { .. } => {
                Some("remove `base.offload`, or name one device".to_owned())
            }
            Self::Devices { layers, .. } => {
                Some(format!("name {layers} devices or fewer, such as device = \"libtorch-cuda:0\""))
            }
            Self::OffloadRandom => Some("remove `base.offload`".to_owned()),
            Self::OffloadCopy {
                precision: Some(_), ..
            } => Some(
                "remove `base.precision`, or convert the model once, with `simmer convert IN OUT --dtype`"
                    .to_owned(),
            ),
            Self::OffloadCopy { .. } => Some(
                "convert the model once to a Hugging Face folder, with `simmer convert IN OUT`"
                    .to_owned(),
            ),
            Self::Quantise { .. } => Some(
                "leave `base.precision` out, so that the weights stay as they are stored".to_owned(),
            ),
            Self::Pretrained(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Config(_) | Self::Source { .. } | Self::NoModule { .. } | Self::Thread(_) => None,
        }
    }
}
