//! Splits rows that are too long into several examples.

use super::{Limits, Outcome, Overlong, Tokens};
use crate::conversation::{Content, Conversation, Message, Role};
use crate::error::DataError;
use crate::template::{Chosen, Rendered, Template, TrainOn};
use crate::tokenizer::Tokenizer;

/// Creates the examples of one row.
#[derive(Clone, Copy)]
pub(super) struct Maker<'a> {
    pub(super) row: &'a Conversation,
    pub(super) template: &'a Template,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) limits: &'a Limits,
}

impl Maker<'_> {
    /// The result for the row, whose whole text is `rendered`.
    pub(super) fn outcomes(&self, rendered: &Rendered) -> Result<Vec<Outcome>, DataError> {
        let whole = Tokens::of(rendered, self.tokenizer)?;
        let fits = whole.ids.len() <= self.limits.max_tokens;
        match &self.row.content {
            _ if fits || self.limits.overlong != Overlong::Split => {
                Ok(vec![self.limits.apply(whole)])
            }
            Content::Text(_) => Ok(self.pieces(&whole)),
            Content::Messages(messages) => {
                let parts = self.parts(messages)?;
                let whole = || vec![self.limits.apply(whole)];
                Ok(if parts.is_empty() { whole() } else { parts })
            }
            _ => Ok(vec![self.limits.apply(whole)]),
        }
    }

    /// Renders the row, or a part of it.
    pub(super) fn render(
        &self,
        row: &Conversation,
        train_on: TrainOn,
    ) -> Result<Rendered, DataError> {
        let rendered = self.template.render(row, train_on);
        rendered.map_err(|error| DataError::row(self.row.origin.clone(), error))
    }

    fn tokens(&self, part: &Conversation, train_on: TrainOn) -> Result<Tokens, DataError> {
        Ok(Tokens::of(&self.render(part, train_on)?, self.tokenizer)?)
    }

    /// Pieces of a text. Each starts with the last token of the previous piece, which is not predicted again.
    fn pieces(&self, whole: &Tokens) -> Vec<Outcome> {
        let length = self.limits.max_tokens;
        let step = length.saturating_sub(1).max(1);
        let starts = (0..whole.ids.len() - 1).step_by(step);
        let piece = |start: usize| {
            let range = start..whole.ids.len().min(start + length);
            let mut trained = whole.trained[range.clone()].to_vec();
            trained[0] = false;
            self.limits.apply(Tokens {
                ids: whole.ids[range].to_vec(),
                trained,
                straddling: if start == 0 { whole.straddling } else { 0 },
            })
        };
        starts.map(piece).collect()
    }

    /// Parts of a conversation: each has the system message and as many questions with their answers as fit. A part
    /// without anything to train on is only context for the next one, and is dropped.
    fn parts(&self, messages: &[Message]) -> Result<Vec<Outcome>, DataError> {
        let chosen = self.limits.train_on.choose(messages);
        let chosen = chosen.map_err(|error| DataError::row(self.row.origin.clone(), error))?;
        let mut messages = messages.to_vec();
        if let Chosen::Messages(chosen) = &chosen {
            for (message, &chosen) in messages.iter_mut().zip(chosen) {
                message.train = Some(chosen);
            }
        }
        let parts = Parts::of(&messages);
        let mut outcomes = Vec::new();
        let mut from = 0;
        while from < parts.count() {
            let to = self.longest(&parts, from)?;
            let part = parts.between(from, to);
            from = to;
            let train_on = match chosen {
                Chosen::Everything => TrainOn::Everything,
                Chosen::Messages(_) if part.iter().any(|m| m.train == Some(true)) => {
                    TrainOn::Marked
                }
                Chosen::Messages(_) => continue,
            };
            let tokens = self.tokens(&self.with(part), train_on)?;
            outcomes.push(self.limits.apply(tokens));
        }
        Ok(outcomes)
    }

    /// The end of the longest part that starts with question `from` and fits; it has at least one question.
    fn longest(&self, parts: &Parts, from: usize) -> Result<usize, DataError> {
        let fits = |to: usize| -> Result<bool, DataError> {
            let part = self.with(parts.between(from, to));
            // The number of tokens does not depend on the spans.
            let tokens = self.tokens(&part, TrainOn::Everything)?;
            Ok(tokens.ids.len() <= self.limits.max_tokens)
        };
        let (mut to, mut step) = (from + 1, 1);
        while to + step <= parts.count() && fits(to + step)? {
            to += step;
            step *= 2;
        }
        while step > 1 {
            step /= 2;
            if to + step <= parts.count() && fits(to + step)? {
                to += step;
            }
        }
        Ok(to)
    }

    /// The row with other messages.
    fn with(&self, messages: Vec<Message>) -> Conversation {
        Conversation {
            content: Content::Messages(messages),
            list: self.row.list.clone(),
            tools: self.row.tools.clone(),
            origin: self.row.origin.clone(),
        }
    }
}

/// A conversation, divided before each question.
struct Parts<'m> {
    messages: &'m [Message],
    /// The number of messages before the first question: 1 with a system message, otherwise 0.
    head: usize,
    /// The index of each question's first message.
    starts: Vec<usize>,
}

impl Parts<'_> {
    fn of(messages: &[Message]) -> Parts<'_> {
        let head = usize::from(messages.first().is_some_and(|m| m.role == Role::System));
        let asks = |index: usize| {
            messages[index].role == Role::User && messages[index - 1].role != Role::User
        };
        let later = (head + 1..messages.len()).filter(|&index| asks(index));
        Parts {
            messages,
            head,
            starts: std::iter::once(head).chain(later).collect(),
        }
    }

    fn count(&self) -> usize {
        self.starts.len()
    }

    /// The system message, and questions `from..to` with everything that follows each.
    fn between(&self, from: usize, to: usize) -> Vec<Message> {
        let end = self.starts.get(to).copied().unwrap_or(self.messages.len());
        [
            &self.messages[..self.head],
            &self.messages[self.starts[from]..end],
        ]
        .concat()
    }
}
