//! Text generation with a KV cache, and scoring of given text.
//!
//! Axes: T tokens, V vocabulary.

use std::borrow::Cow;
use std::ops::ControlFlow;

use burn::tensor::{Tensor, activation};
use rayon::prelude::*;
use simmer_files::size::counted;
use simmer_hint::Hint;
use simmer_kernels::{Capabilities, NewestToken, log_sum_exp, most_likely};

use crate::cache::KvCache;
use crate::llama::LlamaForCausalLM;
use crate::sampler::{Sampler, Sampling};
use crate::sequence::{Sequence, Target, ids};
use crate::steps::Steps;

/// Tokens whose logits are computed at a time when text is scored. Bounds the memory to
/// `256 · V` elements.
pub(crate) const SCORE_CHUNK: usize = 256;

/// The result of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// New tokens, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Natural logarithm of each new token's probability, before temperature, top-k and top-p.
    pub log_probs: Vec<f32>,
    /// Why generation stopped.
    pub stop: Stop,
}

/// The score of a token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scored {
    /// Natural logarithm of its probability.
    pub log_prob: f32,
    /// Whether it is the most likely token.
    pub is_likeliest: bool,
}

/// Why generation stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model generated this EOS token.
    Eos(u32),
    /// The maximum number of new tokens was reached.
    Length,
    /// The model's context is full.
    Context,
    /// The caller stopped it.
    Caller,
}

/// Text that the model cannot continue or score.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GenerateError {
    /// The prompt is empty.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The text is longer than the model's context.
    #[error("the text has {}, the model takes {limit} (max_position_embeddings)", counted(*found, "token"))]
    TooLong {
        /// Number of tokens of the text.
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

impl Hint for GenerateError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::EmptyPrompt => "write a prompt of at least one token",
            Self::TooLong { .. } => "shorten the text",
            Self::Token { .. } => "use the tokenizer of this model",
        };
        Some(hint.to_owned())
    }
}

