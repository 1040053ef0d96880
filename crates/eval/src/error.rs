//! Errors of an evaluation.

use std::path::PathBuf;

use simmer_data::template::{BlankError, RenderError, TemplateError};
use simmer_data::tokenizer::TokenizerError;
use simmer_data::{DataError, Origin};
use simmer_hint::Hint;
use simmer_model::GenerateError;
use simmer_sandbox::SandboxError;

/// An error of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Results cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The task is unknown.
    #[error("unknown task `{name}`{}", near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    UnknownTask {
        /// The name as given.
        name: String,
        /// The most similar name of a built-in task.
        near: Option<String>,
    },
    /// A task is invalid.
    #[error("task `{name}`: {problem}")]
    Task {
        /// The task.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A task has fewer few-shot examples than requested.
    #[error("task `{name}`: few-shot examples requested: {count}, but the task has {found}")]
    TooFewShots {
        /// The task.
        name: String,
        /// How many were requested.
        count: usize,
        /// How many it has, or `none`.
        found: String,
    },
    /// The LLaMA paper has no results for the task.
    #[error("task `{name}`: the LLaMA paper does not report it")]
    NotInPaper {
        /// The task.
        name: String,
    },
    /// None of a task's files exists.
    #[error("task `{name}`: found none of its files in {}: {}", folder.display(), files.join(", "))]
    NoFile {
        /// The task.
        name: String,
        /// The data folder.
        folder: PathBuf,
        /// The files that were tried.
        files: Vec<String>,
    },
    /// A row cannot be used.
    #[error("{origin}: {problem}")]
    Row {
        /// The row.
        origin: Origin,
        /// What is wrong with it.
        problem: String,
    },
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A text cannot be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A template of a task cannot be used.
    #[error("task `{name}`: {error}")]
    Blank {
        /// The task.
        name: String,
        /// What is wrong with it.
        error: BlankError,
    },
    /// A regular expression of a task is invalid.
    #[error("task `{name}`: invalid regular expression `{pattern}`: {problem}")]
    Pattern {
        /// The task.
        name: String,
        /// The regular expression.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Answers are programs, and were not run.
    #[error("task `{name}`: its answers are programs, and a score needs them to be run")]
    NotRun {
        /// The task.
        name: String,
    },
    /// A task needs a scorer.
    #[error("task `{name}`: a program that scores its answers is needed")]
    NoScorer {
        /// The task.
        name: String,
    },
    /// The program that scores texts does not.
    #[error("scorer `{command}`: {problem}")]
    Scorer {
        /// Its command line.
        command: String,
        /// What is wrong.
        problem: String,
    },
    /// Programs cannot be run.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Generation failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The results file belongs to another evaluation.
    #[error("{}: results of another evaluation, of which is different: {what}", path.display())]
    OtherResults {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A line of a results file is damaged.
    #[error("{}: line {line}: {problem}", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The evaluation was interrupted.
    #[error("interrupted; the answers so far are in {}", folder.display())]
    Interrupted {
        /// The folder of results.
        folder: PathBuf,
    },
}

impl EvalError {
    pub(crate) fn row(origin: &Origin, problem: impl ToString) -> Self {
        Self::Row {
            origin: origin.clone(),
            problem: problem.to_string(),
        }
    }

    /// The error of a task that is in a file.
    pub(crate) fn in_file(self, file: &str) -> Self {
        match self {
            Self::Task { problem, .. } => Self::Task {
                name: file.to_owned(),
                problem,
            },
            other => other,
        }
    }

    pub(crate) fn render(origin: &Origin, error: &RenderError) -> Self {
        Self::row(origin, error)
    }

    pub(crate) fn unknown_task(name: &str, known: impl Iterator<Item = &'static str>) -> Self {
        let near = known
            .map(|known| (strsim::damerau_levenshtein(known, name), known))
            .min();
        Self::UnknownTask {
            name: name.to_owned(),
            near: near
                .filter(|(distance, _)| *distance <= 3)
                .map(|(_, known)| known.to_owned()),
        }
    }
}

impl Hint for EvalError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownTask { .. } => {
                "`simmer eval --list` lists the tasks; a task of your own is a file that ends in .toml \
                 (docs/guide/evaluating.md)"
            }
            Self::NoFile { .. } => {
                "set the data folder with --data; docs/guide/evaluating.md lists where to download each set"
            }
            Self::NotInPaper { .. } => "remove it from --tasks, or use --protocol harness",
            Self::OtherResults { .. } => "choose another --out, or start again with --overwrite",
            Self::Results { .. } => "remove that line, or start again with --overwrite",
            Self::Interrupted { .. } => "run the same command again to resume",
            Self::NotRun { .. } => {
                "add --run-code, to run them in a sandbox without network and files (docs/guide/evaluating.md)"
            }
            Self::NoScorer { .. } => {
                "name it with --scorer COMMAND: it reads {\"text\": ...} a line and writes a score from 0 to 1 a line"
            }
            Self::Scorer { .. } => {
                "it must read {\"text\": ...} a line and write a score from 0 to 1 a line, in the same order"
            }
            Self::Sandbox(error) => return error.hint(),
            Self::Data(error) => return error.hint(),
            Self::Template(error) => return error.hint(),
            Self::Tokenizer(error) => return error.hint(),
            Self::Generate(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
