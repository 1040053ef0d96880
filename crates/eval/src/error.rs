//! What can be wrong with an evaluation.

use std::path::PathBuf;

use simmer_data::template::{BlankError, RenderError, TemplateError};
use simmer_data::tokenizer::TokenizerError;
use simmer_data::{DataError, Origin};
use simmer_hint::Hint;
use simmer_model::GenerateError;

/// What can be wrong with an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Results cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such task.
    #[error("there is no task `{name}`{}", near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    UnknownTask {
        /// As given.
        name: String,
        /// The nearest one that there is.
        near: Option<String>,
    },
    /// A task's file is wrong.
    #[error("task `{name}`: {problem}")]
    Task {
        /// The task.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The paper did not measure it.
    #[error("task `{name}`: the LLaMA paper says nothing of it")]
    NotInPaper {
        /// The task.
        name: String,
    },
    /// None of a task's files is there.
    #[error("task `{name}`: none of its files is below {}: {}", folder.display(), files.join(", "))]
    NoFile {
        /// The task.
        name: String,
        /// The data folder.
        folder: PathBuf,
        /// The files that it looked for.
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
    /// Rows cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A text cannot be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A text of a task cannot be used.
    #[error("task `{name}`: {error}")]
    Blank {
        /// The task.
        name: String,
        /// What is wrong with it.
        error: BlankError,
    },
    /// A pattern of a task cannot be used.
    #[error("task `{name}`: the pattern `{pattern}` is wrong: {problem}")]
    Pattern {
        /// The task.
        name: String,
        /// The regular expression.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A text cannot be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Results in the folder are of another evaluation.
    #[error("{}: results of another evaluation: {what} differs", path.display())]
    OtherResults {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A line of results is damaged.
    #[error("{}: line {line}: {problem}", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Somebody asked to stop.
    #[error("interrupted; what is done is in {}", folder.display())]
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
                "say with --data where the data is; docs/guide/evaluating.md says where each set comes from"
            }
            Self::NotInPaper { .. } => "leave it out, or measure it with --protocol harness",
            Self::OtherResults { .. } => "give another --out, or --overwrite to begin again",
            Self::Results { .. } => "remove that line, or give --overwrite to begin again",
            Self::Interrupted { .. } => "the same command goes on from there",
            Self::Data(error) => return error.hint(),
            Self::Template(error) => return error.hint(),
            Self::Tokenizer(error) => return error.hint(),
            Self::Generate(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