impl LlamaForCausalLM {
    /// Continues `prompt` by up to `max_new_tokens` tokens, and calls `on_token` with each new token.
    ///
    /// `cache` holds the tokens of an earlier call, which are the first `cache.len()` tokens of the prompt and
    /// are not computed again. Afterwards it holds the prompt and every new token except the last.
    ///
    /// # Errors
    /// If the prompt is empty, longer than the context, or has tokens outside the vocabulary.
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
            cache.empty();
        }
        let limit = self.config().max_position_embeddings;
        let mut text = prompt.to_vec();
        let mut sampler = Sampler::new(sampling);
        let mut generated = Generated {
            tokens: Vec::new(),
            log_probs: Vec::new(),
            stop: Stop::Length,
        };
        let mut steps = None;
        while generated.tokens.len() < max_new_tokens {
            let logits = self.next_logits(&text, cache, &mut steps);
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
        let slots = tokens[1..].iter().map(|token| Some(*token));
        let slots: Vec<Option<u32>> = slots.collect();
        let sequence = Sequence::from_rows(&[tokens]);
        let scored = self.score_targets(&sequence, &Target::from_slots(&slots));
        Ok(scored.into_iter().map(|token| token.log_prob).collect())
    }

    /// Scores each target.
    ///
    /// # Shapes
    /// Result: one score per target.
    ///
    /// # Panics
    /// As [`LlamaForCausalLM::hidden`].
    pub fn score_targets(&self, sequence: &Sequence, targets: &[Target]) -> Vec<Scored> {
        let mut scored = vec![Scored::default(); targets.len()];
        if targets.is_empty() {
            return scored;
        }
        // rows that share a prefix have several targets at its end
        let mut places: Vec<u32> = targets.iter().map(|target| target.place).collect();
        places.sort_unstable();
        places.dedup();
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_key(|target| targets[*target].place);
        let mut order = order.into_iter().peekable();
        let hidden = self.hidden_at(sequence, None, &places); // [N, H]
        for (chunk, places) in places.chunks(SCORE_CHUNK).enumerate() {
            let hidden = hidden.clone().narrow(0, chunk * SCORE_CHUNK, places.len());
            let mut asked: Vec<(usize, Target)> = Vec::new();
            for (row, place) in places.iter().enumerate() {
                while let Some(target) = order.next_if(|target| targets[*target].place == *place) {
                    asked.push((
                        target,
                        Target {
                            place: row as u32,
                            token: targets[target].token,
                        },
                    ));
                }
            }
            let rows: Vec<Target> = asked.iter().map(|(_, target)| *target).collect();
            let found = scores(self.logits(hidden), &rows);
            for ((target, _), found) in asked.iter().zip(found) {
                scored[*target] = found;
            }
        }
        scored
    }

    /// The logits of a text's next token, `[V]`.
    fn next_logits<'a, 's>(
        &'a self,
        text: &[u32],
        cache: &mut KvCache,
        steps: &'s mut Option<Steps<'a>>,
    ) -> Cow<'s, [f32]> {
        let most = self.config().same_frequencies_up_to();
        if most.is_some_and(|most| cache.len() <= most && text.len() > most) {
            // the keys have the frequencies of shorter texts; transformers' Phi-3 computes them again, too
            cache.empty();
        }
        if let [newest] = text[cache.len()..]
            && !cache.is_empty()
            && Steps::are_for(self, cache)
        {
            let keys = 0..text.len();
            let next = NewestToken {
                token: newest,
                keys: std::slice::from_ref(&keys),
            };
            if Steps::fit_or_new(steps, self, cache, &[next], keys.end)
                && let Some(steps) = steps
            {
                return steps.run(cache, &[next], keys.end).into();
            }
        } else {
            *steps = None;
        }
        let sequence = Sequence::continuing(&text[cache.len()..], cache.len());
        let last = sequence.len() as u32 - 1;
        let hidden = self.hidden_at(&sequence, Some(cache), &[last]); // [1, H]
        values(self.logits(hidden)).into()
    }

    /// Checks that the model can continue or score these tokens.
    ///
    /// # Errors
    /// If there are none, more than the context takes, or some outside the vocabulary.
    pub fn check_tokens(&self, tokens: &[u32]) -> Result<(), GenerateError> {
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

/// Scores targets from their logits, `[N, V]`.
fn scores(logits: Tensor<2>, targets: &[Target]) -> Vec<Scored> {
    let [_, vocab] = logits.dims();
    if Capabilities::of(&logits.device()).reads_in_place {
        let logits = values(logits);
        let rows: Vec<(f64, Option<usize>)> = logits
            .par_chunks(vocab)
            .map(|logits| (log_sum_exp(logits), most_likely(logits)))
            .collect();
        let scored = targets.iter().map(|target| {
            let (row, token) = (target.place as usize, target.token as usize);
            let (sum, likeliest) = rows[row];
            Scored {
                log_prob: (f64::from(logits[row * vocab + token]) - sum) as f32,
                is_likeliest: likeliest == Some(token),
            }
        });
        return scored.collect();
    }
    let likeliest = logits.clone().argmax(1).squeeze_dim::<1>(1).into_data(); // [N]
    let likeliest: Vec<i64> = likeliest.iter::<i64>().collect();
    let places = targets.iter().map(|target| target.place);
    let places = ids(places, &logits.device());
    let tokens = ids(targets.iter().map(|target| target.token), &logits.device());
    let chosen = activation::log_softmax(logits, 1).select(0, places);
    let chosen = chosen.gather(1, tokens.unsqueeze_dim(1)); // [targets, 1]
    let scored = values(chosen).into_iter().zip(targets);
    scored
        .map(|(log_prob, target)| Scored {
            log_prob,
            is_likeliest: likeliest[target.place as usize] == i64::from(target.token),
        })
        .collect()
}

pub(crate) fn values(tensor: Tensor<2>) -> Vec<f32> {
    match tensor.into_data().try_into_vec() {
        Ok(values) => values,
        Err(error) => panic!("results are f32: {error}"),
    }
}

pub(crate) fn log_softmax_at(logits: &[f32], token: u32) -> f32 {
    (f64::from(logits[token as usize]) - log_sum_exp(logits)) as f32
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use serde_json::json;
    use simmer_checkpoint::config::ModelConfig;

    use super::*;
    use crate::base::{BaseConfig, load};
    use crate::batch::Prompt;

    #[test]
    fn a_text_that_outgrows_the_short_frequencies_is_computed_again() {
        let json = json!({
            "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2,
            "num_attention_heads": 1, "initializer_range": 0.8, "max_position_embeddings": 32,
            "original_max_position_embeddings": 6,
            "rope_scaling": {
                "type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [2, 3, 5, 8]
            }
        });
        let mut base = BaseConfig::default();
        base.init = Some(ModelConfig::from_json(&json, Path::new("config.json")).unwrap());
        let model = load(&base, 7, &Device::flex()).unwrap();
        let (prompt, sampling) = ([1, 2, 3], Sampling::default());
        let mut cache = KvCache::default();
        let mut go_on = |_| ControlFlow::Continue(());
        let found = model
            .generate(&prompt, &mut cache, 8, &[], &sampling, &mut go_on)
            .unwrap();
        let text = [&prompt[..], &found.tokens].concat();
        // `score` gives the log-probabilities from the second token on
        let [short, long] = [&text[..6], &text].map(|text| model.score(text).unwrap());
        assert!((short[4] - long[4]).abs() > 1e-3);
        let of = |place: usize| found.log_probs[place - prompt.len()];
        for place in 3..6 {
            assert!((of(place) - short[place - 1]).abs() < 1e-4);
        }
        for place in 7..text.len() {
            assert!((of(place) - long[place - 1]).abs() < 1e-4);
        }
        let both = [&prompt[..], &text[..8]].map(|tokens| Prompt {
            tokens,
            sampling: &sampling,
        });
        let batch = model
            .generate_batch(&both, 8, &[], &mut |_, _| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(batch[0], found);
        assert_eq!(batch[1].tokens[..3], text[8..]);
    }
}
