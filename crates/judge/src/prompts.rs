//! Prompts of a judge as data.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::JudgeError;
use crate::recipe::Mode;

/// The maximum size of a file of prompts.
const MAX_BYTES: u64 = 1 << 20;

/// Names and contents of files under `data/judge`.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../data/judge/", $name, ".toml")))),*]
    };
}

/// The built-in prompts. A new file needs its name here.
const FILES: &[(&str, &str)] = files!["mt-bench"];

/// The prompts of a judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// What they are, with their source.
    pub about: String,
    /// The categories of questions that are judged beside reference answers; `*`: all.
    #[serde(default)]
    pub reference_categories: Vec<String>,
    /// The temperature of answers.
    #[serde(default = "most")]
    pub default_temperature: f64,
    /// The temperature of answers to the questions of a category.
    #[serde(default)]
    pub temperature: BTreeMap<String, f64>,
    /// One answer is rated.
    #[serde(default)]
    pub single: Option<Set>,
    /// Two answers are compared.
    #[serde(default)]
    pub pairwise: Option<Set>,
}

/// The prompts of one mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// The lowest and the highest rating; only for single answers.
    #[serde(default)]
    pub scale: Option<Scale>,
    /// For the first turn.
    pub first: JudgePrompt,
    /// For the first turn, with a reference answer.
    #[serde(default)]
    pub first_reference: Option<JudgePrompt>,
    /// For the second turn, with the first as context.
    #[serde(default)]
    pub second: Option<JudgePrompt>,
    /// For the second turn, with reference answers.
    #[serde(default)]
    pub second_reference: Option<JudgePrompt>,
}

/// The lowest and the highest rating.
pub type Scale = [f64; 2];

/// One prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgePrompt {
    /// Its name, for the results.
    pub name: String,
    /// The system message.
    pub system: String,
    /// The message of the user, with blanks such as `{question}`; `{{` and `}}` are braces.
    pub prompt: String,
}

fn most() -> f64 {
    0.7
}

/// A part of a prompt.
enum Piece {
    Text(String),
    Blank(String),
}

impl Prompts {
    /// The built-in prompts of this name, or those of a file that ends in `.toml`.
    ///
    /// # Errors
    /// If the name is unknown, the file cannot be read, or a prompt is invalid; the message has line and key, or the blank.
    pub fn named(name: &str) -> Result<Self, JudgeError> {
        let invalid = |problem: String| JudgeError::Prompts {
            name: name.to_owned(),
            problem,
        };
        let built_in = FILES.iter().find(|(known, _)| *known == name);
        let text = match built_in {
            Some((_, text)) => (*text).to_owned(),
            None if Path::new(name).extension().is_some_and(|end| end == "toml") => {
                simmer_files::read_text(Path::new(name), MAX_BYTES).map_err(|source| {
                    JudgeError::Read {
                        path: name.into(),
                        source,
                    }
                })?
            }
            None => {
                let known: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
                return Err(invalid(format!(
                    "expected one of {}, or a file that ends in .toml",
                    known.join(", ")
                )));
            }
        };
        let prompts: Self = toml::from_str(&text)
            .map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
        prompts.check().map_err(invalid)?;
        Ok(prompts)
    }

    /// Checks the blanks of each prompt.
    fn check(&self) -> Result<(), String> {
        for (mode, set) in [
            (Mode::Single, &self.single),
            (Mode::Pairwise, &self.pairwise),
        ] {
            let Some(set) = set else { continue };
            for (key, prompt, blanks) in set.all(mode) {
                let place = format!("[{}.{key}]: `prompt`", mode.name());
                let pieces =
                    pieces(&prompt.prompt).map_err(|problem| format!("{place}: {problem}"))?;
                let used: Vec<&String> = pieces
                    .iter()
                    .filter_map(|piece| match piece {
                        Piece::Blank(name) => Some(name),
                        Piece::Text(_) => None,
                    })
                    .collect();
                if let Some(name) = used.iter().find(|name| !blanks.contains(&name.as_str())) {
                    return Err(format!(
                        "{place}: expected blanks of {{{}}}, found {{{name}}}",
                        blanks.join("}, {")
                    ));
                }
                let mut needed = blanks.iter().filter(|name| name.starts_with("answer"));
                if let Some(missing) = needed.find(|name| !used.iter().any(|used| used == *name)) {
                    return Err(format!(
                        "{place}: expected {{{missing}}}, found no such blank"
                    ));
                }
            }
            if let Some([low, high]) = set.scale
                && !(low < high && low.is_finite() && high.is_finite())
            {
                return Err(format!(
                    "[{}]: `scale`: expected two rising numbers, found {low} and {high}",
                    mode.name()
                ));
            }
        }
        Ok(())
    }

