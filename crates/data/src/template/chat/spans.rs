//! Finds the span of a message in a chat template's text.
//!
//! The conversation is rendered again in three ways. With a mark in place of the message's content, the text shows
//! where the content is and what follows it. Without the later messages, it shows how the message's turn ends. As a
//! generation prompt up to an answer, it shows where the model starts to generate.

use std::ops::Range;

use serde_json::Value;

use super::super::RenderError;
use super::super::jinja::HERE;
use super::{Chat, Turns};
use crate::conversation::{Message, Role};

/// The mark as an escape of JSON: a surrogate pair.
const HERE_IN_ASCII: &str = r"\udbbf\udfff";

/// A search in the text of a conversation.
pub(super) struct Search<'a> {
    pub(super) chat: &'a Chat,
    pub(super) turns: &'a Turns<'a>,
    pub(super) text: &'a str,
}

/// The span of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) range: Range<usize>,
    /// Whether it starts elsewhere than where the generation prompt ends.
    pub(super) other_start: bool,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Span {
        Span {
            range,
            other_start: false,
        }
    }
}

/// The part of a message that a mark can replace.
#[derive(Clone, Copy)]
enum Place {
    /// Its content.
    Content,
    /// The name of the last function that it calls.
    Call,
}

/// The position of a message's content, or of the name of the function that it calls. `start` is `None` if only the end
/// is known.
struct Words {
    start: Option<usize>,
    end: usize,
    place: Place,
}

/// Bytes of a result that are not searched for, because they may be elsewhere, too.
const SHORT: usize = 16;

/// Why the start of an answer cannot be found.
const MISMATCH: &str = "the answer's turn does not start with the generation prompt";

/// Why the start of an answer after another one cannot be found.
const SECOND: &str = "it follows another answer, and the template has no generation prompt there";

/// A span's edge, or why it cannot be found.
type Found<T> = Result<T, &'static str>;

