//! How probable a model finds texts.
//!
//! What several texts have in common at their beginning (a header of answered questions, the question before its choices)
//! is computed once a sequence. Rows are not padded, so their order is that of the file.
//!
//! Source of the split into context and continuation: lm-evaluation-harness 0.4.13, `TemplateLM._encode_pair`.

use simmer_data::Tokenizer;
use simmer_data::tokenizer::TokenizerError;
use simmer_model::{LlamaForCausalLM, Scored, Sequence, Target};

use crate::question::Pair;

/// Tokens whose probability is asked for, and those before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// All of them.
    pub(crate) tokens: Vec<u32>,
    /// Whether each is asked for; the first never is.
    pub(crate) asked: Vec<bool>,
    /// Tokens that were cut off at the beginning.
    pub(crate) cut: usize,
}

impl Row {
    /// Tokens whose probability is asked for.
    pub(crate) fn asked_for(&self) -> usize {
        self.asked.iter().filter(|asked| **asked).count()
    }

    /// The tokens of a pair, of which a model takes `limit` with the last one left out, as it is only predicted.
    pub(crate) fn of(
        pair: &Pair,
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<Self, TokenizerError> {
        let (tokens, context) = tokens(pair, tokenizer)?;
        let cut = tokens.len().saturating_sub(limit + 1);
        let asked = (cut..tokens.len()).map(|place| place >= context.max(cut + 1));
        Ok(Self {
            asked: asked.collect(),
            tokens: tokens[cut..].to_vec(),
            cut,
        })
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
    // space at the end of a context belongs to the first word after it
    let kept = context.trim_end();
    let encode = |text: &str| {
        let ids = tokenizer.encode(text)?.ids;
        Ok::<_, TokenizerError>([tokenizer.prefix(), &ids].concat())
    };
    let whole = encode(&format!("{context}{continuation}"))?;
    let context = encode(kept)?;
    // where a token would reach over the edge, the context keeps its own, as in the harness
    let rest = whole.get(context.len()..).unwrap_or_default();
    Ok(([context.as_slice(), rest].concat(), context.len()))
}

/// Computes rows together, as many as fit into a sequence of so many tokens.
pub(crate) fn score(model: &LlamaForCausalLM, rows: &[&Row]) -> Vec<Vec<Scored>> {
    // a row's last token is predicted and nothing more
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
    let shared = Sequence::sharing_prefixes(&seen);
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

/// The sum over a row's tokens.
pub(crate) fn log_likelihood(scored: &[Scored]) -> f64 {
    scored.iter().map(|token| f64::from(token.log_prob)).sum()
}
