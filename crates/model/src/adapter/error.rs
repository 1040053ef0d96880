//! Errors of adapters.

use std::io;
use std::path::{Path, PathBuf};

use simmer_checkpoint::gguf::GgufError;
use simmer_checkpoint::pth::PthError;
use simmer_checkpoint::{CheckpointError, Difference};
use simmer_files::WriteError;
use simmer_hint::Hint;
use thiserror::Error;

use super::targets::SelectionError;

/// An adapter that cannot be read, written, or attached to its base model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// An error of the operating system.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What failed, as a verb.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A folder without an adapter.
    #[error("{}: no {missing} in this folder{found}", folder.display())]
    NotAnAdapter {
        /// The folder.
        folder: PathBuf,
        /// The missing file.
        missing: &'static str,
        /// What the folder has instead, as the end of the sentence; may be empty.
        found: String,
    },
    /// An `adapter_config.json` that is not a JSON object.
    #[error("{}: {source}", file.display())]
    ConfigJson {
        /// The file.
        file: PathBuf,
        /// The error of the parser.
        source: serde_json::Error,
    },
    /// A key whose value has the wrong type or range.
    #[error("{}: `{key}`: expected {expected}, found {found}", file.display())]
    ConfigValue {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The expected type or range.
        expected: &'static str,
        /// The value.
        found: String,
    },
    /// A key that makes the adapter compute something that simmer does not support.
    #[error("{}: `{key}` = {found} is not supported: {why}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What the key does.
        why: &'static str,
    },
    /// A value of a recipe's `[method.lora]` that is out of range.
    #[error("[method.lora] `{key}`: {why}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What was expected and found.
        why: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
    /// Modules that cannot be selected.
    #[error("{}", source)]
    Selection {
        /// What is wrong.
        #[from]
        source: SelectionError,
    },
    /// A setting that is out of range, or that another one excludes.
    #[error("{key}: {why}")]
    Conflict {
        /// The key.
        key: &'static str,
        /// Why it is not valid.
        why: String,
    },
    /// A weight file that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file or folder that cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A pickled weight file that cannot be read.
    #[error("{}: {source}", file.display())]
    Pickled {
        /// The file.
        file: PathBuf,
        /// The error in the file.
        source: PthError,
    },
    /// A file without any low-rank branch.
    #[error("{}: no LoRA tensors in this file; {found}", file.display())]
    NoBranch {
        /// The file.
        file: PathBuf,
        /// What the file has instead, as the end of the sentence.
        found: String,
    },
    /// Two adapters that cannot be compared.
    #[error("{} and {} are for different base models:\n{differences}", first.display(), second.display())]
    OtherBase {
        /// The first.
        first: PathBuf,
        /// The second.
        second: PathBuf,
        /// The modules whose shapes differ, one per line.
        differences: String,
    },
    /// Tensors that do not fit the base model.
    #[error("{}: the adapter does not fit the base model{diagnosis}:\n{difference}", file.display())]
    Mismatch {
        /// The weight file.
        file: PathBuf,
        /// All differences.
        difference: Difference,
        /// Which base model it seems to be for, as the end of the sentence.
        diagnosis: String,
    },
    /// An adapter that llama.cpp cannot apply.
    #[error("{}: llama.cpp applies only low-rank branches; this adapter also has: {found}", folder.display())]
    NotForLlama {
        /// The adapter.
        folder: PathBuf,
        /// What else it has.
        found: String,
    },
    /// An adapter that GGUF cannot hold.
    #[error("{}: {source}", folder.display())]
    Gguf {
        /// The adapter.
        folder: PathBuf,
        /// The reason.
        source: GgufError,
    },
    /// A dtype that is not supported in adapters.
    #[error("{}: tensor `{tensor}`: expected dtype F32, F16 or BF16, found {found}", file.display())]
    Dtype {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        found: String,
    },
}

impl Hint for AdapterError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Selection { source } => source.hint(),
            Self::Setting { hint, .. } => hint.clone(),
            Self::Checkpoint(error) => error.hint(),
            Self::Write(error) => error.hint(),
            Self::Mismatch { .. } => Some(
                "use the base model that the adapter was trained on; \
                 `base_model_name_or_path` in its adapter_config.json names it"
                    .to_owned(),
            ),
            Self::NotForLlama { .. } => Some(
                "merge the adapter into its base model, and convert the merged model".to_owned(),
            ),
            Self::Gguf { source, .. } => source.hint(),
            Self::Unsupported { .. } => Some(
                "merge this adapter into its base model with PEFT, and use the merged model"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl AdapterError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}
