//! Errors of merging.

use std::path::PathBuf;

use simmer_checkpoint::config::ConfigError;
use simmer_checkpoint::{CheckpointError, Difference, Dtype, PretrainedError};
use simmer_files::WriteError;
use simmer_hint::Hint;
use thiserror::Error;

use crate::adapter::AdapterError;
use crate::base::BaseError;

/// A merge that failed. An existing output stays as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The base model cannot be used.
    #[error(transparent)]
    Base(#[from] PretrainedError),
    /// A weight of the base model cannot be quantised as in training.
    #[error(transparent)]
    Quantise(#[from] BaseError),
    /// The model that a base model is to be quantised from is itself quantised.
    #[error("{}: `{tensor}` is stored in {kind}: expected the original model, with weights in F32, BF16 or F16", path.display())]
    OriginalQuantised {
        /// The model.
        path: PathBuf,
        /// Its first quantised tensor.
        tensor: String,
        /// The type of that.
        kind: &'static str,
    },
    /// The model that a base model is to be quantised from has other tensors.
    #[error("{}: not the model that {} was quantised from:\n{difference}", original.display(), quantised.display())]
    OtherTensors {
        /// The original.
        original: PathBuf,
        /// The quantised model.
        quantised: PathBuf,
        /// All differences.
        difference: Difference,
    },
    /// The model that a base model is to be quantised from has other weights.
    #[error(
        "{}: not the model that {} was quantised from: `{tensor}` differs by {:.0}% of its norm, and the error of {kind} is \
         below {:.0}%",
        original.display(),
        quantised.display(),
        100.0 * error,
        100.0 * super::quantisation::LARGEST
    )]
    OtherWeights {
        /// The original.
        original: PathBuf,
        /// The quantised model.
        quantised: PathBuf,
        /// The first such tensor.
        tensor: String,
        /// Its quantised type.
        kind: &'static str,
        /// The difference, relative to the norm of the original.
        error: f64,
    },
    /// The adapter cannot be used, or does not fit the base model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Adapters that cannot be merged together.
    #[error("{} and {}: {why}", first.display(), second.display())]
    Together {
        /// The first.
        first: PathBuf,
        /// The second.
        second: PathBuf,
        /// The reason.
        why: String,
    },
    /// A weight that is not a number.
    #[error("--weight: expected a number, found {found}")]
    Weight {
        /// The weight.
        found: f64,
    },
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] CheckpointError),
    /// A file of the output that cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A merged model with other tensors than this merge has.
    #[error("{}: does not match the merge of this base model and adapter:\n{difference}", folder.display())]
    NotThisMerge {
        /// The merged model.
        folder: PathBuf,
        /// All differences.
        difference: Difference,
    },
    /// A dtype that models are not stored in.
    #[error("dtype: expected F32, F16 or BF16, found {found}")]
    Dtype {
        /// The requested dtype.
        found: Dtype,
    },
    /// A merged weight that is NaN or infinite.
    #[error("tensor `{tensor}`, row {row}: a merged weight is not finite in {dtype}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The row of the first such weight.
        row: usize,
        /// The dtype that it is stored in.
        dtype: Dtype,
    },
    /// A weight of the base model that is NaN or infinite.
    #[error("{}: tensor `{tensor}`: {count} of the values from row {row} are NaN or infinite", path.display())]
    BaseNotFinite {
        /// The base model.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The number of such values in the rows that were read together.
        count: usize,
        /// The first of these rows.
        row: usize,
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
            Self::Quantise(error) => error.hint(),
            Self::OriginalQuantised { .. }
            | Self::OtherTensors { .. }
            | Self::OtherWeights { .. } => Some(
                "give the model that the base model was quantised from; its model card often names it as `base_model`"
                    .to_owned(),
            ),
            Self::Adapter(error) => error.hint(),
            Self::Output(error) => error.hint(),
            Self::Write(error) => error.hint(),
            Self::NotFinite { dtype, .. } if *dtype == Dtype::F16 => Some(
                "store the merged model as bf16 or f32 (the largest f16 is 65504), or train with a \
                 lower learning rate"
                    .to_owned(),
            ),
            Self::BaseNotFinite { .. } => Some(
                "download the model again; if it is one that you trained or converted, that has failed"
                    .to_owned(),
            ),
            Self::NotFinite { .. } => Some(
                "check the training run: the adapter has values that are not finite, so it diverged".to_owned(),
            ),
            Self::Together { .. } => Some(
                "merge one of them, then merge the other into the merged model; it must have been trained on that vocabulary"
                    .to_owned(),
            ),
            Self::Dtype { .. } | Self::NotThisMerge { .. } | Self::Weight { .. } => None,
        }
    }
}
