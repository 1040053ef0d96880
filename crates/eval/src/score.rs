//! Log-likelihoods of texts.
//!
//! A prefix that several texts share (few-shot examples, the question before its choices) is computed once per packed sequence.
//! Rows are not padded. Questions that begin alike are computed together (`evaluator/choices.rs`).
//!
//! Source for the split into context and continuation: lm-evaluation-harness 0.4.13, `TemplateLM._encode_pair`.

use simmer_data::Tokenizer;
use simmer_data::tokenizer::TokenizerError;
use simmer_model::{LlamaForCausalLM, Scored, Target};

use crate::question::Pair;

/// Tokens to score, and the tokens before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// All tokens.
    pub(crate) tokens: Vec<u32>,
    /// Whether each token is scored; the first never is.
    pub(crate) asked: Vec<bool>,
    /// The number of tokens truncated at the start.
    pub(crate) cut: usize,
}

impl Row {
    /// The number of scored tokens.
    pub(crate) fn asked_for(&self) -> usize {
        self.asked.iter().filter(|asked| **asked).count()
    }

    /// Tokens, truncated at the start to `limit + 1`: the model reads at most `limit` tokens, and the last token is only predicted.
    pub(crate) fn from_end(tokens: &[u32], asked: &[bool], limit: usize) -> Self {
        let cut = tokens.len().saturating_sub(limit + 1);
        let mut asked = asked[cut..].to_vec();
        if let Some(first) = asked.first_mut() {
            *first = false;
        }
        Self {
            tokens: tokens[cut..].to_vec(),
            asked,
            cut,
        }
    }

    /// The tokens of a pair, truncated as in [`Self::from_end`].
    pub(crate) fn of(
        pair: &Pair,
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<Self, TokenizerError> {
        let (tokens, context) = tokens(pair, tokenizer)?;
        let asked: Vec<bool> = (0..tokens.len()).map(|place| place >= context).collect();
        Ok(Self::from_end(&tokens, &asked, limit))
    }
}

/// The tokens of a pair, and how many of them are context.
fn tokens(pair: &Pair, tokenizer: &Tokenizer) -> Result<(Vec<u32>, usize), TokenizerError> {
    let Pair {
        context,
        continuation,
    } = pair;
    if context.is_empty() {
        let continuation = tokenizer.encode(continuation)?.ids;
        let first = match tokenizer.bos_id() {
            Some(bos) => bos,
            None => tokenizer.eos_id()?,
        };
        if continuation.first() == Some(&first) {
            return Ok((continuation, 1));
        }
        return Ok(([&[first], continuation.as_slice()].concat(), 1));
    }
    // trailing spaces of the context belong to the first word of the continuation
    let kept = context.trim_end();
    let whole = tokenizer.encode_with_prefix(&format!("{context}{continuation}"))?;
    let context = tokenizer.encode_with_prefix(kept)?;
    // if a token spans both, the context keeps its own tokens, as in the harness
    let rest = whole.get(context.len()..).unwrap_or_default();
    Ok(([context.as_slice(), rest].concat(), context.len()))
}

/// Scores rows together in one packed sequence.
pub(crate) fn score(model: &LlamaForCausalLM, rows: &[&Row]) -> Vec<Vec<Scored>> {
    // the last token of a row is only predicted
    let inputs: Vec<&[u32]> = rows
        .iter()
        .map(|row| &row.tokens[..row.tokens.len().saturating_sub(1)])
        .collect();
    let seen: Vec<&[u32]> = inputs
        .iter()
        .copied()
        .filter(|row| !row.is_empty())
        .collect();
    if seen.is_empty() {
        return vec![Vec::new(); rows.len()];
    }
    let shared = model.packed_for_scores(&seen);
    let mut places = shared.places.iter();
    let mut targets = Vec::new();
    let mut counts = Vec::with_capacity(rows.len());
    for (row, input) in rows.iter().zip(&inputs) {
        let before = targets.len();
        if !input.is_empty()
            && let Some(places) = places.next()
        {
            let next = row.tokens.iter().zip(&row.asked).skip(1);
            let next = next.zip(places).filter(|((_, asked), _)| **asked);
            targets.extend(next.map(|((token, _), place)| Target {
                place: *place,
                token: *token,
            }));
        }
        counts.push(targets.len() - before);
    }
    let mut scored = model.score_targets(&shared.sequence, &targets).into_iter();
    let counts = counts.into_iter();
    counts
        .map(|count| scored.by_ref().take(count).collect())
        .collect()
}

/// The sum of the log-probabilities of a row's tokens.
pub(crate) fn log_likelihood(scored: &[Scored]) -> f64 {
    scored.iter().map(|token| f64::from(token.log_prob)).sum()
}
