//! A pretrained model in any layout: its configuration and its weights, checked against each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simmer_hint::Hint;

use crate::checkpoint::{Checkpoint, Layout};
use crate::family::Module;
use crate::gguf::{GgmlType, Gguf, GgufError, Vocabulary, model, split};
use crate::mapped::Mapped;
use crate::meta::MetaError;
use crate::stored::Stored;
use crate::{
    CheckpointError, ConfigError, Difference, Dtype, ModelConfig, TensorInfo, compare,
    hugging_face, layout, meta, quantised,
};

/// A model on disk.
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// Its configuration.
    pub config: ModelConfig,
    /// Its weights: exactly those of the configuration, and possibly rotary tables or a copy of the embedding as tied
    /// head.
    pub checkpoint: Checkpoint,
}

/// Why a model on disk cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// The configuration is missing or invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Weight files are missing or damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A `.gguf` file is damaged, or does not hold a model of a known family.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The error.
        source: GgufError,
    },
    /// A folder with several `.gguf` models.
    #[error("{}: several models are in this folder: {}", path.display(), files.join(", "))]
    SeveralGguf {
        /// The folder.
        path: PathBuf,
        /// The files' names.
        files: Vec<String>,
    },
    /// A folder in Meta's layout is damaged.
    #[error(transparent)]
    Meta(#[from] Box<MetaError>),
    /// The weights contradict the configuration.
    #[error("the weights in {} do not match its {}:\n{difference}", path.display(), config(*layout))]
    Difference {
        /// The checkpoint.
        path: PathBuf,
        /// Its layout.
        layout: Layout,
        /// All differences.
        difference: Difference,
    },
    /// A weight has a dtype that models do not use.
    #[error("{}: tensor {tensor} is stored as {found:?}, expected F32, BF16 or F16", path.display())]
    Dtype {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// As stored.
        found: Dtype,
    },
    /// A tied head that differs from the embedding.
    #[error(
        "{}: config.json has `tie_word_embeddings`: true, but {head} differs from {embedding}",
        path.display()
    )]
    TiedHead {
        /// The checkpoint.
        path: PathBuf,
        /// The head's weight.
        head: String,
        /// The embedding's weight.
        embedding: String,
    },
}

/// Where a layout stores the configuration.
fn config(layout: Layout) -> &'static str {
    match layout {
        Layout::HuggingFace => "config.json",
        Layout::Meta => "params.json",
        Layout::Gguf => "metadata",
    }
}

impl Hint for PretrainedError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Checkpoint(error) => return error.hint(),
            Self::Gguf {
                path,
                source: GgufError::Magic { .. },
            } if path.extension().is_none_or(|ending| ending != "gguf") => {
                return Some(no_model_file(path));
            }
            Self::Gguf { source, .. } => return source.hint(),
            Self::Meta(error) => return error.hint(),
            Self::Difference { .. } => {
                "download the model again; its files are mixed with those of another model, or its config.json was edited"
            }
            Self::SeveralGguf { .. } => "give the path of one of the files",
            Self::TiedHead { .. } => "set `tie_word_embeddings` to false in config.json",
            Self::Config(error) => return error.hint(),
            Self::Dtype { .. } => return None,
        };
        Some(hint.into())
    }
}

/// The hint for a file that is no model by itself.
fn no_model_file(path: &Path) -> String {
    match path
        .parent()
        .filter(|folder| folder.join("config.json").exists())
    {
        Some(folder) if folder.as_os_str().is_empty() => {
            "give the folder of the model, here `.`".into()
        }
        Some(folder) => format!("give the folder of the model, {}", folder.display()),
        None => "give the folder of a model, or a .gguf file".into(),
    }
}

impl Pretrained {
    /// Opens a Hugging Face folder, a Meta folder, a `.gguf` file or the folder of one.
    ///
    /// # Errors
    /// Missing and unexpected tensors and wrong shapes, listed together; dtypes that models do not use; a tied head that
    /// differs from the embedding; see [`PretrainedError`].
    pub fn open(path: &Path) -> Result<Self, PretrainedError> {
        if path.is_file() {
            return Self::gguf(path);
        }
        if let Some(file) = gguf_in(path)? {
            return Self::gguf(&file);
        }
        if is_meta(path) {
            return meta::open(path).map_err(|error| Box::new(error).into());
        }
        let config = ModelConfig::from_folder(path)?;
        let mut checkpoint = hugging_face::open(path)?;
        if let Some(method) = config.file.method() {
            checkpoint = quantised::join(checkpoint, method)?;
        }
        check(&config, &checkpoint)?;
        Ok(Self { config, checkpoint })
    }