impl Search<'_> {
    /// The span of `messages[index]`, including the token that ends it.
    pub(super) fn span(&self, index: usize) -> Result<Span, RenderError> {
        let role = self.turns.messages[index].role;
        let span = || {
            let words = self.words(index)?;
            let (start, other_start) = match role {
                Role::Assistant => self.start(index, &words)?,
                _ => (words.start()?, false),
            };
            let range = start..self.end(index, &words)?;
            if !self.has_calls(index, &words, &range) {
                return Err("its text and its calls are in different places");
            }
            Ok(Span { range, other_start })
        };
        span().map_err(|why| RenderError::SpanNotFound {
            message: self.turns.list.at(index),
            role,
            why,
            end: self.chat.ends.first().cloned().unwrap_or_default(),
        })
    }

    /// Whether the text has the content of `messages[index]`, in whatever form.
    pub(super) fn says(&self, index: usize) -> bool {
        let message = &self.turns.messages[index];
        let content = message.content.trim();
        // The few characters of a short result may be elsewhere in the text, too.
        let short = message.role == Role::Tool && content.len() < SHORT;
        if content.is_empty() || !short && self.text.contains(content) {
            return true;
        }
        let mut changed = self.turns.clone();
        let marked = Place::Content.mark(&mut changed.messages[index]);
        // A template that refuses the mark does read the content.
        marked.is_none_or(|_| {
            let text = self.chat.text(&changed, false);
            text.map_or(true, |text| {
                // the mark, or as `tojson(ensure_ascii=true)` writes it
                text.contains(HERE) || text.contains(HERE_IN_ASCII)
            })
        })
    }

    /// Whether the text has the tool calls of `messages[index]`.
    pub(super) fn calls(&self, index: usize) -> bool {
        let mut changed = self.turns.clone();
        let marked = Place::Call.mark(&mut changed.messages[index]);
        // A template that refuses the mark as a name does read the calls.
        marked.is_none_or(|_| {
            let text = self.chat.text(&changed, false);
            text.map_or(true, |text| text.contains(HERE))
        })
    }

    /// Whether the calls of `messages[index]` are in this range, whose place was found by its content.
    fn has_calls(&self, index: usize, words: &Words, range: &Range<usize>) -> bool {
        if let Place::Call = words.place {
            return true;
        }
        let mut changed = self.turns.clone();
        if Place::Call.mark(&mut changed.messages[index]).is_none() {
            return true;
        }
        let text = self.chat.text(&changed, false).unwrap_or_default();
        text.split_once(HERE).is_some_and(|(before, _)| {
            self.text.starts_with(before) && range.contains(&before.len())
        })
    }

    /// The position of the content of `messages[index]`, found by rendering with a mark in its place.
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
            .ok_or("its content does not appear exactly once")?;
        let end = self.text.len().checked_sub(after.len());
        let end = end
            .filter(|_| self.text.ends_with(&after))
            .ok_or("the text after it depends on its content")?;
        // A template may split the content (reasoning and answer) and write more before it than before the mark.
        let start = before.len() <= end && self.text.starts_with(&before);
        Ok(Words {
            start: start.then_some(before.len()),
            end,
            place,
        })
    }

    /// The text of `turns` before and after that part of `messages[index]`, if it appears once. The name of a function may
    /// appear again, because some templates write it with the function's result, too.
    fn around(&self, turns: &Turns, index: usize, place: Place) -> Option<(String, String)> {
        let mut changed = turns.clone();
        let own = place.mark(&mut changed.messages[index])?;
        let text = self.chat.text(&changed, false).ok()?;
        let (before, after) = text.split_once(HERE)?;
        let after = match place {
            Place::Call => after.replace(HERE, &own),
            Place::Content if after.contains(HERE) => return None,
            Place::Content => after.into(),
        };
        Some((before.into(), after))
    }

    /// Where the model starts to generate: the end of the generation prompt, at or before the answer's content. Also
    /// whether the turn starts otherwise than the generation prompt ends.
    fn start(&self, index: usize, words: &Words) -> Found<(usize, bool)> {
        let prompt = self.chat.text(&self.turns.first(index), true);
        let prompt = prompt.map_err(|_| "the template cannot render a generation prompt for it")?;
        if let Some(start) = self.second(index, words, &prompt)? {
            return Ok((start, false));
        }
        if prompt.len() <= words.start.unwrap_or(words.end) && self.text.starts_with(&prompt) {
            return Ok((prompt.len(), false));
        }
        // Some templates render earlier turns differently when later turns follow. If the answer is rendered as the
        // last turn, its content must still follow the generation prompt. Any text between the two is generated by the
        // model, too; so it is searched for before the content.
        let (before, _) = self
            .around(&self.turns.first(index + 1), index, words.place)
            .ok_or(MISMATCH)?;
        let (common, other_start) = match before.strip_prefix(&prompt) {
            Some(_) => (prompt.len(), false),
            None => self.common(index, &prompt, &before).ok_or(MISMATCH)?,
        };
        let between = &before[common..];
        let start = words.start()?;
        let own = self.text[..start].strip_suffix(between);
        match (own, words.place) {
            (Some(own), _) => Ok((own.len(), other_start)),
            (None, Place::Content) => Ok((start, other_start)),
            // There is more between a turn's start and the name of a function than the model's thoughts.
            (None, Place::Call) => {
                let from = index.checked_sub(1).map(|last| self.words(last));
                let from = from.and_then(Result::ok).ok_or(MISMATCH)?.end;
                let turn = self.text.get(from..start).ok_or(MISMATCH)?;
                let header = self.header(index, &prompt).ok_or(MISMATCH)?;
                let end = end_of_header(&header, turn).ok_or(MISMATCH)?;
                Ok((from + end, other_start))
            }
        }
    }

    /// The start of an answer that follows another one, if the template has no generation prompt there but does start a
    /// turn: after the header that the first answer of the two has.
    fn second(&self, index: usize, words: &Words, prompt: &str) -> Found<Option<usize>> {
        let messages = &self.turns.messages[..index];
        let question = messages.iter().rposition(|m| m.role != Role::Assistant);
        let first = question.map_or(0, |question| question + 1);
        let history = self.chat.text(&self.turns.first(index), false);
        if first == index || history.is_ok_and(|text| text.trim_end() != prompt.trim_end()) {
            return Ok(None);
        }
        let start = words.start()?;
        let from = self.words(index - 1).map_or(prompt.len(), |last| last.end);
        let turn = self.text.get(from..start).ok_or(SECOND)?;
        if let Some(end) = self
            .added(first)
            .and_then(|header| end_of_header(&header, turn))
        {
            return Ok(Some(from + end));
        }
        // The two are one turn if nothing but white space is between them.
        let between = self.text.strip_prefix(prompt);
        let between = between.and_then(|rest| rest.get(..start.checked_sub(prompt.len())?));
        match between {
            Some(between) if between.trim().is_empty() => Ok(None),
            _ => Err(SECOND),
        }
    }

    /// What the generation prompt before `messages[index]` adds to the conversation.
    fn added(&self, index: usize) -> Option<String> {
        let prompt = self.chat.text(&self.turns.first(index), true).ok()?;
        let history = self.chat.text(&self.turns.first(index), false).ok()?;
        let added = prompt.strip_prefix(&history).map(str::to_owned);
        let added = added.or_else(|| self.header(index, &prompt));
        added.filter(|header| !header.trim().is_empty())
    }

    /// The end of the longest common beginning of the generation prompt and the answer's turn, in `before`: the text
    /// before the answer's content, with the answer as the last turn. Also whether the turn starts otherwise than the prompt.
    /// `None` if it cannot be told.
    ///
    /// Some generation prompts say more than the turn (R1's ends with `<think>`); and some templates write the turn
    /// before it otherwise if it is the last (Hermes 2 Pro's results of tools).
    fn common(&self, index: usize, prompt: &str, before: &str) -> Option<(usize, bool)> {
        let history = self.chat.text(&self.turns.first(index), false).ok()?;
        let header = prompt.strip_prefix(&history);
        if let (Some(header), Some(turn)) = (header, before.strip_prefix(&history)) {
            return Some((history.len() + shared(header, turn), true));
        }
        // The earlier turns are rendered otherwise now, so the header is searched for after the last of them.
        let from = self.end_of_words(index)?;
        let turn = before.get(from..)?;
        let whole = self.header(index, prompt);
        if let Some(whole) = whole.as_deref()
            && turn.starts_with(whole)
        {
            return Some((from + whole.len(), false));
        }
        if let Some(header) = header.filter(|header| !header.trim().is_empty()) {
            return Some((from + end_of_header(header, turn)?, true));
        }
        // The template always writes the generation prompt, or none at all.
        let common = shared(whole.as_deref()?, turn);
        (!turn[..common].trim().is_empty()).then_some((from + common, true))
    }

    /// The end of the generation prompt, after the content of the last message before the answer.
    fn header(&self, index: usize, prompt: &str) -> Option<String> {
        let turns = self.turns.first(index);
        let last = index.checked_sub(1)?;
        let calls = turns.messages[last].more.contains_key("tool_calls");
        let place = if calls { Place::Call } else { Place::Content };
        let mut changed = turns.clone();
        place.mark(&mut changed.messages[last])?;
        let marked = self.chat.text(&changed, true).ok()?;
        let (_, header) = marked.rsplit_once(HERE)?;
        prompt.ends_with(header).then(|| header.to_owned())
    }

    /// The end of the content of the message before `messages[index]`, if that is rendered as the last turn.
    fn end_of_words(&self, index: usize) -> Option<usize> {
        let turns = self.turns.first(index + 1);
        let text = self.chat.text(&turns, false).ok()?;
        let search = Search {
            chat: self.chat,
            turns: &turns,
            text: &text,
        };
        Some(search.words(index.checked_sub(1)?).ok()?.end)
    }

    /// The end of the first of `ends` after a call, if it is before the content of the next message.
    fn end_of_calls(&self, index: usize, words: &Words, ends: &[String]) -> Option<usize> {
        let next = match self.turns.messages.get(index + 1) {
            Some(_) => self.words(index + 1).ok()?.start?,
            None => self.text.len(),
        };
        let rest = self.text.get(words.end..next)?;
        let turn = up_to_end(rest, ends);
        (turn.len() < rest.len() || next == self.text.len()).then_some(words.end + turn.len())
    }

    /// The special token that follows the content of the message before this one.
    fn end_of_earlier(&self, index: usize) -> Option<String> {
        let end = self.words(index.checked_sub(1)?).ok()?.end;
        let after = end_after(self.text, end, &self.chat.special)?;
        Some(self.text[end..after].trim_start().to_owned())
    }

    /// The end of the turn: after the token that ends it, or else where its text ends when it is rendered as the last
    /// turn.
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
            Place::Call => self
                .end_of_calls(index, words, ends)
                .or_else(|| self.end_of_calls(index, words, &[self.end_of_earlier(index)?])),
        }
        .ok_or("no special token ends it, and its turn ends differently when later turns follow")
    }
}

