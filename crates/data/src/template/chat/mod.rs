//! The model's own chat template, and the span of each message in its text.
//!
//! A template renders text, but does not say which part of it is an answer. Templates with `{% generation %}` blocks
//! mark answers themselves; for the others, `spans.rs` finds them by rendering the conversation again with changes.

mod calls;
mod lost;
mod spans;

use std::collections::BTreeMap;
use std::ops::Range;

use chrono::NaiveDate;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind};

use super::concat::as_in_python;
use super::jinja::{CLOSE, Clock, HERE, OPEN, environment, mark_generation, within_steps};
use super::{Chosen, Oddities, RenderError, Rendered, TemplateError};
use crate::conversation::{Conversation, Layout, ListKey, Message, Role};
use crate::integer::Exact;
use crate::tokenizer::Tokenizer;
use lost::alias_thoughts;
use spans::{Search, Span, end_after};

/// The name of the only template in an environment.
const TEMPLATE: &str = "chat template";

/// A chat template of a tokenizer.
#[derive(Debug)]
pub(super) struct Chat {
    env: Environment<'static>,
    source: String,
    clock: Clock,
    specials: Vec<(String, Value)>,
    /// The texts of the EOS tokens.
    ends: Vec<String>,
    /// The texts of all special tokens.
    special: Vec<String>,
    /// Whether the template marks answers itself.
    marks: bool,
}

impl Chat {
    pub(super) fn of(tokenizer: &Tokenizer, name: &str) -> Result<Chat, TemplateError> {
        let folder = || tokenizer.path().display().to_string();
        let Some(source) = tokenizer.chat_template(name) else {
            let known: Vec<_> = tokenizer.chat_template_names().collect();
            return Err(TemplateError::NoChatTemplate {
                folder: folder(),
                name: name.into(),
                known: if known.is_empty() {
                    "none".into()
                } else {
                    known.join(", ")
                },
            });
        };
        let ends = tokenizer
            .eos_ids()
            .iter()
            .filter_map(|&id| tokenizer.token(id));
        let (ends, special) = (ends.collect(), tokenizer.special_tokens());
        Chat::parse(source, tokenizer.specials(), ends, special).map_err(|error| {
            TemplateError::Invalid {
                name: format!("{} of {}", TEMPLATE, folder()),
                problem: explain(&error),
            }
        })
    }

    /// Compiles a template. `specials` are the special tokens that it knows by name, `ends` the EOS tokens, and
    /// `special` all special tokens.
    fn parse(
        source: &str,
        specials: &BTreeMap<String, String>,
        ends: Vec<String>,
        special: Vec<String>,
    ) -> Result<Chat, minijinja::Error> {
        // Line breaks are `\n` in Jinja, however the file has them.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let (source, marks) = mark_generation(&source);
        let specials = specials.iter();
        let mut chat = Chat {
            env: Environment::empty(),
            source,
            clock: Clock::today(),
            specials: specials
                .map(|(key, token)| (key.clone(), Value::from(token.as_str())))
                .collect(),
            ends,
            special,
            marks,
        };
        chat.build()?;
        Ok(chat)
    }

    fn build(&mut self) -> Result<(), minijinja::Error> {
        self.env = environment(self.clock.clone());
        let added = self
            .env
            .add_template_owned(TEMPLATE, as_in_python(&self.source));
        added.or_else(|_| self.env.add_template_owned(TEMPLATE, self.source.clone()))
    }

    pub(super) fn set_date(&mut self, date: NaiveDate) {
        self.clock = Clock::at(date);
        // The same source has compiled before.
        let _ = self.build();
    }

    pub(super) fn date_told(&self) -> Option<NaiveDate> {
        self.clock.told()
    }

    pub(super) fn prompt(
        &self,
        conversation: &Conversation,
        messages: Vec<Message>,
    ) -> Result<String, RenderError> {
        let turns = self.settled(Turns::of(conversation, messages)?);
        let (turns, _) = self.with_arguments(turns);
        self.text(&turns, true)
            .map_err(|error| self.explained(&turns, error))
    }

    /// The text up to the end of an answer's `start`.
    pub(super) fn prompt_with_start(
        &self,
        conversation: &Conversation,
        mut messages: Vec<Message>,
        start: &str,
    ) -> Result<String, RenderError> {
        messages.push(Message::new(Role::Assistant, start));
        let mut turns = Turns::of(conversation, messages)?;
        if let Some(answer) = turns.messages.last_mut() {
            // a space after the mark is missing where the template trims the answer
            answer.content = format!("{start}{HERE} ");
        }
        let turns = self.settled(turns);
        let (turns, _) = self.with_arguments(turns);
        let text = self.text(&turns, false);
        let text = text.map_err(|error| self.explained(&turns, error))?;
        match text.rsplit_once(HERE) {
            Some((before, after)) if text.contains(start.trim()) => Ok(if after.starts_with(' ') {
                before.to_owned()
            } else {
                before.trim_end().to_owned()
            }),
            _ => Err(RenderError::NoPlace {
                template: "chat".into(),
                what: "the start of an answer".into(),
            }),
        }
    }

