//! Text generation with a cache, and the scoring of given text.
//!
//! Axes: T tokens, V vocabulary.

use std::ops::ControlFlow;

use burn::tensor::{Tensor, activation, s};
use simmer_kernels::log_sum_exp;

use crate::cache::KvCache;
use crate::llama::LlamaForCausalLM;
use crate::run::{Run, ids};
use crate::sampler::{Sampler, Sampling};

/// Tokens whose logits are computed at a time when text is scored: bounds the memory to
/// `256 · V` numbers.
const SCORE_CHUNK: usize = 256;

/// A generation's tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// New tokens, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Natural logarithm of each new token's probability, before temperature and cuts.
    pub log_probs: Vec<f32>,
    /// Why it ended.
    pub stop: Stop,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model gave this end-of-sequence token.
    Eos(u32),
    /// The number of new tokens was reached.
    Length,
    /// The context that the model was made for was full.
    Context,
    /// The caller ended it.
    Caller,
}

/// Something that cannot be generated from or scored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GenerateError {
    /// There is no token to continue.
    #[error("the prompt has no token: there is nothing to continue")]
    EmptyPrompt,
    /// The text does not fit the model.
    #[error("the text has {found} tokens, the model takes {limit} (max_position_embeddings)")]
    TooLong {
        /// Tokens of the text.
        found: usize,
        /// The model's limit.
        limit: usize,
    },
    /// A token that the model has no embedding for.
    #[error("token {token} is outside the model's vocabulary of {vocab_size}")]
    Token {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
}

impl GenerateError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::EmptyPrompt => "give the model at least one token",
            Self::TooLong { .. } => "shorten the text",
            Self::Token { .. } => "tokenizer and model do not belong together",
        };
        Some(hint.to_owned())
    }
}

impl LlamaForCausalLM {
    /// Continues `prompt` by up to `max_new_tokens` tokens; `on_token` sees each as it comes.
    ///
    /// `cache` holds what an earlier call has seen: the prompt's first `cache.len()` tokens are
    /// taken from it. Afterwards it holds the prompt and every new token but the last.
    ///
    /// # Errors
    /// On an empty prompt, one longer than the model's context, and tokens that it does not have.
    pub fn generate(
        &self,
        prompt: &[u32],
        cache: &mut KvCache,
        max_new_tokens: usize,
        eos: &[u32],
        sampling: &Sampling,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generated, GenerateError> {
        self.check_tokens(prompt)?;
        if cache.len() >= prompt.len() {
            *cache = KvCache::default();
        }
        let limit = self.config().max_position_embeddings;
        let mut text = prompt.to_vec();
        let mut sampler = Sampler::new(sampling);
        let mut generated = Generated {
            tokens: Vec::new(),
            log_probs: Vec::new(),
            stop: Stop::Length,
        };
        while generated.tokens.len() < max_new_tokens {
            let logits = self.next_logits(&text, cache);
            let token = sampler.next(&logits, &text);
            if eos.contains(&token) {
                generated.stop = Stop::Eos(token);
                break;
            }
            text.push(token);
            generated.tokens.push(token);
            generated.log_probs.push(log_softmax_at(&logits, token));
            if on_token(token).is_break() {
                generated.stop = Stop::Caller;
                break;
            }
            if text.len() >= limit {
                generated.stop = Stop::Context;
                break;
            }
        }
        Ok(generated)
    }

    /// Natural logarithm of the probability of every token after the first: `[T - 1]`.
    ///
    /// # Errors
    /// As [`LlamaForCausalLM::generate`].
    pub fn score(&self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        self.check_tokens(tokens)?;
        let hidden = self.hidden(&Run::from_rows(&[tokens]), None); // [T, H]
        let targets = &tokens[1..];
        let mut log_probs = Vec::with_capacity(targets.len());
        for (chunk, targets) in targets.chunks(SCORE_CHUNK).enumerate() {
            let start = chunk * SCORE_CHUNK;
            let hidden = hidden.clone().slice(s![start..start + targets.len()]);
            let scores = activation::log_softmax(self.logits(hidden), 1); // [T, V]
            let places = ids(targets.iter().copied(), &scores.device());
            let chosen = scores.gather(1, places.unsqueeze_dim(1)); // [T, 1]
            log_probs.extend(values(chosen));
        }
        Ok(log_probs)
    }

    /// The logits after the last token of `text`, `[V]`; the cache takes up what it lacks.
    fn next_logits(&self, text: &[u32], cache: &mut KvCache) -> Vec<f32> {
        let run = Run::continuing(&text[cache.len()..], cache.len());
        let last = run.len() - 1;
        let hidden = self.hidden(&run, Some(cache)).slice(s![last..=last]); // [1, H]
        values(self.logits(hidden))
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), GenerateError> {
        let config = self.config();
        if tokens.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if tokens.len() > config.max_position_embeddings {
            return Err(GenerateError::TooLong {
                found: tokens.len(),
                limit: config.max_position_embeddings,
            });
        }
        match tokens.iter().find(|id| **id as usize >= config.vocab_size) {
            None => Ok(()),
            Some(token) => Err(GenerateError::Token {
                token: *token,
                vocab_size: config.vocab_size,
            }),
        }
    }
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    match tensor.into_data().try_into_vec() {
        Ok(values) => values,
        Err(error) => panic!("results are in f32: {error}"),
    }
}

fn log_softmax_at(logits: &[f32], token: u32) -> f32 {
    (f64::from(logits[token as usize]) - log_sum_exp(logits)) as f32
}
