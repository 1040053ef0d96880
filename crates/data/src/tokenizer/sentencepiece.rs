//! SentencePiece's `tokenizer.model`, the tokenizer of LLaMA 1 and 2.
//!
//! The file is a Protocol Buffers message: pieces with scores, how they were trained, and how text is normalised.
//! Source: `sentencepiece_model.proto` of github.com/google/sentencepiece.

use std::path::Path;

use serde_json::{Map, json};
use simmer_hint::Hint;

use super::pieces::{After, Kind, Piece, PieceError, Pieces, UserDefined};
use super::wire::{Fields, Malformed, Value};
use super::{Made, TokenizerError};

/// An error in a SentencePiece model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SentencePieceError {
    /// The bytes are not a valid message.
    #[error("not a SentencePiece model: {0}")]
    Malformed(#[from] Malformed),
    /// A field is invalid.
    #[error("not a SentencePiece model: {0}")]
    Field(&'static str),
    /// A piece is invalid.
    #[error(transparent)]
    Piece(#[from] PieceError),
    /// The model has a setting that the tokenizers library cannot reproduce exactly.
    #[error("{0}")]
    Unsupported(String),
}

impl Hint for SentencePieceError {
    fn hint(&self) -> Option<String> {
        match self {
            SentencePieceError::Malformed(error) => error.hint(),
            SentencePieceError::Piece(error) => error.hint(),
            SentencePieceError::Field(_) | SentencePieceError::Unsupported(_) => None,
        }
    }
}

/// How a model splits text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The most probable sequence of pieces.
    Unigram,
    /// Byte-pair encoding: characters merged by score.
    Bpe,
    /// Whole words.
    Word,
    /// Single characters.
    Char,
}

/// A SentencePiece model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The pieces; the id of each is its index.
    pub pieces: Vec<Piece>,
    /// How text is split.
    pub algorithm: Algorithm,
    /// Whether characters without a piece become their bytes.
    pub byte_fallback: bool,
    /// Whether spaces belong to the word before them.
    pub whitespace_as_suffix: bool,
    /// The text of the BOS piece, whether or not the piece exists.
    pub bos: String,
    /// The text of the EOS piece, whether or not the piece exists.
    pub eos: String,
    /// The text of the padding piece, whether or not the piece exists.
    pub pad: String,
    /// How text is normalised before it is split.
    pub normalizer: Normalizer,
}

/// How text is normalised before a model splits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalizer {
    /// The name of the rules that replace characters.
    pub name: String,
    /// The size of these rules in bytes; 0 for `identity`.
    pub rules: usize,
    /// Whether a space is put in front of a text.
    pub add_dummy_prefix: bool,
    /// Whether spaces at the ends are removed, and repeated spaces reduced to one.
    pub remove_extra_whitespaces: bool,
    /// Whether spaces are written `▁`.
    pub escape_whitespaces: bool,
}

/// Reads a model.
///
/// # Errors
/// [`SentencePieceError`] if the bytes are not a SentencePiece model.
pub fn parse(bytes: &[u8]) -> Result<Model, SentencePieceError> {
    let mut model = Model {
        pieces: Vec::new(),
        algorithm: Algorithm::Unigram,
        byte_fallback: false,
        whitespace_as_suffix: false,
        bos: "<s>".into(),
        eos: "</s>".into(),
        pad: "<pad>".into(),
        normalizer: Normalizer {
            name: String::new(),
            rules: 0,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        },
    };
    for field in Fields::of(bytes) {
        match field? {
            (1, Value::Bytes(piece)) => model.pieces.push(parse_piece(piece)?),
            (2, Value::Bytes(trainer)) => model.read_trainer(trainer)?,
            (3, Value::Bytes(normalizer)) => model.normalizer.read(normalizer)?,
            _ => {}
        }
    }
    if model.pieces.is_empty() {
        return Err(SentencePieceError::Field("it has no pieces"));
    }
    Ok(model)
}

fn parse_piece(message: &[u8]) -> Result<Piece, SentencePieceError> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: Kind::Normal,
    };
    for field in Fields::of(message) {
        match field? {
            (1, Value::Bytes(bytes)) => piece.text = text(bytes)?,
            (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Value::Varint(number)) => {
                let kind = i32::try_from(number).ok().and_then(Kind::from_number);
                piece.kind =
                    kind.ok_or(SentencePieceError::Field("a piece has an unknown type"))?;
            }
            _ => {}
        }
    }
    Ok(piece)
}

fn text(bytes: &[u8]) -> Result<String, SentencePieceError> {
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|_| SentencePieceError::Field("a text is not UTF-8"))?;
    Ok(text.into())
}

