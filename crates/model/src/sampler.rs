//! Chooses the next token from its logits.
//!
//! Order as in transformers: repetition penalty, frequency and presence penalty (OpenAI's), temperature, top-k, top-p, sample.

use serde::{Deserialize, Serialize};
use simmer_hint::Hint;
use simmer_kernels::{mix, most_likely};

use crate::random::unit;

/// How generation chooses tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits; 0: always the most likely token.
    pub temperature: f64,
    /// Sample among the `top_k` most likely tokens; 0: among all.
    pub top_k: usize,
    /// Sample among the fewest tokens whose probabilities add up to `top_p`; 1: among all.
    pub top_p: f64,
    /// Divides the positive logits of tokens that are already in the text, and multiplies the negative ones.
    pub repetition_penalty: f64,
    /// Subtracted from the logits of tokens that are in the new text, once per occurrence.
    pub frequency_penalty: f64,
    /// Subtracted from the logits of tokens that are in the new text, once.
    pub presence_penalty: f64,
    /// Seed of the samples.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

/// A setting outside its range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{setting}: expected {expected}, found {found}")]
pub struct SamplingError {
    /// Name of the setting.
    pub setting: &'static str,
    /// Its range.
    pub expected: &'static str,
    /// As given.
    pub found: f64,
}

impl Hint for SamplingError {
    fn hint(&self) -> Option<String> {
        None
    }
}

impl Sampling {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn check(&self) -> Result<(), SamplingError> {
        let error = |setting, expected, found| {
            Err(SamplingError {
                setting,
                expected,
                found,
            })
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return error("temperature", "0 or more", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return error("top_p", "above 0, at most 1", self.top_p);
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return error("repetition_penalty", "above 0", self.repetition_penalty);
        }
        for (setting, penalty) in [
            ("frequency_penalty", self.frequency_penalty),
            ("presence_penalty", self.presence_penalty),
        ] {
            if !penalty.is_finite() {
                return error(setting, "a finite number", penalty);
            }
        }
        Ok(())
    }
}

/// Chooses one token after another.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    draws: u64,
    /// The length of the text before the first new token.
    prompt: Option<usize>,
}

impl Sampler {
    pub(crate) fn new(sampling: &Sampling) -> Self {
        Self {
            sampling: sampling.clone(),
            draws: 0,
            prompt: None,
        }
    }

    /// The next token after `text`, from its logits `[V]`.
    pub(crate) fn next(&mut self, logits: &[f32], text: &[u32]) -> u32 {
        let mut logits = logits.to_vec();
        penalise(&mut logits, text, self.sampling.repetition_penalty);
        let prompt = *self.prompt.get_or_insert(text.len());
        subtract(&mut logits, &text[prompt.min(text.len())..], &self.sampling);
        if self.sampling.temperature == 0.0 {
            return most_likely(&logits).unwrap_or(0) as u32;
        }
        let mut candidates: Vec<(u32, f64)> =
            (0..).zip(logits.into_iter().map(f64::from)).collect();
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if self.sampling.top_k > 0 {
            candidates.truncate(self.sampling.top_k);
        }
        softmax(&mut candidates, self.sampling.temperature);
        nucleus(&mut candidates, self.sampling.top_p);
        let total: f64 = candidates.iter().map(|(_, p)| p).sum();
        let mut draw = unit(mix(self.sampling.seed), self.draws) * total;
        self.draws += 1;
        for (token, probability) in &candidates {
            draw -= probability;
            if draw < 0.0 {
                return *token;
            }
        }
        candidates[candidates.len() - 1].0
    }
}

fn penalise(logits: &mut [f32], text: &[u32], penalty: f64) {
    if (penalty - 1.0).abs() < f64::EPSILON {
        return;
    }
    let mut seen = text.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        let logit = &mut logits[token as usize];
        let value = f64::from(*logit);
        let penalised = if value > 0.0 {
            value / penalty
        } else {
            value * penalty
        };
        *logit = penalised as f32;
    }
}

