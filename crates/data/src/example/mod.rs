//! Rendered conversations into tokens, each trained on or not.
//!
//! The whole text becomes tokens once; the spans are carried over by the bytes that each token stands for. Prompt and answer
//! are never tokenised apart, so training sees the tokens that the text has.
//!
//! A row of more than `max_tokens` tokens is cut, left out, or split into several examples, as `Overlong` says.
//!
//! A token that straddles the edge of a span belongs to where its first byte lies: one that begins in the prompt and ends in
//! the answer is part of the prompt, as it is for those who mask the first n tokens. Straddling tokens are counted.

mod split;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::conversation::{Conversation, Origin};
use crate::error::DataError;
use crate::template::{Rendered, Template, TrainOn};
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
#[derive(schemars::JsonSchema)]
pub enum Overlong {
    /// Its end is cut off.
    #[default]
    Truncate,
    /// It is left out.
    Drop,
    /// A conversation becomes several, each of as many questions with their answers as fit and with the same system
    /// message; one that is too long alone is cut. A text becomes pieces, each of which repeats the last token of the one
    /// before, so that every token is predicted once. Other rows are cut.
    Split,
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
        /// The example.
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

/// Makes the examples of a row: one, or several where it is split.
///
/// # Errors
/// [`DataError::Row`] when the template cannot render the row; [`DataError::Tokenizer`] as [`encode`].
pub fn examples(
    row: &Conversation,
    template: &Template,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Vec<Outcome>, DataError> {
    let maker = split::Maker {
        row,
        template,
        tokenizer,
        limits,
    };
    let mut outcomes = maker.outcomes()?;
    for outcome in &mut outcomes {
        if let Outcome::Kept { example, .. } = outcome {
            example.origin = row.origin.clone();
        }
    }
    Ok(outcomes)
}

/// Makes an example of a rendered conversation, which is cut where it should be split.
///
/// A finished answer is followed by the end-of-sequence token, trained on where the answer is, unless the text ends with
/// one already. The tokenizer's own prefix (LLaMA's beginning of sequence) stands first, unless the text spells out its
/// special tokens.
///
/// # Errors
/// [`TokenizerError`] when the tokenizers library refuses, or the tokenizer has no end of sequence.
pub fn encode(
    rendered: &Rendered,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Outcome, TokenizerError> {
    Ok(limits.apply(Tokens::of(rendered, tokenizer)?))
}

/// The tokens of a rendered conversation, however many.
#[derive(Debug, Default)]
struct Tokens {
    ids: Vec<u32>,
    trained: Vec<bool>,
    straddling: usize,
}

impl Tokens {
    fn of(rendered: &Rendered, tokenizer: &Tokenizer) -> Result<Tokens, TokenizerError> {
        let encoding = tokenizer.encode(&rendered.text)?;
        let marks = carry(&rendered.trained, &encoding.offsets);
        let prefix = prefix(rendered, tokenizer, &encoding.ids);

        let mut trained = vec![false; prefix.len()];
        trained.extend(marks.trained);
        let mut ids = [prefix, &encoding.ids].concat();
        if rendered.complete && !ends(&rendered.text, tokenizer) {
            ids.push(tokenizer.eos_id()?);
            trained.push(rendered.end_trained);
        }
        if let Some(first) = trained.first_mut() {
            *first = false;
        }
        Ok(Tokens {
            ids,
            trained,
            straddling: marks.straddling,
        })
    }
}

impl Limits {
    fn apply(&self, tokens: Tokens) -> Outcome {
        let Tokens {
            ids: mut tokens,
            mut trained,
            straddling,
        } = tokens;
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

/// Whether the text ends with an end-of-sequence token, white space after it aside.
fn ends(text: &str, tokenizer: &Tokenizer) -> bool {
    let text = text.trim_end();
    let mut ends = tokenizer
        .eos_ids()
        .iter()
        .filter_map(|&id| tokenizer.token(id));
    ends.any(|end| text.ends_with(&end))
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

#[cfg(test)]
mod originals;
#[cfg(test)]
mod tests;
