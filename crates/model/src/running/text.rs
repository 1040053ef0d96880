//! A text that is continued.

use std::ops::Range;

use super::pages::Keys;
use super::{Asked, Began, Chosen, Grammar, Next, TextId};
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
    grammar: Option<Box<dyn Grammar>>,
    /// How many tokens it may still get.
    left: usize,
    /// For how many of the most likely tokens the log-probabilities are told.
    top: usize,
    /// The tokens of the prompt that are scored end here; 0 if none are.
    scored_end: usize,
    /// What is told before the first token; `None` afterwards.
    began: Option<Began>,
}

impl Text {
    pub(super) fn new(id: TextId, asked: Asked, grammar: Option<Box<dyn Grammar>>) -> Self {
        let length = asked.tokens.len();
        Self {
            id,
            tokens: asked.tokens,
            keys: Keys::default(),
            sampler: Sampler::new(&asked.sampling),
            grammar,
            left: asked.max_new_tokens,
            top: asked.top,
            scored_end: if asked.scores_prompt { length } else { 0 },
            began: Some(Began::default()),
        }
    }

    /// Whether the token at a position of the prompt is scored, and was not yet.
    pub(super) fn is_to_score(&self, position: usize) -> bool {
        self.left_to_score().contains(&position)
    }

    /// Whether no token has to be scored any more.
    pub(super) fn scored_whole(&self) -> bool {
        self.left_to_score().is_empty()
    }

    fn left_to_score(&self) -> Range<usize> {
        // what is told once is not scored again, if the text is computed again
        let began = self.began.as_ref();
        began.map_or(0..0, |began| began.scored.len() + 1..self.scored_end)
    }

    /// Scores the next token of the prompt from its logits, `[V]`.
    pub(super) fn score(&mut self, logits: &[f32]) {
        let Some(began) = &mut self.began else {
            return;
        };
        let token = self.tokens[began.scored.len() + 1];
        began.scored.push(chosen(token, logits, self.top));
    }

    /// The keys that it has now were there before.
    pub(super) fn note_cached(&mut self) {
        if let Some(began) = &mut self.began {
            began.cached = self.keys.len();
        }
    }

    /// Number of tokens whose keys are not in the cache.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.keys.len()
    }

    /// Chooses the next token from its logits, `[V]`.
    pub(super) fn choose(&mut self, logits: &[f32], eos: &[u32], limit: usize) -> Next {
        let mut next = Next {
            text: self.id,
            began: self.began.take(),
            chosen: None,
            stop: None,
            problem: None,
        };
        if self.left == 0 {
            next.stop = Some(Stop::Length);
            return next;
        }
        match self.advance(logits, eos, limit) {
            Ok((token, stop)) => {
                next.chosen = token.map(|token| chosen(token, logits, self.top));
                next.stop = stop;
            }
            Err(problem) => {
                next.stop = Some(Stop::Caller);
                next.problem = Some(problem);
            }
        }
        next
    }

    /// Takes a token. Returns it, unless it is an EOS token, and why the text ends with it, if it does.
    fn advance(
        &mut self,
        logits: &[f32],
        eos: &[u32],
        limit: usize,
    ) -> Result<(Option<u32>, Option<Stop>), String> {
        let token = match &mut self.grammar {
            Some(grammar) => {
                let mut limited = logits.to_vec();
                grammar.limit(&mut limited)?;
                self.sampler.next(&limited, &self.tokens)
            }
            None => self.sampler.next(logits, &self.tokens),
        };
        if eos.contains(&token) {
            return Ok((None, Some(Stop::Eos(token))));
        }
        let grammar = self.grammar.as_mut();
        let is_complete = grammar.map_or(Ok(false), |grammar| grammar.take(token))?;
        self.tokens.push(token);
        self.left -= 1;
        let stop = if is_complete {
            Some(Stop::Caller)
        } else if self.tokens.len() >= limit {
            Some(Stop::Context)
        } else {
            (self.left == 0).then_some(Stop::Length)
        };
        Ok((Some(token), stop))
    }
}

fn chosen(token: u32, logits: &[f32], top: usize) -> Chosen {
    Chosen {
        token,
        log_prob: log_softmax_at(logits, token),
        top: likeliest(logits, top),
    }
}

/// The `count` most likely tokens with their log-probabilities, the most likely first.
fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
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
