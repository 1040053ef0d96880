//! Overlaps of rows with evaluation sets.

use super::excerpt::{around, beginning};
use super::fingerprint::{Fingerprint, RUN};
use super::part::{Part, Place};
use super::words::{start, words};
use simmer_data::conversation::Role;

/// The first overlap of a row with a set: the set's name and the finding. `known` are the words of each part.
pub(super) fn overlap(
    sets: &Fingerprint,
    parts: &[Part<'_>],
    known: &[Vec<u64>],
) -> Option<(String, String)> {
    let (place, text, set) = asked(sets, parts, known).or_else(|| quoted(sets, parts, known))?;
    Some((set.to_owned(), format!("{place}: {text} {set}")))
}

/// A question of the row, with or without its input, or a line of it, that is a short text of a set as a whole.
fn asked<'c, 's>(
    sets: &'s Fingerprint,
    parts: &[Part<'c>],
    known: &[Vec<u64>],
) -> Option<(Place<'c>, String, &'s str)> {
    let asks = |part: &Part| matches!(part.role, None | Some(Role::User));
    let asking = parts.iter().enumerate().filter(|(_, part)| asks(part));
    asking.into_iter().find_map(|(at, part)| {
        let whole = || Some((part.text, sets.has(&known[at])?));
        let with_instruction = || {
            let before = at
                .checked_sub(1)
                .filter(|_| part.place == Place::Field("input"))?;
            let both = [&known[before][..], &known[at]].concat();
            Some((parts[before].text, sets.has(&both)?))
        };
        let line = || {
            let mut lines = part
                .text
                .lines()
                .filter(|line| line.len() < part.text.len());
            lines.find_map(|line| Some((line, sets.has(&words(line))?)))
        };
        let (text, set) = whole().or_else(with_instruction).or_else(line)?;
        Some((part.place, format!("{} is in", beginning(text)), set))
    })
}

/// A run of words of a longer text of a set, anywhere in the row.
fn quoted<'c, 's>(
    sets: &'s Fingerprint,
    parts: &[Part<'c>],
    known: &[Vec<u64>],
) -> Option<(Place<'c>, String, &'s str)> {
    parts.iter().zip(known).find_map(|(part, words)| {
        let (at, set) = sets.find(words)?;
        let text = around(part.text, start(part.text, at));
        Some((
            part.place,
            format!("{RUN} words in a row at {text} are in"),
            set,
        ))
    })
}
