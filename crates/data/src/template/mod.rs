//! Renders conversations to text, with the spans that are trained on.
//!
//! Training text and generation prompts come from the same template, so they cannot diverge. Plain templates are data
//! files (`plain` describes their syntax); `chat` is the model's own Jinja chat template (`chat` describes how its
//! answers are found).

mod chat;
mod concat;
mod error;
mod fill;
mod jinja;
mod plain;
mod python;

pub use error::{RenderError, TemplateError};
pub use fill::{BlankError, Blanks};

use std::ops::Range;
use std::path::Path;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::conversation::{Conversation, Message, Role};
use crate::tokenizer::Tokenizer;
use chat::Chat;
use plain::Plain;

/// A template that ships with the program: its name and file.
macro_rules! built_in {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../../../data/templates/", $name, ".toml")),
        )
    };
}

/// The plain templates that ship with the program: name and file.
const BUILT_IN: [(&str, &str); 13] = [
    built_in!("alpaca"),
    built_in!("alpaca-short"),
    built_in!("alpaca-lora"),
    built_in!("vicuna-v0"),
    built_in!("vicuna-v1.1"),
    built_in!("koala"),
    built_in!("baize"),
    built_in!("gpt4all"),
    built_in!("chatdoctor"),
    built_in!("llama-2-chat"),
    built_in!("llama-3"),
    built_in!("chatml"),
    built_in!("completion"),
];

/// Which tokens are trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum TrainOn {
    /// The assistant's messages and the tokens that end them, except messages that the row excludes
    /// ([`Message::train`]).
    #[default]
    Answers,
    /// The same, but only the last answer.
    LastAnswer,
    /// Every token, including those of the prompt (alpaca-lora's `train_on_inputs`).
    Everything,
    /// Only the messages that the row marks, whatever their role.
    Marked,
}

/// The parts of a row that are trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chosen {
    Everything,
    /// For each of its messages, whether it is trained on.
    Messages(Vec<bool>),
}

impl TrainOn {
    /// Which of these messages are trained on.
    pub(crate) fn choose(self, messages: &[Message]) -> Result<Chosen, RenderError> {
        let answers =
            |message: &Message| message.role == Role::Assistant && message.train != Some(false);
        let each = |choose: &dyn Fn(&Message) -> bool| messages.iter().map(choose).collect();
        Ok(match self {
            TrainOn::Everything => Chosen::Everything,
            TrainOn::Answers => Chosen::Messages(each(&answers)),
            TrainOn::LastAnswer => {
                let last = messages.iter().rposition(|m| m.role == Role::Assistant);
                let mut chosen: Vec<bool> = each(&answers);
                chosen[..last.unwrap_or(0)].fill(false);
                Chosen::Messages(chosen)
            }
            TrainOn::Marked => {
                let chosen: Vec<bool> = each(&|message| message.train == Some(true));
                if !chosen.contains(&true) {
                    return Err(RenderError::NothingMarked);
                }
                Chosen::Messages(chosen)
            }
        })
    }
}

impl Chosen {
    /// Whether the span of `messages[index]` must be found, because the message is trained on.
    fn has(&self, index: usize) -> bool {
        matches!(self, Chosen::Messages(chosen) if chosen.get(index) == Some(&true))
    }

    /// The indices of the messages whose spans must be found.
    fn indices(&self) -> impl Iterator<Item = usize> {
        let count = match self {
            Chosen::Everything => 0,
            Chosen::Messages(chosen) => chosen.len(),
        };
        (0..count).filter(|&index| self.has(index))
    }

    /// Whether the last message is trained on.
    fn has_last(&self) -> bool {
        match self {
            Chosen::Everything => true,
            Chosen::Messages(chosen) => chosen.last() == Some(&true),
        }
    }
}

