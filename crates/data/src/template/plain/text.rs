//! The texts of a plain template: literals, placeholders for a row's parts, and marks around what is trained on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// The parts that a row may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    System,
    Question,
    Input,
    Answer,
    Text,
    User,
    Assistant,
    Tool,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::System => "system",
            Part::Question => "instruction",
            Part::Input => "input",
            Part::Answer => "output",
            Part::Text => "text",
            Part::User => "user",
            Part::Assistant => "assistant",
            Part::Tool => "tool",
        })
    }
}

/// The names that a text may have in braces: those of the parts, and the tokenizer's special tokens by their keys.
#[derive(Clone, Copy)]
pub(super) struct Language<'a> {
    pub(super) names: &'a [(&'static str, Part)],
    pub(super) specials: &'a BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// A placeholder, and whether white space around its value is trimmed.
    Part(Part, bool),
    Open,
    Close,
}

/// A text with placeholders and marks.
#[derive(Debug, Default)]
pub(super) struct Text {
    pieces: Vec<Piece>,
}

impl Text {
    /// Parses a text. Every mark must be paired, and no placeholder may occur twice.
    pub(super) fn parse(text: &str, language: Language) -> Result<Text, String> {
        let text = Text {
            pieces: pieces(text, language)?,
        };
        let mut parts = BTreeSet::new();
        let mut open = false;
        for piece in &text.pieces {
            match piece {
                Piece::Open if open => return Err("`[[` inside `[[`".into()),
                Piece::Open => open = true,
                Piece::Close if !open => return Err("`]]` without `[[`".into()),
                Piece::Close => open = false,
                Piece::Part(part, _) if !parts.insert(*part) => {
                    return Err(format!("duplicate {{{part}}}"));
                }
                Piece::Part(..) | Piece::Literal(_) => {}
            }
        }
        if open {
            return Err("`[[` without `]]`".into());
        }
        Ok(text)
    }

    pub(super) fn parts(&self) -> BTreeSet<Part> {
        let part = |piece: &Piece| match piece {
            Piece::Part(part, _) => Some(*part),
            _ => None,
        };
        self.pieces.iter().filter_map(part).collect()
    }

    pub(super) fn has_marks(&self) -> bool {
        self.pieces.contains(&Piece::Open)
    }

    /// The index of the piece that opens the marks around `part`.
    pub(super) fn opening(&self, part: Part) -> Option<usize> {
        let mut open = None;
        for (index, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Open => open = Some(index),
                Piece::Close => open = None,
                Piece::Part(found, _) if *found == part => return open,
                _ => {}
            }
        }
        None
    }

    /// Writes the text to `out`; `say` writes the value of each placeholder. Returns the ranges between marks.
    pub(super) fn write(
        &self,
        out: &mut String,
        say: &mut dyn FnMut(Part, &mut String),
    ) -> Vec<Range<usize>> {
        write(&self.pieces, out, say)
    }

    /// Writes the text up to the marks around `part`.
    pub(super) fn write_until(
        &self,
        part: Part,
        out: &mut String,
        say: &mut dyn FnMut(Part, &mut String),
    ) {
        let end = self.opening(part).unwrap_or(self.pieces.len());
        write(&self.pieces[..end], out, say);
    }
}

fn write(
    pieces: &[Piece],
    out: &mut String,
    say: &mut dyn FnMut(Part, &mut String),
) -> Vec<Range<usize>> {
    let (mut spans, mut start) = (Vec::new(), 0);
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => out.push_str(literal),
            Piece::Part(part, trim) => {
                let at = out.len();
                say(*part, out);
                if *trim {
                    trim_from(out, at);
                }
            }
            Piece::Open => start = out.len(),
            Piece::Close => spans.push(start..out.len()),
        }
    }
    spans
}

/// Python's `strip`, applied to `text[at..]`.
fn trim_from(text: &mut String, at: usize) {
    let space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    let end = at + text[at..].trim_end_matches(space).len();
    text.truncate(end);
    let start = end - text[at..].trim_start_matches(space).len();
    text.replace_range(at..start, "");
}

