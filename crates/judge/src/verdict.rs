//! What a judge's text says.

use std::sync::LazyLock;

use fancy_regex::Regex;
use serde::Serialize;

/// Which of the two answers that a judge was shown is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Preference {
    /// The first.
    A,
    /// The second.
    B,
    /// None.
    #[serde(rename = "tie")]
    Tie,
}

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Verdict {
    /// A rating of one answer.
    Rating(f64),
    /// A comparison of two.
    Preference(Preference),
}

/// Compiles to a pattern that is tested below.
fn pattern(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

static RATING: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"\[\[(\d+\.?\d*)\]\]"));
static RATING_OTHERWISE: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"\[(\d+\.?\d*)\]"));

/// What a judge says after its thoughts: the text after the last `</think>`, since the opening `<think>` may be part of the prompt.
/// `None` if the thoughts have no end.
pub(crate) fn without_thoughts(text: &str) -> Option<&str> {
    let said = text.rsplit_once("</think>").map_or(text, |(_, said)| said);
    (!said.trim_start().starts_with("<think>")).then_some(said)
}

/// The rating of a text: the first number in double brackets, or else the first in single ones. `None` without a number, or
/// with one in the digits of another script.
///
/// Source: FastChat, `fastchat/llm_judge/common.py`, `one_score_pattern` and `one_score_pattern_backup`.
pub fn rating(text: &str) -> Option<f64> {
    let found = |pattern: Option<&Regex>| {
        let found = pattern?.captures(text).ok()??;
        Some(found.get(1)?.as_str().to_owned())
    };
    found(RATING.as_ref())
        .or_else(|| found(RATING_OTHERWISE.as_ref()))?
        .parse()
        .ok()
}

/// The preference of a text. `[[A]]` anywhere counts before `[[B]]`, and this before `[[C]]`.
///
/// Source: FastChat, `fastchat/llm_judge/common.py`, `run_judge_pair`.
pub fn preference(text: &str) -> Option<Preference> {
    let marks = [
        ("[[A]]", Preference::A),
        ("[[B]]", Preference::B),
        ("[[C]]", Preference::Tie),
    ];
    let found = marks.into_iter().find(|(mark, _)| text.contains(mark));
    found.map(|(_, preference)| preference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_read_after_the_thoughts() {
        for (text, expected) in [
            ("Rating: [[9]]", Some("Rating: [[9]]")),
            (
                "<think>rating [[2]] maybe</think>\n\nRating: [[9]]",
                Some("\n\nRating: [[9]]"),
            ),
            (
                "the answer has </think>, so [[2]]\n</think>[[9]]",
                Some("[[9]]"),
            ),
            (" \n<think>rating [[2]] maybe", None),
            ("<think>[[2]]</think><think>[[3]]", None),
            (
                "the tag <think> is left: [[A]]",
                Some("the tag <think> is left: [[A]]"),
            ),
            ("", Some("")),
        ] {
            assert_eq!(without_thoughts(text), expected, "{text:?}");
        }
    }
}
