//! Splits text into sentences: Punkt (Kiss and Strunk, 2006) with NLTK's English model, with the results of NLTK 3.10.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use fancy_regex::Regex;

use super::python::{self, unicode};
use super::table;

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    Model::read(&table::unpack(include_bytes!(
        "../../../data/ifeval/punkt.tsv.gz"
    )))
});

/// Characters other than the period that end a word.
const NON_WORD: &str = ")\";}]*:@'({[‘’“”«»?!";
/// Closing quotes and brackets.
const CLOSING: &str = "\"')]}‘’“”«»";
/// In which case and at which place of a sentence a word occurred in the training text of the model.
const MIDDLE_UPPER: u8 = 1 << 2;
const UPPER: u8 = 1 << 1 | MIDDLE_UPPER | 1 << 3;
const BEGIN_LOWER: u8 = 1 << 4;
const LOWER: u8 = BEGIN_LOWER | 1 << 5 | 1 << 6;

struct Model {
    abbreviations: HashSet<String>,
    starters: HashSet<String>,
    collocations: HashSet<(String, String)>,
    cases: HashMap<String, u8>,
    words: Regex,
    number: Regex,
    initial: Regex,
}

impl Model {
    fn read(text: &str) -> Self {
        let mut model = Self {
            abbreviations: HashSet::new(),
            starters: HashSet::new(),
            collocations: HashSet::new(),
            cases: HashMap::new(),
            words: word_pattern(),
            number: unicode(r"^-?[.,]?\d[\d,.\-]*\.?$"),
            initial: unicode(r"^[^\W\d]\.$"),
        };
        for line in text.lines() {
            let Some((kind, rest)) = line.split_once('\t') else {
                continue;
            };
            match (kind, rest.split_once('\t')) {
                ("abbreviation", _) => {
                    model.abbreviations.insert(rest.into());
                }
                ("starter", _) => {
                    model.starters.insert(rest.into());
                }
                ("collocation", Some((first, second))) => {
                    model.collocations.insert((first.into(), second.into()));
                }
                _ => {
                    model.cases.insert(rest.into(), kind.parse().unwrap_or(0));
                }
            }
        }
        model
    }
}

/// The words of a line, with their periods.
fn word_pattern() -> Regex {
    let non_word = r#"[)";}\]*:@'({\[‘’“”«»?!]"#;
    let marks = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)";
    let end = format!(r"\s|\z|{non_word}|{marks}");
    let start = r#"[^("`{\[:;&#*@)}\]\-,]"#;
    unicode(&format!(r"{marks}|(?={start})\S+?(?={end}|,(?={end}))|\S"))
}

/// A word and its annotations.
struct Token<'a> {
    text: &'a str,
    /// The word in lower case; all numbers are the same type.
    kind: String,
    ends_sentence: bool,
    abbreviation: bool,
    ellipsis: bool,
}

impl<'a> Token<'a> {
    fn new(model: &Model, text: &'a str) -> Self {
        let lower = text.to_lowercase();
        let kind = if python::found(&model.number, &lower) {
            "##number##".into()
        } else {
            lower
        };
        let mut token = Self {
            text,
            kind,
            ends_sentence: false,
            abbreviation: false,
            ellipsis: false,
        };
        token.look(model);
        token
    }

    /// Annotates the word by itself.
    fn look(&mut self, model: &Model) {
        let text = self.text;
        if matches!(text, "." | "?" | "!") {
            self.ends_sentence = true;
        } else if text.len() > 1 && text.bytes().all(|byte| byte == b'.') {
            self.ellipsis = true;
        } else if let Some(word) = text.strip_suffix('.')
            && !word.ends_with('.')
        {
            let word = word.to_lowercase();
            let last = word.rsplit('-').next().unwrap_or(&word);
            self.abbreviation =
                model.abbreviations.contains(&word) || model.abbreviations.contains(last);
            self.ends_sentence = !self.abbreviation;
        }
    }

    fn without_period(&self) -> &str {
        match self.kind.strip_suffix('.') {
            Some(word) if !word.is_empty() => word,
            _ => &self.kind,
        }
    }

    /// Its type as the word after another word.
    fn next_kind(&self) -> &str {
        if self.ends_sentence {
            self.without_period()
        } else {
            &self.kind
        }
    }

    fn first_upper(&self) -> bool {
        self.text.starts_with(char::is_uppercase)
    }

    /// Whether it starts a sentence, judged by the cases in which it occurred in the model's training text.
    fn begins_sentence(&self, model: &Model) -> Option<bool> {
        if matches!(self.text, ";" | ":" | "," | "." | "!" | "?") {
            return Some(false);
        }
        let cases = model.cases.get(self.next_kind()).copied().unwrap_or(0);
        if self.first_upper() && cases & LOWER != 0 && cases & MIDDLE_UPPER == 0 {
            return Some(true);
        }
        let lower = self.text.starts_with(char::is_lowercase);
        (lower && (cases & UPPER != 0 || cases & BEGIN_LOWER == 0)).then_some(false)
    }

