//! The tokenizer of a model in any of the supported layouts.

use std::path::Path;

use simmer_checkpoint::gguf::{self, TokenKind};
use simmer_checkpoint::{gguf_in, gguf_vocabulary};
use simmer_data::Tokenizer;
use simmer_data::tokenizer::{Kind, Vocabulary};
use simmer_model::base::BaseError;

use crate::error::TrainError;

/// Reads the tokenizer of a model from its folder, from a tokenizer file, or from a `.gguf` file.
///
/// # Errors
/// A tokenizer that is missing or cannot be used.
pub fn open(path: &Path) -> Result<Tokenizer, TrainError> {
    let only = gguf_in(path).map_err(BaseError::from)?;
    let path = only.as_deref().unwrap_or(path);
    let is_gguf = path.extension().is_some_and(|ext| ext == "gguf");
    if !(is_gguf && path.is_file()) {
        return Ok(Tokenizer::from_path(path)?);
    }
    let found = gguf_vocabulary(path).map_err(BaseError::from)?;
    Ok(Tokenizer::from_vocabulary(&from_gguf(found), path)?)
}

/// The vocabulary of a `.gguf` file, as the tokenizer takes it.
fn from_gguf(found: gguf::Vocabulary) -> Vocabulary {
    let kinds = found.kinds.unwrap_or_default();
    Vocabulary {
        model: found.model,
        pre: found.pre,
        tokens: found.tokens,
        scores: found.scores.unwrap_or_default(),
        kinds: kinds.into_iter().map(kind).collect(),
        merges: found.merges.unwrap_or_default(),
        bos: found.bos,
        eos: found.eos,
        eot: found.eot,
        eom: found.eom,
        unk: found.unknown,
        pad: found.padding,
        add_bos: found.add_bos,
        add_eos: found.add_eos,
        add_space_prefix: found.add_space_prefix,
        chat_template: found.chat_template,
        notes: Vec::new(),
    }
}

fn kind(kind: TokenKind) -> Kind {
    match kind {
        TokenKind::Undefined | TokenKind::Normal => Kind::Normal,
        TokenKind::Unknown => Kind::Unknown,
        TokenKind::Control => Kind::Control,
        TokenKind::UserDefined => Kind::UserDefined,
        TokenKind::Unused => Kind::Unused,
        TokenKind::Byte => Kind::Byte,
    }
}

/// The vocabulary of a tokenizer for the `.gguf` file of a model with `rows` tokens, and notes for the user, one sentence
/// each.
///
/// # Errors
/// A tokenizer that llama.cpp does not support.
pub fn to_gguf(
    tokenizer: &Tokenizer,
    rows: usize,
) -> Result<(gguf::Vocabulary, Vec<String>), TrainError> {
    let mut made = tokenizer.vocabulary()?;
    made.pad_to(rows);
    let kinds = made.kinds.iter().map(|kind| match kind {
        Kind::Normal => TokenKind::Normal,
        Kind::Unknown => TokenKind::Unknown,
        Kind::Control => TokenKind::Control,
        Kind::UserDefined => TokenKind::UserDefined,
        Kind::Unused => TokenKind::Unused,
        Kind::Byte => TokenKind::Byte,
    });
    let vocabulary = gguf::Vocabulary {
        model: made.model,
        pre: made.pre,
        tokens: made.tokens,
        scores: Some(made.scores).filter(|list| !list.is_empty()),
        kinds: Some(kinds.collect()).filter(|list: &Vec<_>| !list.is_empty()),
        merges: Some(made.merges).filter(|list| !list.is_empty()),
        bos: made.bos,
        eos: made.eos,
        eot: made.eot,
        eom: made.eom,
        unknown: made.unk,
        padding: made.pad,
        add_bos: made.add_bos,
        add_eos: made.add_eos,
        add_space_prefix: made.add_space_prefix,
        remove_extra_whitespaces: None,
        chat_template: made.chat_template,
        chat_templates: Vec::new(),
    };
    Ok((vocabulary, made.notes))
}
