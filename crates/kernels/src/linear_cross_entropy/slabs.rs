//! The loss with a frozen head on flex: one slab of the vocabulary after another, each read once.
//!
//! Axes as in [`super`].

use std::ops::Range;

use super::Wanted;
use crate::buffer::buffer;
use crate::product::{Numbers, Side, Sums, Term, Weight, product, products};
use crate::simd::{exp, max, sum, tanh, vectorised};
use crate::threads;

/// Vocabulary entries per slab: their logits for a few hundred tokens fit into a cache.
const SLAB: usize = 2048;

/// Exponentials that are summed before they are multiplied by the slopes of the soft cap.
const BLOCK: usize = 256;

/// Logits of their own, in place of those of the weight.
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    /// `[N, K]`
    pub(super) logits: &'a [f32],
    /// The K entries of the vocabulary.
    pub(super) ids: &'a [usize],
}

impl Own<'_> {
    /// The entries in a slab: column there, and place in `ids`.
    fn in_slab(&self, slab: Range<usize>) -> Vec<(usize, usize)> {
        let ids = self.ids.iter().enumerate();
        let here = ids.filter(|(_, id)| slab.contains(id));
        here.map(|(place, id)| (id - slab.start, place)).collect()
    }

    fn of_token(&self, token: usize) -> &[f32] {
        let k = self.ids.len();
        &self.logits[token * k..][..k]
    }

    /// The gradient of the logits, `[N, K]`, after the last slab.
    fn gradient(&self, tokens: &[Token], cap: Option<f32>) -> Vec<f32> {
        let mut gradient = Vec::with_capacity(self.logits.len());
        for (index, token) in tokens.iter().enumerate() {
            for (logit, id) in self.of_token(index).iter().zip(self.ids) {
                let (logit, slope) = match cap {
                    None => (*logit, 1.0),
                    Some(cap) => {
                        let share = tanh(*logit / cap);
                        (cap * share, slope(share))
                    }
                };
                let probability = exp(logit - token.max) / token.sum;
                let chosen = if *id == token.target { 1.0 } else { 0.0 };
                gradient.push((probability - chosen) * slope);
            }
        }
        gradient
    }
}

/// The loss and the gradients that were wanted.
pub(super) struct Found {
    pub(super) loss: f32,
    /// Of the hidden states, `[N, H]`.
    pub(super) hidden: Option<Vec<f32>>,
    /// Of logits of their own, `[N, K]`.
    pub(super) own: Option<Vec<f32>>,
}

/// The loss, and the gradients of the hidden states and of logits of their own that `wanted` names.
pub(super) fn loss(
    hidden: Numbers<'_>,
    weight: Weight<'_>,
    targets: &[i64],
    own: Option<Own<'_>>,
    cap: Option<f32>,
    wanted: Wanted,
) -> Found {
    let gradient = wanted.hidden;
    let [v, h] = [weight.rows, weight.columns];
    let n = targets.len();
    let mut tokens: Vec<Token> = targets
        .iter()
        .map(|target| Token {
            target: *target as usize,
            chosen: 0.0,
            max: f32::NEG_INFINITY,
            sum: 0.0,
            factor: 1.0,
        })
        .collect();
    let mut logits = buffer(n * SLAB.min(v));
    let mut d_hidden = vec![0.0; if gradient { n * h } else { 0 }];
    for start in (0..v).step_by(SLAB) {
        let width = SLAB.min(v - start);
        let slab = weight.slab(start, width);
        let replaced = own.map_or_else(Vec::new, |own| own.in_slab(start..start + width));
        let logits = &mut logits[..n * width]; // [N, s]
        multiply(hidden, hidden, slab, logits, false);
        threads::chunk_pairs(logits, width, &mut tokens, 1, |index, logits, token| {
            if let Some(own) = &own {
                let of_token = own.of_token(index);
                for (column, place) in &replaced {
                    logits[*column] = of_token[*place];
                }
            }
            match cap {
                None => add_slab(logits, start, &mut token[0]),
                Some(cap) => add_capped_slab(logits, start, cap, &mut token[0]),
            }
            // the rows of the weight have no part in the gradient
            for (column, _) in &replaced {
                logits[*column] = 0.0;
            }
        });
        if gradient {
            rescale(&mut d_hidden, &tokens);
            let slab = Weight {
                side: Side::Plain,
                ..slab
            };
            multiply(hidden, Numbers::F32(logits), slab, &mut d_hidden, true);
        }
    }
    let loss: f64 = tokens.iter().map(Token::loss).sum();
    let of_own = own.filter(|_| wanted.own);
    let of_own = of_own.map(|own| own.gradient(&tokens, cap));
    if !gradient {
        return Found {
            loss: loss as f32,
            hidden: None,
            own: of_own,
        };
    }
    threads::chunks(&mut d_hidden, h, |token, sum| {
        let token = &tokens[token];
        if own.is_some_and(|own| own.ids.contains(&token.target)) {
            for sum in sum {
                *sum /= token.sum;
            }
            return;
        }
        let mut target = buffer(h);
        weight.values.widen_chunk(token.target * h, &mut target);
        let slope = cap.map_or(1.0, |cap| slope(token.chosen / cap));
        for (sum, target) in sum.iter_mut().zip(target) {
            *sum = *sum / token.sum - slope * target;
        }
    });
    Found {
        loss: loss as f32,
        hidden: Some(d_hidden),
        own: of_own,
    }
}

