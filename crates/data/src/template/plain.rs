//! Templates as data: one TOML file each, the trained span marked in the text.
//!
//! ```toml
//! accepts = ["instruction", "completion", "messages"]   # the layouts of rows that it renders
//!
//! [[variants]]                                          # the one whose parts are those that the row has is used
//! text = "Q: {instruction}\nA:[[ {output}]]"
//! ```
//!
//! `{instruction}` (or `{prompt}`), `{input}`, `{output}` (or `{response}`, `{completion}`), `{system}` and `{text}` are the
//! row's parts; `{bos}` and `{eos}` the tokenizer's special tokens. `[[` and `]]` enclose what is trained on. `{{` and `}}`
//! stand for braces. The end of sequence after the last answer needs no mark: it always follows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use super::{RenderError, Rendered, TemplateError};
use crate::conversation::{Content, Conversation, Layout, Message, Role};

/// A part of a row that a template has a place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    System,
    Question,
    Input,
    Answer,
    Text,
}

impl Part {
    const NAMES: [(&'static str, Part); 8] = [
        ("system", Part::System),
        ("instruction", Part::Question),
        ("prompt", Part::Question),
        ("input", Part::Input),
        ("output", Part::Answer),
        ("response", Part::Answer),
        ("completion", Part::Answer),
        ("text", Part::Text),
    ];

    fn named(name: &str) -> Option<Part> {
        let found = Part::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, part)| *part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::System => "system",
            Part::Question => "instruction",
            Part::Input => "input",
            Part::Answer => "output",
            Part::Text => "text",
        })
    }
}

/// A piece of a variant's text.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Part(Part),
    Open,
    Close,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainFile {
    accepts: Vec<Layout>,
    variants: Vec<VariantFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VariantFile {
    text: String,
}

/// A template of literal text and places for a row's parts.
#[derive(Debug)]
pub(super) struct Plain {
    name: String,
    accepts: Vec<Layout>,
    variants: Vec<Variant>,
}

#[derive(Debug)]
struct Variant {
    parts: BTreeSet<Part>,
    pieces: Vec<Piece>,
}

/// One question and its answer, by the row's parts.
#[derive(Default)]
struct Turn<'c> {
    system: Option<&'c str>,
    question: &'c str,
    input: Option<&'c str>,
    answer: Option<&'c str>,
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
        let file: PlainFile = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let mut variants: Vec<Variant> = Vec::new();
        for (index, variant) in file.variants.iter().enumerate() {
            let variant = Variant::parse(&variant.text, specials)
                .map_err(|problem| invalid(format!("variants[{index}]: {problem}")))?;
            if variants.iter().any(|other| other.parts == variant.parts) {
                let parts = names(&variant.parts);
                return Err(invalid(format!(
                    "variants[{index}]: another variant has the same parts, {parts}"
                )));
            }
            variants.push(variant);
        }
        Ok(Plain {
            name: name.into(),
            accepts: file.accepts,
            variants,
        })
    }

    pub(super) fn render(&self, conversation: &Conversation) -> Result<Rendered, RenderError> {
        let parts = self.parts(conversation)?;
        let complete = parts.contains_key(&Part::Answer) || parts.contains_key(&Part::Text);
        let (text, trained) = self.variant(&parts)?.fill(&parts);
        Ok(Rendered {
            text,
            trained,
            complete,
            own_specials: false,
        })
    }

    /// The text up to the answer's span, which may begin before the answer itself; text rows whole.
    pub(super) fn prompt(&self, conversation: &Conversation) -> Result<String, RenderError> {
        let mut parts = self.parts(conversation)?;
        if !parts.contains_key(&Part::Text) {
            parts.insert(Part::Answer, "");
        }
        let variant = self.variant(&parts)?;
        let (mut text, trained) = variant.fill(&parts);
        if parts.contains_key(&Part::Answer)
            && let Some(last) = trained.last()
        {
            text.truncate(last.start);
        }
        Ok(text)
    }

    fn variant(&self, parts: &BTreeMap<Part, &str>) -> Result<&Variant, RenderError> {
        let has: BTreeSet<Part> = parts.keys().copied().collect();
        let fitting = self.variants.iter().find(|v| v.parts == has);
        fitting.ok_or_else(|| {
            let known: Vec<_> = self.variants.iter().map(|v| names(&v.parts)).collect();
            RenderError::NoVariant {
                template: self.name.clone(),
                found: names(&has),
                known: known.join("; "),
            }
        })
    }

    /// The row's parts, those that say nothing left out; an answer may be empty.
    fn parts<'c>(
        &self,
        conversation: &'c Conversation,
    ) -> Result<BTreeMap<Part, &'c str>, RenderError> {
        let layout = conversation.layout();
        if !self.accepts.contains(&layout) {
            return Err(RenderError::Layout {
                template: self.name.clone(),
                layout,
            });
        }
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
                    template: self.name.clone(),
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
    fn parse(text: &str, specials: &BTreeMap<String, String>) -> Result<Variant, String> {
        let pieces = pieces(text, specials)?;
        let mut parts = BTreeSet::new();
        let (mut open, mut marked) = (false, false);
        for piece in &pieces {
            match piece {
                Piece::Open if open => return Err("`[[` inside `[[`".into()),
                Piece::Open => (open, marked) = (true, true),
                Piece::Close if !open => return Err("`]]` without `[[`".into()),
                Piece::Close => open = false,
                Piece::Part(part @ (Part::Answer | Part::Text)) if !open => {
                    return Err(format!(
                        "{{{part}}} stands outside `[[` and `]]`, so it would not be trained on"
                    ));
                }
                Piece::Part(part) if !parts.insert(*part) => {
                    return Err(format!("{{{part}}} stands there twice"));
                }
                Piece::Part(_) | Piece::Literal(_) => {}
            }
        }
        match (open, marked) {
            (true, _) => Err("`[[` without `]]`".into()),
            (_, false) => Err(
                "nothing is marked to be trained on: enclose the answer in `[[` and `]]`".into(),
            ),
            _ => Ok(Variant { parts, pieces }),
        }
    }

    /// The text, and the spans between its marks; an empty span is none.
    fn fill(&self, parts: &BTreeMap<Part, &str>) -> (String, Vec<std::ops::Range<usize>>) {
        let (mut text, mut spans, mut start) = (String::new(), Vec::new(), 0);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Part(part) => text.push_str(parts.get(part).copied().unwrap_or_default()),
                Piece::Open => start = text.len(),
                Piece::Close => spans.push(start..text.len()),
            }
        }
        (text, spans)
    }
}

