//! Errors of combining adapters.

use std::path::PathBuf;

use simmer_checkpoint::Dtype;
use simmer_hint::Hint;
use thiserror::Error;

use crate::adapter::AdapterError;

/// Adapters that cannot be combined.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CombineError {
    /// An adapter that cannot be read.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// An option that does not fit.
    #[error("{option}: {why}")]
    Option {
        /// The option.
        option: &'static str,
        /// What was expected and found.
        why: String,
    },
    /// An adapter of a kind whose update is no product of two factors.
    #[error("{}: a {kind} adapter cannot be combined: {why}", folder.display())]
    Kind {
        /// Its folder.
        folder: PathBuf,
        /// Its kind.
        kind: &'static str,
        /// The reason.
        why: &'static str,
        /// Whether it can be merged.
        merges: bool,
    },
    /// An adapter with trained tensors that are no updates.
    #[error("{}: `{key}` is a {what}: only with the weights of the base model would it be an update", folder.display())]
    Whole {
        /// Its folder.
        folder: PathBuf,
        /// The key of the tensor.
        key: String,
        /// What it is.
        what: &'static str,
        /// Whether it can be merged.
        merges: bool,
    },
    /// A tensor that is no part of a low-rank branch.
    #[error("{}: `{key}` belongs to no pair of factors", folder.display())]
    Unknown {
        /// Its folder.
        folder: PathBuf,
        /// The key of the tensor.
        key: String,
    },
    /// Adapters of different base models.
    #[error("{} and {} are adapters of different base models: {differences}", first.display(), second.display())]
    OtherBase {
        /// The first.
        first: PathBuf,
        /// The second.
        second: PathBuf,
        /// What differs.
        differences: String,
    },
    /// A factor of the result that is NaN or infinite.
    #[error("module `{module}`: the combined update is not finite in {dtype}")]
    NotFinite {
        /// The module.
        module: String,
        /// The dtype that it is stored in.
        dtype: Dtype,
    },
}

impl Hint for CombineError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Adapter(error) => error.hint(),
            Self::Kind { merges: true, .. } | Self::Whole { merges: true, .. } => Some(
                "merge the adapters into the base model together: simmer merge --base MODEL --adapter A --weight 0.5 \
                 --adapter B --weight 0.5 --out FOLDER"
                    .to_owned(),
            ),
            Self::Unknown { .. } => {
                Some("see what the file has with `simmer adapter inspect`".to_owned())
            }
            Self::OtherBase { .. } => Some(
                "combine adapters of one base model; `simmer adapter inspect` shows the modules of each"
                    .to_owned(),
            ),
            Self::NotFinite { dtype, .. } if *dtype == Dtype::F16 => {
                Some("write bf16 or f32: the largest f16 is 65504".to_owned())
            }
            Self::NotFinite { .. } => Some("use smaller weights".to_owned()),
            Self::Option { .. } | Self::Kind { .. } | Self::Whole { .. } => None,
        }
    }
}
