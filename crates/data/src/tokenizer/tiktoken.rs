//! Llama 3's `tokenizer.model`: tiktoken's list of tokens, one per line, `base64 rank`.
//!
//! Tokens are bytes; of two merges, the one to the token with the lower rank goes first. The file has neither the
//! pattern that splits text nor the special tokens: both are in Meta's `tokenizer.py`.

use std::collections::HashSet;

use serde_json::{Map, json};
use simmer_hint::Hint;
use tokenizers::AddedToken;
use tokenizers::models::bpe::Vocab;

use super::byte_level::{LLAMA_BPE, alphabet, make};
use super::error::library;
use super::merges::{LONGEST, derive};
use super::{Made, TokenizerError};

/// An error in a tiktoken file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TiktokenError {
    /// A line is invalid.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Not every byte is a token.
    #[error("byte {0} is not a token")]
    Byte(u8),
}

impl Hint for TiktokenError {
    fn hint(&self) -> Option<String> {
        None
    }
}

/// The number of special tokens after those of the file, used or reserved.
const SPECIAL: usize = 256;

/// The release of Llama 3, which decides the names of the special tokens. The file and the ids are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Llama 3.
    Llama3,
    /// Llama 3.1, 3.2 and 3.3, as Hugging Face has them.
    Llama31,
}

impl Release {
    /// The special tokens in the order of their ids.
    ///
    /// Source: `DEFAULT_LLAMA_SPECIAL_TOKENS` of transformers' `convert_llama_weights_to_hf.py`; for Llama 3 that is
    /// `tokenizer.py` of github.com/meta-llama/llama3.
    pub fn special_tokens(self) -> Vec<String> {
        let named: &[&str] = match self {
            Release::Llama3 => &[
                "begin_of_text",
                "end_of_text",
                "",
                "",
                "",
                "",
                "start_header_id",
                "end_header_id",
                "",
                "eot_id",
            ],
            Release::Llama31 => &[
                "begin_of_text",
                "end_of_text",
                "",
                "",
                "finetune_right_pad_id",
                "",
                "start_header_id",
                "end_header_id",
                "eom_id",
                "eot_id",
                "python_tag",
            ],
        };
        let names = named.iter().chain(std::iter::repeat(&""));
        let mut reserved = 0..;
        let token = |name: &&str| match (name.is_empty(), &mut reserved) {
            (false, _) => format!("<|{name}|>"),
            (true, free) => format!("<|reserved_special_token_{}|>", free.next().unwrap_or(0)),
        };
        names.take(SPECIAL).map(token).collect()
    }
}

/// Reads the tokens in the order of their ranks.
///
/// # Errors
/// [`TiktokenError`] if a line is not a token with its rank, or a byte is not a token.
pub fn parse(bytes: &[u8]) -> Result<Vec<Vec<u8>>, TiktokenError> {
    let mut tokens: Vec<Vec<u8>> = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        let wrong = |problem| TiktokenError::Line {
            line: number,
            problem,
        };
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let mut words = line.splitn(2, |&byte| byte == b' ');
        let (Some(token), Some(rank)) = (words.next(), words.next()) else {
            return Err(wrong("expected a token in base64 and its rank"));
        };
        let token = base64(token).ok_or_else(|| wrong("the token is not base64"))?;
        let rank = std::str::from_utf8(rank)
            .ok()
            .and_then(|rank| rank.parse().ok());
        if rank != Some(tokens.len()) {
            return Err(wrong("expected the ranks 0, 1, 2, ... in order"));
        }
        if token.is_empty() || token.len() > LONGEST / 2 {
            return Err(wrong("expected a token of 1 to 256 bytes"));
        }
        tokens.push(token);
    }
    let mut seen = HashSet::new();
    for (token, line) in tokens.iter().zip(1..) {
        if !seen.insert(token) {
            let problem = "duplicate token";
            return Err(TiktokenError::Line { line, problem });
        }
    }
    match (0..=255).find(|&byte| !seen.contains(&vec![byte])) {
        Some(byte) => Err(TiktokenError::Byte(byte)),
        None => Ok(tokens),
    }
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.chunks_exact(4) {
        let mut bits = 0;
        for &char in four {
            let six = match char {
                b'A'..=b'Z' => char - b'A',
                b'a'..=b'z' => char - b'a' + 26,
                b'0'..=b'9' => char - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => 0,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        bytes.extend(&bits.to_be_bytes()[1..]);
    }
    if text[..text.len() - padding].contains(&b'=') {
        return None;
    }
    bytes.truncate(bytes.len() - padding);
    Some(bytes)
}

/// Whether the file looks like tiktoken's: its first line is a token in base64 and a number.
pub(super) fn is_tiktoken(bytes: &[u8]) -> bool {
    let line = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
    let token = words
        .next()
        .is_some_and(|word| !word.is_empty() && base64(word).is_some());
    token
        && words
            .next()
            .is_some_and(|rank| !rank.is_empty() && rank.iter().all(u8::is_ascii_digit))
}

/// Converts these tokens to the tokenizers library's tokenizer.
pub(super) fn convert(tokens: &[Vec<u8>], release: Release) -> Result<Made, TokenizerError> {
    let alphabet = alphabet();
    let spell = |token: &Vec<u8>| -> String {
        token
            .iter()
            .map(|&byte| alphabet[usize::from(byte)])
            .collect()
    };
    let spelled: Vec<String> = tokens.iter().map(spell).collect();
    let ranked: Vec<(&str, f64)> = (0..)
        .zip(&spelled)
        .map(|(rank, token)| (token.as_str(), -f64::from(rank)))
        .collect();
    let merges = derive(ranked).pairs;
    let vocab: Vocab = spelled.iter().cloned().zip(0..).collect();

    let mut inner = make(vocab, merges, LLAMA_BPE)?;
    let special = release.special_tokens();
    library(inner.add_special_tokens(special.iter().map(|token| AddedToken::from(token, true))))?;
    let id = |token: &str| inner.token_to_id(token);
    let ends: Vec<u32> = ["<|eom_id|>", "<|eot_id|>"]
        .into_iter()
        .filter_map(id)
        .collect();
    let mut own = Map::new();
    own.insert("bos_token".into(), json!(special[0]));
    own.insert("eos_token".into(), json!(special[1]));
    own.insert("eos_token_id".into(), json!(ends));
    own.insert("add_bos_token".into(), json!(true));
    Ok(Made {
        inner,
        own,
        notes: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