impl Place {
    /// Replaces that part of the message with the mark, if the message has it, and returns what was there.
    fn mark(self, message: &mut Message) -> Option<String> {
        let here = HERE.to_string();
        match self {
            Place::Content => {
                message.null_content = false;
                Some(std::mem::replace(&mut message.content, here))
            }
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
                let name = function.get_mut("name")?;
                let own = name.as_str()?.to_owned();
                *name = Value::String(here);
                Some(own)
            }
        }
    }
}

impl Words {
    fn start(&self) -> Found<usize> {
        self.start
            .ok_or("the text before it depends on its content")
    }
}

/// The length of the longest common beginning of two texts that ends between words and marks such as `<think>`, so that
/// no token of the turn lies across its end.
fn shared(header: &str, turn: &str) -> usize {
    let pairs = header.char_indices().zip(turn.chars());
    let mut end = header.len().min(turn.len());
    if let Some(((place, _), _)) = pairs.into_iter().find(|((_, a), b)| a != b) {
        end = place;
    }
    loop {
        let common = &header[..end];
        let is_word = |c: char| c.is_alphanumeric();
        let in_word = |text: &str| common.ends_with(is_word) && text[end..].starts_with(is_word);
        let opened = common.rfind(['<', '[']);
        let closed = common.rfind(['>', ']']);
        end = match opened {
            // The mark that is open goes on, in one of the two at least.
            Some(open) if closed.is_none_or(|close| close < open) => open,
            _ if end == header.len() || end == turn.len() => return end,
            _ if in_word(header) || in_word(turn) => common.trim_end_matches(is_word).len(),
            _ => return end,
        };
    }
}

