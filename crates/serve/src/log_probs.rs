//! Log-probabilities of tokens, as both kinds of answers show them.

use serde_json::{Map, Value, json};
use simmer_data::Tokenizer;
use simmer_data::tokenizer::TokenizerError;

use crate::job::Token;

/// A token as an answer shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) text: String,
    /// `None` for the first token of a prompt.
    log_prob: Option<f32>,
    /// The most likely tokens at its place.
    top: Vec<(String, f32)>,
}

/// The texts of tokens one after another.
#[derive(Debug)]
pub(crate) struct Texts<'a> {
    tokenizer: &'a Tokenizer,
    /// The token before: decoding depends on it (SentencePiece drops the first space of a text).
    before: Option<u32>,
}

impl<'a> Texts<'a> {
    /// After the token `before`, if there is one.
    pub(crate) fn after(tokenizer: &'a Tokenizer, before: Option<u32>) -> Self {
        Self { tokenizer, before }
    }

    fn text(&self, token: u32) -> Result<String, TokenizerError> {
        let Some(before) = self.before else {
            return self.tokenizer.decode(&[token], false);
        };
        let given = self.tokenizer.decode(&[before], false)?;
        let mut both = self.tokenizer.decode(&[before, token], false)?;
        Ok(both.split_off(both.floor_char_boundary(given.len())))
    }

    /// The first token of a prompt, which nothing predicts.
    pub(crate) fn first(&mut self, token: u32) -> Result<Told, TokenizerError> {
        let text = self.text(token)?;
        self.before = Some(token);
        Ok(Told {
            text,
            log_prob: None,
            top: Vec::new(),
        })
    }

    /// The next token.
    pub(crate) fn next(&mut self, token: &Token) -> Result<Told, TokenizerError> {
        let text = self.text(token.id)?;
        let top = token
            .top
            .iter()
            .map(|(id, log_prob)| Ok((self.text(*id)?, *log_prob)));
        let top: Vec<(String, f32)> = top.collect::<Result<_, TokenizerError>>()?;
        self.before = Some(token.id);
        Ok(Told {
            text,
            log_prob: Some(token.log_prob),
            top,
        })
    }
}

/// The log-probabilities of a chat completion.
pub(crate) fn of_chat(tokens: &[Told]) -> Value {
    let entry = |text: &str, log_prob: f32| json!({"token": text, "logprob": log_prob, "bytes": bytes(text)});
    let content = tokens.iter().map(|token| {
        let top = token
            .top
            .iter()
            .map(|(text, log_prob)| entry(text, *log_prob));
        let top: Vec<Value> = top.collect();
        let mut shown = entry(&token.text, token.log_prob.unwrap_or(0.0));
        shown["top_logprobs"] = top.into();
        shown
    });
    json!({"content": content.collect::<Vec<Value>>(), "refusal": null})
}

/// The bytes of a token's text; null if it is a part of a character.
fn bytes(text: &str) -> Value {
    if text.contains('\u{FFFD}') {
        Value::Null
    } else {
        text.as_bytes().into()
    }
}

/// The log-probabilities of a completion, whose first token is at `offset` (in characters).
pub(crate) fn of_completion(tokens: &[Told], mut offset: usize) -> Value {
    let (mut texts, mut log_probs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for token in tokens {
        texts.push(token.text.clone());
        log_probs.push(token.log_prob);
        tops.push(token.log_prob.map(|log_prob| {
            let likely = token
                .top
                .iter()
                .map(|(text, log_prob)| (text.clone(), (*log_prob).into()));
            let mut likely: Map<String, Value> = likely.collect();
            likely
                .entry(token.text.clone())
                .or_insert_with(|| log_prob.into());
            likely
        }));
        offsets.push(offset);
        offset += token.text.chars().count();
    }
    json!({"tokens": texts, "token_logprobs": log_probs, "top_logprobs": tops, "text_offset": offsets})
}
