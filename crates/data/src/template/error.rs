//! Errors of templates, and of rows that they cannot render.

use simmer_hint::Hint;

use super::Template;
use super::jinja::STEPS;
use crate::conversation::{Layout, Role};
use crate::nearest::nearest;

/// Why a conversation cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template is for other layouts of rows.
    #[error("template `{template}` does not render {layout} rows")]
    Layout {
        /// The template.
        template: String,
        /// The row's layout.
        layout: Layout,
    },
    /// The template has no variant for the parts that the row has.
    #[error("template `{template}` does not render {found} together; it renders {known}")]
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
        /// The number of messages, without the system message.
        turns: usize,
    },
    /// The template does not render some part of the row.
    #[error("template `{template}` does not render {what}, which would be lost")]
    NoPlace {
        /// The template.
        template: String,
        /// What would be lost.
        what: String,
    },
    /// A plain template has no marks around a message that is to be trained on.
    #[error("template `{template}` does not mark {message} in its text, which is to be trained on")]
    Unmarked {
        /// The template.
        template: String,
        /// The message, by its place in the row.
        message: String,
    },
    /// Only marked messages are trained on, and the row marks none.
    #[error("no message of this row is marked to be trained on")]
    NothingMarked,
    /// The chat template failed or refused.
    #[error("chat template: {problem}")]
    Jinja {
        /// Its error.
        problem: String,
    },
    /// The chat template fails on arguments that are text.
    #[error(
        "chat template: {problem}; `{key}` is text that is no JSON object, and the template wants an object"
    )]
    TextArguments {
        /// The key.
        key: String,
        /// The template's error.
        problem: String,
    },
    /// The chat template does not end.
    #[error(
        "chat template: stopped after {} steps: it loops forever, or its text grows without end",
        STEPS
    )]
    Endless,
    /// The span of a message cannot be found in the chat template's text.
    #[error("chat template: cannot find {message} ({role}) in its text: {why}")]
    SpanNotFound {
        /// The message, by its place in the row.
        message: String,
        /// Its role.
        role: Role,
        /// Why it cannot be found.
        why: &'static str,
        /// The EOS token.
        end: String,
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
                Some(
                    "leave it out of the rows, or change the chat template in the tokenizer's folder so that it renders it"
                        .into(),
                )
            }
            RenderError::NoPlace { .. } => Some(
                "try the model's own chat template (`chat`), or write a template of your own that renders it".into(),
            ),
            RenderError::Unmarked { .. } => Some(
                "if the template is your own, enclose the turn's text in `[[` and `]]`"
                    .into(),
            ),
            RenderError::TextArguments { .. } => Some(
                "write the arguments as a JSON object, or as the JSON text of one".into(),
            ),
            RenderError::NoVariant { .. } => Some(
                "leave the part out that it does not render, or name another template".into(),
            ),
            RenderError::Jinja { problem } if problem.contains("undefined") => Some(
                "the template reads a key that this row lacks: a call has `name` and `arguments`, a tool `name`, and a result \
                 `content`; `simmer data preview` shows other rows"
                    .into(),
            ),
            RenderError::NothingMarked => Some(
                "mark messages with `\"train\": true`, or change `data.train_on = \"marked\"`"
                    .into(),
            ),
            RenderError::SpanNotFound {
                role: Role::Assistant,
                end,
                ..
            } => Some(format!(
                "in a copy of the chat template, put `{{% generation %}}` and `{{% endgeneration %}}` around all that it \
                 prints for an assistant's message after the generation prompt, up to and including `{end}`; or set \
                 `data.train_on = \"everything\"`"
            )),
            RenderError::SpanNotFound { .. } => Some("set `data.train_on = \"everything\"` or \"answers\"".into()),
            _ => None,
        }
    }
}

/// Why a template cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// No template has that name.
    #[error("unknown template `{name}`{}; known are {known}", near(name))]
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
                "use a plain template such as `alpaca`, or add `chat_template.jinja` to the folder; base models have no chat template"
                    .into(),
            ),
            TemplateError::Unknown { .. } => {
                Some("to use a template of your own, name its file, which must end in `.toml`".into())
            }
            _ => None,
        }
    }
}

/// The known name that may be meant, as the end of a sentence.
fn near(name: &str) -> String {
    let plain = name.trim().to_lowercase().replace(['_', ' '], "-");
    nearest(&plain, Template::names().filter(|known| *known != name))
        .filter(|(similarity, _)| *similarity > 0.8)
        .map_or_else(String::new, |(_, known)| {
            format!("; did you mean `{known}`?")
        })
}
