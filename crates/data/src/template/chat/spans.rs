//! Where a chat template's text has what a message says.
//!
//! The conversation is rendered again with a mark in the message, which tells where its words stand and what follows them;
//! without what comes after the message, which tells how its turn ends; and up to an answer as a generation prompt, which
//! tells where the model begins to speak.

use std::ops::Range;

use serde_json::Value;

use super::super::RenderError;
use super::super::jinja::HERE;
use super::{Chat, Turns};
use crate::conversation::{Message, Role};

/// A search in the text of a conversation.
pub(super) struct Search<'a> {
    pub(super) chat: &'a Chat,
    pub(super) turns: &'a Turns<'a>,
    pub(super) text: &'a str,
}

/// Where a mark can stand in a message.
#[derive(Clone, Copy)]
enum Place {
    /// Instead of its words.
    Content,
    /// Instead of the name of the last function that it calls.
    Call,
}

/// Where a message's words, or the name of the function, stand: they may begin before `start` where that is not known.
struct Words {
    start: Option<usize>,
    end: usize,
    place: Place,
}

/// A span's edge, or why it cannot be found.
type Found<T> = Result<T, &'static str>;

impl Search<'_> {
    /// What `messages[index]` says, with what ends it.
    pub(super) fn span(&self, index: usize) -> Result<Range<usize>, RenderError> {
        let role = self.turns.messages[index].role;
        let span = || {
            let words = self.words(index)?;
            let start = match role {
                Role::Assistant => self.start(index, &words),
                _ => words.start(),
            };
            Ok(start?..self.end(index, &words)?)
        };
        span().map_err(|why| RenderError::SpanNotFound { index, role, why })
    }

    /// Whether the text has what `messages[index]` calls.
    pub(super) fn calls(&self, index: usize) -> bool {
        let mut changed = self.turns.clone();
        let marked = Place::Call.mark(&mut changed.messages[index]);
        // A template may refuse the mark as a name: then it does look at calls.
        marked.is_none_or(|()| {
            let text = self.chat.text(&changed, false);
            text.map_or(true, |text| text.contains(HERE))
        })
    }

    /// Where the words of `messages[index]` stand, by rendering with a mark in their place.
    fn words(&self, index: usize) -> Found<Words> {
        let calls = self.turns.messages[index].more.contains_key("tool_calls");
        let places = if calls {
            &[Place::Call, Place::Content][..]
        } else {
            &[Place::Content]
        };
        let around = |&place| Some((place, self.around(self.turns, index, place)?));
        let (place, (before, after)) = places
            .iter()
            .find_map(around)
            .ok_or("its content does not appear once")?;
        let end = self.text.len().checked_sub(after.len());
        let end = end
            .filter(|_| self.text.ends_with(&after))
            .ok_or("the text after it depends on its content")?;
        // A template may take the content apart (reasoning and answer) and write more before it than before the mark.
        let start = before.len() <= end && self.text.starts_with(&before);
        Ok(Words {
            start: start.then_some(before.len()),
            end,
            place,
        })
    }

    /// The text of `turns` before and after that place in `messages[index]`, if it appears once.
    fn around(&self, turns: &Turns, index: usize, place: Place) -> Option<(String, String)> {
        let mut changed = turns.clone();
        place.mark(&mut changed.messages[index])?;
        let text = self.chat.text(&changed, false).ok()?;
        let mut around = text.split(HERE);
        match (around.next(), around.next(), around.next()) {
            (Some(before), Some(after), None) => Some((before.into(), after.into())),
            _ => None,
        }
    }

    /// Where the model begins to speak: where the generation prompt ends, at or before the answer's words.
    fn start(&self, index: usize, words: &Words) -> Found<usize> {
        const MISMATCH: &str = "the generation prompt is not how the answer's turn begins";
        let prompt = self.chat.text(&self.turns.first(index), true);
        let prompt = prompt.map_err(|_| "the template makes no generation prompt for it")?;
        if prompt.len() <= words.start.unwrap_or(words.end) && self.text.starts_with(&prompt) {
            return Ok(prompt.len());
        }
        // Some templates write earlier turns anew when later ones follow. Where the answer is the last turn, its words
        // must still follow the generation prompt; what stands between them is looked for here, and is the model's too.
        let (before, _) = self
            .around(&self.turns.first(index + 1), index, words.place)
            .ok_or(MISMATCH)?;
        let between = before.strip_prefix(&prompt).ok_or(MISMATCH)?;
        let start = words.start()?;
        let own = self.text[..start].strip_suffix(between);
        match (own, words.place) {
            (Some(own), _) => Ok(own.len()),
            (None, Place::Content) => Ok(start),
            (None, Place::Call) => Err(MISMATCH),
        }
    }

    /// Where the turn ends: after the token that ends it, or where its text does when nothing follows.
    fn end(&self, index: usize, words: &Words) -> Found<usize> {
        let ends = &self.chat.ends;
        if let Some(end) = end_after(self.text, words.end, ends) {
            return Ok(end);
        }
        let turn = self.around(&self.turns.first(index + 1), index, words.place);
        if let Some((_, rest)) = turn {
            let rest = up_to_end(&rest, ends);
            if self.text[words.end..].starts_with(rest) {
                return Ok(words.end + rest.len());
            }
        }
        match words.place {
            Place::Content => end_after(self.text, words.end, &self.chat.special),
            Place::Call => None,
        }
        .ok_or("no special token ends it, and its turn ends differently once later turns follow")
    }
}

impl Place {
    /// Puts the mark there, if the message has such a place.
    fn mark(self, message: &mut Message) -> Option<()> {
        let here = HERE.to_string();
        match self {
            Place::Content => message.content = here,
            Place::Call => {
                let call = message
                    .more
                    .get_mut("tool_calls")?
                    .as_array_mut()?
                    .last_mut()?;
                let function = match call.get("function") {
                    Some(_) => call.get_mut("function")?,
                    None => call,
                };
                *function.get_mut("name")? = Value::String(here);
            }
        }
        Some(())
    }
}

impl Words {
    fn start(&self) -> Found<usize> {
        self.start
            .ok_or("the text before it depends on its content")
    }
}

/// The end of the one of `tokens` that follows `at`, white space between them aside.
pub(super) fn end_after(text: &str, at: usize, tokens: &[String]) -> Option<usize> {
    let rest = &text[at..];
    let spaces = rest.len() - rest.trim_start().len();
    let token = tokens
        .iter()
        .find(|token| rest[spaces..].starts_with(token.as_str()))?;
    Some(at + spaces + token.len())
}

/// The text without the white space after the one of `tokens` that ends it, if one does.
fn up_to_end<'t>(text: &'t str, tokens: &[String]) -> &'t str {
    let trimmed = text.trim_end();
    if tokens.iter().any(|token| trimmed.ends_with(token)) {
        trimmed
    } else {
        text
    }
}
