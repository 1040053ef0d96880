//! Templates of one question and its answer: a text for each set of parts that a row may have.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::super::{Chosen, RenderError, Rendered};
use super::text::{Language, Part, Text, names};
use crate::conversation::{Content, Conversation, Message, Role};

pub(super) const NAMES: [(&str, Part); 8] = [
    ("system", Part::System),
    ("instruction", Part::Question),
    ("prompt", Part::Question),
    ("input", Part::Input),
    ("output", Part::Answer),
    ("response", Part::Answer),
    ("completion", Part::Answer),
    ("text", Part::Text),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VariantFile {
    text: String,
}

/// The variants of a template.
#[derive(Debug)]
pub(super) struct Variants {
    template: String,
    variants: Vec<Variant>,
}

#[derive(Debug)]
struct Variant {
    parts: BTreeSet<Part>,
    text: Text,
}

/// One question and its answer.
#[derive(Default)]
struct Turn<'c> {
    system: Option<&'c str>,
    question: &'c str,
    input: Option<&'c str>,
    answer: Option<&'c str>,
}

/// A row's texts by part.
type Parts<'c> = BTreeMap<Part, &'c str>;

impl Variants {
    pub(super) fn parse(
        template: &str,
        files: &[VariantFile],
        language: Language,
    ) -> Result<Variants, String> {
        let mut variants: Vec<Variant> = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let problem = |problem: String| format!("variants[{index}]: {problem}");
            let variant = Variant::parse(&file.text, language).map_err(problem)?;
            if variants.iter().any(|other| other.parts == variant.parts) {
                return Err(problem(format!(
                    "another variant has the same placeholders: {}",
                    names(&variant.parts)
                )));
            }
            variants.push(variant);
        }
        Ok(Variants {
            template: template.into(),
            variants,
        })
    }

    pub(super) fn render(
        &self,
        conversation: &Conversation,
        messages: &[Message],
        chosen: &Chosen,
    ) -> Result<Rendered, RenderError> {
        let parts = self.parts(conversation)?;
        let variant = self.variant(&parts)?;
        let mut text = String::new();
        let spans = variant.text.write(&mut text, &mut say(&parts));
        let complete = parts.contains_key(&Part::Answer) || parts.contains_key(&Part::Text);
        // Only the answer has marks.
        let mut chosen_messages = chosen.indices();
        let unmarked = chosen_messages.find(|&index| !complete || index + 1 != messages.len());
        if let Some(index) = unmarked {
            return Err(RenderError::Unmarked {
                template: self.template.clone(),
                message: conversation.list.at(index),
            });
        }
        let spans = if chosen.has_last() { spans } else { Vec::new() };
        Ok(Rendered::new(text, spans, chosen, complete, false))
    }

    /// The text up to the marks around the answer, which may open before the answer itself; for text rows, the whole
    /// text.
    pub(super) fn prompt(&self, conversation: &Conversation) -> Result<String, RenderError> {
        let mut parts = self.parts(conversation)?;
        if !parts.contains_key(&Part::Text) {
            parts.insert(Part::Answer, "");
        }
        let mut text = String::new();
        let variant = self.variant(&parts)?;
        variant
            .text
            .write_until(Part::Answer, &mut text, &mut say(&parts));
        Ok(text)
    }

    fn variant(&self, parts: &Parts) -> Result<&Variant, RenderError> {
        let has: BTreeSet<Part> = parts.keys().copied().collect();
        let fitting = self.variants.iter().find(|v| v.parts == has);
        fitting.ok_or_else(|| {
            let known: Vec<_> = self.variants.iter().map(|v| names(&v.parts)).collect();
            RenderError::NoVariant {
                template: self.template.clone(),
                found: names(&has),
                known: known.join("; "),
            }
        })
    }

    /// The row's parts, without an empty system message or input; an answer may be empty.
    fn parts<'c>(&self, conversation: &'c Conversation) -> Result<Parts<'c>, RenderError> {
        let turn = match &conversation.content {
            Content::Text(text) => return Ok(BTreeMap::from([(Part::Text, text.as_str())])),
            Content::Instruction {
                system,
                instruction,
                input,
                output,
            } => Turn {
                system: system.as_deref(),
                question: instruction,
                input: input.as_deref(),
                answer: output.as_deref(),
            },
            Content::Completion { prompt, completion } => Turn {
                question: prompt,
                answer: completion.as_deref(),
                ..Turn::default()
            },
            Content::Messages(messages) => self.turn(messages)?,
        };
        let parts = [
            (Part::System, turn.system.filter(|text| !text.is_empty())),
            (Part::Question, Some(turn.question)),
            (Part::Input, turn.input.filter(|text| !text.is_empty())),
            (Part::Answer, turn.answer),
        ];
        let said = parts.into_iter().filter_map(|(p, text)| Some((p, text?)));
        Ok(said.collect())
    }

    /// Messages as one question and its answer.
    fn turn<'c>(&self, messages: &'c [Message]) -> Result<Turn<'c>, RenderError> {
        let (system, turns) = match messages {
            [first, turns @ ..] if first.role == Role::System => (Some(first), turns),
            turns => (None, turns),
        };
        let (question, answer) = match turns {
            [user] if user.role == Role::User => (user, None),
            [user, answer] if (user.role, answer.role) == (Role::User, Role::Assistant) => {
                (user, Some(answer))
            }
            _ => {
                return Err(RenderError::ManyTurns {
                    template: self.template.clone(),
                    turns: turns.len(),
                });
            }
        };
        Ok(Turn {
            system: system.map(|message| message.content.as_str()),
            question: &question.content,
            input: None,
            answer: answer.map(|message| message.content.as_str()),
        })
    }
}

impl Variant {
    fn parse(text: &str, language: Language) -> Result<Variant, String> {
        let text = Text::parse(text, language)?;
        let parts = text.parts();
        for answer in [Part::Answer, Part::Text] {
            if parts.contains(&answer) && text.opening(answer).is_none() {
                return Err(format!(
                    "{{{answer}}} is outside `[[` and `]]`, so it would not be trained on"
                ));
            }
        }
        if !text.has_marks() {
            return Err(
                "nothing is marked to be trained on: enclose the answer in `[[` and `]]`".into(),
            );
        }
        Ok(Variant { parts, text })
    }
}

fn say(parts: &Parts) -> impl FnMut(Part, &mut String) {
    |part, out| out.push_str(parts.get(&part).copied().unwrap_or_default())
}