    /// Annotates the word by the next word.
    fn look_ahead(&mut self, next: &Token, model: &Model) {
        if !self.text.ends_with('.') {
            return;
        }
        let initial = python::found(&model.initial, self.text);
        let pair = (self.without_period().into(), next.next_kind().into());
        if model.collocations.contains(&pair) {
            self.ends_sentence = false;
            self.abbreviation = true;
            return;
        }
        let begins = next.begins_sentence(model);
        if (self.abbreviation || self.ellipsis)
            && !initial
            && (begins == Some(true)
                || next.first_upper() && model.starters.contains(next.next_kind()))
        {
            self.ends_sentence = true;
            return;
        }
        if !initial && self.without_period() != "##number##" {
            return;
        }
        let always_upper = || {
            let cases = model.cases.get(next.next_kind()).copied().unwrap_or(0);
            initial && next.first_upper() && cases & LOWER == 0
        };
        if begins == Some(false) || begins.is_none() && always_upper() {
            self.ends_sentence = false;
            self.abbreviation = true;
        }
    }
}

/// The sentences of a text, without the white space between them.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let model = &*MODEL;
    let mut slices = Vec::new();
    let mut begin = 0;
    for end in candidates(text) {
        if breaks(model, &end.context) {
            slices.push((begin, end.at + 1));
            begin = end.next.unwrap_or(end.at + 1);
        }
    }
    slices.push((begin, text.trim_end_matches(python::is_space).len()));
    realign(text, &slices)
}

/// A period, question mark or exclamation mark that may end a sentence.
struct Candidate {
    at: usize,
    /// The start of the next word, if white space precedes it.
    next: Option<usize>,
    /// The words around it.
    context: String,
}

/// The last candidate of every word; of words without white space between them, that of the last word.
fn candidates(text: &str) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let mut before: Option<(std::ops::Range<usize>, usize, After)> = None;
    let mut word = 0..0;
    for (at, _) in text.match_indices(['.', '?', '!']) {
        let Some(after) = After::of(text, at + 1) else {
            continue;
        };
        let space = text[word.end..at].rfind([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        let start = match space {
            // NLTK ignores a space at position 0
            None | Some(0) => word.start,
            Some(space) => word.end + space + 1,
        };
        if let Some((word, at, after)) = before.take()
            && word.end <= start
        {
            candidates.push(after.candidate(text, word, at));
        }
        word = start..at;
        before = Some((word.clone(), at, after));
    }
    candidates.extend(before.map(|(word, at, after)| after.candidate(text, word, at)));
    candidates
}

/// The text after a candidate.
struct After {
    end: usize,
    next: Option<usize>,
}

impl After {
    fn of(text: &str, at: usize) -> Option<Self> {
        let rest = &text[at..];
        let first = rest.chars().next()?;
        if NON_WORD.contains(first) {
            let end = at + first.len_utf8();
            return Some(Self { end, next: None });
        }
        let word = rest.trim_start_matches(char::is_whitespace);
        let next = text.len() - word.len();
        if next == at || word.is_empty() {
            return None;
        }
        let length = word.find(char::is_whitespace).unwrap_or(word.len());
        let end = next + length;
        Some(Self {
            end,
            next: Some(next),
        })
    }

    fn candidate(&self, text: &str, word: std::ops::Range<usize>, at: usize) -> Candidate {
        Candidate {
            at,
            next: self.next,
            context: format!("{}{}", &text[word], &text[at..self.end]),
        }
    }
}

/// Whether a sentence ends in a piece of text before its last word.
fn breaks(model: &Model, context: &str) -> bool {
    let mut tokens: Vec<Token> = context
        .split('\n')
        .filter(|line| !python::strip(line).is_empty())
        .flat_map(|line| model.words.find_iter(line).map_while(Result::ok))
        .map(|word| Token::new(model, word.as_str()))
        .collect();
    for next in 1..tokens.len() {
        let (left, right) = tokens.split_at_mut(next);
        if let (Some(token), Some(next)) = (left.last_mut(), right.first()) {
            token.look_ahead(next, model);
            if token.ends_sentence {
                return true;
            }
        }
    }
    false
}

/// Moves closing quotes and brackets to the sentence that they close.
fn realign<'a>(text: &'a str, slices: &[(usize, usize)]) -> Vec<&'a str> {
    let mut sentences = Vec::new();
    let mut moved = 0;
    for (index, &(begin, end)) in slices.iter().enumerate() {
        let begin = begin + moved;
        let closing = slices
            .get(index + 1)
            .map(|&(next, end)| (next, closing(text.get(next..end).unwrap_or(""))));
        if let Some((next, Some((marks, all)))) = closing {
            sentences.push(&text[begin..next + marks]);
            moved = all;
            continue;
        }
        moved = 0;
        sentences.extend(text.get(begin..end).filter(|sentence| !sentence.is_empty()));
    }
    sentences
}

/// The number of bytes of closing marks at the start, and the same with the white space after them.
fn closing(sentence: &str) -> Option<(usize, usize)> {
    let mut marks = 0;
    for char in sentence.chars().take_while(|char| CLOSING.contains(*char)) {
        marks += char.len_utf8();
        let rest = &sentence[marks..];
        let word = rest.trim_start_matches(char::is_whitespace);
        if word.len() < rest.len() || rest.is_empty() || rest.starts_with("--") {
            return Some((marks, sentence.len() - word.len()));
        }
    }
    None
}
