//! Text to tokens and back, as the model's own tokenizer does it.
//!
//! A tokenizer is a folder: `tokenizer.json`, and beside it, where they exist, `tokenizer_config.json`,
//! `special_tokens_map.json`, `generation_config.json`, `config.json` and `chat_template.jinja`.

mod folder;
mod stream;
mod train;

pub use stream::DecodeStream;
pub use train::{TrainOptions, train};

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use folder::Folder;

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
    /// The tokenizers library refused.
    #[error("tokenizer: {0}")]
    Library(String),
}

impl TokenizerError {
    /// What may mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            TokenizerError::Read { path, .. } if path.ends_with("tokenizer.json") => {
                let hint = if path.with_file_name("tokenizer.model").exists() {
                    "tokenizer.model is not read yet: save the tokenizer as tokenizer.json with transformers"
                } else {
                    "the folder of a Hugging Face model has tokenizer.json beside config.json"
                };
                Some(hint.into())
            }
            TokenizerError::NoEos { .. } => Some("name eos_token in tokenizer_config.json".into()),
            _ => None,
        }
    }
}

/// The tokens of a text, and the bytes of the text that each stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// One range of bytes of the text for each token. The tokens of one character that takes several all have that
    /// character's range.
    pub offsets: Vec<Range<usize>>,
}

/// A model's tokenizer, with its special tokens and chat templates.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    /// Tokens that the tokenizer puts before every text of its own accord.
    prefix: Vec<u32>,
    bos: Option<u32>,
    eos: Vec<u32>,
    specials: BTreeMap<String, String>,
    chat_templates: BTreeMap<String, String>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder.
    ///
    /// # Errors
    /// [`TokenizerError`] when a file is missing or malformed, or names a special token that the vocabulary lacks.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Tokenizer, TokenizerError> {
        let folder = folder.as_ref();
        let file = folder.join("tokenizer.json");
        let inner = folder::read_library(&file)?;
        Tokenizer::assemble(inner, folder, &Folder::read(folder)?)
    }

    /// Reads `tokenizer.json` and the files beside it.
    ///
    /// # Errors
    /// As [`Tokenizer::from_folder`].
    pub fn from_file(file: impl AsRef<Path>) -> Result<Tokenizer, TokenizerError> {
        let file = file.as_ref();
        let inner = folder::read_library(file)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        Tokenizer::assemble(inner, folder, &Folder::read(folder)?)
    }

    fn assemble(
        mut inner: tokenizers::Tokenizer,
        path: &Path,
        folder: &Folder,
    ) -> Result<Tokenizer, TokenizerError> {
        let bos = folder.bos(&inner)?;
        let eos = folder.eos(&inner, bos)?;
        let prefix = folder::prefix(&inner)?;
        // From here on texts are encoded bare: post-processors would add tokens and trim the offsets of spaces.
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        library(inner.with_truncation(None))?;
        inner.with_padding(None);
        Ok(Tokenizer {
            inner,
            path: path.into(),
            prefix,
            bos,
            eos,
            specials: folder.specials(),
            chat_templates: folder.chat_templates(),
        })
    }

    /// The tokens of `text` and nothing besides; special tokens that the text spells out are taken as such.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] when the tokenizers library refuses.
    pub fn encode(&self, text: &str) -> Result<Encoding, TokenizerError> {
        let encoding = library(self.inner.encode(text, false))?;
        let offsets = encoding.get_offsets().iter().map(|&(s, e)| s..e).collect();
        Ok(Encoding {
            ids: encoding.get_ids().to_vec(),
            offsets,
        })
    }

    /// The text of `tokens`; `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] when the tokenizers library refuses.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        library(self.inner.decode(tokens, skip_special))
    }

    /// Turns tokens into text one by one; `skip_special` leaves special tokens out.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }

    /// Tokens that stand before every text that does not spell out its own special tokens: the beginning of sequence
    /// where the model wants one (LLaMA), nothing where it does not (SmolLM2).
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// The beginning-of-sequence token, whether or not texts start with it.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end a text: the first is the one that training appends, any of them stops generation.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// The token that training appends to a finished answer.
    ///
    /// # Errors
    /// [`TokenizerError::NoEos`] when no file names one.
    pub fn eos_id(&self) -> Result<u32, TokenizerError> {
        let first = self.eos.first().copied();
        first.ok_or_else(|| TokenizerError::NoEos {
            path: self.path.clone(),
        })
    }

    /// The number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest token id: a model needs one more embedding row than that.
    pub fn max_token_id(&self) -> u32 {
        let vocab = self.inner.get_vocab(true);
        vocab.into_values().max().unwrap_or(0)
    }

    /// A token as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token spelled as in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Every special token as the vocabulary spells it, by its id.
    pub fn special_tokens(&self) -> Vec<String> {
        let added = self.inner.get_added_tokens_decoder();
        let mut special: Vec<_> = added
            .into_iter()
            .filter(|(_, token)| token.special)
            .collect();
        special.sort_by_key(|(id, _)| *id);
        special
            .into_iter()
            .map(|(_, token)| token.content)
            .collect()
    }

    /// The folder or file's folder that the tokenizer was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Special tokens by their key in `tokenizer_config.json` (`bos_token`, `eos_token`, ...), as chat templates see them.
    pub fn specials(&self) -> &BTreeMap<String, String> {
        &self.specials
    }

    /// The chat template of that name; most models have one, named `default`.
    pub fn chat_template(&self, name: &str) -> Option<&str> {
        self.chat_templates.get(name).map(String::as_str)
    }

    /// The names of the chat templates.
    pub fn chat_template_names(&self) -> impl Iterator<Item = &str> {
        self.chat_templates.keys().map(String::as_str)
    }
}

/// The tokenizers library's errors, which carry nothing but text.
fn library<T>(result: tokenizers::Result<T>) -> Result<T, TokenizerError> {
    result.map_err(|error| TokenizerError::Library(error.to_string()))
}

#[cfg(test)]
pub(crate) mod tests;
