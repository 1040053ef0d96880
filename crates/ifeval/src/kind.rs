//! The kinds of instructions.

use fancy_regex::Regex;

use super::check::{self, NthParagraph};
use super::error::InstructionError;
use super::kwargs::Kwargs;
use super::python::{self, is_lower, is_upper, strip};
use super::{punkt, words};

/// What an instruction asks for.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    BulletList(usize),
    CapitalEnglish,
    CapitalWords(Count),
    ConstrainedResponse,
    EndPhrase(String),
    ForbiddenWords(Vec<Regex>),
    HighlightedSections(usize),
    Json,
    KeywordFrequency(Regex, Count),
    Keywords(Vec<Regex>),
    Language(String),
    LetterFrequency(char, Count),
    LowercaseEnglish,
    NoComma,
    NthParagraph(NthParagraph),
    Paragraphs(usize),
    Placeholders(usize),
    Postscript(Regex),
    Quotation,
    RepeatPrompt(String),
    Sections(Regex, usize),
    Sentences(Count),
    Title,
    TwoResponses,
    Words(Count),
}

/// How often something must occur.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) relation: Relation,
    pub(super) number: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Relation {
    LessThan,
    AtLeast,
}

impl Count {
    fn holds(self, number: usize) -> bool {
        match self.relation {
            Relation::LessThan => number < self.number,
            Relation::AtLeast => number >= self.number,
        }
    }
}

/// The codes of the languages that an instruction may ask for.
const LANGUAGES: &[&str] = &[
    "en", "es", "pt", "ar", "hi", "fr", "ru", "de", "ja", "it", "bn", "uk", "th", "ur", "ta", "te",
    "bg", "ko", "pl", "he", "fa", "vi", "ne", "sw", "kn", "mr", "gu", "pa", "ml", "fi",
];

impl Kind {
    /// Reads the kind with this id.
    pub(super) fn read(kwargs: &mut Kwargs) -> Result<Self, InstructionError> {
        let id = kwargs.id;
        let (group, name) = id.split_once(':').unwrap_or_default();
        let kind = match group {
            "keywords" => Self::read_keywords(name, kwargs)?,
            "length_constraints" => Self::read_length(name, kwargs)?,
            "detectable_format" => Self::read_format(name, kwargs)?,
            _ => Self::read_other(id, kwargs)?,
        };
        kind.ok_or_else(|| InstructionError::Unknown { id: id.to_owned() })
    }

    fn read_keywords(name: &str, kwargs: &mut Kwargs) -> Result<Option<Self>, InstructionError> {
        Ok(Some(match name {
            "existence" => Self::Keywords(patterns(kwargs, "keywords", str::to_owned)?),
            "forbidden_words" => {
                let whole = |word: &str| format!(r"\b{word}\b");
                Self::ForbiddenWords(patterns(kwargs, "forbidden_words", whole)?)
            }
            "frequency" => {
                let keyword = strip(kwargs.text("keyword")?);
                let pattern = kwargs.pattern("keyword", keyword, true)?;
                Self::KeywordFrequency(pattern, kwargs.count("frequency", "relation")?)
            }
            "letter_frequency" => {
                let letter = kwargs.text("letter")?.to_lowercase();
                let mut chars = letter.chars();
                let (Some(letter), None) = (chars.next(), chars.next()) else {
                    return Err(kwargs.must_be("letter", "one letter"));
                };
                Self::LetterFrequency(letter, kwargs.count("let_frequency", "let_relation")?)
            }
            _ => return Ok(None),
        }))
    }

    fn read_length(name: &str, kwargs: &mut Kwargs) -> Result<Option<Self>, InstructionError> {
        Ok(Some(match name {
            "number_sentences" => Self::Sentences(kwargs.count("num_sentences", "relation")?),
            "number_words" => Self::Words(kwargs.count("num_words", "relation")?),
            "number_paragraphs" => Self::Paragraphs(kwargs.number("num_paragraphs")?),
            "nth_paragraph_first_word" => {
                let paragraphs = kwargs.number("num_paragraphs")?;
                let nth = kwargs.number("nth_paragraph")?;
                if nth > paragraphs {
                    return Err(kwargs.must_be("nth_paragraph", "at most `num_paragraphs`"));
                }
                let first_word = kwargs.text("first_word")?.to_lowercase();
                Self::NthParagraph(NthParagraph {
                    paragraphs,
                    nth,
                    first_word,
                })
            }
            _ => return Ok(None),
        }))
    }

