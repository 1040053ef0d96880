//! Compares a merged model with its base model and adapter.
//!
//! The two are compared at every position of some prompts, by the most likely next tokens and their log-probabilities.
//! They differ by the rounding of the merged weights. To first order, a relative error ε of a matrix changes the logits by
//! about ε times their standard deviation; the errors of n matrices are independent, so their squares add up. The bound
//! below is this estimate times a generous factor. It holds for every model, and a merge with a wrong scale, a missing
//! module or a wrong sign exceeds it wherever the adapter has an effect.
//!
//! Axes: T tokens, V vocabulary.

use serde::Serialize;

use crate::generate::{GenerateError, log_softmax_at, values};
use crate::groups::groups;
use crate::llama::LlamaForCausalLM;
use crate::sequence::{Sequence, ids};

/// Number of tokens compared at each position.
const CANDIDATES: usize = 8;
/// Prompts are run together up to this number of tokens.
const TOGETHER: usize = 2048;
/// Number of positions whose logits are computed at a time.
const CHUNK: usize = 32;
/// Allowed change of a log-probability, in standard deviations of the logits per unit of rounding: layers amplify
/// errors.
const AMPLIFICATION: f64 = 64.0;
/// Relative error of a sum in f32 in another order.
const ARITHMETIC: f64 = 1e-6;

/// The predictions of a model at every position of some prompts.
#[derive(Debug, Clone)]
pub struct Heard {
    prompts: Vec<Vec<u32>>,
    positions: Vec<Position>,
}

/// The prediction of the next token at one position of a prompt.
#[derive(Debug, Clone)]
struct Position {
    /// The most likely tokens in descending order, with their log-probabilities.
    candidates: Vec<(u32, f32)>,
    /// The log-probability of the token that follows in the prompt; `None` after the last one.
    next: Option<f32>,
    /// Standard deviation of the logits.
    spread: f64,
}

/// The comparison of a merged model with base model and adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Number of prompts.
    pub prompts: usize,
    /// Number of positions, which is the number of tokens of all prompts.
    pub positions: usize,
    /// Number of positions at which both have the same most likely token.
    pub same_likeliest: usize,
    /// Largest difference of a log-probability (natural logarithm), over the 8 most likely tokens of each position.
    pub largest: f64,
    /// Mean difference.
    pub mean: f64,
    /// The largest difference that rounding of the weights explains at the position of `largest`.
    pub explained: f64,
    /// Whether rounding explains the differences at all positions.
    pub agrees: bool,
    /// The log-probabilities of the prompts' own tokens.
    pub tokens: TokenDifference,
}

/// The difference of two models in the log-probabilities (natural logarithm) of the tokens of some prompts, each after the
/// tokens before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TokenDifference {
    /// Number of tokens: all but the first of each prompt.
    pub tokens: usize,
    /// Mean of the absolute differences.
    pub mean: f64,
    /// Largest absolute difference.
    pub largest: f64,
    /// How much the mean loss of the second model is above that of the first.
    pub loss_change: f64,
}

impl Heard {
    /// Runs a model over prompts.
    ///
    /// # Errors
    /// If a prompt is empty, longer than the context, or has tokens outside the vocabulary.
    pub fn from(model: &LlamaForCausalLM, prompts: Vec<Vec<u32>>) -> Result<Self, GenerateError> {
        let mut positions = Vec::new();
        each_position(model, &prompts, &mut |logits, next| {
            positions.push(Position::of(logits, next));
        })?;
        Ok(Self { prompts, positions })
    }

    /// The prompts.
    pub fn prompts(&self) -> &[Vec<u32>] {
        &self.prompts
    }

