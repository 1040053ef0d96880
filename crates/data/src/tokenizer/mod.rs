//! Text to tokens and back, as the model's own tokenizer does it.
//!
//! A tokenizer is a folder: `tokenizer.json` or `tokenizer.model` (SentencePiece's or tiktoken's), and beside it, where
//! they exist, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `generation_config.json`,
//! `config.json` and `chat_template.jinja`. Or it is the [`Vocabulary`] of a GGUF file.

mod bounds;
mod byte_level;
mod error;
mod folder;
mod merges;
mod pieces;
mod read;
mod save;
pub mod sentencepiece;
mod stream;
pub mod tiktoken;
mod train;
mod vocabulary;
mod wire;

pub use error::TokenizerError;
pub use pieces::{Kind, Piece, PieceError};
pub use save::Added;
pub use stream::DecodeStream;
pub use train::{TrainOptions, train};
pub use vocabulary::Vocabulary;
pub use wire::Malformed;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tokenizers::{
    AddedVocabulary, Model, OffsetType, PostProcessorWrapper, PreTokenizer, PreTokenizerWrapper,
};

use error::{called, library};
use folder::Folder;

/// The tokens of a text, and the bytes of the text that each stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// One range of bytes of the text for each token. The tokens of one character that takes several all have that
    /// character's range.
    pub offsets: Vec<Range<usize>>,
}

impl From<&tokenizers::Encoding> for Encoding {
    fn from(encoding: &tokenizers::Encoding) -> Encoding {
        Encoding {
            ids: encoding.get_ids().to_vec(),
            offsets: encoding.get_offsets().iter().map(|&(s, e)| s..e).collect(),
        }
    }
}

/// A tokenizer made from another format's file.
struct Made {
    inner: tokenizers::Tokenizer,
    /// What the file says that is said in `tokenizer_config.json` else, under the same keys.
    own: serde_json::Map<String, serde_json::Value>,
    /// Where it differs from the original.
    notes: Vec<String>,
}

/// A model's tokenizer, with its special tokens and chat templates.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The added tokens, of which special ones are not looked for in a text.
    plain: AddedVocabulary,
    /// What surrounds a text, as it is saved; texts are encoded without.
    post_processor: Option<PostProcessorWrapper>,
    path: PathBuf,
    /// Tokens that the tokenizer puts before every text of its own accord.
    prefix: Vec<u32>,
    /// Tokens that it puts after every text.
    suffix: Vec<u32>,
    bos: Option<u32>,
    eos: Vec<u32>,
    specials: BTreeMap<String, String>,
    chat_templates: BTreeMap<String, String>,
    max_length: Option<serde_json::Value>,
    notes: Vec<String>,
}

impl Tokenizer {
    fn assemble(
        mut inner: tokenizers::Tokenizer,
        path: &Path,
        folder: &Folder,
    ) -> Result<Tokenizer, TokenizerError> {
        let bos = folder.bos(&inner)?;
        let eos = folder.eos(&inner, bos)?;
        // Rows are cut and packed elsewhere; the file may ask for any length.
        library(inner.with_truncation(None))?;
        inner.with_padding(None);
        let (prefix, suffix) = folder::around(&inner).map_err(|error| match error {
            TokenizerError::Library(problem) => TokenizerError::Invalid {
                path: path.into(),
                problem,
            },
            error => error,
        })?;
        let post_processor = inner.get_post_processor().cloned();
        // From here on texts are encoded bare: post-processors would add tokens and trim the offsets of spaces.
        inner.with_post_processor(None::<PostProcessorWrapper>);
        Ok(Tokenizer {
            plain: plain(&inner),
            notes: folder.notes(&inner, bos, &eos)?,
            inner,
            post_processor,
            path: path.into(),
            prefix,
            suffix,
            bos,
            eos,
            specials: folder.specials(),
            chat_templates: folder.chat_templates(),
            max_length: folder.max_length(),
        })
    }

    /// The tokens of `text` and nothing besides; special tokens that the text spells out are taken as such.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] when the tokenizers library refuses.
    pub fn encode(&self, text: &str) -> Result<Encoding, TokenizerError> {
        let encoding = called(|| self.inner.encode(text, false))?;
        Ok(Encoding::from(&encoding))
    }

    /// The tokens of `text`, in which a special token that is spelled out is text as any other, so that no text can pass
    /// itself off as the end of another.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] when the tokenizers library refuses.
    pub fn encode_plain(&self, text: &str) -> Result<Encoding, TokenizerError> {
        let encoding = called(|| {
            let normalizer = self.inner.get_normalizer();
            let mut pieces = self.plain.extract_and_normalize(normalizer, text);
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                PreTokenizerWrapper::pre_tokenize(pre_tokenizer, &mut pieces)?;
            }
            let model = self.inner.get_model();
            pieces.tokenize(|piece| model.tokenize(piece.get()))?;
            pieces.into_encoding(None, 0, OffsetType::Byte)
        })?;
        Ok(Encoding::from(&encoding))
    }

    /// The text of `tokens`; `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] when the tokenizers library refuses.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        called(|| self.inner.decode(tokens, skip_special))
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

    /// Checks that every token has a row in an embedding of that many. More rows than tokens are fine.
    ///
    /// # Errors
    /// [`TokenizerError::Vocabulary`], which names the tokens that have none.
    pub fn check_vocabulary(&self, rows: usize) -> Result<(), TokenizerError> {
        let vocab = self.inner.get_vocab(true).into_iter();
        let mut beyond: Vec<(u32, String)> = vocab
            .filter(|&(_, id)| id as usize >= rows)
            .map(|(token, id)| (id, token))
            .collect();
        if beyond.is_empty() {
            return Ok(());
        }
        beyond.sort_unstable();
        let count = beyond.len();
        beyond.truncate(4);
        Err(TokenizerError::Vocabulary {
            path: self.path.clone(),
            rows,
            count,
            tokens: beyond,
        })
    }

    /// What is to be said about this tokenizer: where files disagreed and which was believed, and where it differs from
    /// the original that it was made from.
    pub fn notes(&self) -> &[String] {
        &self.notes
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

fn plain(inner: &tokenizers::Tokenizer) -> AddedVocabulary {
    let mut plain = inner.get_added_vocabulary().clone();
    plain.set_encode_special_tokens(true);
    plain
}

#[cfg(test)]
pub(crate) mod tests;
