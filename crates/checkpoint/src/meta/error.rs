//! What can be wrong with a checkpoint in Meta's layout.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::pth::PthError;
use crate::{CheckpointError, ConfigError, Difference};

/// Why a checkpoint in Meta's layout is not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// `params.json` is absent or wrong.
    #[error(transparent)]
    Params(#[from] ConfigError),
    /// The operating system refused something, or what is written does not fit the plan.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// One of the files is damaged, or wants to be more than tensors.
    #[error("{}: {source}", path.display())]
    Pth {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PthError,
    },
    /// A folder without weights.
    #[error("{}: no consolidated.00.pth in this folder", folder.display())]
    NoShards {
        /// The folder.
        folder: PathBuf,
    },
    /// Some of the files are not there.
    #[error("{}: {} of {total} files are missing: {} ({reason})", folder.display(), missing.len(), missing.join(", "))]
    ShardsMissing {
        /// The folder.
        folder: PathBuf,
        /// The missing ones.
        missing: Vec<String>,
        /// How many there should be.
        total: usize,
        /// How that is known.
        reason: String,
    },
    /// More files than the tensors are split into.
    #[error("{}: {found} files, but their tensors are split into {expected} ({reason})", folder.display())]
    TooManyShards {
        /// The folder.
        folder: PathBuf,
        /// Files in the folder.
        found: usize,
        /// Files of a model with such tensors.
        expected: usize,
        /// How that is known.
        reason: String,
    },
    /// The tensors are not those of `params.json`.
    #[error("the weights in {} do not fit its params.json{}", folder.display(), listed(differences))]
    Difference {
        /// The folder.
        folder: PathBuf,
        /// Files, and what differs in each of them.
        differences: Vec<(String, Difference)>,
    },
    /// Files that are parts of two models.
    #[error("{}: {first} and {second} are parts of different models: {tensor} {what}", folder.display())]
    DifferentModels {
        /// The folder.
        folder: PathBuf,
        /// The tensor that tells.
        tensor: String,
        /// A file.
        first: String,
        /// One that does not belong to it.
        second: String,
        /// "differs, but is the same in every part of a model".
        what: String,
    },
    /// A number type that models do not use.
    #[error("{}: tensor {tensor} is stored as {found}, expected F16, BF16 or F32", folder.display())]
    Dtype {
        /// The folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
        /// As stored.
        found: String,
    },
    /// A model that the layout has no words for, or that cannot be split like this.
    #[error("Meta's layout cannot hold this model:{}", lines(problems))]
    Inexpressible {
        /// Everything that stands in the way.
        problems: Vec<String>,
    },
}

impl MetaError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Checkpoint(error) => return error.hint(),
            Self::Pth { source, .. } => source.hint()?,
            Self::NoShards { .. } | Self::ShardsMissing { .. } => {
                "a download that did not finish looks like this; fetch the missing files"
            }
            Self::TooManyShards { .. } | Self::DifferentModels { .. } => {
                "files of two models may be mixed in one folder; fetch the model again into an empty one"
            }
            Self::Difference { .. } => {
                "files of another model, or a params.json that was edited; fetch the model again"
            }
            Self::Inexpressible { .. } => "write it in Hugging Face's layout instead",
            Self::Params(_) | Self::Dtype { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Each difference with the files that have it.
fn listed(differences: &[(String, Difference)]) -> String {
    let mut text = String::new();
    for (position, (_, difference)) in differences.iter().enumerate() {
        let same = |(_, other): &&(String, Difference)| other == difference;
        if differences[..position].iter().any(|other| same(&other)) {
            continue;
        }
        let files = differences
            .iter()
            .filter(same)
            .map(|(file, _)| file.as_str());
        let files = files.collect::<Vec<_>>().join(", ");
        let _ = write!(text, "\n{files}:\n{difference}");
    }
    text
}

fn lines(problems: &[String]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        let _ = write!(text, "\n  {problem}");
        text
    })
}
