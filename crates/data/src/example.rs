//! Rendered conversations into tokens, each trained on or not.
//!
//! The whole text becomes tokens once; the spans are carried over by the bytes that each token stands for. Prompt and answer
//! are never tokenised apart, so training sees the tokens that the text has.
//!
//! A token that straddles the edge of a span belongs to where its first byte lies: one that begins in the prompt and ends in
//! the answer is part of the prompt, as it is for those who mask the first n tokens. Straddling tokens are counted.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::conversation::Origin;
use crate::template::{Rendered, TrainOn};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// One conversation as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Which tokens the model is to predict; as many as `tokens`. Never the first, which nothing precedes.
    pub trained: Vec<bool>,
    /// The row it came from.
    pub origin: Origin,
}

impl Example {
    /// How many tokens the model is to predict.
    pub fn targets(&self) -> usize {
        self.trained.iter().filter(|&&trained| trained).count()
    }
}

/// What becomes of a row with more than `max_tokens` tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlong {
    /// Its end is cut off.
    #[default]
    Truncate,
    /// It is left out.
    Drop,
}

/// How rendered conversations become examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most tokens of a row.
    pub max_tokens: usize,
    /// What becomes of a row with more.
    pub overlong: Overlong,
    /// Which tokens are trained on.
    pub train_on: TrainOn,
}

/// What became of a rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An example, perhaps cut.
    Kept {
        /// The example; its origin is the caller's to set.
        example: Example,
        /// Tokens cut off its end.
        cut: usize,
        /// Tokens to be predicted among those.
        cut_targets: usize,
        /// Tokens that straddle the edge of an answer.
        straddling: usize,
    },
    /// Left out, having more than `max_tokens` tokens.
    Overlong {
        /// How many it has.
        tokens: usize,
    },
    /// Left out, having no token to train on.
    Untrained {
        /// Tokens in all, before the cut.
        tokens: usize,
        /// Tokens to be predicted among those, all of them cut off.
        targets: usize,
    },
}

/// The tokens of a text that the model goes on from.
///
/// # Errors
/// [`TokenizerError`] when the tokenizers library refuses.
pub fn prompt_tokens(prompt: &Rendered, tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
    let tokens = tokenizer.encode(&prompt.text)?.ids;
    let prefix = prefix(prompt, tokenizer, &tokens);
    Ok([prefix, &tokens].concat())
}

/// Makes an example of a rendered conversation.
///
/// A finished answer is followed by the end-of-sequence token, trained on, unless it ends with one already. The
/// tokenizer's own prefix (LLaMA's beginning of sequence) stands first, unless the text spells out its special tokens.
///
/// # Errors
/// [`TokenizerError`] when the tokenizers library refuses, or the tokenizer has no end of sequence.
pub fn encode(
    rendered: &Rendered,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Outcome, TokenizerError> {
    let encoding = tokenizer.encode(&rendered.text)?;
    let marks = carry(&rendered.trained, &encoding.offsets);
    let prefix = prefix(rendered, tokenizer, &encoding.ids);

    let mut trained = vec![false; prefix.len()];
    trained.extend(&marks.trained);
    let mut tokens = [prefix, &encoding.ids].concat();
    if rendered.complete && !ends(&tokens, &trained, tokenizer.eos_ids()) {
        tokens.push(tokenizer.eos_id()?);
        trained.push(true);
    }
    if limits.train_on == TrainOn::Everything {
        trained.fill(true);
    }
    if let Some(first) = trained.first_mut() {
        *first = false;
    }
    Ok(limits.apply(tokens, trained, marks.straddling))
}

impl Limits {
    fn apply(&self, mut tokens: Vec<u32>, mut trained: Vec<bool>, straddling: usize) -> Outcome {
        let count = |trained: &[bool]| trained.iter().filter(|&&trained| trained).count();
        let (all, targets) = (tokens.len(), count(&trained));
        if all > self.max_tokens && self.overlong == Overlong::Drop {
            return Outcome::Overlong { tokens: all };
        }
        tokens.truncate(self.max_tokens);
        trained.truncate(self.max_tokens);
        let kept = count(&trained);
        if kept == 0 {
            return Outcome::Untrained {
                tokens: all,
                targets,
            };
        }
        Outcome::Kept {
            cut: all - tokens.len(),
            cut_targets: targets - kept,
            straddling,
            example: Example {
                tokens,
                trained,
                origin: Origin::default(),
            },
        }
    }
}

/// The tokens to put before `tokens`: none where the text begins with them or spells out its own.
fn prefix<'t>(rendered: &Rendered, tokenizer: &'t Tokenizer, tokens: &[u32]) -> &'t [u32] {
    let prefix = tokenizer.prefix();
    if rendered.own_specials || tokens.starts_with(prefix) {
        &[]
    } else {
        prefix
    }
}

/// Whether the last answer ends with an end-of-sequence token.
fn ends(tokens: &[u32], trained: &[bool], eos: &[u32]) -> bool {
    let last = trained.iter().rposition(|&trained| trained);
    last.is_some_and(|last| eos.contains(&tokens[last]))
}

struct Marks {
    trained: Vec<bool>,
    straddling: usize,
}

/// Marks the tokens whose first byte lies in one of `spans`, which are in order.
fn carry(spans: &[Range<usize>], offsets: &[Range<usize>]) -> Marks {
    let mut straddling = 0;
    let mut spans = spans.iter().peekable();
    let trained = offsets.iter().map(|token| {
        while spans.next_if(|span| span.end <= token.start).is_some() {}
        let Some(span) = spans.peek() else {
            return false;
        };
        let crosses = |edge: usize| token.start < edge && edge < token.end;
        straddling += usize::from(crosses(span.start) || crosses(span.end));
        span.contains(&token.start)
    });
    Marks {
        trained: trained.collect(),
        straddling,
    }
}
