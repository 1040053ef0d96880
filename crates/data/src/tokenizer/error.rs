//! Errors of tokenizers.

use std::path::PathBuf;

use simmer_files::WriteError;
use simmer_files::size::{counted, plural};
use simmer_hint::Hint;

use crate::guarded::guarded;

/// An error of a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file of the tokenizer cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the tokenizer cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file of the tokenizer is invalid.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A pointer of git-lfs instead of the file.
    #[error("{}: a git-lfs pointer: the file itself was not downloaded", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A special token is not in the vocabulary.
    #[error("{}: {role} is `{token}`, which is not in the vocabulary", path.display())]
    UnknownSpecial {
        /// The file that names the token.
        path: PathBuf,
        /// The key that names it.
        role: &'static str,
        /// The token.
        token: String,
    },
    /// No file names an EOS token.
    #[error(
        "{}: no EOS token: a model that is trained without one never stops",
        path.display()
    )]
    NoEos {
        /// The tokenizer's folder.
        path: PathBuf,
    },
    /// The tokenizer has tokens that the model has no embedding for.
    #[error("{}: {}, but the model's embedding has {}", path.display(), beyond(tokens, *count), counted(*rows, "row"))]
    Vocabulary {
        /// Where the tokenizer was read from.
        path: PathBuf,
        /// Rows of the model's embedding.
        rows: usize,
        /// The number of tokens without a row.
        count: usize,
        /// The first of them, by id.
        tokens: Vec<(u32, String)>,
    },
    /// A token cannot be added.
    #[error("{}: cannot add the token `{token}`: {problem}", path.display())]
    Add {
        /// Where the tokenizer was read from.
        path: PathBuf,
        /// The token.
        token: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The tokenizer has something that GGUF does not support.
    #[error("{}: cannot write this tokenizer as GGUF: {problem}", path.display())]
    Gguf {
        /// Where the tokenizer was read from.
        path: PathBuf,
        /// What GGUF does not support.
        problem: String,
    },
    /// The tokenizers library failed.
    #[error("tokenizer: {0}")]
    Library(String),
}

impl Hint for TokenizerError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            TokenizerError::Read { path, .. } if path.ends_with("tokenizer.json") => {
                "set `base.tokenizer` to a folder with `tokenizer.json` or `tokenizer.model`; Meta's models have `tokenizer.model` one level up"
            }
            TokenizerError::LfsPointer { .. } => simmer_files::LFS_HINT,
            TokenizerError::NoEos { .. } => "set `eos_token` in `tokenizer_config.json`",
            TokenizerError::Vocabulary { .. } => {
                "use the tokenizer that came with the model; added tokens need embedding rows of their own"
            }
            TokenizerError::Gguf { .. } => {
                "export a Hugging Face folder, which supports any tokenizer"
            }
            TokenizerError::Write(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.into())
    }
}

/// `tokens 32000 "[PAD]", 32001 "<x>" and 5 more`
fn beyond(tokens: &[(u32, String)], count: usize) -> String {
    let named: Vec<String> = tokens.iter().map(|(id, t)| format!("{id} `{t}`")).collect();
    let more = match count - tokens.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let noun = plural(count, "token");
    format!("the tokenizer has {noun} {}{more}", named.join(", "))
}

/// Converts errors of the tokenizers library, which have only text.
pub(super) fn library<T>(result: tokenizers::Result<T>) -> Result<T, TokenizerError> {
    result.map_err(|error| TokenizerError::Library(error.to_string()))
}

/// Like [`library`], for calls in which a malformed file can make the library panic.
pub(super) fn called<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    match guarded(call) {
        Some(result) => library(result),
        None => Err(TokenizerError::Library(
            "tokenizer.json is inconsistent".to_owned(),
        )),
    }
}
