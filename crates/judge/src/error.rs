//! Errors of a judgement.

use std::path::PathBuf;

use simmer_data::{DataError, Origin};
use simmer_hint::Hint;
use simmer_instruct::InstructError;
use simmer_page::PageError;

/// An error of a judgement.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A result cannot be written.
    #[error(transparent)]
    Write(#[from] simmer_files::WriteError),
    /// A file of prompts is invalid.
    #[error("prompts `{name}`: {problem}")]
    Prompts {
        /// The name, or the file.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The rows of a data file cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A question cannot be used.
    #[error("{origin}: {problem}")]
    Question {
        /// The row.
        origin: Origin,
        /// The key, what was expected and what was found.
        problem: String,
    },
    /// An answer cannot be used.
    #[error("{origin}: {problem}")]
    Answer {
        /// The row.
        origin: Origin,
        /// The key, what was expected and what was found.
        problem: String,
    },
    /// Some questions have no answer.
    #[error("{}: expected an answer to each of {of} questions, found none to {missing}: {first}", path.display())]
    Unanswered {
        /// The file of answers.
        path: PathBuf,
        /// The number of questions.
        of: usize,
        /// How many have no answer.
        missing: usize,
        /// The first of them.
        first: String,
    },
    /// A model or the journal failed.
    #[error(transparent)]
    Model(#[from] InstructError),
    /// The page cannot be rendered.
    #[error(transparent)]
    Page(#[from] PageError),
}

impl Hint for JudgeError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Prompts { .. } => {
                "prompts of your own are a file that ends in .toml; copy data/judge/mt-bench.toml (docs/guide/judging.md)"
            }
            Self::Question { .. } => {
                "docs/guide/judging.md lists the forms of questions; correct the row, or remove it"
            }
            Self::Answer { .. } => {
                "docs/guide/judging.md lists the forms of answers; correct the row, or remove it"
            }
            Self::Unanswered { .. } => {
                "add these answers, or judge fewer questions with `max_questions`"
            }
            Self::Data(error) => return error.hint(),
            Self::Model(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