    /// The temperature of answers to questions of a category.
    pub fn temperature(&self, category: Option<&str>) -> f64 {
        let of = category.and_then(|category| self.temperature.get(category));
        of.copied().unwrap_or(self.default_temperature)
    }

    /// The prompts of a mode.
    pub fn set(&self, mode: Mode) -> Option<&Set> {
        match mode {
            Mode::Single => self.single.as_ref(),
            Mode::Pairwise => self.pairwise.as_ref(),
        }
    }

    /// Whether questions of a category are judged beside reference answers.
    pub fn wants_reference(&self, category: Option<&str>) -> bool {
        self.reference_categories
            .iter()
            .any(|wanted| wanted == "*" || Some(wanted.as_str()) == category)
    }
}

impl Set {
    /// Each prompt with its key and the blanks that it may have. Those of answers it must have.
    fn all(&self, mode: Mode) -> Vec<(&'static str, &JudgePrompt, Vec<&'static str>)> {
        let (first, second): (&[&str], &[&str]) = match mode {
            Mode::Single => (
                &["question", "answer"],
                &["question_1", "question_2", "answer_1", "answer_2"],
            ),
            Mode::Pairwise => (
                &["question", "answer_a", "answer_b"],
                &[
                    "question_1",
                    "question_2",
                    "answer_a_1",
                    "answer_a_2",
                    "answer_b_1",
                    "answer_b_2",
                ],
            ),
        };
        let with = |blanks: &[&'static str], more: &[&'static str]| [blanks, more].concat();
        let all = [
            ("first", Some(&self.first), first.to_vec()),
            (
                "first_reference",
                self.first_reference.as_ref(),
                with(first, &["ref_answer_1"]),
            ),
            ("second", self.second.as_ref(), second.to_vec()),
            (
                "second_reference",
                self.second_reference.as_ref(),
                with(second, &["ref_answer_1", "ref_answer_2"]),
            ),
        ];
        let given = all.into_iter();
        given
            .filter_map(|(key, prompt, blanks)| Some((key, prompt?, blanks)))
            .collect()
    }

    /// The prompt for a turn, from 0.
    pub fn prompt(&self, turn: usize, with_reference: bool) -> Option<&JudgePrompt> {
        let (plain, reference) = match turn {
            0 => (Some(&self.first), &self.first_reference),
            _ => (self.second.as_ref(), &self.second_reference),
        };
        if with_reference {
            reference.as_ref().or(plain)
        } else {
            plain
        }
    }
}

impl JudgePrompt {
    /// The prompt with its blanks filled in, all at once: braces of a filled-in text mean nothing.
    pub fn filled(&self, value: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for piece in pieces(&self.prompt).unwrap_or_default() {
            match piece {
                Piece::Text(part) => text += &part,
                Piece::Blank(name) => text += &value(&name),
            }
        }
        text
    }
}

/// The parts of a prompt, by the rules of Python's `str.format` without conversions.
fn pieces(prompt: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let (mut text, mut rest) = (String::new(), prompt);
    while let Some(at) = rest.find(['{', '}']) {
        text += &rest[..at];
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{") {
            text.push('{');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("}}") {
            text.push('}');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Blank(name.to_owned()));
            rest = after;
        } else {
            return Err(format!(
                "expected {{NAME}}, or {{{{ and }}}} for braces, found a single brace before {:?}",
                rest.chars().skip(1).take(20).collect::<String>()
            ));
        }
    }
    text += rest;
    pieces.push(Piece::Text(text));
    Ok(pieces)
}
