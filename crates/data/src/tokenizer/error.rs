//! What can be wrong with a tokenizer.

use std::path::PathBuf;

use simmer_hint::Hint;

use crate::guarded::guarded;

/// What can be wrong with a tokenizer.
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
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the tokenizer does not say what it should.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A special token is not in the vocabulary.
    #[error("{}: {role} is `{token}`, which is not in the vocabulary", path.display())]
    UnknownSpecial {
        /// The file that names the token.
        path: PathBuf,
        /// The key it stands under.
        role: &'static str,
        /// The token.
        token: String,
    },
    /// Nothing says which token ends a text.
    #[error(
        "{}: no end-of-sequence token: a model trained without one never stops",
        path.display()
    )]
    NoEos {
        /// The tokenizer's folder.
        path: PathBuf,
    },
    /// The tokenizer has tokens that the model has no embedding for.
    #[error("{}: {}, but the model's embedding has {rows} rows", path.display(), beyond(tokens, *count))]
    Vocabulary {
        /// Where the tokenizer was read from.
        path: PathBuf,
        /// Rows of the model's embedding.
        rows: usize,
        /// How many tokens have no row.
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
    /// The tokenizer has something that GGUF has no place for.
    #[error("{}: this tokenizer cannot be written as GGUF: {problem}", path.display())]
    Gguf {
        /// Where the tokenizer was read from.
        path: PathBuf,
        /// What GGUF cannot carry.
        problem: String,
    },
    /// The tokenizers library refused.
    #[error("tokenizer: {0}")]
    Library(String),
}

impl Hint for TokenizerError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            TokenizerError::Read { path, .. } if path.ends_with("tokenizer.json") => {
                "the folder of a model has tokenizer.json or tokenizer.model in it; Meta's has tokenizer.model \
                 one level up"
            }
            TokenizerError::NoEos { .. } => "name eos_token in tokenizer_config.json",
            TokenizerError::Vocabulary { .. } => {
                "take the tokenizer that came with the model; tokens that were added to it need rows of their own"
            }
            TokenizerError::Gguf { .. } => {
                "export a Hugging Face folder, which holds any tokenizer"
            }
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
    let noun = if count == 1 { "token" } else { "tokens" };
    format!("the tokenizer has {noun} {}{more}", named.join(", "))
}

/// The tokenizers library's errors, which carry nothing but text.
pub(super) fn library<T>(result: tokenizers::Result<T>) -> Result<T, TokenizerError> {
    result.map_err(|error| TokenizerError::Library(error.to_string()))
}

/// [`library`] for what a file can make the library panic at.
pub(super) fn called<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    match guarded(call) {
        Some(result) => library(result),
        None => Err(TokenizerError::Library(
            "the parts of tokenizer.json do not fit together".to_owned(),
        )),
    }
}
