//! Errors of a run, before its first step and during training.

use std::io;
use std::path::{Path, PathBuf};

use simmer_checkpoint::CheckpointError;
use simmer_data::DataError;
use simmer_data::tokenizer::TokenizerError;
use simmer_files::WriteError;
use simmer_hint::Hint;
use simmer_lint::LintReport;
use simmer_model::adapter::AdapterError;
use simmer_model::base::BaseError;
use simmer_model::device::DeviceError;

use crate::ranks::RanksError;
use crate::recipe::RecipeError;
use crate::tracking::Unsent;
use simmer_recipe::Problem;

/// Why a run cannot start or continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A value of the recipe that does not fit the data, the base model or the tokenizer.
    #[error(transparent)]
    Setting(#[from] Problem),
    /// The build lacks the device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The ranks of a run do not work together.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// The data is wrong.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The data can be read, but the lint found errors that would harm the training.
    #[error("the data has errors:\n{0}")]
    Lint(LintReport),
    /// The tokenizer is wrong.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The base model is wrong.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The adapter is wrong.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    /// A file or folder cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A run cannot be sent to a tracker.
    #[error(transparent)]
    Tracking(#[from] Unsent),
    /// The operating system refused an operation.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// The recipe adds tokens to an adapter that has its own vocabulary.
    #[error(
        "the adapter in {} has its own vocabulary, and `{token}` is not in it", adapter.display()
    )]
    TwoVocabularies {
        /// The adapter's folder.
        adapter: PathBuf,
        /// A token that the recipe adds.
        token: String,
    },
    /// The run needs more memory than the device has free.
    #[error("the run does not fit into memory:\n{estimate}")]
    NoRoom {
        /// The estimate as text, part by part.
        estimate: String,
        /// The first setting with which it would fit.
        fitting: Option<String>,
        /// What to do if there is none.
        otherwise: String,
    },
    /// The device ran out of memory during training.
    #[error("{}: out of memory; the estimate was {expected} at most: {message}", folder.display())]
    OutOfMemory {
        /// The run's folder.
        folder: PathBuf,
        /// The estimated peak, readable.
        expected: String,
        /// The device's message.
        message: String,
    },
    /// The folder already holds a run.
    #[error("{}: this folder already holds a run", folder.display())]
    RunExists {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder holds files, but not a run.
    #[error("{}: the folder is not empty, and holds no run", folder.display())]
    NotARun {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is where the folder of the run should be.
    #[error("{}: expected a folder for the run, found a file", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// Another process is writing the run.
    #[error("{}: another process is writing this run", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// Recipe, data or base model differ from those that the run started with.
    #[error("{}: cannot resume this run; changed since it started:{}", folder.display(), lines(changes))]
    Changed {
        /// The folder.
        folder: PathBuf,
        /// Keys with both values; files.
        changes: Vec<String>,
    },
    /// The run has checkpoints, but all of them are damaged.
    #[error("{}: no checkpoint can be used:{}", folder.display(), lines(problems))]
    NoCheckpoint {
        /// The folder of the checkpoints.
        folder: PathBuf,
        /// What is wrong with each of them.
        problems: Vec<String>,
    },
    /// A loss, gradient or weight is not finite, or the loss is a spike.
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
        /// The quantity and its value.
        what: String,
        /// The last checkpoint with other weights than the ones that diverged.
        checkpoint: Option<PathBuf>,
    },
    /// An error ended the run after some steps.
    #[error("{error}\n{}", kept(*step, checkpoint.as_ref(), not_kept.as_deref()))]
    Ended {
        /// The error.
        #[source]
        error: Box<TrainError>,
        /// The last finished step.
        step: u64,
        /// The last checkpoint: its step and folder.
        checkpoint: Option<(u64, PathBuf)>,
        /// Why the last finished step is in no checkpoint, if it is not and the error does not say it.
        not_kept: Option<String>,
    },
}

