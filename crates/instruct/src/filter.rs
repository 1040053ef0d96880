//! Which instructions are kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::python::{has_word, words};

/// The filter of a method, the same for every instruction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The minimum number of words.
    pub min_words: usize,
    /// The maximum number of words.
    pub max_words: usize,
    /// Words that no instruction may have, in upper or lower case: they ask for what a language model cannot do.
    pub keywords: Vec<String>,
    /// Texts that no instruction may start with.
    pub prefixes: Vec<String>,
    /// The maximum ROUGE-L F-measure with any seed and any instruction before it.
    pub max_rouge_l: f64,
}

/// Why something is dropped.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// The completion reached its maximum number of tokens there.
    Truncated,
    /// The prompt is longer than the model's context.
    PromptTooLong,
    /// The completion does not have the parts of an instruction, an instance or a conversation.
    Format,
    /// There is no text.
    Empty,
    /// It has fewer words than `min_words`.
    TooShort,
    /// It has more words than `max_words`.
    TooLong,
    /// It has this keyword.
    Keyword(String),
    /// It starts with this prefix.
    Prefix(String),
    /// It starts with a punctuation mark.
    Punctuation,
    /// It starts with a character outside ASCII.
    NotAscii,
    /// ROUGE-L with another instruction is this, above `max_rouge_l`.
    Similar(f64),
    /// An instance's output is its input.
    SameAsInput,
    /// An instance has no output.
    NoOutput,
    /// An instance's input or output ends with a colon.
    Colon,
    /// Two instances of an instruction have the same input and other outputs.
    Contradiction,
    /// There is one already.
    Duplicate,
    /// The instruction has enough instances.
    Surplus,
}

impl Reason {
    /// Its name, for the report.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::PromptTooLong => "prompt_too_long",
            Self::Format => "format",
            Self::Empty => "empty",
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::Keyword(_) => "keyword",
            Self::Prefix(_) => "prefix",
            Self::Punctuation => "punctuation",
            Self::NotAscii => "not_ascii",
            Self::Similar(_) => "similar",
            Self::SameAsInput => "same_as_input",
            Self::NoOutput => "no_output",
            Self::Colon => "colon",
            Self::Contradiction => "contradiction",
            Self::Duplicate => "duplicate",
            Self::Surplus => "surplus",
        }
    }

    /// What it means, by its name, for people.
    pub fn meaning(name: &str) -> &'static str {
        match name {
            "truncated" => "the completion reached max_tokens",
            "prompt_too_long" => "the prompt is longer than the model's context",
            "format" => "the completion is not in the expected format",
            "empty" => "no text",
            "too_short" => "too few words",
            "too_long" => "too many words",
            "keyword" => "a keyword of what a language model cannot do",
            "prefix" => "a start that is not allowed",
            "punctuation" => "starts with a punctuation mark",
            "not_ascii" => "starts with a character outside ASCII",
            "similar" => "ROUGE-L with another instruction above the limit",
            "same_as_input" => "the output is the input",
            "no_output" => "no output",
            "colon" => "input or output ends with a colon",
            "contradiction" => "the same input with another output",
            "duplicate" => "a duplicate",
            "surplus" => "more instances than max_instances",
            _ => "",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyword(text) | Self::Prefix(text) => write!(f, "{}: {text}", self.name()),
            Self::Similar(score) => write!(f, "similar: {score:.3}"),
            _ => f.write_str(self.name()),
        }
    }
}

impl Filter {
    /// Why an instruction is dropped, whatever the other instructions are; `None` if it is kept.
    pub fn reason(&self, instruction: &str) -> Option<Reason> {
        let count = words(instruction).count();
        let Some(first) = instruction.chars().next() else {
            return Some(Reason::Empty);
        };
        if count < self.min_words {
            return Some(Reason::TooShort);
        }
        if count > self.max_words {
            return Some(Reason::TooLong);
        }
        let mut keywords = self.keywords.iter();
        if let Some(keyword) = keywords.find(|keyword| has_word(instruction, keyword)) {
            return Some(Reason::Keyword(keyword.clone()));
        }
        let mut prefixes = self.prefixes.iter();
        if let Some(prefix) = prefixes.find(|prefix| instruction.starts_with(prefix.as_str())) {
            return Some(Reason::Prefix(prefix.clone()));
        }
        if first.is_ascii_punctuation() {
            return Some(Reason::Punctuation);
        }
        (!first.is_ascii()).then_some(Reason::NotAscii)
    }
}
