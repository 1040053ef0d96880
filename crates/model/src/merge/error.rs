//! What keeps a merge from being done.

use std::path::PathBuf;

use simmer_checkpoint::config::ConfigError;
use simmer_checkpoint::{CheckpointError, Difference, Dtype, PretrainedError};
use simmer_hint::Hint;
use thiserror::Error;

use crate::adapter::AdapterError;

/// A merge that cannot be done. What was at the output before is still there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The base model.
    #[error(transparent)]
    Base(#[from] PretrainedError),
    /// The adapter, or that it does not fit the base.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The output.
    #[error(transparent)]
    Output(#[from] CheckpointError),
    /// A merged model that has other tensors than this merge makes.
    #[error("{}: not what these base and adapter merge to:\n{difference}", folder.display())]
    NotThisMerge {
        /// The merged model.
        folder: PathBuf,
        /// All differences.
        difference: Difference,
    },
    /// A number type that models are not stored in.
    #[error("dtype: expected F32, F16 or BF16, found {found}")]
    Dtype {
        /// The number type asked for.
        found: Dtype,
    },
    /// A merged weight that is no number.
    #[error("tensor `{tensor}`, row {row}: a merged weight is not finite in {dtype}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The row of the first such weight.
        row: usize,
        /// The number type it was to be stored in.
        dtype: Dtype,
    },
}

impl From<ConfigError> for MergeError {
    fn from(error: ConfigError) -> Self {
        Self::Base(error.into())
    }
}

impl Hint for MergeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Base(error) => error.hint(),
            Self::Adapter(error) => error.hint(),
            Self::Output(error) => error.hint(),
            Self::NotFinite { dtype, .. } if *dtype == Dtype::F16 => Some(
                "f16 ends at 65504: store the merged model as bf16 or f32, or train with a \
                 smaller learning rate"
                    .to_owned(),
            ),
            Self::NotFinite { .. } => Some(
                "the adapter holds numbers that are not finite; its training diverged".to_owned(),
            ),
            Self::Dtype { .. } | Self::NotThisMerge { .. } => None,
        }
    }
}