impl Hint for TrainError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoRoom {
                fitting, otherwise, ..
            } => {
                return Some(match fitting {
                    Some(setting) => format!("set {setting}; the run then fits"),
                    None => otherwise.clone(),
                });
            }
            Self::Recipe(error) => return error.hint(),
            Self::Setting(problem) => return problem.hint(),
            Self::Device(error) => return error.hint(),
            Self::Ranks(error) => return error.hint(),
            Self::Data(error) => return error.hint(),
            Self::Tokenizer(error) => return error.hint(),
            Self::Base(error) => return error.hint(),
            Self::Adapter(error) => return error.hint(),
            Self::Weights(error) => return error.hint(),
            Self::Write(error) => return error.hint(),
            Self::Tracking(error) => return error.hint(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space on the disk, then resume with --resume; the checkpoints before are intact"
            }
            Self::TwoVocabularies { .. } => {
                "merge the adapter into its base model (`simmer merge`), and set base.path to the merged model"
            }
            Self::OutOfMemory { .. } => {
                "resume with --resume and a smaller train.micro_batch_tokens, or train.recompute = \"layer\"; \
                 `simmer estimate` shows what each saves. The last checkpoint is intact"
            }
            Self::Lint(_) => {
                "check the data with `simmer data lint RECIPE`; to accept a kind of error, list it in \
                 data.lint.allow of the recipe"
            }
            Self::RunExists { .. } => {
                "resume it with --resume, or name another folder for a new run with --out"
            }
            Self::NotARun { .. } | Self::NotAFolder { .. } => "name another folder with --out",
            Self::Locked { .. } => "wait until it ends, or stop it",
            Self::Changed { .. } => {
                "undo the changes, or start a new run with --out; to train this run's adapter further, \
                 set `method.lora.from`. --accept-changes resumes despite the changes"
            }
            Self::NoCheckpoint { .. } => "start again in another folder with --out",
            Self::Diverged { step: 1, .. } => {
                "check the base model: with its own weights, before any update, loss or gradient is not finite"
            }
            Self::Diverged { .. } => {
                "lower train.learning_rate or lengthen the warmup; if train.clip is \"none\", enable clipping"
            }
            Self::Ended {
                error, checkpoint, ..
            } => return Some(going_on(error, checkpoint.is_some())),
            Self::Io { .. } => return None,
        };
        Some(text.to_owned())
    }
}

impl TrainError {
    /// Whether another rank has ended.
    pub(crate) fn is_of_ranks(&self) -> bool {
        match self {
            Self::Ranks(_) => true,
            Self::Ended { error, .. } => error.is_of_ranks(),
            _ => false,
        }
    }

    /// Whether the weights are wrong: they must not displace those of an earlier checkpoint.
    pub(crate) fn is_of_the_weights(&self) -> bool {
        matches!(self, Self::Diverged { .. })
    }

    /// The error of a run that it ends after `step` finished steps. `not_kept` says why these are in no checkpoint.
    pub(crate) fn after(
        self,
        step: u64,
        checkpoint: Option<(u64, PathBuf)>,
        not_kept: Option<String>,
    ) -> Self {
        if self.is_of_the_weights() {
            return self;
        }
        Self::Ended {
            error: Box::new(self),
            step,
            checkpoint,
            not_kept,
        }
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

/// Where the finished steps of a run that an error ended are.
fn kept(step: u64, checkpoint: Option<&(u64, PathBuf)>, not_kept: Option<&str>) -> String {
    let why = not_kept.map_or_else(String::new, |why| format!(" ({why})"));
    match checkpoint {
        Some((saved, path)) if *saved == step => {
            format!(
                "the run ended after step {step}; checkpoint: {}",
                path.display()
            )
        }
        Some((saved, path)) => format!(
            "the run ended after step {step}, which could not be saved{why}; the last checkpoint is of step {saved}: {}",
            path.display()
        ),
        None => format!("the run ended after step {step}, which could not be saved{why}"),
    }
}

/// How to continue a run that an error ended.
fn going_on(error: &TrainError, saved: bool) -> String {
    let hint = error.hint();
    if hint.as_ref().is_some_and(|hint| hint.contains("--resume")) {
        return hint.unwrap_or_default();
    }
    let go_on = match error {
        _ if !saved => "start again with --resume",
        TrainError::Data(_) => {
            "continue with --resume, and with --accept-changes if you changed a data file or a key of [data]"
        }
        _ => "continue with --resume",
    };
    match hint {
        Some(hint) => format!("{hint}; then {go_on}"),
        None => go_on.to_owned(),
    }
}
