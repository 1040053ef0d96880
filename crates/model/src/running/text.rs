//! A text that is continued.

use super::pages::Keys;
use super::{Asked, Chosen, Next, TextId};
use crate::generate::{Stop, log_softmax_at};
use crate::sampler::{self, Sampler};

/// A text that is continued.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) id: TextId,
    pub(super) tokens: Vec<u32>,
    /// The tokens whose keys are in the cache are the first ones.
    pub(super) keys: Keys,
    sampler: Sampler,
    /// How many tokens it may still get.
    left: usize,
    /// For how many of the most likely tokens the log-probabilities are told.
    top: usize,
}

impl Text {
    pub(super) fn new(id: TextId, asked: Asked) -> Self {
        Self {
            id,
            tokens: asked.tokens,
            keys: Keys::default(),
            sampler: Sampler::new(&asked.sampling),
            left: asked.max_new_tokens,
            top: asked.top,
        }
    }

    /// Number of tokens whose keys are not in the cache.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.keys.len()
    }

    /// Chooses the next token from its logits, `[V]`.
    pub(super) fn choose(&mut self, logits: &[f32], eos: &[u32], limit: usize) -> Next {
        let token = self.sampler.next(logits, &self.tokens);
        if eos.contains(&token) {
            return Next {
                text: self.id,
                chosen: None,
                stop: Some(Stop::Eos(token)),
            };
        }
        self.tokens.push(token);
        self.left -= 1;
        let stop = if self.tokens.len() >= limit {
            Some(Stop::Context)
        } else {
            (self.left == 0).then_some(Stop::Length)
        };
        let chosen = Chosen {
            token,
            log_prob: log_softmax_at(logits, token),
            top: likeliest(logits, self.top),
        };
        Next {
            text: self.id,
            chosen: Some(chosen),
            stop,
        }
    }
}

/// The `count` most likely tokens with their log-probabilities, the most likely first.
pub(crate) fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let normaliser = simmer_kernels::log_sum_exp(logits);
    let pairs = sampler::likeliest(logits, count).into_iter();
    pairs
        .map(|(token, logit)| (token, (logit - normaliser) as f32))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_tokens_come_first() {
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln(), 2.0_f32.ln()];
        let found = likeliest(&logits, 3);
        let tokens: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, [2, 1, 3]);
        for ((_, found), expected) in found.iter().zip([0.5_f32, 0.2, 0.2]) {
            assert!((found - expected.ln()).abs() < 1e-6);
        }
        assert!(likeliest(&logits, 0).is_empty());
        assert_eq!(likeliest(&logits, 9).len(), 4);
    }
}
