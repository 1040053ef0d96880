//! Conversations into text, with the spans that are trained on.
//!
//! Training text and generation prompts come from the same template, so they cannot drift apart. Plain templates are data
//! files (`plain.rs` says how they are written); `chat` is the model's own Jinja chat template (`chat.rs` says how its
//! answers are found).

mod chat;
mod jinja;
mod plain;

use std::ops::Range;
use std::path::Path;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::conversation::{Conversation, Layout};
use crate::tokenizer::Tokenizer;
use chat::Chat;
use plain::Plain;

/// The plain templates that ship with the program: name and file.
const BUILT_IN: [(&str, &str); 3] = [
    (
        "alpaca",
        include_str!("../../../../data/templates/alpaca.toml"),
    ),
    (
        "alpaca-lora",
        include_str!("../../../../data/templates/alpaca-lora.toml"),
    ),
    (
        "completion",
        include_str!("../../../../data/templates/completion.toml"),
    ),
];

/// Which tokens are trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainOn {
    /// What the model itself must say: its answers and the tokens that end them.
    #[default]
    Answers,
    /// Every token, the prompt's too (alpaca-lora's `train_on_inputs`).
    Everything,
}

/// A conversation as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The answers in it: byte ranges, in order, apart from each other.
    pub trained: Vec<Range<usize>>,
    /// Whether the text ends a finished answer, so that the end of sequence follows.
    pub complete: bool,
    /// Whether the text spells out its own special tokens, so that the tokenizer puts none before it.
    pub own_specials: bool,
}

/// Why a conversation cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template is for other rows.
    #[error("template `{template}` does not render {layout} rows")]
    Layout {
        /// The template.
        template: String,
        /// The row's layout.
        layout: Layout,
    },
    /// The template has no variant for the parts that the row has.
    #[error("template `{template}` has no place for {found} together; it has {known}")]
    NoVariant {
        /// The template.
        template: String,
        /// The row's parts.
        found: String,
        /// The parts of each variant.
        known: String,
    },
    /// A plain template renders one question and its answer.
    #[error(
        "template `{template}` renders one question and its answer; this row has {turns} messages"
    )]
    ManyTurns {
        /// The template.
        template: String,
        /// The row's messages, the system's aside.
        turns: usize,
    },
    /// The chat template failed or refused.
    #[error("chat template: {problem}")]
    Jinja {
        /// What it said.
        problem: String,
    },
    /// An answer cannot be told apart in the chat template's text.
    #[error(
        "chat template: cannot tell which part of its text is messages[{index}], the assistant's: {why}"
    )]
    SpanNotFound {
        /// The message's number, from 0.
        index: usize,
        /// What was tried.
        why: &'static str,
    },
}

impl RenderError {
    /// What may mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            RenderError::Layout { .. } | RenderError::ManyTurns { .. } => {
                let names: Vec<_> = Template::names().collect();
                Some(format!(
                    "name another template for this file: {}",
                    names.join(", ")
                ))
            }
            RenderError::SpanNotFound { .. } => Some(
                "train_on = \"everything\" needs no spans; or mark answers in the chat template with {% generation %}"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// Why a template cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// No template has that name.
    #[error("no template is named `{name}`; there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The template's file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The template's own text is wrong.
    #[error("template {name}: {problem}")]
    Invalid {
        /// The template.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The model has no such chat template.
    #[error("{folder}: the tokenizer has no chat template named `{name}`; it has {known}")]
    NoChatTemplate {
        /// The tokenizer's folder.
        folder: String,
        /// The chat template.
        name: String,
        /// The chat templates that it has.
        known: String,
    },
}

impl TemplateError {
    /// What may mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            TemplateError::NoChatTemplate { .. } => Some(
                "a base model has none: use a plain template such as `alpaca`, or add chat_template.jinja to the folder"
                    .into(),
            ),
            TemplateError::Unknown { .. } => {
                Some("a template of your own is named by its file, ending in .toml".into())
            }
            _ => None,
        }
    }
}

/// Renders conversations to text.
#[derive(Debug)]
pub struct Template {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Plain(Plain),
    Chat(Box<Chat>),
}

impl Template {
    /// The template of that name: a built-in one, a file that ends in `.toml`, `chat` for the tokenizer's default chat
    /// template, or `chat:NAME` for another of them.
    ///
    /// # Errors
    /// [`TemplateError`] when there is none, or its text is wrong.
    pub fn named(name: &str, tokenizer: &Tokenizer) -> Result<Template, TemplateError> {
        let kind = if name == "chat" {
            Kind::Chat(Box::new(Chat::of(tokenizer, "default")?))
        } else if let Some(chat) = name.strip_prefix("chat:") {
            Kind::Chat(Box::new(Chat::of(tokenizer, chat)?))
        } else if Path::new(name).extension().is_some_and(|ext| ext == "toml") {
            let text = std::fs::read_to_string(name).map_err(|source| TemplateError::Read {
                path: name.into(),
                source,
            })?;
            Kind::Plain(Plain::parse(name, &text, tokenizer.specials())?)
        } else if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            Kind::Plain(Plain::parse(name, text, tokenizer.specials())?)
        } else {
            let known: Vec<_> = Template::names().collect();
            return Err(TemplateError::Unknown {
                name: name.into(),
                known: known.join(", "),
            });
        };
        Ok(Template {
            name: name.into(),
            kind,
        })
    }

    /// The names of the built-in templates, and `chat`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).chain(["chat"])
    }

    /// The same template on another day, for chat templates that tell the model the date (Llama 3.1 and later). Without
    /// this it is today.
    #[must_use]
    pub fn dated(mut self, date: NaiveDate) -> Template {
        if let Kind::Chat(chat) = &mut self.kind {
            chat.set_date(date);
        }
        self
    }

    /// The day that the template has told the model so far, if it has: the text depends on it.
    pub fn date_told(&self) -> Option<NaiveDate> {
        match &self.kind {
            Kind::Plain(_) => None,
            Kind::Chat(chat) => chat.date_told(),
        }
    }

    /// The name that it was asked for by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole conversation, its answers marked.
    ///
    /// # Errors
    /// [`RenderError`] when the template has no place for some part of it.
    pub fn render(&self, conversation: &Conversation) -> Result<Rendered, RenderError> {
        match &self.kind {
            Kind::Plain(plain) => plain.render(conversation),
            Kind::Chat(chat) => chat.render(conversation),
        }
    }

    /// The conversation up to where its last answer begins: what the model is given to go on from. An answer that is there
    /// is left out.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn prompt(&self, conversation: &Conversation) -> Result<Rendered, RenderError> {
        let (text, own_specials) = match &self.kind {
            Kind::Plain(plain) => (plain.prompt(conversation)?, false),
            Kind::Chat(chat) => (chat.prompt(conversation)?, true),
        };
        Ok(Rendered {
            text,
            trained: Vec::new(),
            complete: false,
            own_specials,
        })
    }
}

#[cfg(test)]
mod tests;
