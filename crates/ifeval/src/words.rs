//! The words of `nltk.word_tokenize` in NLTK 3.10, by the rules of the Penn Treebank.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::punkt;
use super::python::{self, own, unicode};

/// The replacements, in order. Spaces are added around the text before the second list.
struct Rules {
    first: Vec<(Regex, &'static str)>,
    second: Vec<(Regex, &'static str)>,
}

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    first: [STARTING_QUOTES, PUNCTUATION]
        .concat()
        .into_iter()
        .map(|(pattern, replacement)| (unicode(pattern), replacement))
        .collect(),
    second: ENDING_QUOTES
        .iter()
        .map(|&(pattern, replacement)| (unicode(pattern), replacement))
        .chain(
            CONTRACTIONS
                .iter()
                .map(|pattern| (own(pattern), " ${1} ${2} ")),
        )
        .collect(),
});

const STARTING_QUOTES: &[(&str, &str)] = &[
    ("([«“‘„]|[`]+)", " ${1} "),
    ("^\"", "``"),
    ("(``)", " ${1} "),
    (r#"([ (\[{<])("|'{2})"#, "${1} `` "),
    (r"(?i)(?<!\w)(')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "${1} "),
];

const PUNCTUATION: &[(&str, &str)] = &[
    (r#"([^.])(\.)([\])}>"' »”’ ]*)\s*\z"#, "${1} ${2} ${3} "),
    (r"([:,])([^\d])", " ${1} ${2}"),
    (r"([:,])(?=\n?\z)", " ${1} "),
    (r"\.{2,}", " ${0} "),
    ("[;@#$%&]", " ${0} "),
    (r"[\u{2012}-\u{2015}]", " ${0} "),
    (r#"([^.])(\.)([\])}>"']*)\s*\z"#, "${1} ${2}${3} "),
    ("[?!]", " ${0} "),
    ("([^'])' ", "${1} ' "),
    (r"\*", " ${0} "),
    (r"[\]\[(){}<>]", " ${0} "),
    ("--", " -- "),
];

const ENDING_QUOTES: &[(&str, &str)] = &[
    ("([»”’])", " ${1} "),
    ("''", " '' "),
    ("\"", " '' "),
    (r"\s+", " "),
    ("([^' ])('[sS]|'[mM]|'[dD]|') ", "${1} ${2} "),
    ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "${1} ${2} "),
];

const CONTRACTIONS: &[&str] = &[
    r"(?i)\b(can)(not)\b",
    r"(?i)\b(d)('ye)\b",
    r"(?i)\b(gim)(me)\b",
    r"(?i)\b(gon)(na)\b",
    r"(?i)\b(got)(ta)\b",
    r"(?i)\b(lem)(me)\b",
    r"(?i)\b(more)('n)\b",
    r"(?i)\b(wan)(na)(?=\s)",
    r"(?i) ('t)(is)\b",
    r"(?i) ('t)(was)\b",
];

/// The number of words in capital letters.
pub(super) fn capital_words(text: &str) -> usize {
    punkt::sentences(text)
        .into_iter()
        .map(|sentence| {
            let spaced = spaced(sentence);
            python::split(&spaced)
                .filter(|word| python::is_upper(word))
                .count()
        })
        .sum()
}

/// A sentence with spaces between its words.
fn spaced(sentence: &str) -> String {
    let rules = &*RULES;
    let first = replace(sentence.to_owned(), &rules.first);
    replace(format!(" {first} "), &rules.second)
}

fn replace(text: String, rules: &[(Regex, &str)]) -> String {
    rules.iter().fold(text, |text, (pattern, replacement)| {
        // if the search exceeds the backtracking limit, the text stays as it is
        match pattern.try_replacen(&text, 0, *replacement) {
            Ok(replaced) => replaced.into_owned(),
            Err(_) => text,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_treebanks() {
        let words = |text| python::split(&spaced(text)).collect::<Vec<_>>().join(" ");
        assert_eq!(
            words("I can't GO to the U.S.A. today."),
            "I ca n't GO to the U.S.A. today ."
        );
        assert_eq!(
            words("\"CANNOT\", they'll say: 'gimme (3.5%) -- now'..."),
            "`` CAN NOT '' , they 'll say : ' gim me ( 3.5 % ) -- now ' ..."
        );
    }
}
