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
        let uniform = unit(mix(self.sampling.seed), self.draws);
        self.draws += 1;
        let Sampling {
            temperature,
            top_k,
            top_p,
            ..
        } = self.sampling;
        if (1..logits.len()).contains(&top_k) {
            let mut candidates = likeliest(&logits, top_k);
            softmax(&mut candidates, temperature);
            candidates.retain(|(_, probability)| *probability > 0.0 || probability.is_nan());
            nucleus(&mut candidates, top_p);
            let total: f64 = candidates.iter().map(|(_, p)| p).sum();
            return at(uniform * total, &candidates).unwrap_or(candidates[candidates.len() - 1].0);
        }
        sample(&logits, temperature, top_p, uniform)
    }
}

/// Candidates are sorted if they are more than so many times as likely as the most likely one; if that is not enough, those of the
/// next bound, and at last all that can come. A vocabulary has tens of thousands, of which a text may take a few hundred.
const FLOORS: [f64; 3] = [1e-3, 1e-6, 0.0];

/// The token at a place of the distribution that is left of the softmax at a temperature, with `top_p`: `uniform` is from 0 to 1.
fn sample(logits: &[f32], temperature: f64, top_p: f64, uniform: f64) -> u32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = f64::from(max);
    let weights = logits
        .iter()
        .map(|logit| ((f64::from(*logit) - max) / temperature).exp());
    let weights: Vec<f64> = weights.collect();
    let total: f64 = weights.iter().sum();
    let mut likely: Vec<(u32, f64)> = Vec::new();
    for floor in FLOORS {
        likely = (0..)
            .zip(&weights)
            .filter(|(_, weight)| **weight > floor)
            .map(|(token, weight)| (token, *weight))
            .collect();
        likely.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for (_, weight) in &mut likely {
            *weight /= total;
        }
        let has_all = floor == 0.0;
        let mut mass = 1.0;
        if top_p < 1.0 {
            nucleus(&mut likely, top_p);
            mass = likely.iter().map(|(_, probability)| probability).sum();
            if mass < top_p && !has_all {
                continue;
            }
        }
        if let Some(token) = at(uniform * mass, &likely) {
            return token;
        }
    }
    likely.last().map_or(0, |(token, _)| *token)
}

/// The candidate at a place of their probabilities one after another.
fn at(mut place: f64, candidates: &[(u32, f64)]) -> Option<u32> {
    for (token, probability) in candidates {
        place -= probability;
        if place < 0.0 {
            return Some(*token);
        }
    }
    None
}

/// The `count` most likely tokens with their logits, the most likely first.
pub(crate) fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f64)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    let by_logit = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < all.len() {
        let _ = all.select_nth_unstable_by(count, by_logit);
        all.truncate(count);
    }
    all.sort_unstable_by(by_logit);
    all.into_iter()
        .map(|(token, logit)| (token, f64::from(logit)))
        .collect()
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

    /// As the definition says: all tokens sorted, cut, and summed.
    fn by_definition(logits: &[f32], sampling: &Sampling, uniform: f64) -> u32 {
        let mut all: Vec<(u32, f64)> = (0..).zip(logits.iter().copied().map(f64::from)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if sampling.top_k > 0 {
            all.truncate(sampling.top_k);
        }
        softmax(&mut all, sampling.temperature);
        nucleus(&mut all, sampling.top_p);
        let total: f64 = all.iter().map(|(_, p)| p).sum();
        at(uniform * total, &all).unwrap_or(all[all.len() - 1].0)
    }

    proptest::proptest! {
        #[test]
        fn tokens_are_those_of_the_definition(
            steps in proptest::collection::vec(-300_i32..300, 1..400),
            scale in 0.001_f32..0.2,
            temperature in 0.2_f64..2.0,
            top_k in 0_usize..50,
            top_p in 0.01_f64..1.3,
            seed in 0_u64..1000,
        ) {
            // some logits are equal
            let logits: Vec<f32> = steps.iter().map(|step| *step as f32 * scale).collect();
            let top_p = top_p.min(1.0);
            let sampling = Sampling { temperature, top_k, top_p, seed, ..Sampling::default() };
            let mut sampler = Sampler::new(&sampling);
            for draw in 0..8 {
                let expected = by_definition(&logits, &sampling, unit(mix(seed), draw));
                proptest::prop_assert_eq!(sampler.next(&logits, &[]), expected);
            }
        }
    }

    #[test]
    fn rare_tokens_are_drawn_as_often_as_they_are_likely() {
        // one token of half of the mass, and 50,000 of 1e-5 each, which are below the first bound
        let mut logits = vec![1e-5_f32.ln(); 50_000];
        logits[7] = 0.5_f32.ln();
        let sampling = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(&sampling);
        let draws = 400;
        let often = (0..draws)
            .filter(|_| sampler.next(&logits, &[]) == 7)
            .count();
        // standard error 10
        assert!((150..=250).contains(&often), "{often} of {draws}");
    }

    #[test]
    fn tokens_that_may_not_come_are_never_drawn() {
        let mut logits = vec![f32::NEG_INFINITY; 100];
        (logits[3], logits[60]) = (1.0, -700.0);
        for (top_k, top_p) in [(0, 1.0), (5, 1.0), (5, 0.9), (0, 0.9)] {
            let sampling = Sampling {
                temperature: 1.0,
                top_k,
                top_p,
                repetition_penalty: 1.2,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(&sampling);
            for _ in 0..50 {
                assert_eq!(sampler.next(&logits, &[3, 7]), 3);
            }
        }
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