/// Cuts a variant's text into pieces.
fn pieces(text: &str, specials: &BTreeMap<String, String>) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}', '[', ']']) {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        let (piece, length) = match rest.get(..2) {
            Some("{{") => (Piece::Literal("{".into()), 2),
            Some("}}") => (Piece::Literal("}".into()), 2),
            Some("[[") => (Piece::Open, 2),
            Some("]]") => (Piece::Close, 2),
            _ if rest.starts_with('{') => {
                let end = rest
                    .find('}')
                    .ok_or("`{` without `}`; a brace itself is `{{`")?;
                (placeholder(&rest[1..end], specials)?, end + 1)
            }
            _ if rest.starts_with('}') => {
                return Err("`}` without `{`; a brace itself is `}}`".into());
            }
            _ => (Piece::Literal(rest[..1].into()), 1),
        };
        rest = &rest[length..];
        match piece {
            Piece::Literal(text) => literal.push_str(&text),
            piece => {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                pieces.push(piece);
            }
        }
    }
    literal.push_str(rest);
    pieces.push(Piece::Literal(literal));
    pieces.retain(|piece| *piece != Piece::Literal(String::new()));
    Ok(pieces)
}

fn placeholder(name: &str, specials: &BTreeMap<String, String>) -> Result<Piece, String> {
    if let "bos" | "eos" = name {
        let token = specials.get(&format!("{name}_token"));
        let missing = format!("{{{name}}}: the tokenizer names no {name}_token");
        return token.cloned().map(Piece::Literal).ok_or(missing);
    }
    Part::named(name).map(Piece::Part).ok_or_else(|| {
        let known = Part::NAMES.map(|(name, _)| format!("{{{name}}}"));
        format!(
            "unknown {{{name}}}; there are {}, {{bos}}, {{eos}}",
            known.join(", ")
        )
    })
}

fn names(parts: &BTreeSet<Part>) -> String {
    let names: Vec<_> = parts.iter().map(Part::to_string).collect();
    names.join(" + ")
}
