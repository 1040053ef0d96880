//! Checks of the words of one row.

use simmer_data::conversation::{Layout, Role};

use super::Kind;
use super::encoding::odd;
use super::excerpt::{around, beginning, ending};
use super::part::{Part, Place};
use super::special::Specials;

/// Questions with fewer words are not checked for repetition in the answer.
const REPEATED: usize = 5;

/// Answers with fewer words are not checked for an unfinished end.
const UNFINISHED: usize = 10;

/// Words that no English sentence ends with.
const NEVER_LAST: [&str; 16] = [
    "a", "an", "and", "because", "between", "every", "into", "its", "my", "of", "or", "than",
    "the", "their", "whose", "your",
];

/// Finds what is wrong with the words of a row. `words` are the words of each of its `parts`.
pub(super) fn check(
    layout: Layout,
    parts: &[Part],
    words: &[Vec<u64>],
    specials: &Specials,
    found: &mut Vec<(Kind, String)>,
) {
    let mut push = |kind, part: &Part, what: String| {
        if !found.iter().any(|(known, _)| *known == kind) {
            found.push((kind, format!("{}: {what}", part.place)));
        }
    };
    for (part, index) in parts.iter().zip(0..) {
        for odd in odd(part.text) {
            let what = format!("{} in {}", odd.what, around(part.text, odd.at));
            push(odd.kind, part, what);
        }
        if let Some((at, token, becomes)) = specials.find(part.text, layout) {
            let what = format!("`{token}` in {} {becomes}", around(part.text, at));
            push(Kind::SpecialTokens, part, what);
        }
        if part.role != Some(Role::Assistant) || untrained(part) {
            continue;
        }
        if part.text.trim().is_empty() && !calls(part) {
            push(Kind::EmptyAnswer, part, "is empty".into());
        }
        let repeats = |question: usize| repeats(&words[index], &words[question]);
        // A question that is quoted or in a comment is not a repetition.
        let begins = part.text.trim_start().starts_with(char::is_alphanumeric);
        if begins && question(parts, index).is_some_and(repeats) {
            push(Kind::RepeatedQuestion, part, beginning(part.text));
        }
        if let Some(why) = unfinished(part.text, words[index].len()) {
            push(
                Kind::UnfinishedAnswer,
                part,
                format!("{why}: {}", ending(part.text)),
            );
        }
        if !parts[..index].iter().any(asks) {
            push(Kind::Unasked, part, beginning(part.text));
        }
    }
    if let Some(last) = parts.last()
        && let Some(message) = last.message
        && message.role != Role::Assistant
        && message.train != Some(true)
    {
        push(
            Kind::Unanswered,
            last,
            format!(
                "{} message {} has no answer",
                message.role,
                beginning(last.text)
            ),
        );
    }
}

/// Whether the row excludes an answer from training.
fn untrained(part: &Part) -> bool {
    part.message
        .is_some_and(|message| message.train == Some(false))
}

/// Whether an answer calls tools, and so may have no text.
fn calls(part: &Part) -> bool {
    part.message.is_some_and(|message| !message.more.is_empty())
}

fn asks(part: &Part) -> bool {
    matches!(part.role, Some(Role::User | Role::Tool)) && !part.text.trim().is_empty()
}

/// The question that `parts[answer]` answers: the instruction without its input, or the message before it.
fn question(parts: &[Part], answer: usize) -> Option<usize> {
    let before = parts[..answer]
        .iter()
        .rposition(|part| part.role == Some(Role::User))?;
    match parts[before].place {
        Place::Field("input") => before.checked_sub(1),
        _ => Some(before),
    }
}

fn repeats(answer: &[u64], question: &[u64]) -> bool {
    question.len() >= REPEATED && answer.starts_with(question)
}

/// Why an answer looks unfinished.
fn unfinished(answer: &str, words: usize) -> Option<&'static str> {
    if words < UNFINISHED {
        return None;
    }
    if answer.matches("```").count() % 2 == 1 {
        return Some("a code block is not closed");
    }
    let letters = |character: char| !character.is_alphabetic();
    let last = answer.trim_end().rsplit(letters).next()?;
    NEVER_LAST
        .contains(&last)
        .then_some("a sentence does not end with this word")
}
