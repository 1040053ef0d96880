//! The model's own chat template, and where its text has the assistant's answers.
//!
//! Templates say what text to make, not which part of it answers. So the conversation is rendered again with changes:
//! up to an answer as a generation prompt, which tells where the model begins to speak, and with a mark in place of the
//! answer's words, which tells where they stand and what follows them. Templates with `{% generation %}` blocks say it
//! themselves.

use std::ops::Range;

use chrono::NaiveDate;
use minijinja::Environment;
use minijinja::value::{Serde, Value};

use super::jinja::{CLOSE, Clock, OPEN, environment, mark_generation};
use super::{RenderError, Rendered, TemplateError};
use crate::conversation::{Conversation, Message, Role};
use crate::tokenizer::Tokenizer;

/// The name of the one template in an environment.
const TEMPLATE: &str = "chat template";

/// A chat template of a tokenizer.
#[derive(Debug)]
pub(super) struct Chat {
    env: Environment<'static>,
    source: String,
    clock: Clock,
    specials: Vec<(String, Value)>,
    /// The texts of the tokens that end a text.
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
        let (source, marks) = mark_generation(source);
        let specials = tokenizer.specials().iter();
        let ends = tokenizer
            .eos_ids()
            .iter()
            .filter_map(|&id| tokenizer.token(id));
        let mut chat = Chat {
            env: Environment::empty(),
            source,
            clock: Clock::today(),
            specials: specials
                .map(|(key, token)| (key.clone(), Value::from(token.as_str())))
                .collect(),
            ends: ends.collect(),
            special: tokenizer.special_tokens(),
            marks,
        };
        chat.build().map_err(|error| TemplateError::Invalid {
            name: format!("{} of {}", TEMPLATE, folder()),
            problem: explain(&error),
        })?;
        Ok(chat)
    }

    fn build(&mut self) -> Result<(), minijinja::Error> {
        self.env = environment(self.clock.clone());
        self.env.add_template_owned(TEMPLATE, self.source.clone())
    }

    pub(super) fn set_date(&mut self, date: NaiveDate) {
        self.clock = Clock::at(date);
        // The source was compiled once already.
        let _ = self.build();
    }

    pub(super) fn date_told(&self) -> Option<NaiveDate> {
        self.clock.told()
    }

    pub(super) fn prompt(&self, conversation: &Conversation) -> Result<String, RenderError> {
        let mut messages = turns(conversation)?;
        while messages
            .last()
            .is_some_and(|last| last.role == Role::Assistant)
        {
            messages.pop();
        }
        self.text(&messages, true)
    }

    pub(super) fn render(&self, conversation: &Conversation) -> Result<Rendered, RenderError> {
        let messages = turns(conversation)?;
        let (text, trained) = if self.marks {
            self.marked(&messages)?
        } else {
            let text = self.text(&messages, false)?;
            let spans = self.spans(&messages, &text)?;
            (text, spans)
        };
        Ok(Rendered {
            text,
            trained,
            complete: messages
                .last()
                .is_some_and(|last| last.role == Role::Assistant),
            own_specials: true,
        })
    }

    /// The template's text with its own marks still in it.
    fn raw(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, RenderError> {
        let own = [
            ("messages", Value::from(Serde(messages))),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        let specials = self
            .specials
            .iter()
            .map(|(key, value)| (key.as_str(), value.clone()));
        let context = Value::from_pairs(specials.chain(own));
        let template = self.env.get_template(TEMPLATE);
        let text = template.and_then(|template| template.render(context));
        text.map_err(|error| RenderError::Jinja {
            problem: explain(&error),
        })
    }

    fn text(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, RenderError> {
        let text = self.raw(messages, add_generation_prompt)?;
        Ok(if self.marks {
            text.replace([OPEN, CLOSE], "")
        } else {
            text
        })
    }

    /// The text and its spans by the template's own marks.
    fn marked(&self, messages: &[Message]) -> Result<(String, Vec<Range<usize>>), RenderError> {
        let raw = self.raw(messages, false)?;
        let (mut text, mut spans, mut start) = (String::new(), Vec::new(), 0);
        for character in raw.chars() {
            match character {
                OPEN => start = text.len(),
                CLOSE => spans.push(start..text.len()),
                other => text.push(other),
            }
        }
        // Some templates close the block before the token that ends the turn, which would then never be learned.
        for span in &mut spans {
            let said = &text[span.clone()];
            if !self.ends.iter().any(|end| said.trim_end().ends_with(end)) {
                span.end = end_after(&text, span.end, &self.ends).unwrap_or(span.end);
            }
        }
        // Others have a block of its own for that token.
        let mut apart: Vec<Range<usize>> = Vec::new();
        for span in spans {
            match apart.last_mut() {
                Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
                _ => apart.push(span),
            }
        }
        Ok((text, apart))
    }

    /// What the model says in each of the assistant's turns.
    fn spans(&self, messages: &[Message], text: &str) -> Result<Vec<Range<usize>>, RenderError> {
        let assistant = |(index, message): (usize, &Message)| {
            (message.role == Role::Assistant).then_some(index)
        };
        let indices = messages.iter().enumerate().filter_map(assistant);
        indices
            .map(|index| {
                let words = self.words(messages, index, text)?;
                let start = self.start(messages, index, text, &words)?;
                let end = self.end(messages, index, text, words.end)?;
                Ok(start..end)
            })
            .collect()
    }

    /// Where the content of `messages[index]` stands in `text`, by rendering with a mark in its place.
    fn words(&self, messages: &[Message], index: usize, text: &str) -> Result<Words, RenderError> {
        let lost = |why| RenderError::SpanNotFound { index, why };
        let (before, after) = self
            .around(messages, index)?
            .ok_or_else(|| lost("its content does not appear once"))?;
        let end = text.len().checked_sub(after.len());
        let end = end.filter(|_| text.ends_with(&after));
        let end = end.ok_or_else(|| lost("the text after it depends on its content"))?;
        // A template may take the content apart (reasoning and answer) and write more before it than before the mark.
        let start = (before.len() <= end && text.starts_with(&before)).then_some(before.len());
        Ok(Words { start, end })
    }

    /// The text before and after the content of `messages[index]`, if that appears once.
    fn around(
        &self,
        messages: &[Message],
        index: usize,
    ) -> Result<Option<(String, String)>, RenderError> {
        let mut changed = messages.to_vec();
        changed[index].content = OPEN.to_string();
        let text = self.text(&changed, false)?;
        let mut around = text.split(OPEN);
        Ok(match (around.next(), around.next(), around.next()) {
            (Some(before), Some(after), None) => Some((before.into(), after.into())),
            _ => None,
        })
    }

    /// Where the model begins to speak: where the generation prompt ends, at or before the answer's words.
    fn start(
        &self,
        messages: &[Message],
        index: usize,
        text: &str,
        words: &Words,
    ) -> Result<usize, RenderError> {
        let lost = |why| RenderError::SpanNotFound { index, why };
        let prompt = self.text(&messages[..index], true)?;
        if prompt.len() <= words.start.unwrap_or(words.end) && text.starts_with(&prompt) {
            return Ok(prompt.len());
        }
        // Some templates write earlier turns anew when later ones follow. Where the answer is the last turn, its words
        // must still follow the generation prompt; what stands between them is looked for here, and is the model's too.
        let last = self.around(&messages[..=index], index)?;
        let between = last
            .as_ref()
            .and_then(|(before, _)| before.strip_prefix(&prompt))
            .ok_or_else(|| lost("the generation prompt is not how the answer's turn begins"))?;
        let start = words
            .start
            .ok_or_else(|| lost("the text before it depends on its content"))?;
        let own = text[..start].strip_suffix(between);
        Ok(own.map_or(start, str::len))
    }

    /// Where the model stops speaking: after the token that ends its turn, or where its turn does.
    fn end(
        &self,
        messages: &[Message],
        index: usize,
        text: &str,
        words: usize,
    ) -> Result<usize, RenderError> {
        if let Some(end) = end_after(text, words, &self.ends) {
            return Ok(end);
        }
        if index + 1 == messages.len() {
            return Ok(text.len());
        }
        let turn = self.text(&messages[..=index], false)?;
        if turn.len() >= words && text.starts_with(&turn) {
            return Ok(turn.len());
        }
        end_after(text, words, &self.special).ok_or(RenderError::SpanNotFound {
            index,
            why: "no special token ends it, and its turn ends differently once later turns follow",
        })
    }
}

/// Where an answer's words stand: they may begin before `start` where that is not known.
struct Words {
    start: Option<usize>,
    end: usize,
}

/// The end of the one of `tokens` that follows `at`, white space between them aside.
fn end_after(text: &str, at: usize, tokens: &[String]) -> Option<usize> {
    let rest = &text[at..];
    let spaces = rest.len() - rest.trim_start().len();
    let token = tokens
        .iter()
        .find(|token| rest[spaces..].starts_with(token.as_str()))?;
    Some(at + spaces + token.len())
}

/// The conversation's messages, none of which may hold the marks that answers are found by.
fn turns(conversation: &Conversation) -> Result<Vec<Message>, RenderError> {
    let messages = conversation.messages().ok_or_else(|| RenderError::Layout {
        template: "chat".into(),
        layout: conversation.layout(),
    })?;
    let marked = |message: &Message| message.content.contains([OPEN, CLOSE]);
    match messages.iter().position(marked) {
        Some(index) => Err(RenderError::SpanNotFound {
            index,
            why: "it holds U+10FFFE or U+10FFFF, noncharacters that mark answers",
        }),
        None => Ok(messages),
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
