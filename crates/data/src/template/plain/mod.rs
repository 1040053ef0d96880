//! Templates as data: one TOML file each, with marks around the text that is trained on.
//!
//! ```toml
//! accepts = ["instruction", "completion", "messages"]   # the layouts of rows that it renders
//!
//! [turns]                                               # conversations: a text for each role
//! begin = "{system} "
//! user = "USER:[[ {user} ]]"
//! assistant = "ASSISTANT:[[ {assistant}{eos}]]"
//! ```
//!
//! or, for one question and its answer,
//!
//! ```toml
//! [[variants]]                                          # simmer uses the variant that has exactly the row's parts
//! text = "Q: {instruction}\nA:[[ {output}]]"
//! ```
//!
//! `[[` and `]]` enclose the text of a speaker, including the token that ends it. `{bos}` and `{eos}` are the
//! tokenizer's special tokens; `{{` and `}}` are literal braces. The EOS token after the last answer needs no mark:
//! simmer always adds it.

mod text;
mod turns;
mod variants;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Chosen, RenderError, Rendered, TemplateError};
use crate::conversation::{Conversation, Layout, Message};
use text::Language;
use turns::{Turns, TurnsFile};
use variants::{VariantFile, Variants};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainFile {
    accepts: Vec<Layout>,
    #[serde(default)]
    variants: Vec<VariantFile>,
    turns: Option<TurnsFile>,
}

/// A template of literal text and placeholders for a row's parts.
#[derive(Debug)]
pub(super) struct Plain {
    name: String,
    accepts: Vec<Layout>,
    texts: Texts,
}

#[derive(Debug)]
enum Texts {
    Variants(Variants),
    Turns(Turns),
}

impl Plain {
    pub(super) fn parse(
        name: &str,
        text: &str,
        specials: &BTreeMap<String, String>,
    ) -> Result<Plain, TemplateError> {
        let invalid = |problem: String| TemplateError::Invalid {
            name: name.into(),
            problem,
        };
        let file: PlainFile = toml::from_str(text).map_err(|error| {
            let shown = error.to_string();
            // the error quotes the line, which may be the whole file
            let short = shown.len() < 2000;
            invalid(if short {
                shown
            } else {
                error.message().to_owned()
            })
        })?;
        let (turns, one) = (&turns::NAMES, &variants::NAMES);
        let texts = match (&file.turns, file.variants.as_slice()) {
            (Some(file), []) => {
                let language = Language {
                    names: turns,
                    specials,
                };
                Turns::parse(name, file, language).map(Texts::Turns)
            }
            (None, files @ [_, ..]) => {
                let language = Language {
                    names: one,
                    specials,
                };
                Variants::parse(name, files, language).map(Texts::Variants)
            }
            _ => Err("expected either [turns] or [[variants]]".into()),
        };
        let texts = texts.map_err(invalid)?;
        if matches!(texts, Texts::Turns(_)) && file.accepts.contains(&Layout::Text) {
            return Err(invalid("accepts: a `text` row has no turns".into()));
        }
        Ok(Plain {
            name: name.into(),
            accepts: file.accepts,
            texts,
        })
    }

    pub(super) fn render(
        &self,
        conversation: &Conversation,
        messages: &[Message],
        chosen: &Chosen,
    ) -> Result<Rendered, RenderError> {
        self.check(conversation, messages)?;
        match &self.texts {
            Texts::Variants(variants) => variants.render(conversation, messages, chosen),
            Texts::Turns(turns) => turns.render(&conversation.list, messages, chosen),
        }
    }

    /// The text up to the marks around the last answer; for text rows, the whole text.
    pub(super) fn prompt(
        &self,
        conversation: &Conversation,
        messages: &[Message],
    ) -> Result<String, RenderError> {
        self.check(conversation, messages)?;
        match &self.texts {
            Texts::Variants(variants) => variants.prompt(conversation),
            Texts::Turns(turns) => turns.prompt(&conversation.list, messages),
        }
    }

    /// Checks that nothing of the row would be lost: plain templates render only the text of messages.
    fn check(&self, row: &Conversation, messages: &[Message]) -> Result<(), RenderError> {
        let layout = row.layout();
        if !self.accepts.contains(&layout) {
            return Err(RenderError::Layout {
                template: self.name.clone(),
                layout,
            });
        }
        let lost = |what: String| {
            Err(RenderError::NoPlace {
                template: self.name.clone(),
                what,
            })
        };
        if row.tools.is_some() {
            return lost("`tools`".into());
        }
        for (index, message) in messages.iter().enumerate() {
            if let Some(key) = message.more.keys().next() {
                return lost(format!("`{key}` of {}", row.list.at(index)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
