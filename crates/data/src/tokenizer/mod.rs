//! Text to tokens and back, as the model's own tokenizer does it.
//!
//! A tokenizer is a folder with `tokenizer.json` or `tokenizer.model` (SentencePiece or tiktoken) and, optionally,
//! `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `generation_config.json`, `config.json` and
//! `chat_template.jinja`. Or it is the [`Vocabulary`] of a GGUF file.

mod bounds;
mod byte_level;
mod bytes;
mod error;
mod folder;
mod merges;
mod overlay;
mod pieces;
mod read;
mod rows;
mod save;
pub mod sentencepiece;
mod stop;
mod stream;
pub mod tiktoken;
mod train;
mod vocabulary;
mod wire;

pub use error::TokenizerError;
pub use pieces::{Kind, Piece, PieceError};
pub use save::Added;
pub use stop::StopTexts;
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

/// The tokens of a text, and the byte range of each in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The byte range of each token in the text. If a character has several tokens, each of them has the character's
    /// range.
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

/// A tokenizer that is converted from a file of another format.
struct Made {
    inner: tokenizers::Tokenizer,
    /// The file's settings, under the keys that `tokenizer_config.json` has for them.
    own: serde_json::Map<String, serde_json::Value>,
    /// Notes on where it differs from the original.
    notes: Vec<String>,
}

/// A model's tokenizer, with its special tokens and chat templates.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The added tokens, set to ignore special tokens in a text.
    plain: AddedVocabulary,
    /// The post-processor, which is only saved; texts are encoded without it.
    post_processor: Option<PostProcessorWrapper>,
    path: PathBuf,
    /// Tokens that the tokenizer adds before every text.
    prefix: Vec<u32>,
    /// Tokens that it adds after every text.
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
        // simmer truncates and packs rows itself, whatever length the file sets.
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
        // From here on, texts are encoded without the post-processor, which would add tokens and trim spaces from
        // offsets.
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let tokenizer = Tokenizer {
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
        };
        match folder.rows() {
            Some(rows) => tokenizer.fitted_to(rows),
            None => Ok(tokenizer),
        }
    }

    /// The tokens of `text`, and no added ones. Special tokens in the text are recognised.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the tokenizers library fails.
    pub fn encode(&self, text: &str) -> Result<Encoding, TokenizerError> {
        let encoding = called(|| self.inner.encode(text, false))?;
        Ok(Encoding::from(&encoding))
    }

    /// The tokens of `text` behind [`Tokenizer::prefix`]: of a text that is continued or scored as it is.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_prefix(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok([self.prefix(), &self.encode(text)?.ids].concat())
    }

    /// The tokens of `text`. Special tokens in the text are ordinary text, so that a text cannot fake its own end.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the tokenizers library fails.
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

    /// The text of `tokens`; `skip_special` omits special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the tokenizers library fails.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        called(|| self.inner.decode(tokens, skip_special))
    }

    /// Decodes tokens one by one; `skip_special` omits special tokens.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }

    /// Tokens to put before every text without special tokens of its own: the BOS token if the tokenizer adds one
    /// (LLaMA), otherwise none (SmolLM2).
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// The BOS token, whether or not texts start with it.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The EOS tokens: training appends the first, and each of them stops generation.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// The token that training appends to a finished answer.
    ///
    /// # Errors
    /// [`TokenizerError::NoEos`] if no file names one.
    pub fn eos_id(&self) -> Result<u32, TokenizerError> {
        let first = self.eos.first().copied();
        first.ok_or_else(|| TokenizerError::NoEos {
            path: self.path.clone(),
        })
    }

    /// The number of tokens, including added ones.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest token id: a model needs one more embedding row than that.
    pub fn max_token_id(&self) -> u32 {
        let vocab = self.inner.get_vocab(true);
        vocab.into_values().max().unwrap_or(0)
    }

    /// Notes for the user: where files disagree and which one is used, and where this tokenizer differs from the
    /// original that it was converted from.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The token with this id, as spelled in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token spelled as in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Every special token as spelled in the vocabulary, in the order of the ids.
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

    /// Where the tokenizer was read from: its folder, or the file if that holds more than the tokenizer.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Special tokens by their key in `tokenizer_config.json` (`bos_token`, `eos_token`, ...), as chat templates see them.
    pub fn specials(&self) -> &BTreeMap<String, String> {
        &self.specials
    }

    /// The chat template with this name. Most models have only one, `default`.
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
