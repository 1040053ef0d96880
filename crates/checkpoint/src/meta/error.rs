//! Errors of checkpoints in Meta's layout.

use std::fmt::Write as _;
use std::path::PathBuf;

use simmer_files::WriteError;
use simmer_files::size::{are, counted};
use simmer_hint::Hint;

use crate::pth::PthError;
use crate::{CheckpointError, ConfigError, Difference};

/// Why a checkpoint in Meta's layout cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// `params.json` is missing or invalid.
    #[error(transparent)]
    Params(#[from] ConfigError),
    /// A file cannot be read, or the written tensors contradict the plan.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The folder cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// One of the files is damaged, or its pickle holds more than tensors.
    #[error("{}: {source}", path.display())]
    Pth {
        /// The file.
        path: PathBuf,
        /// The error.
        source: PthError,
    },
    /// A folder without weights.
    #[error("{}: no consolidated.00.pth in this folder", folder.display())]
    NoShards {
        /// The folder.
        folder: PathBuf,
    },
    /// Some files are missing.
    #[error("{}: {} of {} missing: {} ({reason})", folder.display(), missing.len(), are(*total, "file"), missing.join(", "))]
    ShardsMissing {
        /// The folder.
        folder: PathBuf,
        /// The missing files.
        missing: Vec<String>,
        /// The expected number.
        total: usize,
        /// The evidence.
        reason: String,
    },
    /// More files than the tensors are split into.
    #[error("{}: {}, but their tensors are split into {expected} ({reason})", folder.display(), counted(*found, "file"))]
    TooManyShards {
        /// The folder.
        folder: PathBuf,
        /// Files in the folder.
        found: usize,
        /// Files of a model with such tensors.
        expected: usize,
        /// The evidence.
        reason: String,
    },
    /// The tensors contradict `params.json`.
    #[error("the weights in {} do not match its params.json{}", folder.display(), listed(differences))]
    Difference {
        /// The folder.
        folder: PathBuf,
        /// Files, each with its differences.
        differences: Vec<(String, Difference)>,
    },
    /// Parts of two models.
    #[error("{}: {first} and {second} are parts of different models: {tensor} {what}", folder.display())]
    DifferentModels {
        /// The folder.
        folder: PathBuf,
        /// The tensor that differs.
        tensor: String,
        /// One file.
        first: String,
        /// A file of another model.
        second: String,
        /// "differs, but is the same in every part of a model".
        what: String,
    },
    /// A dtype that models do not use.
    #[error("{}: tensor {tensor} is stored as {found}, expected F16, BF16 or F32", folder.display())]
    Dtype {
        /// The folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
        /// As stored.
        found: String,
    },
    /// A model that the layout cannot express, or that cannot be split into this number of parts.
    #[error("Meta's layout cannot hold this model:{}", lines(problems))]
    Inexpressible {
        /// All obstacles.
        problems: Vec<String>,
    },
}

impl Hint for MetaError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Checkpoint(error) => return error.hint(),
            Self::Write(error) => return error.hint(),
            Self::Pth { source, .. } => return source.hint(),
            Self::NoShards { .. } | Self::ShardsMissing { .. } => {
                "download the missing files; the last download may be incomplete"
            }
            Self::TooManyShards { .. } | Self::DifferentModels { .. } => {
                "download the model again into an empty folder; files of two models may be mixed"
            }
            Self::Difference { .. } => {
                "download the model again; its files are mixed with those of another model, or its params.json was edited"
            }
            Self::Inexpressible { .. } => "write it in Hugging Face's layout instead",
            Self::Params(error) => return error.hint(),
            Self::Dtype { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Each difference, with the files that have it.
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
