//! Converts the vocabulary of a GGUF file to a tokenizer and back.
//!
//! LLaMA models use two of GGUF's kinds of vocabulary. `llama` is SentencePiece's: tokens with scores, which imply the
//! merges. `gpt2` is byte-level BPE: tokens, merges, and the name of the pattern that splits text first.
//! Source: `llama-vocab.cpp` of github.com/ggml-org/llama.cpp.

mod export;

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};
use simmer_files::size::counted;
use tokenizers::AddedToken;

use super::byte_level::{self, PreTokenizer};
use super::error::library;
use super::folder::Folder;
use super::pieces::{After, Kind, Piece, Pieces, SPACE, UserDefined};
use super::read::finish;
use super::{Made, Tokenizer, TokenizerError};
use export::Export;

/// The tokenizer in a GGUF file's metadata. Each field is the key `tokenizer.ggml.*` with the field's name, unless its
/// comment names another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vocabulary {
    /// `llama` or `gpt2`.
    pub model: String,
    /// How text is split before it is merged, for `gpt2`.
    pub pre: Option<String>,
    /// The tokens by id.
    pub tokens: Vec<String>,
    /// Their scores, for `llama`; empty if the file has none.
    pub scores: Vec<f32>,
    /// Their types (`token_type`); empty if the file has none.
    pub kinds: Vec<Kind>,
    /// Pairs of tokens with a space between them, for `gpt2`.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `eot_token_id`, which ends a turn.
    pub eot: Option<u32>,
    /// `eom_token_id`, which ends a message.
    pub eom: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `add_bos_token`: whether every text starts with `bos`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`: whether every text ends with `eos`.
    pub add_eos: Option<bool>,
    /// Whether a space is put in front of every text.
    pub add_space_prefix: Option<bool>,
    /// Whether special tokens absorb the spaces after them, which llama.cpp does for Phi-3. Not a key.
    pub rstrip: bool,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
    /// Where llama.cpp differs from the tokenizer that this was created from. Not a key.
    pub notes: Vec<String>,
}

/// Tokens that end a turn.
const ENDS_OF_TURN: [&str; 4] = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];

impl Vocabulary {
    /// Adds unused tokens until each of the model's `rows` embedding rows has a token, as GGUF requires.
    pub fn pad_to(&mut self, rows: usize) {
        let least = self.scores.iter().copied().fold(0.0, f32::min);
        for id in self.tokens.len()..rows {
            self.tokens.push(unused(id));
            self.kinds.push(Kind::Unused);
            if self.model == "llama" {
                self.scores.push(least - 1.0);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let tokens = self.tokens.len();
        if tokens == 0 {
            return Err("tokenizer.ggml.tokens is empty".into());
        }
        for (key, length) in [
            ("scores", self.scores.len()),
            ("token_type", self.kinds.len()),
        ] {
            let optional = length == 0 && (key == "scores") == (self.model == "gpt2");
            if length != tokens && !optional {
                return Err(format!(
                    "tokenizer.ggml.{key}: expected {}, one per token, found {length}",
                    counted(tokens, "entry")
                ));
            }
        }
        let ids = [
            ("bos", self.bos),
            ("eos", self.eos),
            ("eot", self.eot),
            ("eom", self.eom),
            ("unknown", self.unk),
            ("padding", self.pad),
        ];
        for (key, id) in ids {
            if let Some(id) = id.filter(|&id| id as usize >= tokens) {
                return Err(format!(
                    "tokenizer.ggml.{key}_token_id: expected an id below {tokens}, found {id}"
                ));
            }
        }
        Ok(())
    }

    fn kind(&self, id: usize) -> Kind {
        self.kinds.get(id).copied().unwrap_or(Kind::Normal)
    }

    fn make(&self, path: &Path) -> Result<Made, TokenizerError> {
        let invalid = |problem| TokenizerError::Invalid {
            path: path.into(),
            problem,
        };
        self.check().map_err(invalid)?;
        let made = match self.model.as_str() {
            "llama" => {
                let pieces = self.pieces();
                let pieces = self.sentencepiece(&pieces);
                pieces.check().map_err(|error| invalid(error.to_string()))?;
                pieces.make()?
            }
            "gpt2" => self.byte_level(path)?,
            model => {
                return Err(invalid(format!(
                    "tokenizer.ggml.model: expected `llama` or `gpt2`, found `{}`",
                    model.escape_debug()
                )));
            }
        };
        Ok(Made {
            own: self.own(),
            ..made
        })
    }

    fn pieces(&self) -> Vec<Piece> {
        // llama.cpp's converter makes Gemma's unknown token a control token
        let has_unknown = self.kinds.contains(&Kind::Unknown);
        let unknown = self.unk.filter(|_| !has_unknown);
        let prefix = self.add_space_prefix.unwrap_or(true);
        let of = |(id, (text, &score)): (usize, (&String, &f32))| {
            let kind = match unknown {
                Some(unknown) if unknown as usize == id => Kind::Unknown,
                _ => self.kind(id),
            };
            // Gemma's tokens for several spaces, which GGUF has as text
            let spaces = !prefix && kind == Kind::UserDefined && is_spaces(text);
            Piece {
                text: if spaces {
                    text.replace(' ', SPACE)
                } else {
                    text.clone()
                },
                score,
                kind,
            }
        };
        self.tokens
            .iter()
            .zip(&self.scores)
            .enumerate()
            .map(of)
            .collect()
    }

    fn sentencepiece<'a>(&self, pieces: &'a [Piece]) -> Pieces<'a> {
        Pieces {
            list: pieces,
            byte_fallback: pieces.iter().any(|piece| piece.kind == Kind::Byte),
            dummy_prefix: self.add_space_prefix.unwrap_or(true),
            remove_extra_whitespaces: false,
            user_defined: UserDefined::Separate,
            after: if self.rstrip {
                After::Absorbed
            } else {
                After::Kept
            },
        }
    }

    fn byte_level(&self, path: &Path) -> Result<Made, TokenizerError> {
        let invalid = |problem| TokenizerError::Invalid {
            path: path.into(),
            problem,
        };
        let mut notes = Vec::new();
        if self.pre.is_none() {
            notes
                .push("no tokenizer.ggml.pre: text is split by llama.cpp's default pattern".into());
        }
        let name = self.pre.as_deref().unwrap_or("default");
        let pre = PreTokenizer::named(name).ok_or_else(|| {
            invalid(format!(
                "tokenizer.ggml.pre: unknown pattern `{}`; known are {}",
                name.escape_debug(),
                PreTokenizer::names()
            ))
        })?;
        let mut seen = HashSet::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if token.is_empty() || !seen.insert(token) {
                return Err(invalid(format!(
                    "token {id} `{token}` is empty or a duplicate"
                )));
            }
        }
        let pair = |merge: &String| match merge.split_once(' ') {
            Some((left, right)) if seen.contains(&[left, right].concat()) => {
                Ok((left.to_owned(), right.to_owned()))
            }
            _ => Err(invalid(format!(
                "`{merge}` is not a merge of two tokens to a third"
            ))),
        };
        let merges = self.merges.iter().map(pair).collect::<Result<_, _>>()?;

        // Tokens that were added at the end stay outside the model's vocabulary: no text merges to them.
        let is_added = |id: usize| matches!(self.kind(id), Kind::Control | Kind::UserDefined);
        let own = (0..self.tokens.len()).rev().find(|&id| !is_added(id));
        let own = own.map_or(0, |last| last + 1);
        let vocab = self.tokens[..own].iter().cloned().zip(0..).collect();
        let mut inner = byte_level::make(vocab, merges, pre)?;
        let added = (0..self.tokens.len()).filter(|&id| is_added(id)).map(|id| {
            AddedToken::from(self.tokens[id].as_str(), self.kind(id) == Kind::Control)
                .normalized(false)
        });
        library(inner.add_tokens(added))?;
        Ok(Made {
            inner,
            own: Map::new(),
            notes,
        })
    }

    /// The token that ends a turn in a file that does not name one, as Gemma's do not. llama.cpp knows it by its text.
    fn end_of_turn(&self) -> Option<u32> {
        let template = self.chat_template.as_deref()?;
        let ends = ENDS_OF_TURN.iter().filter(|text| template.contains(**text));
        let mut ids = ends.filter_map(|text| {
            let id = self.tokens.iter().position(|token| token == text)?;
            (self.kind(id) == Kind::Control).then_some(id)
        });
        u32::try_from(ids.next()?).ok()
    }

    /// The file's settings under the keys of `tokenizer_config.json`.
    fn own(&self) -> Map<String, Value> {
        let mut own = Map::new();
        for (key, id) in [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unk),
            ("pad_token", self.pad),
        ] {
            let token = id.and_then(|id| self.tokens.get(id as usize));
            own.insert(key.into(), json!(token));
        }
        let pre = PreTokenizer::named(self.pre.as_deref().unwrap_or_default());
        let begins = self.model == "llama" || pre.is_some_and(PreTokenizer::adds_bos);
        let add_bos = self.add_bos.unwrap_or(begins);
        own.insert("add_bos_token".into(), json!(add_bos));
        own.insert("add_eos_token".into(), json!(self.add_eos.unwrap_or(false)));
        let eot = self.eot.or_else(|| self.end_of_turn());
        let ends: Vec<u32> = eot.into_iter().chain(self.eom).collect();
        own.insert("eos_token_id".into(), json!(ends));
        if let Some(template) = &self.chat_template {
            own.insert("chat_template".into(), json!(template));
        }
        own
    }
}

impl Tokenizer {
    /// The tokenizer of the GGUF file at `path`.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] if the vocabulary contradicts itself, or names an unknown model or pattern.
    pub fn from_vocabulary(
        vocabulary: &Vocabulary,
        path: impl AsRef<Path>,
    ) -> Result<Tokenizer, TokenizerError> {
        let path = path.as_ref();
        finish(vocabulary.make(path)?, path, path, Folder::default())
    }

    /// This tokenizer in the form of a GGUF file, with a token for every id up to the last.
    ///
    /// # Errors
    /// [`TokenizerError::Gguf`] if it has something that GGUF does not support.
    pub fn vocabulary(&self) -> Result<Vocabulary, TokenizerError> {
        let export = Export::new(self)?;
        export.vocabulary().map_err(|problem| TokenizerError::Gguf {
            path: self.path.clone(),
            problem,
        })
    }
}

/// Whether a token is nothing but spaces, however they are written.
fn is_spaces(token: &str) -> bool {
    !token.is_empty() && token.chars().all(|char| char == ' ' || char == '\u{2581}')
}

fn unused(id: usize) -> String {
    format!("[PAD{id}]")
}

#[cfg(test)]
mod tests;
