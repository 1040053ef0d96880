//! Converts a SentencePiece vocabulary to the tokenizers library's tokenizer.
//!
//! A text is normalised (spaces become `▁`, and one more is put in front) and split at user-defined pieces. The rest is
//! merged from characters. Characters without a piece become their bytes, or the unknown token.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use simmer_hint::Hint;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, NormalizerWrapper};

use super::error::library;
use super::merges::{LONGEST, derive};
use super::{Made, TokenizerError};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "▁";

/// The type of a token in a SentencePiece or GGUF vocabulary. Both formats use these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// Text.
    Normal = 1,
    /// The token for text that has no token.
    Unknown = 2,
    /// A token that does not occur in text: BOS, EOS, ...
    Control = 3,
    /// Text that is this token wherever it occurs.
    UserDefined = 4,
    /// A token that is not used.
    Unused = 5,
    /// One byte of a character that has no token, spelled `<0x0A>`.
    Byte = 6,
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(number: i32) -> Option<Kind> {
        use Kind::{Byte, Control, Normal, Unknown, Unused, UserDefined};
        [Normal, Unknown, Control, UserDefined, Unused, Byte]
            .into_iter()
            .find(|&kind| kind as i32 == number)
    }
}

/// A token of a SentencePiece vocabulary; its id is its index.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The text, with `▁` for spaces.
    pub text: String,
    /// Its priority: of two merges, the one to the piece with the higher score goes first.
    pub score: f32,
    /// Its type.
    pub kind: Kind,
}

/// An invalid piece.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("piece {id} `{text}` {problem}")]
pub struct PieceError {
    /// The piece's id.
    pub id: usize,
    /// Its text.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Hint for PieceError {
    fn hint(&self) -> Option<String> {
        None
    }
}

/// A vocabulary of pieces, and how text is normalised for it.
pub(super) struct Pieces<'a> {
    pub(super) list: &'a [Piece],
    /// Whether characters without a piece become bytes.
    pub(super) byte_fallback: bool,
    /// Whether a space is put in front of a text.
    pub(super) dummy_prefix: bool,
    /// Whether spaces at the ends are removed, and repeated spaces reduced to one.
    pub(super) remove_extra_whitespaces: bool,
    pub(super) user_defined: UserDefined,
    pub(super) after: After,
}

/// What becomes of the spaces after special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// They are text.
    Kept,
    /// They are part of the token, as for most of Phi-3's.
    Absorbed,
}

/// Phi-3's special tokens that leave the spaces after them alone.
const NOT_STRIPPING: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// What user-defined pieces do to the text around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserDefined {
    /// They are part of the text, which gets one space in front, as in SentencePiece.
    Belong,
    /// They end the text: the text after them gets a space in front, too, as in llama.cpp.
    Separate,
}

