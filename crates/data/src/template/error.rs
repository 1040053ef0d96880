//! What can be wrong with a template, and with a row for it.

use simmer_hint::Hint;

use super::Template;
use super::jinja::STEPS;
use crate::conversation::{Layout, Role};

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
    /// A plain template has no place for something that the row says.
    #[error("template `{template}` has no place for {what}, which would be lost")]
    NoPlace {
        /// The template.
        template: String,
        /// What would be lost.
        what: String,
    },
    /// A plain template has no marks around what is to be trained on.
    #[error(
        "template `{template}` cannot tell which part of its text is messages[{index}], which is to be trained on"
    )]
    Unmarked {
        /// The template.
        template: String,
        /// The message's number, from 0.
        index: usize,
    },
    /// What the row marks is to be trained on, and it marks nothing.
    #[error("no message of this row is marked to be trained on")]
    NothingMarked,
    /// The chat template failed or refused.
    #[error("chat template: {problem}")]
    Jinja {
        /// What it said.
        problem: String,
    },
    /// The chat template does not end.
    #[error(
        "chat template: stopped after {} steps without an end: it loops for ever, or makes endless text",
        STEPS
    )]
    Endless,
    /// What a message says cannot be told apart in the chat template's text.
    #[error(
        "chat template: cannot tell which part of its text is messages[{index}], the {role}'s: {why}"
    )]
    SpanNotFound {
        /// The message's number, from 0.
        index: usize,
        /// Who says it.
        role: Role,
        /// What was tried.
        why: &'static str,
    },
}

impl Hint for RenderError {
    fn hint(&self) -> Option<String> {
        match self {
            RenderError::Layout { .. } | RenderError::ManyTurns { .. } => {
                let names: Vec<_> = Template::names().collect();
                Some(format!(
                    "name another template for this file: {}",
                    names.join(", ")
                ))
            }
            RenderError::NoPlace { template, .. }
                if template == "chat" || template.starts_with("chat:") =>
            {
                Some("the model's chat template has none: write a template of your own that has".into())
            }
            RenderError::NoPlace { .. } => Some(
                "the model's own chat template (`chat`) may have one, or a template of your own".into(),
            ),
            RenderError::Unmarked { .. } => Some(
                "a turn is marked by `[[` and `]]` in its text; in a template of your own add them"
                    .into(),
            ),
            RenderError::NothingMarked => Some(
                "mark messages with `\"train\": true`, or choose another data.train_on than \"marked\""
                    .into(),
            ),
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

impl Hint for TemplateError {
    fn hint(&self) -> Option<String> {
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
