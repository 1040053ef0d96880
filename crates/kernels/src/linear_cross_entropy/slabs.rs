//! The loss with a frozen head on flex: one slab of the vocabulary after another, each read once.
//!
//! Axes as in [`super`].

use crate::buffer::buffer;
use crate::product::{Side, Weight, product};
use crate::simd::{exp, max, sum, vectorised};
use crate::threads;

/// Vocabulary entries per slab: their logits for a few hundred tokens fit into a cache.
const SLAB: usize = 2048;

/// The loss and, if `gradient` is set, the gradient of the hidden states, `[N, H]`.
pub(super) fn loss(
    hidden: &[f32],
    weight: Weight<'_>,
    targets: &[i64],
    gradient: bool,
) -> (f32, Option<Vec<f32>>) {
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
        let logits = &mut logits[..n * width]; // [N, s]
        product(hidden, slab, logits, false);
        threads::chunk_pairs(logits, width, &mut tokens, 1, |_, logits, token| {
            add_slab(logits, start, &mut token[0]);
        });
        if gradient {
            rescale(&mut d_hidden, &tokens);
            let slab = Weight {
                side: Side::Plain,
                ..slab
            };
            product(logits, slab, &mut d_hidden, true);
        }
    }
    let loss: f64 = tokens.iter().map(Token::loss).sum();
    if !gradient {
        return (loss as f32, None);
    }
    threads::chunks(&mut d_hidden, h, |token, sum| {
        let token = &tokens[token];
        let mut target = buffer(h);
        weight.values.widen_chunk(token.target * h, &mut target);
        for (sum, target) in sum.iter_mut().zip(target) {
            *sum = *sum / token.sum - target;
        }
    });
    (loss as f32, Some(d_hidden))
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
    fn loss(&self) -> f64 {
        f64::from(self.sum.ln()) + f64::from(self.max) - f64::from(self.chosen)
    }
}

vectorised! {
    /// Adds a slab's logits to a token's softmax, and replaces them by `exp(z - max)`.
    fn add_slab(simd, logits: &'a mut [f32], start: usize, token: &'a mut Token) {
        if let Some(chosen) = token.target.checked_sub(start).and_then(|i| logits.get(i)) {
            token.chosen = *chosen;
        }
        let largest = max(simd, logits).max(token.max);
        token.factor = if token.sum > 0.0 { exp(token.max - largest) } else { 1.0 };
        token.sum *= token.factor;
        token.max = largest;
        let max = token.max;
        for logit in logits.iter_mut() {
            *logit = exp(*logit - max);
        }
        token.sum += sum(simd, logits);
    }
}