    /// Compares another model, whose weights have the relative error `rounding`
    /// ([`super::MergeReport::rounding`]). Returns its predictions too.
    ///
    /// # Errors
    /// As [`Heard::from`].
    pub fn compare(
        &self,
        model: &LlamaForCausalLM,
        rounding: f64,
    ) -> Result<(Agreement, Self), GenerateError> {
        let mut agreement = Agreement {
            prompts: self.prompts.len(),
            positions: self.positions.len(),
            same_likeliest: 0,
            largest: 0.0,
            mean: 0.0,
            explained: 0.0,
            agrees: true,
            tokens: TokenDifference::default(),
        };
        let mut places = self.positions.iter();
        let mut compared = 0_usize;
        let mut positions = Vec::new();
        each_position(model, &self.prompts, &mut |logits, next| {
            let Some(position) = places.next() else {
                return;
            };
            let bound = AMPLIFICATION * rounding.hypot(ARITHMETIC) * position.spread;
            let found = Position::of(logits, next);
            let likeliest = found.candidates[0].0;
            positions.push(found);
            agreement.same_likeliest += usize::from(likeliest == position.candidates[0].0);
            for &(token, log_prob) in &position.candidates {
                let found = log_prob_of(logits, token);
                let difference = (f64::from(found) - f64::from(log_prob)).abs();
                agreement.mean += difference;
                compared += 1;
                // NaN is outside every bound
                agreement.agrees &= difference <= bound;
                if compared == 1 || difference > agreement.largest || difference.is_nan() {
                    agreement.largest = difference;
                    agreement.explained = bound;
                }
            }
        })?;
        agreement.mean /= compared.max(1) as f64;
        let other = Self {
            prompts: self.prompts.clone(),
            positions,
        };
        agreement.tokens = self.tokens_of(&other);
        Ok((agreement, other))
    }

    /// How another model's log-probabilities of the tokens of the same prompts differ.
    pub fn tokens_of(&self, other: &Self) -> TokenDifference {
        let pairs = self.positions.iter().zip(&other.positions);
        let pairs = pairs.filter_map(|(one, other)| Some((one.next?, other.next?)));
        let mut difference = TokenDifference::default();
        for (one, other) in pairs {
            let change = f64::from(other) - f64::from(one);
            difference.tokens += 1;
            difference.mean += change.abs();
            difference.loss_change -= change;
            // NaN stays
            if change.abs() > difference.largest || change.is_nan() {
                difference.largest = change.abs();
            }
        }
        let tokens = difference.tokens.max(1) as f64;
        difference.mean /= tokens;
        difference.loss_change /= tokens;
        difference
    }
}

impl Position {
    /// `next` is the token that follows in the prompt.
    fn of(logits: &[f32], next: Option<u32>) -> Self {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let count = CANDIDATES.min(order.len());
        let falling = |a: &u32, b: &u32| {
            logits[*b as usize]
                .total_cmp(&logits[*a as usize])
                .then(a.cmp(b))
        };
        if count < order.len() {
            order.select_nth_unstable_by(count, falling);
            order.truncate(count);
        }
        order.sort_by(falling);
        let count = logits.len() as f64;
        let mean = logits.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let square = logits
            .iter()
            .map(|x| (f64::from(*x) - mean).powi(2))
            .sum::<f64>();
        Self {
            candidates: order
                .into_iter()
                .map(|token| (token, log_softmax_at(logits, token)))
                .collect(),
            next: next.map(|token| log_prob_of(logits, token)),
            spread: (square / count).sqrt(),
        }
    }
}

/// The log-probability of a token; NaN for one that the model does not have.
fn log_prob_of(logits: &[f32], token: u32) -> f32 {
    let logit = logits.get(token as usize);
    logit.map_or(f32::NAN, |_| log_softmax_at(logits, token))
}

/// Calls `show` with the logits of every position, `[V]` each, in order, and with the token that follows in the prompt.
fn each_position(
    model: &LlamaForCausalLM,
    prompts: &[Vec<u32>],
    show: &mut dyn FnMut(&[f32], Option<u32>),
) -> Result<(), GenerateError> {
    for prompt in prompts {
        model.check_tokens(prompt)?;
    }
    for some in groups(prompts, TOGETHER, Vec::len) {
        positions_of(model, some, show);
    }
    Ok(())
}

fn positions_of(
    model: &LlamaForCausalLM,
    prompts: &[Vec<u32>],
    show: &mut dyn FnMut(&[f32], Option<u32>),
) {
    let rows: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let next = rows.iter().flat_map(|row| {
        let after = row.iter().skip(1).copied().map(Some);
        after.chain([None])
    });
    let next: Vec<Option<u32>> = next.collect();
    let sequence = Sequence::from_rows(&rows);
    let hidden = model.hidden(&sequence, None); // [T, H]
    let places: Vec<u32> = (0..sequence.len() as u32).collect();
    for (chunk, next) in places.chunks(CHUNK).zip(next.chunks(CHUNK)) {
        let chosen = ids(chunk.iter().copied(), &hidden.device());
        let logits = values(model.logits(hidden.clone().select(0, chosen))); // [N, V]
        let logits = logits.chunks(logits.len() / chunk.len());
        for (logits, next) in logits.zip(next) {
            show(logits, *next);
        }
    }
}
