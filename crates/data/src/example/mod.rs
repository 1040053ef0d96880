//! Tokenises rendered conversations and marks the tokens that are trained on.
//!
//! The text is tokenised once, as a whole, and spans are mapped to tokens by byte offsets. Prompt and answer are never
//! tokenised separately, so training sees the tokens of the whole text.
//!
//! A row with more than `max_tokens` tokens is truncated, dropped, or split into several examples, depending on
//! `Overlong`.
//!
//! A token across the edge of a span belongs to the side of its first byte. A token that starts in the prompt and ends
//! in the answer is part of the prompt, as in programs that mask the first n tokens. Such tokens are counted as
//! straddling.

mod split;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::conversation::{Conversation, Origin, Role};
use crate::error::DataError;
use crate::template::{Rendered, Template, TrainOn};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// One conversation as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Which tokens are labels: one flag per token. The first token is never a label, because nothing precedes it.
    pub trained: Vec<bool>,
    /// The row it came from.
    pub origin: Origin,
}

impl Example {
    /// The number of labels.
    pub fn targets(&self) -> usize {
        self.trained.iter().filter(|&&trained| trained).count()
    }
}

/// What happens to a row with more than `max_tokens` tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Overlong {
    /// It is truncated.
    #[default]
    Truncate,
    /// It is dropped.
    Drop,
    /// A conversation is split into several examples: each has the system message and as many questions with their
    /// answers as fit. A single question that is too long is truncated. A text is split into pieces; each piece repeats
    /// the last token of the previous one, so that every token is predicted once. Other rows are truncated.
    Split,
}

/// How rendered conversations become examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of tokens in an example.
    pub max_tokens: usize,
    /// What happens to a row with more.
    pub overlong: Overlong,
    /// Which tokens are trained on.
    pub train_on: TrainOn,
}

/// The result of encoding a rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An example, possibly truncated.
    Kept {
        /// The example.
        example: Example,
        /// Tokens removed from its end.
        cut: usize,
        /// Labels among those.
        cut_targets: usize,
        /// Tokens across the start or end of an answer.
        straddling: usize,
    },
    /// Dropped, because it has more than `max_tokens` tokens.
    Overlong {
        /// The number of its tokens.
        tokens: usize,
    },
    /// Dropped, because it has no token to train on.
    Untrained {
        /// The number of tokens before truncation.
        tokens: usize,
        /// Labels among those, all removed by truncation.
        targets: usize,
    },
    /// Dropped, because the row gives all of its answers weight 0.
    Weightless {
        /// The number of tokens before truncation.
        tokens: usize,
    },
}

/// The tokens of a generation prompt.
///
/// # Errors
/// [`TokenizerError`] if the tokenizers library fails.
pub fn prompt_tokens(prompt: &Rendered, tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
    let tokens = tokenizer.encode(&prompt.text)?.ids;
    let prefix = prefix(prompt, tokenizer, &tokens);
    Ok([prefix, &tokens].concat())
}

/// A row as text, and what became of it.
#[derive(Debug)]
pub(crate) struct EncodedRow {
    /// The whole row, rendered.
    pub(crate) rendered: Rendered,
    /// One outcome, or several if the row is split.
    pub(crate) outcomes: Vec<Outcome>,
}

/// Renders and tokenises a row. The result is one example, or several if the row is split.
///
/// # Errors
/// [`DataError::Row`] if the template cannot render the row; [`DataError::Tokenizer`] as [`encode`].
pub fn examples(
    row: &Conversation,
    template: &Template,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Vec<Outcome>, DataError> {
    Ok(encode_row(row, template, tokenizer, limits)?.outcomes)
}

/// The same as [`examples`], with the rendered text, so that no caller renders a row a second time.
pub(crate) fn encode_row(
    row: &Conversation,
    template: &Template,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<EncodedRow, DataError> {
    let maker = split::Maker {
        row,
        template,
        tokenizer,
        limits,
    };
    let rendered = maker.render(row, limits.train_on)?;
    let mut outcomes = maker.outcomes(&rendered)?;
    for outcome in &mut outcomes {
        match outcome {
            Outcome::Kept { example, .. } => example.origin = row.origin.clone(),
            Outcome::Untrained { tokens, targets: 0 } if weightless(row) => {
                *outcome = Outcome::Weightless { tokens: *tokens };
            }
            _ => {}
        }
    }
    Ok(EncodedRow { rendered, outcomes })
}

/// Whether the row has answers, and takes all of them out of the loss.
fn weightless(row: &Conversation) -> bool {
    let messages = row.messages().unwrap_or_default();
    let mut answers = messages
        .iter()
        .filter(|message| message.role == Role::Assistant)
        .peekable();
    answers.peek().is_some() && answers.all(|answer| answer.train == Some(false))
}

/// Encodes a rendered conversation as one example. With [`Overlong::Split`], too, a long one is truncated.
///
/// The EOS token is added after a finished answer, unless the text already ends with one; it is trained on if the
/// answer is. The tokenizer's prefix (LLaMA's BOS token) is put first, unless the text contains its own special tokens.
///
/// # Errors
/// [`TokenizerError`] if the tokenizers library fails, or the tokenizer has no EOS token.
pub fn encode(
    rendered: &Rendered,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Outcome, TokenizerError> {
    Ok(limits.apply(Tokens::of(rendered, tokenizer)?))
}

/// The tokens of a rendered conversation, without a limit.
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

/// The tokens to put before `tokens`; none if the text starts with them or contains its own special tokens.
fn prefix<'t>(rendered: &Rendered, tokenizer: &'t Tokenizer, tokens: &[u32]) -> &'t [u32] {
    let prefix = tokenizer.prefix();
    if rendered.own_specials || tokens.starts_with(prefix) {
        &[]
    } else {
        prefix
    }
}

/// Whether the text ends with an EOS token; white space after it is ignored.
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