    fn gguf(path: &Path) -> Result<Self, PretrainedError> {
        let wrong = |source| PretrainedError::Gguf {
            path: path.to_owned(),
            source,
        };
        let (gguf, files) = open_gguf(path)?;
        let bytes: Vec<&[u8]> = files.iter().map(|file| &**file).collect();
        let config = model::config(&gguf, &bytes).map_err(wrong)?;
        let tensors = model::tensors(&gguf, &config).map_err(wrong)?;
        let tensors = tensors.into_iter().map(|found| {
            let kind = found.tensor.kind;
            let (dtype, blocks) = match kind {
                // 1 is subtracted in f32
                _ if found.plus_one => (Dtype::F32, Some((kind.name(), found.decoder))),
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
                plus_one: found.plus_one,
                ..Stored::plain(info, found.tensor.file, found.tensor.range.clone())
            };
            (found.name, stored)
        });
        let checkpoint = Checkpoint::of(path, Layout::Gguf, files, tensors.collect(), &config);
        Ok(Self { config, checkpoint })
    }
}

/// The tokenizer in the metadata of a `.gguf` file.
///
/// # Errors
/// If the file is damaged, or has no tokenizer.
pub fn gguf_vocabulary(path: &Path) -> Result<Vocabulary, PretrainedError> {
    let (gguf, _) = open_gguf(path)?;
    Vocabulary::from_metadata(gguf.metadata()).map_err(|source| PretrainedError::Gguf {
        path: path.to_owned(),
        source,
    })
}

/// The `.gguf` file of a folder, unless the folder holds a model in another layout; of a split model, the first part.
///
/// # Errors
/// If the folder has several.
pub fn gguf_in(folder: &Path) -> Result<Option<PathBuf>, PretrainedError> {
    if !folder.is_dir() || folder.join("config.json").exists() || is_meta(folder) {
        return Ok(None);
    }
    let entries = std::fs::read_dir(folder).map_err(CheckpointError::io(folder, "read"))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(CheckpointError::io(folder, "read"))?.path();
        if file.extension().is_some_and(|ext| ext == "gguf") && split::is_first(&file) {
            files.push(file);
        }
    }
    files.sort();
    match files.as_slice() {
        [] => Ok(None),
        [file] => Ok(Some(file.clone())),
        several => {
            let names = several.iter().filter_map(|file| file.file_name());
            Err(PretrainedError::SeveralGguf {
                path: folder.to_owned(),
                files: names
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect(),
            })
        }
    }
}

/// The file, or all parts of a split model.
fn open_gguf(path: &Path) -> Result<(Gguf, Vec<Mapped>), PretrainedError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| PretrainedError::Gguf { path, source }
    };
    let parse = |path: &Path| -> Result<(Gguf, Mapped), PretrainedError> {
        let file = Mapped::open(path)?;
        let gguf = Gguf::parse(file.bytes(0..file.len())).map_err(wrong(path))?;
        Ok((gguf, file))
    };
    let (gguf, file) = parse(path)?;
    let Some(parts) = split::parts(path, gguf.metadata()).map_err(wrong(path))? else {
        return Ok((gguf, vec![file]));
    };
    let parts = parts
        .iter()
        .map(|part| parse(part))
        .collect::<Result<Vec<_>, _>>()?;
    let (parts, files) = parts.into_iter().unzip();
    let gguf = Gguf::join(parts).map_err(wrong(path))?;
    Ok((gguf, files))
}

/// Whether a folder has Meta's layout; a folder with both layouts counts as Hugging Face's.
fn is_meta(folder: &Path) -> bool {
    let has = |file: &str| folder.join(file).exists();
    !has("config.json") && (has(meta::PARAMS_FILE) || has(&meta::shard_file(0)))
}

/// Compares the tensors with the configuration.
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
    let [head, embedding] = [&config.family.head, &config.family.embedding].map(Module::weight);
    if config.tie_word_embeddings
        && found.remove(&head).is_some()
        && checkpoint.tensor(&head)? != checkpoint.tensor(&embedding)?
    {
        return Err(PretrainedError::TiedHead {
            path: path(),
            head,
            embedding,
        });
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