/// A conversation as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one text, each with a name of its own"
)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The spans that are trained on: byte ranges, in order, that do not touch.
    pub trained: Vec<Range<usize>>,
    /// Whether the text ends with a finished answer, so that the EOS token follows.
    pub complete: bool,
    /// Whether that EOS token is trained on.
    pub end_trained: bool,
    /// Whether the text contains its own special tokens, so that the tokenizer adds none before it.
    pub own_specials: bool,
    /// Whether an answer is trained on from a start that is not the end of its generation prompt: the template prints
    /// more or something else there when it generates (`<think>`).
    pub other_start: bool,
    /// What is odd about the text.
    pub oddities: Oddities,
}

/// What is odd about how a template renders a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Oddities {
    /// The text with arguments as JSON text and as an object, if both are plausible and they differ.
    pub spellings: Option<[String; 2]>,
    /// Fields of earlier messages that the template prints in the last message only.
    pub lost: Vec<String>,
}

impl Rendered {
    /// A text with the spans of the chosen messages.
    fn new(
        text: String,
        mut spans: Vec<Range<usize>>,
        chosen: &Chosen,
        complete: bool,
        own_specials: bool,
    ) -> Rendered {
        if *chosen == Chosen::Everything {
            spans.clear();
            spans.push(0..text.len());
        }
        spans.sort_by_key(|span| span.start);
        let mut trained: Vec<Range<usize>> = Vec::new();
        for span in spans {
            match trained.last_mut() {
                Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
                _ => trained.push(span),
            }
        }
        Rendered {
            text,
            trained,
            complete,
            end_trained: complete && chosen.has_last(),
            own_specials,
            other_start: false,
            oddities: Oddities::default(),
        }
    }

    /// A generation prompt.
    fn prompt(text: String, own_specials: bool) -> Rendered {
        Rendered {
            text,
            trained: Vec::new(),
            complete: false,
            end_trained: false,
            own_specials,
            other_start: false,
            oddities: Oddities::default(),
        }
    }
}

/// Renders conversations to text.
#[derive(Debug)]
pub struct Template {
    name: String,
    /// Its text in its file or in the tokenizer.
    source: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Plain(Box<Plain>),
    Chat(Box<Chat>),
}

/// The size limit of a template file, in bytes.
const LARGEST: u64 = 4 << 20;