    fn read_format(name: &str, kwargs: &mut Kwargs) -> Result<Option<Self>, InstructionError> {
        Ok(Some(match name {
            "constrained_response" => Self::ConstrainedResponse,
            "json_format" => Self::Json,
            "title" => Self::Title,
            "number_bullet_lists" => Self::BulletList(kwargs.number("num_bullets")?),
            "number_highlighted_sections" => {
                Self::HighlightedSections(kwargs.number("num_highlights")?)
            }
            "multiple_sections" => {
                let key = "section_spliter";
                let section = strip(kwargs.text(key)?);
                let pattern = kwargs.pattern(key, &format!(r"\s?{section}\s?\d+\s?"), false)?;
                Self::Sections(pattern, kwargs.number("num_sections")?)
            }
            _ => return Ok(None),
        }))
    }

    fn read_other(id: &str, kwargs: &mut Kwargs) -> Result<Option<Self>, InstructionError> {
        Ok(Some(match id {
            "change_case:capital_word_frequency" => {
                Self::CapitalWords(kwargs.count("capital_frequency", "capital_relation")?)
            }
            "change_case:english_capital" => Self::CapitalEnglish,
            "change_case:english_lowercase" => Self::LowercaseEnglish,
            "combination:repeat_prompt" => {
                Self::RepeatPrompt(strip(kwargs.text("prompt_to_repeat")?).to_lowercase())
            }
            "combination:two_responses" => Self::TwoResponses,
            "detectable_content:number_placeholders" => {
                Self::Placeholders(kwargs.number("num_placeholders")?)
            }
            "detectable_content:postscript" => Self::Postscript(postscript(kwargs)?),
            "language:response_language" => {
                let language = kwargs.text("language")?;
                if !LANGUAGES.contains(&language) {
                    return Err(
                        kwargs.must_be("language", "the code of one of IFEval's 30 languages")
                    );
                }
                Self::Language(language.to_owned())
            }
            "punctuation:no_comma" => Self::NoComma,
            "startend:end_checker" => {
                Self::EndPhrase(strip(kwargs.text("end_phrase")?).to_lowercase())
            }
            "startend:quotation" => Self::Quotation,
            _ => return Ok(None),
        }))
    }

    /// Whether a response follows the instruction.
    pub(super) fn follows(&self, response: &str) -> bool {
        match self {
            Self::BulletList(number) => check::bullets(response) == *number,
            Self::CapitalEnglish => is_upper(response) && check::is_language(response, "en"),
            Self::CapitalWords(count) => count.holds(words::capital_words(response)),
            Self::ConstrainedResponse => check::has_option(response),
            Self::EndPhrase(phrase) => check::ends_with(response, phrase),
            Self::ForbiddenWords(words) => !check::keywords(words, response).any(|found| found),
            Self::HighlightedSections(number) => check::highlights(response) >= *number,
            Self::Json => check::is_json(response),
            Self::KeywordFrequency(word, count) => count.holds(check::frequency(word, response)),
            Self::Keywords(words) => check::keywords(words, response).all(|found| found),
            Self::Language(language) => check::is_language(response, language),
            Self::LetterFrequency(letter, count) => {
                count.holds(response.to_lowercase().matches(*letter).count())
            }
            Self::LowercaseEnglish => is_lower(response) && check::is_language(response, "en"),
            Self::NoComma => !response.contains(','),
            Self::NthParagraph(paragraph) => paragraph.follows(response),
            Self::Paragraphs(number) => check::paragraphs(response) == Some(*number),
            Self::Placeholders(number) => check::placeholders(response) >= *number,
            Self::Postscript(marker) => python::found(marker, &response.to_lowercase()),
            Self::Quotation => check::is_quoted(strip(response)),
            Self::RepeatPrompt(prompt) => strip(response).to_lowercase().starts_with(prompt),
            Self::Sections(section, number) => check::sections(section, response) >= *number,
            Self::Sentences(count) => count.holds(punkt::sentences(response).len()),
            Self::Title => check::has_title(response),
            Self::TwoResponses => check::are_two(response),
            Self::Words(count) => count.holds(check::words(response)),
        }
    }
}

/// The words of a list as regular expressions.
fn patterns(
    kwargs: &mut Kwargs,
    key: &str,
    pattern: impl Fn(&str) -> String,
) -> Result<Vec<Regex>, InstructionError> {
    let words = kwargs.texts(key)?;
    words
        .into_iter()
        .map(|word| kwargs.pattern(key, &pattern(word), true))
        .collect()
}

fn postscript(kwargs: &mut Kwargs) -> Result<Regex, InstructionError> {
    let key = "postscript_marker";
    let pattern = match strip(kwargs.text(key)?) {
        "P.P.S" => r"(?m)\s*p\.\s?p\.\s?s.*$".into(),
        "P.S." => r"(?m)\s*p\.\s?s\..*$".into(),
        marker => format!(r"(?m)\s*{}.*$", marker.to_lowercase()),
    };
    kwargs.pattern(key, &pattern, false)
}
