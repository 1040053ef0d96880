//! What can be wrong with an adapter.

use std::io;
use std::path::{Path, PathBuf};

use simmer_checkpoint::gguf::GgufError;
use simmer_checkpoint::pth::PthError;
use simmer_checkpoint::{CheckpointError, Difference};
use simmer_hint::Hint;
use thiserror::Error;

use super::targets::SelectionError;

/// An adapter that cannot be read, written, or joined to its base.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The operating system refused something.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// A folder without an adapter in it.
    #[error("{}: no {missing} in this folder{found}", folder.display())]
    NotAnAdapter {
        /// The folder.
        folder: PathBuf,
        /// The file that is not there.
        missing: &'static str,
        /// What is there instead, as the end of the sentence; empty when nothing is.
        found: String,
    },
    /// An `adapter_config.json` that is not a JSON object.
    #[error("{}: {source}", file.display())]
    ConfigJson {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A key whose value has the wrong type or range.
    #[error("{}: `{key}`: expected {expected}, found {found}", file.display())]
    ConfigValue {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A key that changes what the adapter computes in a way that simmer does not.
    #[error("{}: `{key}` = {found} is not supported: {why}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it means.
        why: &'static str,
    },
    /// A key of a recipe's `[method.lora]` that cannot be what it is.
    #[error("[method.lora] `{key}`: expected {expected}, found {found}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What would be accepted.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// Modules that cannot be chosen as asked.
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
        /// Why it cannot be so.
        why: String,
    },
    /// A weight file that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A pickled weight file that cannot be read.
    #[error("{}: {source}", file.display())]
    Pickled {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: PthError,
    },
    /// A file without a single low-rank path.
    #[error("{}: no tensor of a LoRA adapter in this file; {found}", file.display())]
    NoBranch {
        /// The file.
        file: PathBuf,
        /// What its keys are like, as the end of the sentence.
        found: String,
    },
    /// Two adapters that cannot be compared.
    #[error("{} and {} are for different bases:\n{differences}", first.display(), second.display())]
    OtherBase {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// The modules whose shapes differ, a line each.
        differences: String,
    },
    /// Tensors that do not fit the base model.
    #[error("{}: the adapter does not fit the base model{diagnosis}:\n{difference}", file.display())]
    Mismatch {
        /// The weight file.
        file: PathBuf,
        /// All differences.
        difference: Difference,
        /// What base it seems to be made for, as the end of the sentence.
        diagnosis: String,
    },
    /// An adapter that llama.cpp cannot apply.
    #[error("{}: llama.cpp applies low-rank paths alone; this adapter brings besides: {found}", folder.display())]
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
        /// Why.
        source: GgufError,
    },
    /// A number type that adapters do not come in.
    #[error("{}: tensor `{tensor}`: expected dtype F32, F16 or BF16, found {found}", file.display())]
    Dtype {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its number type.
        found: String,
    },
}

impl Hint for AdapterError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Selection { source } => source.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Mismatch { .. } => Some(
                "give the base model that the adapter was trained on; \
                 `base_model_name_or_path` in its adapter_config.json names it"
                    .to_owned(),
            ),
            Self::NotForLlama { .. } => {
                Some("merge the adapter into its base, and convert the merged model".to_owned())
            }
            Self::Gguf { source, .. } => source.hint(),
            Self::Unsupported { .. } => Some(
                "merge this adapter into its base with PEFT, and use the merged model".to_owned(),
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