impl Template {
    /// The template with this name: a built-in one, a file that ends in `.toml`, `chat` for the tokenizer's default
    /// chat template, or `chat:NAME` for another of its chat templates.
    ///
    /// # Errors
    /// [`TemplateError`] if there is none, or its text is invalid.
    pub fn named(name: &str, tokenizer: &Tokenizer) -> Result<Template, TemplateError> {
        let chat = if name == "chat" {
            Some("default")
        } else {
            name.strip_prefix("chat:")
        };
        let (source, kind) = if let Some(chat) = chat {
            let kind = Kind::Chat(Box::new(Chat::of(tokenizer, chat)?));
            (
                tokenizer.chat_template(chat).unwrap_or_default().to_owned(),
                kind,
            )
        } else if Path::new(name).extension().is_some_and(|ext| ext == "toml") {
            let text = simmer_files::read_text(Path::new(name), LARGEST).map_err(|source| {
                TemplateError::Read {
                    path: name.into(),
                    source,
                }
            })?;
            let plain = Plain::parse(name, &text, tokenizer.specials())?;
            (text, Kind::Plain(Box::new(plain)))
        } else if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            let plain = Plain::parse(name, text, tokenizer.specials())?;
            ((*text).to_owned(), Kind::Plain(Box::new(plain)))
        } else {
            let known: Vec<_> = Template::names().collect();
            return Err(TemplateError::Unknown {
                name: name.into(),
                known: known.join(", "),
            });
        };
        Ok(Template {
            name: name.into(),
            source,
            kind,
        })
    }

    /// A template with this name and text, as an adapter keeps it. The text of a chat template is the tokenizer's.
    ///
    /// # Errors
    /// [`TemplateError`] if the text is invalid, or the tokenizer has no such chat template.
    pub fn kept(name: &str, text: &str, tokenizer: &Tokenizer) -> Result<Template, TemplateError> {
        if name == "chat" || name.starts_with("chat:") {
            return Template::named(name, tokenizer);
        }
        let plain = Plain::parse(name, text, tokenizer.specials())?;
        Ok(Template {
            name: name.into(),
            source: text.into(),
            kind: Kind::Plain(Box::new(plain)),
        })
    }

    /// Checks that a name is that of a template: a built-in one, a chat template, or a file. Whether the file or the chat
    /// template exists is not known yet.
    ///
    /// # Errors
    /// [`TemplateError::Unknown`].
    pub fn check_name(name: &str) -> Result<(), TemplateError> {
        let is_file = Path::new(name).extension().is_some_and(|ext| ext == "toml");
        let is_chat = name
            .strip_prefix("chat:")
            .is_some_and(|chat| !chat.is_empty());
        if is_file || is_chat || Template::names().any(|known| known == name) {
            return Ok(());
        }
        let known: Vec<_> = Template::names().collect();
        Err(TemplateError::Unknown {
            name: name.into(),
            known: known.join(", "),
        })
    }

    /// The names of the built-in templates, and `chat`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).chain(["chat"])
    }

    /// Sets the date for chat templates that put one into the text (Llama 3.1 and later). Default: today.
    #[must_use]
    pub fn dated(mut self, date: NaiveDate) -> Template {
        if let Kind::Chat(chat) = &mut self.kind {
            chat.set_date(date);
        }
        self
    }

    /// The date that the template has put into a text so far, if it has: the text depends on it.
    pub fn date_told(&self) -> Option<NaiveDate> {
        match &self.kind {
            Kind::Plain(_) => None,
            Kind::Chat(chat) => chat.date_told(),
        }
    }

    /// The name by which it was loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text in its file or in the tokenizer.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders the whole conversation, with the spans that are trained on.
    ///
    /// # Errors
    /// [`RenderError`] if the template does not render some part of it, or a span cannot be found.
    pub fn render(
        &self,
        conversation: &Conversation,
        train_on: TrainOn,
    ) -> Result<Rendered, RenderError> {
        let messages = turns(conversation);
        let chosen = train_on.choose(&messages)?;
        match &self.kind {
            Kind::Plain(plain) => plain.render(conversation, &messages, &chosen),
            Kind::Chat(chat) => chat.render(conversation, messages, &chosen),
        }
    }

    /// Renders the generation prompt: the conversation up to the start of its last answer. If the conversation has that
    /// answer, it is ignored.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn prompt(&self, conversation: &Conversation) -> Result<Rendered, RenderError> {
        let mut messages = turns(conversation);
        while messages
            .last()
            .is_some_and(|last| last.role == Role::Assistant)
        {
            messages.pop();
        }
        Ok(match &self.kind {
            Kind::Plain(plain) => Rendered::prompt(plain.prompt(conversation, &messages)?, false),
            Kind::Chat(chat) => Rendered::prompt(chat.prompt(conversation, messages)?, true),
        })
    }

    /// As [`Template::prompt`], where the answer begins with `start`: the model continues it. A chat template that trims
    /// messages trims `start`, too.
    ///
    /// Source: transformers, `apply_chat_template` with `continue_final_message`.
    ///
    /// # Errors
    /// As [`Template::render`], and if `start` is not in the text.
    pub fn prompt_with_start(
        &self,
        conversation: &Conversation,
        start: &str,
    ) -> Result<Rendered, RenderError> {
        if start.is_empty() {
            return self.prompt(conversation);
        }
        match &self.kind {
            Kind::Plain(_) => {
                let mut rendered = self.prompt(conversation)?;
                rendered.text.push_str(start);
                Ok(rendered)
            }
            Kind::Chat(chat) => {
                let text = chat.prompt_with_start(conversation, turns(conversation), start)?;
                Ok(Rendered::prompt(text, true))
            }
        }
    }
}

/// The conversation's messages; a text counts as one answer.
fn turns(conversation: &Conversation) -> Vec<Message> {
    let text = || vec![Message::new(Role::Assistant, "")];
    conversation.messages().unwrap_or_else(text)
}

#[cfg(test)]
mod tests;
