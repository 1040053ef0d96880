//! A pretrained model, whatever it was passed on as: its shape and its weights, found to agree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Checkpoint, Layout};
use crate::gguf::{GgmlType, Gguf, GgufError, Vocabulary, llama};
use crate::mapped::Mapped;
use crate::meta::MetaError;
use crate::stored::Stored;
use crate::{
    CheckpointError, ConfigError, Difference, Dtype, ModelConfig, TensorInfo, compare,
    hugging_face, layout, meta,
};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// A model on disk.
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// Its shape.
    pub config: ModelConfig,
    /// Its weights; exactly those that the shape asks for, and perhaps rotary tables or a tied head
    /// that is the embedding again.
    pub checkpoint: Checkpoint,
}

/// Why a model on disk cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// The configuration is absent or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights' files are absent or damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A `.gguf` file is damaged, or holds something else than a LLaMA.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// A folder in Meta's layout is damaged.
    #[error(transparent)]
    Meta(#[from] Box<MetaError>),
    /// The weights are not those of the configuration.
    #[error("the weights in {} do not fit its {}:\n{difference}", path.display(), config(*layout))]
    Difference {
        /// The checkpoint.
        path: PathBuf,
        /// What it is.
        layout: Layout,
        /// Everything that differs.
        difference: Difference,
    },
    /// A weight has a number type that is not one of those that models use.
    #[error("{}: tensor {tensor} is stored as {found:?}, expected F32, BF16 or F16", path.display())]
    Dtype {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// As stored.
        found: Dtype,
    },
    /// A tied head that is not the embedding.
    #[error(
        "{}: config.json says `tie_word_embeddings`: true, but {HEAD} differs from {EMBEDDING}",
        path.display()
    )]
    TiedHead {
        /// The checkpoint.
        path: PathBuf,
    },
}

/// Where a layout says what shape a model has.
fn config(layout: Layout) -> &'static str {
    match layout {
        Layout::HuggingFace => "config.json",
        Layout::Meta => "params.json",
        Layout::Gguf => "metadata",
    }
}

impl PretrainedError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Checkpoint(error) => return error.hint(),
            Self::Gguf { source, .. } => return source.hint(),
            Self::Meta(error) => return error.hint(),
            Self::Difference { .. } => {
                "files of another model, or a config.json that was edited; fetch the model again"
            }
            Self::TiedHead { .. } => "set `tie_word_embeddings` to false in config.json",
            Self::Config(ConfigError::Read { .. }) => {
                "a model is a Hugging Face folder (config.json, *.safetensors), a Meta folder \
                 (params.json, consolidated.*.pth) or a .gguf file"
            }
            Self::Config(_) | Self::Dtype { .. } => return None,
        };
        Some(hint.into())
    }
}

impl Pretrained {
    /// Opens a Hugging Face folder, a Meta folder or a `.gguf` file.
    ///
    /// # Errors
    /// Missing, unexpected and misshapen tensors together, number types that models do not use, and
    /// a tied head that is not the embedding; see [`PretrainedError`].
    pub fn open(path: &Path) -> Result<Self, PretrainedError> {
        if path.is_file() {
            return Self::gguf(path);
        }
        if is_meta(path) {
            return meta::open(path).map_err(|error| Box::new(error).into());
        }
        let config = ModelConfig::from_folder(path)?;
        let checkpoint = hugging_face::open(path)?;
        check(&config, &checkpoint)?;
        Ok(Self { config, checkpoint })
    }

    fn gguf(path: &Path) -> Result<Self, PretrainedError> {
        let wrong = |source| PretrainedError::Gguf {
            path: path.to_owned(),
            source,
        };
        let file = Mapped::open(path)?;
        let gguf = Gguf::parse(file.bytes(0..file.len())).map_err(wrong)?;
        let config = llama::config(&gguf, &file).map_err(wrong)?;
        let tensors = llama::tensors(&gguf, &config).map_err(wrong)?;
        let tensors = tensors.into_iter().map(|found| {
            let kind = found.tensor.kind;
            let (dtype, blocks) = match kind {
                GgmlType::F32 => (Dtype::F32, None),
                GgmlType::F16 => (Dtype::F16, None),
                GgmlType::BF16 => (Dtype::BF16, None),
                _ => (Dtype::F32, Some((kind.name(), found.decoder))),
            };
            let info = TensorInfo {
                dtype,
                shape: found.tensor.shape.clone(),
            };
            let stored = Stored {
                blocks,
                paired: found.paired,
                ..Stored::plain(info, 0, found.tensor.range.clone())
            };
            (found.name, stored)
        });
        let checkpoint = Checkpoint::of(path, Layout::Gguf, vec![file], tensors.collect(), &config);
        Ok(Self { config, checkpoint })
    }
}

/// The tokenizer that a `.gguf` file has in its metadata.
///
/// # Errors
/// A file that is damaged, or says nothing of a tokenizer.
pub fn gguf_vocabulary(path: &Path) -> Result<Vocabulary, PretrainedError> {
    let file = Mapped::open(path)?;
    Gguf::parse(file.bytes(0..file.len()))
        .and_then(|gguf| Vocabulary::from_metadata(gguf.metadata()))
        .map_err(|source| PretrainedError::Gguf {
            path: path.to_owned(),
            source,
        })
}

/// Whether a folder is in Meta's layout; one that has both is Hugging Face's.
fn is_meta(folder: &Path) -> bool {
    let has = |file: &str| folder.join(file).exists();
    !has("config.json") && (has(meta::PARAMS_FILE) || has(&meta::shard_file(0)))
}

/// Holds the tensors against the configuration.
fn check(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<(), PretrainedError> {
    let path = || checkpoint.path().to_owned();
    let expected: BTreeMap<String, Vec<usize>> = layout::tensors(config)
        .into_iter()
        .map(|tensor| (tensor.name, tensor.shape))
        .collect();
    let mut found: BTreeMap<String, Vec<usize>> = checkpoint
        .tensors()
        .map(|(name, info)| (name.to_owned(), info.shape.clone()))
        .collect();
    if config.tie_word_embeddings
        && found.remove(HEAD).is_some()
        && checkpoint.tensor(HEAD)? != checkpoint.tensor(EMBEDDING)?
    {
        return Err(PretrainedError::TiedHead { path: path() });
    }
    compare(&expected, &found).map_err(|difference| PretrainedError::Difference {
        path: path(),
        layout: checkpoint.layout(),
        difference,
    })?;
    for (tensor, info) in checkpoint.tensors() {
        if !matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            return Err(PretrainedError::Dtype {
                path: path(),
                tensor: tensor.to_owned(),
                found: info.dtype,
            });
        }
    }
    Ok(())
}
