//! Why a run cannot start, or cannot go on.

use std::io;
use std::path::{Path, PathBuf};

use simmer_data::DataError;
use simmer_data::tokenizer::TokenizerError;
use simmer_lint::LintReport;
use simmer_model::adapter::AdapterError;
use simmer_model::base::BaseError;
use simmer_model::checkpoint::CheckpointError;
use simmer_model::device::DeviceError;

use crate::estimate::Estimate;
use crate::recipe::RecipeError;

/// Why a run cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The build lacks the device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The data is wrong.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The data can be read, and would spoil the training.
    #[error("the data has errors:\n{0}")]
    Lint(LintReport),
    /// The tokenizer is wrong.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The base is wrong.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The adapter is wrong.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    /// The operating system refused something.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// Tokens are added to an adapter that brings its own.
    #[error(
        "the adapter in {} brings a vocabulary of its own, and `{token}` is not in it", adapter.display()
    )]
    TwoVocabularies {
        /// Its folder.
        adapter: PathBuf,
        /// The recipe's token.
        token: String,
    },
    /// The run takes more memory than there is.
    #[error("the run does not fit into the memory:\n{0}")]
    NoRoom(Box<Estimate>),
    /// The device has no more memory.
    #[error("{}: out of memory; {expected} were expected at most: {said}", folder.display())]
    OutOfMemory {
        /// The run's folder.
        folder: PathBuf,
        /// What was expected.
        expected: String,
        /// What the device said.
        said: String,
    },
    /// A run is there already.
    #[error("{}: there is a run in this folder already", folder.display())]
    RunExists {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder holds something, and no run.
    #[error("{}: the folder is not empty, and holds no run", folder.display())]
    NotARun {
        /// The folder.
        folder: PathBuf,
    },
    /// Another process writes the run.
    #[error("{}: another process is writing this run", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// What was given is not what the run began with.
    #[error("{}: cannot go on with this run; since it began these have changed:{}", folder.display(), lines(changes))]
    Changed {
        /// The folder.
        folder: PathBuf,
        /// Keys with both values, files.
        changes: Vec<String>,
    },
    /// Checkpoints are there, and none is whole.
    #[error("{}: no checkpoint can be used:{}", folder.display(), lines(problems))]
    NoCheckpoint {
        /// The folder of the checkpoints.
        folder: PathBuf,
        /// What is wrong with each.
        problems: Vec<String>,
    },
    /// The numbers are no longer numbers.
    #[error(
        "step {step}: {what}{}",
        checkpoint.as_deref().map_or_else(
            || "; no checkpoint had been written before it".to_owned(),
            |path| format!("; the last good checkpoint is {}", path.display()),
        )
    )]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// What is not finite, and its value.
        what: String,
        /// The last checkpoint with other weights than those that broke.
        checkpoint: Option<PathBuf>,
    },
}

impl TrainError {
    /// What may mend it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoRoom(estimate) => {
                return Some(match estimate.fitting() {
                    Some(setting) => format!("it would fit with {setting}"),
                    None => {
                        "close other programs, take a smaller model, or a machine with more memory"
                            .to_owned()
                    }
                });
            }
            Self::Recipe(error) => return error.hint(),
            Self::Device(error) => return error.hint(),
            Self::Data(error) => return error.hint(),
            Self::Tokenizer(error) => return error.hint(),
            Self::Base(error) => return error.hint(),
            Self::Adapter(error) => return error.hint(),
            Self::Weights(error) => return error.hint(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "the disk is full; the checkpoints that were there are whole. Free some space and \
                 go on with --resume"
            }
            Self::TwoVocabularies { .. } => {
                "merge the adapter into its base (simmer merge), and take the merged model as \
                 base.path"
            }
            Self::OutOfMemory { .. } => {
                "the last checkpoint is whole: go on with --resume, and with a smaller \
                 train.micro_batch_tokens or train.recompute = \"layer\" (simmer estimate)"
            }
            Self::Lint(_) => {
                "`simmer data lint RECIPE` shows this without training; data.lint.allow in the recipe lists \
                 what is no error here"
            }
            Self::RunExists { .. } => {
                "--resume goes on with it; --out names another folder for a new one"
            }
            Self::NotARun { .. } => "--out names another folder",
            Self::Changed { .. } => {
                "give the run what it began with, or begin another with --out; an adapter of \
                 this run can be trained on with `method.lora.from`. --accept-changes goes on all the same"
            }
            Self::NoCheckpoint { .. } => "begin again in another folder with --out",
            Self::Diverged { step: 1, .. } => {
                "no update has been made yet: the base model's own weights give no finite numbers"
            }
            Self::Diverged { .. } => {
                "a lower train.learning_rate or a longer warmup usually helps; so does clipping, \
                 where train.clip is \"none\""
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

fn lines(items: &[String]) -> String {
    items.iter().flat_map(|item| ["\n  ", item]).collect()
}