impl Normalizer {
    fn read(&mut self, message: &[u8]) -> Result<(), SentencePieceError> {
        for field in Fields::of(message) {
            match field? {
                (1, Value::Bytes(name)) => self.name = text(name)?,
                (2, Value::Bytes(rules)) => self.rules = rules.len(),
                (3, Value::Varint(flag)) => self.add_dummy_prefix = flag != 0,
                (4, Value::Varint(flag)) => self.remove_extra_whitespaces = flag != 0,
                (5, Value::Varint(flag)) => self.escape_whitespaces = flag != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Model {
    fn read_trainer(&mut self, message: &[u8]) -> Result<(), SentencePieceError> {
        for field in Fields::of(message) {
            match field? {
                (3, Value::Varint(number)) => {
                    self.algorithm = match number {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        3 => Algorithm::Word,
                        4 => Algorithm::Char,
                        _ => return Err(SentencePieceError::Field("its model_type is unknown")),
                    }
                }
                (24, Value::Varint(flag)) => self.whitespace_as_suffix = flag != 0,
                (35, Value::Varint(flag)) => self.byte_fallback = flag != 0,
                (46, Value::Bytes(piece)) => self.bos = text(piece)?,
                (47, Value::Bytes(piece)) => self.eos = text(piece)?,
                (48, Value::Bytes(piece)) => self.pad = text(piece)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses settings that the tokenizers library cannot reproduce exactly.
    fn check(&self) -> Result<(), SentencePieceError> {
        let unsupported = |what: &str| Err(SentencePieceError::Unsupported(what.into()));
        match self.algorithm {
            Algorithm::Bpe => {}
            Algorithm::Unigram => {
                return unsupported(
                    "only BPE models are supported, found Unigram: it breaks ties between sequences of pieces by rounding \
                     that cannot be reproduced exactly",
                );
            }
            Algorithm::Word => {
                return unsupported("only BPE models are supported, found a model of whole words");
            }
            Algorithm::Char => {
                return unsupported("only BPE models are supported, found a model of characters");
            }
        }
        if self.normalizer.rules > 0 {
            return Err(SentencePieceError::Unsupported(format!(
                "only normalisation by `identity` is supported, found `{}`: its longest match cannot be reproduced \
                 exactly (half-width kana with voicing marks, letters with several accents, decomposed Hangul)",
                self.normalizer.name.escape_debug()
            )));
        }
        if self.whitespace_as_suffix {
            return unsupported("treat_whitespace_as_suffix is not supported");
        }
        if !self.normalizer.escape_whitespaces {
            return unsupported("escape_whitespaces = false is not supported");
        }
        // the library would search for such a piece after spaces were removed
        let spaces = |piece: &&Piece| {
            piece.kind == Kind::UserDefined && piece.text.contains([' ', '\u{2581}'])
        };
        if self.normalizer.remove_extra_whitespaces && self.pieces.iter().any(|p| spaces(&p)) {
            return unsupported(
                "remove_extra_whitespaces is not supported with user-defined pieces that have spaces",
            );
        }
        let bytes = self.pieces.iter().any(|piece| piece.kind == Kind::Byte);
        if bytes && !self.byte_fallback {
            return Err(SentencePieceError::Field(
                "it has byte pieces, but byte_fallback is off",
            ));
        }
        let unknown = self
            .pieces
            .iter()
            .filter(|piece| piece.kind == Kind::Unknown);
        if unknown.count() != 1 {
            return Err(SentencePieceError::Field(
                "expected exactly one unknown piece",
            ));
        }
        Ok(())
    }

    /// Converts this model, which was read from `path`, to the tokenizers library's tokenizer.
    pub(super) fn make(&self, path: &Path) -> Result<Made, TokenizerError> {
        let pieces = Pieces {
            list: &self.pieces,
            byte_fallback: self.byte_fallback,
            dummy_prefix: self.normalizer.add_dummy_prefix,
            remove_extra_whitespaces: self.normalizer.remove_extra_whitespaces,
            user_defined: UserDefined::Belong,
            after: After::Kept,
        };
        let checked = self.check().and_then(|()| Ok(pieces.check()?));
        checked.map_err(|error| TokenizerError::Invalid {
            path: path.into(),
            problem: error.to_string(),
        })?;
        Ok(Made {
            own: self.special_tokens(),
            ..pieces.make()?
        })
    }

    /// The special tokens by their keys in `tokenizer_config.json`.
    fn special_tokens(&self) -> Map<String, serde_json::Value> {
        let control = |text: &str| {
            let same = |piece: &&Piece| piece.kind == Kind::Control && piece.text == text;
            self.pieces
                .iter()
                .find(same)
                .map(|piece| piece.text.clone())
        };
        let unknown = self.pieces.iter().find(|piece| piece.kind == Kind::Unknown);
        let mut own = Map::new();
        own.insert("bos_token".into(), json!(control(&self.bos)));
        own.insert("eos_token".into(), json!(control(&self.eos)));
        own.insert("pad_token".into(), json!(control(&self.pad)));
        own.insert("unk_token".into(), json!(unknown.map(|piece| &piece.text)));
        own.insert("add_bos_token".into(), json!(true));
        own
    }
}

#[cfg(test)]
pub(crate) mod tests;
