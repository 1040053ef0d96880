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
    /// The texts of the tokens that end a turn.
    ends: Vec<String>,
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
        let context: Value = specials.chain(own).collect();
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
        for span in &mut spans {
            // Some templates close the block before the token that ends the turn, which would then never be learned.
            if !self
                .ends
                .iter()
                .any(|end| text[span.clone()].ends_with(end))
            {
                span.end = self.end_after(&text, span.end).unwrap_or(span.end);
            }
        }
        Ok((text, spans))
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
                let start = self.start(messages, index, text, words.start)?;
                let end = self.end(messages, index, text, words.end)?;
                Ok(start..end)
            })
            .collect()
    }

    /// Where the content of `messages[index]` stands in `text`.
    fn words(
        &self,
        messages: &[Message],
        index: usize,
        text: &str,
    ) -> Result<Range<usize>, RenderError> {
        let lost = |why| RenderError::SpanNotFound { index, why };
        let mut changed = messages.to_vec();
        changed[index].content = OPEN.to_string();
        let changed = self.text(&changed, false)?;
        let mut around = changed.split(OPEN);
        let (Some(before), Some(after), None) = (around.next(), around.next(), around.next())
        else {
            return Err(lost("its content does not appear once"));
        };
        let end = text.len().checked_sub(after.len());
        match end {
            Some(end)
                if before.len() <= end && text.starts_with(before) && text.ends_with(after) =>
            {
                Ok(before.len()..end)
            }
            _ => Err(lost("the text around it depends on its content")),
        }
    }

    /// Where the model begins to speak: where the generation prompt ends, at or before the answer's words.
    fn start(
        &self,
        messages: &[Message],
        index: usize,
        text: &str,
        words: usize,
    ) -> Result<usize, RenderError> {
        let lost = |why| RenderError::SpanNotFound { index, why };
        let prompt = self.text(&messages[..index], true)?;
        if prompt.len() <= words && text.starts_with(&prompt) {
            return Ok(prompt.len());
        }
        // Some templates write earlier turns anew when later ones follow. Then what stands between the generation prompt
        // and the answer's words is found where the answer is the last turn, and looked for here.
        let mut last = messages[..=index].to_vec();
        last[index].content = OPEN.to_string();
        let last = self.text(&last, false)?;
        let between = last
            .strip_prefix(&prompt)
            .and_then(|rest| rest.split_once(OPEN))
            .map(|(between, _)| between)
            .ok_or_else(|| lost("the generation prompt is not how the answer's turn begins"))?;
        if text[..words].ends_with(between) {
            Ok(words - between.len())
        } else {
            Err(lost("its turn begins differently once later turns follow"))
        }
    }

    /// Where the model stops speaking: after the token that ends its turn, or where its turn does.
    fn end(
        &self,
        messages: &[Message],
        index: usize,
        text: &str,
        words: usize,
    ) -> Result<usize, RenderError> {
        if let Some(end) = self.end_after(text, words) {
            return Ok(end);
        }
        if index + 1 == messages.len() {
            return Ok(text.len());
        }
        let turn = self.text(&messages[..=index], false)?;
        if turn.len() >= words && text.starts_with(&turn) {
            return Ok(turn.len());
        }
        let why = "no end-of-sequence token follows it, and its turn ends differently once later turns follow";
        Err(RenderError::SpanNotFound { index, why })
    }

    /// The end of the end-of-turn token that follows `at`, white space between them aside.
    fn end_after(&self, text: &str, at: usize) -> Option<usize> {
        let rest = &text[at..];
        let spaces = rest.len() - rest.trim_start().len();
        let end = self
            .ends
            .iter()
            .find(|end| rest[spaces..].starts_with(end.as_str()))?;
        Some(at + spaces + end.len())
    }
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