/// `y = x · weight`, or `y += x · weight`: of bf16 values if the hidden states are in bf16.
fn multiply(hidden: Numbers<'_>, x: Numbers<'_>, weight: Weight<'_>, y: &mut [f32], add: bool) {
    match (hidden, x) {
        (Numbers::F32(_), Numbers::F32(x)) => product(x, weight, y, add),
        _ => products(&[Term { x, weight }], Sums::F32 { y, add }),
    }
}

/// Rescales the gradients summed so far from the old running maxima to the new ones.
fn rescale(d_hidden: &mut [f32], tokens: &[Token]) {
    if tokens.iter().all(|token| token.factor >= 1.0) {
        return;
    }
    let width = d_hidden.len() / tokens.len();
    threads::chunks(d_hidden, width, |token, sums| {
        for sum in sums {
            *sum *= tokens[token].factor;
        }
    });
}

/// The softmax of a token over the slabs so far.
#[derive(Debug)]
struct Token {
    /// Index of the target in the vocabulary.
    target: usize,
    /// Logit of the target.
    chosen: f32,
    /// Largest logit so far.
    max: f32,
    /// `Σ exp(z - max)`
    sum: f32,
    /// `exp(old max - max)`, from before the last slab to after it.
    factor: f32,
}

impl Token {
    /// Records the logits of a slab: that of the target, and the largest.
    #[inline(always)]
    fn see(&mut self, logits: &[f32], start: usize, largest: f32) {
        if let Some(chosen) = self.target.checked_sub(start).and_then(|i| logits.get(i)) {
            self.chosen = *chosen;
        }
        let largest = largest.max(self.max);
        self.factor = if self.sum > 0.0 {
            exp(self.max - largest)
        } else {
            1.0
        };
        self.sum *= self.factor;
        self.max = largest;
    }

    fn loss(&self) -> f64 {
        f64::from(self.sum.ln()) + f64::from(self.max) - f64::from(self.chosen)
    }
}

vectorised! {
    /// Adds a slab's logits to a token's softmax, and replaces them by `exp(z - max)`.
    fn add_slab(simd, logits: &'a mut [f32], start: usize, token: &'a mut Token) {
        token.see(logits, start, max(simd, logits));
        let max = token.max;
        for logit in logits.iter_mut() {
            *logit = exp(*logit - max);
        }
        token.sum += sum(simd, logits);
    }
}

/// The derivative of the soft cap where the capped logit is `share` of the cap.
#[inline(always)]
fn slope(share: f32) -> f32 {
    1.0 - share * share
}

vectorised! {
    /// As [`add_slab`], with a soft cap: `exp(z - max)` is summed, and replaces the logits multiplied by
    /// the slope of the cap.
    fn add_capped_slab(
        simd,
        logits: &'a mut [f32],
        start: usize,
        cap: f32,
        token: &'a mut Token,
    ) {
        for logit in logits.iter_mut() {
            *logit = cap * tanh(*logit / cap);
        }
        token.see(logits, start, max(simd, logits));
        let max = token.max;
        let mut exponentials = [0.0; BLOCK];
        for logits in logits.chunks_mut(BLOCK) {
            let exponentials = &mut exponentials[..logits.len()];
            for (exponential, logit) in exponentials.iter_mut().zip(logits) {
                *exponential = exp(*logit - max);
                *logit = *exponential * slope(*logit / cap);
            }
            token.sum += sum(simd, exponentials);
        }
    }
}
