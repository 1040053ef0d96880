//! Log-probabilities of tokens, as both kinds of answers show them.

use serde_json::{Map, Value, json};
use simmer_data::Tokenizer;
use simmer_data::tokenizer::TokenizerError;

use crate::job::Token;

/// A token as an answer shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) bytes: Vec<u8>,
    /// `None` for the first token of a prompt.
    log_prob: Option<f32>,
    /// The most likely tokens at its place.
    top: Vec<(Vec<u8>, f32)>,
}

impl Told {
    /// The first token of a prompt, which nothing predicts.
    pub(crate) fn first(token: u32, tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        Ok(Self {
            bytes: tokenizer.token_bytes(token)?,
            log_prob: None,
            top: Vec::new(),
        })
    }

    pub(crate) fn new(token: &Token, tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        let top = token.top.iter();
        let top = top.map(|(id, log_prob)| Ok((tokenizer.token_bytes(*id)?, *log_prob)));
        Ok(Self {
            bytes: tokenizer.token_bytes(token.id)?,
            log_prob: Some(token.log_prob),
            top: top.collect::<Result<_, TokenizerError>>()?,
        })
    }
}

/// A token's text; the bytes of a part of a character as OpenAI's API spells them, such as `bytes:\xe4\xb8`.
fn text(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let digits = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
    format!("bytes:{}", digits.collect::<String>())
}

/// The log-probabilities of a chat completion.
pub(crate) fn of_chat(tokens: &[Told]) -> Value {
    let entry = |bytes: &[u8], log_prob: f32| json!({"token": text(bytes), "logprob": log_prob, "bytes": bytes});
    let content = tokens.iter().map(|token| {
        let top = token
            .top
            .iter()
            .map(|(text, log_prob)| entry(text, *log_prob));
        let top: Vec<Value> = top.collect();
        let mut shown = entry(&token.bytes, token.log_prob.unwrap_or(0.0));
        shown["top_logprobs"] = top.into();
        shown
    });
    json!({"content": content.collect::<Vec<Value>>(), "refusal": null})
}

/// The log-probabilities of a completion, whose first token is at `offset` (in characters).
pub(crate) fn of_completion(tokens: &[Told], offset: usize) -> Value {
    let (mut texts, mut log_probs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    let mut before: Vec<u8> = Vec::new();
    for token in tokens {
        let name = text(&token.bytes);
        log_probs.push(token.log_prob);
        tops.push(token.log_prob.map(|log_prob| {
            let mut likely: Map<String, Value> = Map::new();
            let own = (name.clone(), log_prob);
            let top = token
                .top
                .iter()
                .map(|(bytes, log_prob)| (text(bytes), *log_prob));
            for (name, log_prob) in top.chain([own]) {
                // of tokens with the same text, the most likely one
                likely.entry(name).or_insert_with(|| log_prob.into());
            }
            likely
        }));
        offsets.push(offset + characters(&before));
        before.extend(&token.bytes);
        texts.push(name);
    }
    json!({"tokens": texts, "token_logprobs": log_probs, "top_logprobs": tops, "text_offset": offsets})
}

/// The number of characters that begin and end in some bytes.
fn characters(bytes: &[u8]) -> usize {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8], log_prob: f32, top: &[(&[u8], f32)]) -> Told {
        Told {
            bytes: bytes.to_vec(),
            log_prob: Some(log_prob),
            top: top
                .iter()
                .map(|(bytes, log_prob)| (bytes.to_vec(), *log_prob))
                .collect(),
        }
    }

    #[test]
    fn parts_of_a_character_have_names_of_their_own() {
        let tokens = [
            told(b"a", -1.0, &[(b"a", -1.0), (&[0xe4], -2.0)]),
            told(
                &[0xe4, 0xbd],
                -0.5,
                &[(&[0xe4, 0xbd], -0.5), (b"x", -1.5), (b"x", -2.5)],
            ),
            told(&[0xa0], -0.25, &[]),
            told(b"!", -4.0, &[(b"!", -3.5)]),
        ];
        let found = of_completion(&tokens, 2);
        assert_eq!(
            found["tokens"],
            json!(["a", "bytes:\\xe4\\xbd", "bytes:\\xa0", "!"])
        );
        assert_eq!(found["text_offset"], json!([2, 3, 3, 4]));
        assert_eq!(
            found["top_logprobs"][1],
            json!({"bytes:\\xe4\\xbd": -0.5, "x": -1.5})
        );
        assert_eq!(found["top_logprobs"][2], json!({"bytes:\\xa0": -0.25}));
        assert_eq!(found["top_logprobs"][3], json!({"!": -3.5}));
        let chat = of_chat(&tokens);
        let bytes = chat["content"].as_array().unwrap().iter();
        let bytes = bytes.flat_map(|token| token["bytes"].as_array().unwrap());
        let bytes: Vec<u8> = bytes.map(|byte| byte.as_u64().unwrap() as u8).collect();
        assert_eq!(bytes, "a\u{4f60}!".as_bytes());
    }
}
