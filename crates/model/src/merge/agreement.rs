//! Whether a merged model says what base and adapter say.
//!
//! The two are compared at every position of some prompts: the likeliest next tokens, and their log-probabilities. They
//! differ by the rounding of the merged weights. To first order a relative error ε of a matrix moves the logits by about
//! ε times their spread; errors of n matrices are independent and add up as the root of their squares. The bound below is
//! that with a generous factor, so that it holds for every model, and a merge that lost its scale, a module or a sign does
//! not pass where the adapter matters.
//!
//! Axes: T tokens, V vocabulary.

use serde::Serialize;

use crate::generate::{GenerateError, log_softmax_at, values};
use crate::llama::LlamaForCausalLM;
use crate::sequence::{Sequence, ids};

/// Tokens of each position that are compared.
const CANDIDATES: usize = 8;
/// Tokens whose logits are computed at a time.
const CHUNK: usize = 32;
/// How much of the spread of the logits a position may move for each unit of rounding: layers amplify what comes in.
const AMPLIFICATION: f64 = 64.0;
/// Relative error of a sum in f32, in another order.
const ARITHMETIC: f64 = 1e-6;

/// What a model says at every position of some prompts.
#[derive(Debug, Clone)]
pub struct Heard {
    prompts: Vec<Vec<u32>>,
    positions: Vec<Position>,
}

/// What comes next after a beginning of a prompt.
#[derive(Debug, Clone)]
struct Position {
    /// The likeliest tokens, in falling order, and their log-probabilities.
    candidates: Vec<(u32, f32)>,
    /// Standard deviation of the logits.
    spread: f64,
}

/// How a merged model compares with base and adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Prompts.
    pub prompts: usize,
    /// Positions, over all prompts: as many as tokens.
    pub positions: usize,
    /// Positions at which both find the same token likeliest.
    pub same_likeliest: usize,
    /// Largest difference of log-probabilities (natural logarithms) of the 8 likeliest tokens of a position.
    pub largest: f64,
    /// Their mean difference.
    pub mean: f64,
    /// The most that the rounding of the weights explains at the position of the largest difference.
    pub explained: f64,
    /// Whether no position differs by more than is explained there.
    pub agrees: bool,
}

impl Heard {
    /// Runs a model over prompts: one pass over all of them.
    ///
    /// # Errors
    /// A prompt without a token, one longer than the model's context, or with tokens that it does not have.
    pub fn from(model: &LlamaForCausalLM, prompts: Vec<Vec<u32>>) -> Result<Self, GenerateError> {
        let mut positions = Vec::new();
        each_position(model, &prompts, &mut |logits| {
            positions.push(Position::of(logits));
        })?;
        Ok(Self { prompts, positions })
    }

    /// Compares another model, whose weights have the relative error `rounding`
    /// ([`super::MergeReport::rounding`]).
    ///
    /// # Errors
    /// As [`Heard::from`].
    pub fn compare(
        &self,
        model: &LlamaForCausalLM,
        rounding: f64,
    ) -> Result<Agreement, GenerateError> {
        let mut agreement = Agreement {
            prompts: self.prompts.len(),
            positions: self.positions.len(),
            same_likeliest: 0,
            largest: 0.0,
            mean: 0.0,
            explained: 0.0,
            agrees: true,
        };
        let mut places = self.positions.iter();
        let mut compared = 0_usize;
        each_position(model, &self.prompts, &mut |logits| {
            let Some(position) = places.next() else {
                return;
            };
            let bound = AMPLIFICATION * rounding.hypot(ARITHMETIC) * position.spread;
            let likeliest = Position::of(logits).candidates[0].0;
            agreement.same_likeliest += usize::from(likeliest == position.candidates[0].0);
            for &(token, log_prob) in &position.candidates {
                let found = logits
                    .get(token as usize)
                    .map_or(f32::NAN, |_| log_softmax_at(logits, token));
                let difference = (f64::from(found) - f64::from(log_prob)).abs();
                agreement.mean += difference;
                compared += 1;
                // a number that is none is beyond every bound
                agreement.agrees &= difference <= bound;
                if compared == 1 || difference > agreement.largest || difference.is_nan() {
                    agreement.largest = difference;
                    agreement.explained = bound;
                }
            }
        })?;
        agreement.mean /= compared.max(1) as f64;
        Ok(agreement)
    }
}

impl Position {
    fn of(logits: &[f32]) -> Self {
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
            spread: (square / count).sqrt(),
        }
    }
}

/// Shows the logits of every position, `[V]` each, in order.
fn each_position(
    model: &LlamaForCausalLM,
    prompts: &[Vec<u32>],
    show: &mut dyn FnMut(&[f32]),
) -> Result<(), GenerateError> {
    for prompt in prompts {
        model.check_tokens(prompt)?;
    }
    let rows: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let sequence = Sequence::from_rows(&rows);
    let hidden = model.hidden(&sequence, None); // [T, H]
    let places: Vec<u32> = (0..sequence.len() as u32).collect();
    for chunk in places.chunks(CHUNK) {
        let chosen = ids(chunk.iter().copied(), &hidden.device());
        let logits = values(model.logits(hidden.clone().select(0, chosen))); // [N, V]
        logits
            .chunks(logits.len() / chunk.len())
            .for_each(&mut *show);
    }
    Ok(())
}