    pub(super) fn render(
        &self,
        conversation: &Conversation,
        messages: Vec<Message>,
        chosen: &Chosen,
    ) -> Result<Rendered, RenderError> {
        let turns = self.settled(Turns::of(conversation, messages)?);
        let (turns, spellings) = self.with_arguments(turns);
        let raw = self.raw(&turns, false);
        let (text, blocks) = unmark(&raw.map_err(|error| self.explained(&turns, error))?);
        let lost = self.check(&turns, &text)?;
        let spans = self.spans(&turns, &text, blocks, chosen)?;
        let last = turns.messages.last();
        let mut complete = last.is_some_and(|last| last.role == Role::Assistant);
        if let Some(last) = spans.last().filter(|_| chosen.has_last()) {
            // Some templates always end with a generation prompt, after which no EOS token may be learned.
            complete &= text[last.range.end..].trim().is_empty();
        }
        let other_start = spans.iter().any(|span| span.other_start);
        let spans = spans.into_iter().map(|span| span.range).collect();
        let mut rendered = Rendered::new(text, spans, chosen, complete, true);
        rendered.other_start = other_start;
        rendered.oddities = Oddities { spellings, lost };
        Ok(rendered)
    }

    /// The input with contents that are null: they stay null, so that a template can test for it, except where the
    /// template would print `None` or fails. There they are empty, as if the message had only calls.
    fn settled<'c>(&self, mut turns: Turns<'c>) -> Turns<'c> {
        let count = |text: &str| text.matches("None").count();
        for index in 0..turns.messages.len() {
            if !turns.messages[index].null_content {
                continue;
            }
            let mut empty = turns.clone();
            empty.messages[index].null_content = false;
            let prints_none = match (self.text(&turns, false), self.text(&empty, false)) {
                (Ok(null), Ok(empty)) => count(&null) > count(&empty),
                (null, empty) => null.is_err() && empty.is_ok(),
            };
            if prints_none {
                turns = empty;
            }
        }
        turns
    }

    /// Checks that the text has the system message, the user messages, the tool calls and the tools: some templates
    /// omit them. Returns the fields that only earlier messages lose.
    fn check(&self, turns: &Turns, text: &str) -> Result<Vec<String>, RenderError> {
        let lost = |what: String| {
            let template = "chat".into();
            Err(RenderError::NoPlace { template, what })
        };
        let search = Search {
            chat: self,
            turns,
            text,
        };
        let mut fields = Vec::new();
        for (index, message) in turns.messages.iter().enumerate() {
            let calls = message.more.contains_key("tool_calls");
            if calls && !search.calls(index) {
                return lost(format!("`tool_calls` of {}", turns.list.at(index)));
            }
            // Without calls, an answer's span is searched for.
            let checked = calls || message.role != Role::Assistant;
            if checked && !search.says(index) {
                if !calls {
                    return lost(format!("{} ({})", turns.list.at(index), message.role));
                }
                let what = format!("the text of {} beside its calls", turns.list.at(index));
                if !self.says_as_last(turns, index) {
                    return lost(what);
                }
                fields.push(what);
            }
        }
        fields.extend(self.lost_fields(turns, text)?);
        let without = Turns {
            tools: None,
            ..turns.clone()
        };
        if turns.tools.is_some() && self.text(&without, false)? == text {
            return lost("`tools`".into());
        }
        Ok(fields)
    }

    /// Whether the text has the content of a message if that is the last.
    fn says_as_last(&self, turns: &Turns, index: usize) -> bool {
        let turns = &turns.first(index + 1);
        let Ok(text) = self.text(turns, false) else {
            return false;
        };
        let text = &text;
        let chat = self;
        Search { chat, turns, text }.says(index)
    }

    /// The rendered text, with the marks of the template's own blocks.
    fn raw(&self, turns: &Turns, add_generation_prompt: bool) -> Result<String, RenderError> {
        let own = [
            ("messages", Value::from(Serde(&turns.messages))),
            ("tools", Value::from(Serde(turns.tools.map(Exact)))),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        let specials = self
            .specials
            .iter()
            .map(|(key, value)| (key.as_str(), value.clone()));
        let context = Value::from_pairs(specials.chain(own));
        let render = |env: &Environment<'static>| {
            let template = env.get_template(TEMPLATE)?;
            template.render(context.clone())
        };
        within_steps(&self.env, render, |error| match error.kind() {
            ErrorKind::OutOfFuel => RenderError::Endless,
            _ => RenderError::Jinja {
                problem: explain(error),
            },
        })
    }

    fn text(&self, turns: &Turns, add_generation_prompt: bool) -> Result<String, RenderError> {
        let text = self.raw(turns, add_generation_prompt)?;
        Ok(if self.marks { unmark(&text).0 } else { text })
    }

    /// The spans of the chosen messages; `blocks` are the spans that the template marks.
    fn spans(
        &self,
        turns: &Turns,
        text: &str,
        blocks: Vec<Range<usize>>,
        chosen: &Chosen,
    ) -> Result<Vec<Span>, RenderError> {
        let search = Search {
            chat: self,
            turns,
            text,
        };
        if !self.marks {
            return chosen.indices().map(|index| search.span(index)).collect();
        }
        let blocks = self.answers(text, blocks);
        let answers: Vec<usize> = turns.answers().collect();
        if blocks.len() != answers.len() && answers.iter().all(|&index| chosen.has(index)) {
            // A template may leave some answers unmarked, or mark one in parts.
            let others = chosen.indices().filter(|index| !answers.contains(index));
            let others: Result<Vec<_>, _> = others.map(|index| search.span(index)).collect();
            let blocks = blocks.into_iter().map(Span::from);
            return Ok(blocks.chain(others?).collect());
        }
        let span = |index| match answers.binary_search(&index) {
            Ok(number) if blocks.len() == answers.len() => Ok(blocks[number].clone().into()),
            _ => search.span(index),
        };
        chosen.indices().map(span).collect()
    }

    /// The spans of answers, from the blocks that the template marks.
    fn answers(&self, text: &str, mut blocks: Vec<Range<usize>>) -> Vec<Range<usize>> {
        // Some templates close the block before the token that ends the turn. Without that token, the model would never
        // learn to stop.
        for block in &mut blocks {
            let said = &text[block.clone()];
            if !self.ends.iter().any(|end| said.trim_end().ends_with(end)) {
                block.end = end_after(text, block.end, &self.ends).unwrap_or(block.end);
            }
        }
        // Others have a separate block for that token.
        let mut apart: Vec<Range<usize>> = Vec::new();
        for block in blocks {
            match apart.last_mut() {
                Some(last) if block.start <= last.end => last.end = last.end.max(block.end),
                _ => apart.push(block),
            }
        }
        apart
    }
}