/// The end of a turn's header in the text from the end of the earlier turn to the answer's content. If the whole header is
/// not there, its beginning is searched for, without its last marks or lines. `None` if it is there more than once.
fn end_of_header(header: &str, turn: &str) -> Option<usize> {
    let mut header = header;
    while !header.trim().is_empty() {
        let mut places = turn.match_indices(header);
        match (places.next(), places.next()) {
            (Some((place, _)), None) => return Some(place + header.len()),
            (Some(_), Some(_)) => return None,
            (None, _) => header = &header[..last_part(header)],
        }
    }
    None
}

/// Where the last part of a header starts: its last mark such as `<think>`, or its last line.
fn last_part(header: &str) -> usize {
    let header = header.trim_end();
    let mark = header.rfind(['<', '[']).unwrap_or(0);
    let line = header.rfind('\n').map_or(0, |place| place + 1);
    mark.max(line)
}

/// The end of the one of `tokens` that follows `at`, if one does; white space between them is skipped.
pub(super) fn end_after(text: &str, at: usize, tokens: &[String]) -> Option<usize> {
    let rest = &text[at..];
    let spaces = rest.len() - rest.trim_start().len();
    let token = tokens
        .iter()
        .find(|token| rest[spaces..].starts_with(token.as_str()))?;
    Some(at + spaces + token.len())
}

/// The text up to the first of `tokens`; all of it if none is there.
fn up_to_end<'t>(text: &'t str, tokens: &[String]) -> &'t str {
    let ends = tokens.iter().filter(|token| !token.is_empty());
    let ends = ends.filter_map(|token| Some(text.find(token.as_str())? + token.len()));
    ends.min().map_or(text, |end| &text[..end])
}
