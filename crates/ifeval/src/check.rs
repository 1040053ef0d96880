//! Checks of a response, as the reference computes them.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::json;
use super::language::{Language, detect};
use super::python::{self, own, strip};

/// Whether a text is in a language. A text without features is in every language.
pub(super) fn is_language(text: &str, language: &str) -> bool {
    match detect(text) {
        Language::NoFeatures => true,
        Language::Unknown => false,
        Language::Known(detected) => detected == language,
    }
}

pub(super) fn has_option(text: &str) -> bool {
    let options = [
        "My answer is yes.",
        "My answer is no.",
        "My answer is maybe.",
    ];
    options.iter().any(|option| text.contains(option))
}

/// For each word, whether it is found.
pub(super) fn keywords(words: &[Regex], text: &str) -> impl Iterator<Item = bool> {
    let text = python::fold(text);
    words.iter().map(move |word| python::found(word, &text))
}

pub(super) fn frequency(word: &Regex, text: &str) -> usize {
    python::count(word, &python::fold(text))
}

/// The number of section headings. The reference counts by Python's `split`, which also returns the groups of the pattern.
pub(super) fn sections(heading: &Regex, text: &str) -> usize {
    python::count(heading, text) * heading.captures_len()
}

pub(super) fn bullets(text: &str) -> usize {
    static STAR: LazyLock<Regex> = LazyLock::new(|| own(r"(?m)^\s*\*[^\*].*$"));
    static DASH: LazyLock<Regex> = LazyLock::new(|| own(r"(?m)^\s*-.*$"));
    python::count(&STAR, text) + python::count(&DASH, text)
}

pub(super) fn ends_with(response: &str, phrase: &str) -> bool {
    let response = strip(response).trim_matches('"');
    response.to_lowercase().ends_with(phrase)
}

/// The number of sections between asterisks and between double asterisks; the latter count twice.
pub(super) fn highlights(text: &str) -> usize {
    static ONE: LazyLock<Regex> = LazyLock::new(|| own(r"\*[^\n\*]*\*"));
    static TWO: LazyLock<Regex> = LazyLock::new(|| own(r"\*\*[^\n\*]*\*\*"));
    let written = |pattern: &Regex| {
        let found = pattern.find_iter(text).map_while(Result::ok);
        found
            .filter(|found| !strip(found.as_str().trim_matches('*')).is_empty())
            .count()
    };
    written(&ONE) + written(&TWO)
}

pub(super) fn is_json(text: &str) -> bool {
    let mut text = strip(text);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    json::is_json(strip(text.strip_suffix("```").unwrap_or(text)))
}

/// The number of paragraphs, and the first word of one of them.
#[derive(Debug, Clone)]
pub(super) struct NthParagraph {
    pub(super) paragraphs: usize,
    pub(super) nth: usize,
    pub(super) first_word: String,
}

impl NthParagraph {
    pub(super) fn follows(&self, text: &str) -> bool {
        let paragraphs: Vec<&str> = text.split("\n\n").map(strip).collect();
        let number = paragraphs.iter().filter(|text| !text.is_empty()).count();
        if self.nth > number || number != self.paragraphs {
            return false;
        }
        // as in the reference, empty paragraphs before it are counted here
        let Some(word) = python::split(paragraphs[self.nth - 1]).next() else {
            return false;
        };
        let word = word.trim_start_matches('\'').trim_start_matches('"');
        let end = word.find(['.', ',', '?', '!', '\'', '"']);
        let word = &word[..end.unwrap_or(word.len())];
        word.chars()
            .flat_map(char::to_lowercase)
            .eq(self.first_word.chars())
    }
}

/// The number of pieces between triple asterisks; `None` if a piece in the middle is empty.
pub(super) fn paragraphs(text: &str) -> Option<usize> {
    static DIVIDER: LazyLock<Regex> = LazyLock::new(|| own(r"\s?\*\*\*\s?"));
    let pieces: Vec<bool> = DIVIDER
        .split(text)
        .map_while(Result::ok)
        .map(|piece| strip(piece).is_empty())
        .collect();
    let last = pieces.len().saturating_sub(1);
    let middle = pieces.get(1..last).unwrap_or(&[]);
    let empty = pieces.iter().filter(|empty| **empty).count();
    (!middle.contains(&true)).then(|| pieces.len() - empty)
}

pub(super) fn placeholders(text: &str) -> usize {
    static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| own(r"\[.*?\]"));
    python::count(&PLACEHOLDER, text)
}

pub(super) fn is_quoted(text: &str) -> bool {
    text.len() > 1 && text.starts_with('"') && text.ends_with('"')
}

pub(super) fn has_title(text: &str) -> bool {
    static TITLE: LazyLock<Regex> = LazyLock::new(|| own(r"<<[^\n]+>>"));
    let mut titles = TITLE.find_iter(text).map_while(Result::ok);
    titles.any(|title| {
        let title = title.as_str().trim_start_matches('<');
        !strip(title.trim_end_matches('>')).is_empty()
    })
}

pub(super) fn are_two(text: &str) -> bool {
    let responses: Vec<&str> = text.split("******").map(strip).collect();
    let middle = responses.get(1..responses.len() - 1).unwrap_or(&[]);
    let mut given = responses.iter().filter(|response| !response.is_empty());
    let (Some(first), Some(second), None) = (given.next(), given.next(), given.next()) else {
        return false;
    };
    first != second && middle.iter().all(|response| !response.is_empty())
}

pub(super) fn words(text: &str) -> usize {
    static WORD: LazyLock<Regex> = LazyLock::new(|| python::unicode(r"\w+"));
    python::count(&WORD, text)
}