/// Splits a text into pieces.
fn pieces(text: &str, language: Language) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}', '[', ']']) {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        let (piece, length) = piece(rest, language)?;
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

/// The first piece of `rest`, which starts with a brace or bracket, and the piece's length. Of three adjacent brackets,
/// the first two are `[[`, and the last two are `]]`.
fn piece(rest: &str, language: Language) -> Result<(Piece, usize), String> {
    let literal = |length| (Piece::Literal(rest[..1].into()), length);
    Ok(match rest.get(..2) {
        Some("{{" | "}}") => literal(2),
        Some("[[") => (Piece::Open, 2),
        Some("]]") if !rest.starts_with("]]]") => (Piece::Close, 2),
        _ if rest.starts_with('{') => {
            let end = rest
                .find('}')
                .ok_or("`{` without `}`; write `{{` for a literal brace")?;
            (language.place(&rest[1..end])?, end + 1)
        }
        _ if rest.starts_with('}') => {
            return Err("`}` without `{`; write `}}` for a literal brace".into());
        }
        _ => literal(1),
    })
}

impl Language<'_> {
    /// The piece for the text between braces.
    fn place(&self, place: &str) -> Result<Piece, String> {
        if let "bos" | "eos" = place {
            let token = self.specials.get(&format!("{place}_token"));
            let missing = format!("{{{place}}}: the tokenizer has no {place}_token");
            return token.cloned().map(Piece::Literal).ok_or(missing);
        }
        let (name, trim) = match place.strip_suffix("|trim") {
            Some(name) => (name, true),
            None => (place, false),
        };
        let part = self.names.iter().find(|(known, _)| *known == name);
        part.map(|(_, part)| Piece::Part(*part, trim))
            .ok_or_else(|| {
                let known = self.names.iter().map(|(name, _)| format!("{{{name}}}"));
                let known: Vec<_> = known.collect();
                format!(
                    "unknown {{{place}}}; known are {}, {{bos}}, {{eos}}",
                    known.join(", ")
                )
            })
    }
}

/// Names of parts, as messages list them.
pub(super) fn names(parts: &BTreeSet<Part>) -> String {
    let names: Vec<_> = parts.iter().map(Part::to_string).collect();
    names.join(" + ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let specials = BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]);
        let language = Language {
            names: &[("user", Part::User)],
            specials: &specials,
        };
        match Text::parse(text, language) {
            Err(error) => format!("error: {error}"),
            Ok(text) => {
                let mut out = String::new();
                let spans = text.write(&mut out, &mut |_, out| out.push_str(" hi "));
                for span in spans.into_iter().rev() {
                    out.insert(span.end, '⟧');
                    out.insert(span.start, '⟦');
                }
                out
            }
        }
    }

    #[test]
    fn of_three_brackets_the_outer_two_are_the_mark() {
        assert_eq!(shown("[[[|A|] {user}[|B|]]]"), "⟦[|A|]  hi [|B|]⟧");
        assert_eq!(shown("[a] [[b]]] [[]c[]]"), "[a] ⟦b]⟧ ⟦]c[⟧");
        assert_eq!(shown("{{{user|trim}}}[[{eos}]]"), "{hi}⟦</s>⟧");
    }

    #[test]
    fn only_the_value_of_a_placeholder_is_trimmed() {
        assert_eq!(shown("a \n{user|trim}\n b"), "a \nhi\n b");
        let mut text = "x \u{1c}\u{a0} \n".to_owned();
        trim_from(&mut text, 1);
        assert_eq!(text, "x");
    }

    #[test]
    fn marks_must_be_paired() {
        assert_eq!(shown("[[a"), "error: `[[` without `]]`");
        assert_eq!(shown("a]]"), "error: `]]` without `[[`");
        assert_eq!(shown("[[a[[b]]"), "error: `[[` inside `[[`");
        assert_eq!(
            shown("{bos}"),
            "error: {bos}: the tokenizer has no bos_token"
        );
    }
}