/// The text without the marks of `{% generation %}` blocks, and the spans that they enclose.
fn unmark(raw: &str) -> (String, Vec<Range<usize>>) {
    let (mut text, mut blocks, mut start) = (String::with_capacity(raw.len()), Vec::new(), 0);
    for character in raw.chars() {
        match character {
            OPEN => start = text.len(),
            CLOSE => blocks.push(start..text.len()),
            other => text.push(other),
        }
    }
    (text, blocks)
}

/// The input of a chat template.
#[derive(Clone)]
struct Turns<'c> {
    messages: Vec<Message>,
    list: &'c ListKey,
    tools: Option<&'c serde_json::Value>,
}

impl<'c> Turns<'c> {
    /// The conversation's messages, which may not contain the characters that mark spans.
    fn of(
        conversation: &'c Conversation,
        mut messages: Vec<Message>,
    ) -> Result<Turns<'c>, RenderError> {
        if conversation.layout() == Layout::Text {
            return Err(RenderError::Layout {
                template: "chat".into(),
                layout: Layout::Text,
            });
        }
        let marks = |text: &str| text.contains([OPEN, CLOSE, HERE]);
        let holds = |message: &&Message| {
            marks(&message.content) || message.more.values().any(|more| marks(&more.to_string()))
        };
        if let Some(message) = messages.iter().find(holds) {
            return Err(RenderError::Jinja {
                problem: format!(
                    "the {} message contains U+10FFFE, U+10FFFF or U+FFFFF, noncharacters that simmer needs to mark answers",
                    message.role
                ),
            });
        }
        alias_thoughts(&mut messages);
        Ok(Turns {
            messages,
            list: &conversation.list,
            tools: conversation.tools.as_ref(),
        })
    }

    /// The first `count` messages.
    fn first(&self, count: usize) -> Turns<'c> {
        Turns {
            messages: self.messages[..count].to_vec(),
            ..self.clone()
        }
    }

    /// The indices of the assistant's messages.
    fn answers(&self) -> impl Iterator<Item = usize> {
        let answer = |index: &usize| self.messages[*index].role == Role::Assistant;
        (0..self.messages.len()).filter(answer)
    }
}

/// A Jinja error with its cause and line.
fn explain(error: &minijinja::Error) -> String {
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what,
    }
}

#[cfg(test)]
mod goldens;
#[cfg(test)]
mod tests;
