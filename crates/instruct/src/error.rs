//! Errors of a generation.

use std::path::{Path, PathBuf};

use simmer_files::size::counted;
use simmer_hint::Hint;

/// An error of a generation.
#[derive(Debug, thiserror::Error)]
pub enum InstructError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Result(#[from] simmer_files::WriteError),
    /// A recipe or a method is invalid.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, key and what is wrong.
        problem: String,
    },
    /// The method is unknown.
    #[error("unknown method `{name}`; methods: {known}")]
    UnknownMethod {
        /// The name as given.
        name: String,
        /// The names of the built-in methods.
        known: String,
    },
    /// A seed cannot be used.
    #[error("{}: line {line}: {problem}", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// There are too few seeds for a prompt.
    #[error("{}: expected at least {expected} seeds, found {found}", path.display())]
    TooFewSeeds {
        /// The file.
        path: PathBuf,
        /// The number of examples of a prompt.
        expected: usize,
        /// The number of seeds.
        found: usize,
    },
    /// The journal belongs to another run.
    #[error("{}: the journal of another run: {what} differs", path.display())]
    OtherRun {
        /// The journal.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The files of the folder have more rows than this run would write.
    #[error(
        "{}: has {found} rows, and with this recipe it would have {made}",
        path.display()
    )]
    Fewer {
        /// The file with the rows.
        path: PathBuf,
        /// The number of its rows.
        found: usize,
        /// The number that would be written.
        made: usize,
    },
    /// Another process writes the journal.
    #[error("{}: another process writes into this folder", path.display())]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// A line of the journal is damaged.
    #[error("{}: line {line}: {problem}", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A server cannot be used as the recipe says.
    #[error("[model.endpoint]: {problem}")]
    Endpoint {
        /// What is wrong.
        problem: String,
    },
    /// A server refuses a request, and would refuse it again.
    #[error("{url}: {problem}")]
    Refused {
        /// The address.
        url: String,
        /// What the server answers.
        problem: String,
    },
    /// A server did not answer a request in several attempts.
    #[error("{url}: {problem}, in {}", counted(*attempts as usize, "attempt"))]
    Unanswered {
        /// The address.
        url: String,
        /// What happened last.
        problem: String,
        /// The number of attempts.
        attempts: u32,
    },
    /// The recipe's budget is spent.
    #[error("spent {spent:.2}, of max_cost = {limit:.2}")]
    Budget {
        /// What was spent.
        spent: f64,
        /// The limit.
        limit: f64,
    },
    /// The local model failed.
    #[error("the model cannot continue a prompt: {0}")]
    Model(String),
    /// The run was interrupted.
    #[error("interrupted; the completions so far are in {}", journal.display())]
    Interrupted {
        /// The journal.
        journal: PathBuf,
    },
}

impl InstructError {
    /// The error of work that was told to stop. The run adds the journal.
    pub fn interrupted() -> Self {
        Self::Interrupted {
            journal: PathBuf::new(),
        }
    }

    /// The error of a file that cannot be read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<'_> {
        |source| Self::Read {
            path: path.to_owned(),
            source,
        }
    }

    /// The error of a file that cannot be written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<'_> {
        |source| Self::Write {
            path: path.to_owned(),
            source,
        }
    }
}

impl Hint for InstructError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Invalid { .. } => {
                "docs/guide/generating-data.md has the keys of recipes and methods"
            }
            Self::UnknownMethod { .. } => {
                "a method of your own is a file that ends in .toml (docs/guide/generating-data.md)"
            }
            Self::Seed { .. } => {
                "a seed is a line of JSON with `instruction` and `instances`, a list of `input` and `output`; for conversations, \
                 a line of text or JSON with `question`"
            }
            Self::TooFewSeeds { .. } => "add seeds; a prompt shows several of them as examples",
            Self::OtherRun { .. } => "choose another `out`, or remove that folder to start again",
            Self::Fewer { .. } => {
                "nothing was written; set a larger `target`, or choose another `out` to have fewer rows"
            }
            Self::InUse { .. } => "wait for it, or choose another `out`",
            Self::Journal { line: 1, .. } => {
                "the first line says what a journal belongs to; remove the file to start again"
            }
            Self::Journal { .. } => {
                "remove that line and run the same command; only its prompt is asked for again"
            }
            Self::Unanswered { .. } => {
                "what was answered is kept; when the server answers again, run the same command to resume"
            }
            Self::Refused { .. } => {
                "what was answered is kept; correct the table of the endpoint or its key, and run the same command to resume"
            }
            Self::Budget { .. } => {
                "what was answered is kept; set a larger max_cost, and run the same command to resume"
            }
            Self::Interrupted { .. } => "run the same command again to resume",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