/// The text of the piece for a byte.
pub(super) fn byte_piece(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

impl Pieces<'_> {
    /// Checks that the pieces are valid.
    pub(super) fn check(&self) -> Result<(), PieceError> {
        let mut seen = HashMap::new();
        let mut bytes = HashSet::new();
        for (id, piece) in self.list.iter().enumerate() {
            let wrong = |problem: String| PieceError {
                id,
                text: piece.text.chars().take(40).collect(),
                problem,
            };
            if piece.text.is_empty() {
                return Err(wrong("has no text".into()));
            }
            if let Some(first) = seen.insert(&piece.text, id) {
                return Err(wrong(format!("has the same text as piece {first}")));
            }
            if !piece.score.is_finite() {
                return Err(wrong(format!(
                    "has the score {}, expected a finite number",
                    piece.score
                )));
            }
            if piece.text.len() > LONGEST {
                let length = piece.text.len();
                return Err(wrong(format!(
                    "has {length} bytes, expected at most {LONGEST}"
                )));
            }
            if piece.kind == Kind::Byte {
                let byte = (0..=255).find(|&byte| byte_piece(byte) == piece.text);
                bytes.extend(byte);
                if byte.is_none() {
                    return Err(wrong("has type byte, but does not name one".into()));
                }
            }
        }
        if self.byte_fallback && bytes.len() < 256 {
            return Err(PieceError {
                id: self.list.len(),
                text: (0..=255)
                    .filter(|byte| !bytes.contains(byte))
                    .map(byte_piece)
                    .take(1)
                    .collect(),
                problem: "is missing: byte fallback needs a piece for every byte".into(),
            });
        }
        Ok(())
    }

    /// The tokenizer, with notes on where it differs from SentencePiece. The pieces must be [checked](Self::check).
    pub(super) fn make(&self) -> Result<Made, TokenizerError> {
        let derived = derive(self.texts(&[Kind::Normal]));
        let mut notes = self.unmergeable();
        if let Some((first, other)) = derived.tie {
            notes.push(format!(
                "pieces `{first}` and `{other}` have the same score: when they overlap, SentencePiece merges the one on \
                 the left, but this tokenizer merges `{first}`"
            ));
        }

        let ids = (0..).zip(self.list);
        let vocab: Vocab = ids.map(|(id, piece)| (piece.text.clone(), id)).collect();
        let mut model = BPE::builder()
            .vocab_and_merges(vocab, derived.pairs)
            .byte_fallback(self.byte_fallback)
            .fuse_unk(true);
        if let Some(unknown) = self.list.iter().find(|piece| piece.kind == Kind::Unknown) {
            model = model.unk_token(unknown.text.clone());
        }
        let mut inner = tokenizers::Tokenizer::new(library(model.build())?);
        library(inner.with_normalizer(Some(self.normalizer()?)))?;
        inner.with_decoder(Some(from_json::<tokenizers::DecoderWrapper>(
            self.decoder(),
        )?));
        notes.extend(self.add_tokens(&mut inner)?);
        Ok(Made {
            inner,
            own: serde_json::Map::new(),
            notes,
        })
    }

    /// Texts and scores of the pieces of these kinds.
    fn texts(&self, kinds: &[Kind]) -> Vec<(&str, f64)> {
        let of_kind = self.list.iter().filter(|piece| kinds.contains(&piece.kind));
        of_kind
            .map(|piece| (piece.text.as_str(), f64::from(piece.score)))
            .collect()
    }

    fn user_defined_texts(&self) -> Vec<&str> {
        let texts = self.texts(&[Kind::UserDefined]);
        texts.into_iter().map(|(text, _)| text).collect()
    }

    /// Notes on merges that SentencePiece performs and the library cannot: from characters that are not pieces, and to
    /// unused pieces, which SentencePiece splits again.
    fn unmergeable(&self) -> Vec<String> {
        let mut texts = self.texts(&[Kind::Normal, Kind::Unused]);
        texts.sort_by_key(|(text, _)| text.len());
        let normal: HashSet<&str> = self
            .texts(&[Kind::Normal])
            .into_iter()
            .map(|(text, _)| text)
            .collect();
        let one = |text: &str| text.chars().nth(1).is_none();
        let mut made: HashSet<&str> = HashSet::new();
        let mut notes = Vec::new();
        for (text, _) in texts {
            let cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
            let can = |half: &str| one(half) || made.contains(half);
            let ways: Vec<_> = cuts
                .filter(|(left, right)| can(left) && can(right))
                .collect();
            if ways.is_empty() {
                continue;
            }
            made.insert(text);
            let foreign = ways
                .iter()
                .flat_map(|(left, right)| [left, right])
                .find(|half| !normal.contains(**half));
            if !normal.contains(text) {
                notes.push(format!(
                    "this tokenizer never merges to the unused piece `{text}`; SentencePiece does, and splits it again"
                ));
            } else if let Some(half) = foreign {
                notes.push(format!(
                    "`{half}` is not a piece, so this tokenizer does not merge it to `{text}`; SentencePiece does"
                ));
            }
        }
        let more = notes.split_off(notes.len().min(3)).len();
        if more > 0 {
            notes.push(format!("and {more} more like these"));
        }
        notes
    }

    /// The space in front goes before the whole text, even before a user-defined piece. The library normalises each
    /// user-defined piece as if it were a text, so the prefix must not change those.
    fn prefix(&self) -> Value {
        let user_defined = self.user_defined_texts();
        if user_defined.is_empty() || self.user_defined == UserDefined::Separate {
            return json!({"type": "Prepend", "prepend": SPACE});
        }
        let texts: Vec<String> = user_defined.iter().map(|text| escape(text)).collect();
        let start = format!(r"\A(?=[\s\S])(?!(?:{})\z)", texts.join("|"));
        replace(&json!({"Regex": start}), SPACE)
    }

    fn normalizer(&self) -> Result<NormalizerWrapper, TokenizerError> {
        let mut steps = Vec::new();
        let regex = |pattern: &str, content| replace(&json!({"Regex": pattern}), content);
        if self.remove_extra_whitespaces {
            steps.push(regex(r"\A +| +\z", ""));
            steps.push(regex(" {2,}", " "));
        }
        if self.dummy_prefix {
            steps.push(self.prefix());
        }
        steps.push(replace(&json!({"String": " "}), SPACE));
        if self.remove_extra_whitespaces {
            steps.push(regex(r"▁+\z", ""));
        }
        from_json(json!({"type": "Sequence", "normalizers": steps}))
    }

    fn decoder(&self) -> Value {
        let mut steps = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.dummy_prefix {
            steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        json!({"type": "Sequence", "decoders": steps})
    }

    fn add_tokens(&self, inner: &mut tokenizers::Tokenizer) -> Result<Vec<String>, TokenizerError> {
        let absorbed = self.after == After::Absorbed;
        let rstrip = |text: &str| absorbed && !NOT_STRIPPING.contains(&text);
        let special = self.texts(&[Kind::Control, Kind::Unknown]);
        let special = special
            .iter()
            .map(|(text, _)| AddedToken::from(*text, true).rstrip(rstrip(text)));
        library(inner.add_special_tokens(special))?;
        let raw = self.user_defined == UserDefined::Separate && self.dummy_prefix;
        let user_defined = self.user_defined_texts();
        let tokens = user_defined.iter().map(|text| {
            AddedToken::from(*text, false)
                .normalized(!raw)
                .rstrip(rstrip(text))
        });
        library(inner.add_tokens(tokens))?;
        Ok(match user_defined.first() {
            Some(text) if self.dummy_prefix && !raw => vec![format!(
                "a text that consists only of `{text}` or another user-defined piece gets no space in front; \
                 SentencePiece adds one"
            )],
            _ => Vec::new(),
        })
    }
}

fn replace(pattern: &Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

/// `text` as a regular expression for both engines that the library may be built with.
fn escape(text: &str) -> String {
    let escaped = text.chars().map(|char| match char {
        // Only these: for one of the engines, `\<` is the start of a word.
        char if r".+*?()|[]{}^$\".contains(char) => format!("\\{char}"),
        char if char.is_ascii_control() => format!("\\x{:02x}", u32::from(char)),
        char => char.to_string(),
    });
    escaped.collect()
}

/// A part of the library's tokenizer, from its JSON in `tokenizer.json`.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(json: Value) -> Result<T, TokenizerError> {
    serde_json::from_value(json).map_err(|error| TokenizerError::Library(error.to_string()))
}