/// Lowers the logits of tokens in the new text: by `frequency · count + presence`.
///
/// Source: OpenAI's API reference, `frequency_penalty` and `presence_penalty`.
fn subtract(logits: &mut [f32], new: &[u32], sampling: &Sampling) {
    let (frequency, presence) = (sampling.frequency_penalty, sampling.presence_penalty);
    if frequency == 0.0 && presence == 0.0 {
        return;
    }
    let mut seen = new.to_vec();
    seen.sort_unstable();
    for same in seen.chunk_by(|a, b| a == b) {
        let logit = &mut logits[same[0] as usize];
        *logit = (f64::from(*logit) - frequency * same.len() as f64 - presence) as f32;
    }
}

/// Turns sorted logits into probabilities.
fn softmax(candidates: &mut [(u32, f64)], temperature: f64) {
    let max = candidates[0].1;
    let mut sum = 0.0;
    for (_, value) in candidates.iter_mut() {
        *value = ((*value - max) / temperature).exp();
        sum += *value;
    }
    for (_, value) in candidates {
        *value /= sum;
    }
}

/// Keeps the most likely tokens until their probabilities add up to `top_p`, and at least one.
fn nucleus(candidates: &mut Vec<(u32, f64)>, top_p: f64) {
    if top_p >= 1.0 {
        return;
    }
    let mut sum = 0.0;
    let kept = candidates.iter().take_while(|(_, probability)| {
        let before = sum;
        sum += probability;
        before < top_p
    });
    let kept = kept.count();
    candidates.truncate(kept.max(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: &Sampling, logits: &[f32], draws: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(sampling);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..draws {
            counts[sampler.next(logits, &[]) as usize] += 1.0 / draws as f64;
        }
        counts
    }

    #[test]
    fn samples_follow_the_probabilities_at_the_temperature() {
        let logits = [0.0, 2.0_f32.ln() * 2.0, 3.0_f32.ln() * 2.0];
        let sampling = Sampling {
            temperature: 2.0,
            ..Sampling::default()
        };
        let shares = shares(&sampling, &logits, 20_000);
        for (share, expected) in shares.iter().zip([1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0]) {
            // standard error 0.0035
            assert!(
                (share - expected).abs() < 0.015,
                "{share} against {expected}"
            );
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [3.0_f32.ln(), 1.0_f32.ln(), 4.0_f32.ln(), 2.0_f32.ln()];
        let top_k = Sampling {
            temperature: 1.0,
            top_k: 2,
            ..Sampling::default()
        };
        let kept = shares(&top_k, &logits, 500);
        assert!(kept[0] > 0.0 && kept[2] > 0.0 && kept[1] == 0.0 && kept[3] == 0.0);
        // 0.4, then 0.3: together 0.7, which reaches 0.65
        let top_p = Sampling {
            temperature: 1.0,
            top_p: 0.65,
            ..Sampling::default()
        };
        let kept = shares(&top_p, &logits, 500);
        assert!(kept[0] > 0.0 && kept[2] > 0.0 && kept[1] == 0.0 && kept[3] == 0.0);
    }

    #[test]
    fn repetition_is_penalised_on_both_sides_of_zero() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(&sampling);
        assert_eq!(sampler.next(&[1.0, 1.5], &[1, 1]), 0);
        assert_eq!(sampler.next(&[-1.0, -0.6], &[1]), 0);
        assert_eq!(sampler.next(&[1.0, 1.5], &[]), 1);
    }

    #[test]
    fn tokens_of_the_new_text_are_less_likely() {
        let next = |frequency_penalty, presence_penalty, new: &[u32]| {
            let sampling = Sampling {
                frequency_penalty,
                presence_penalty,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(&sampling);
            // the prompt's token does not count
            assert_eq!(sampler.next(&[1.0, 1.5], &[1]), 1);
            sampler.next(&[1.0, 1.5], &[&[1], new].concat())
        };
        assert_eq!(next(0.0, 0.6, &[1]), 0);
        assert_eq!(next(0.0, 0.4, &[1, 1]), 1);
        assert_eq!(next(0.3, 0.0, &[1, 1]), 0);
        assert_eq!(next(0.3, 0.0, &[1, 0]), 1);
    }

    #[test]
    fn settings_outside_their_range_are_named() {
        let wrong = Sampling {
            top_p: 1.5,
            ..Sampling::default()
        };
        assert_eq!(
            wrong.check().unwrap_err().to_string(),
            "top_p: expected above 0, at most 1, found 1.5"
        );
    }
}
