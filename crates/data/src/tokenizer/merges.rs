//! The merges that a vocabulary with priorities implies.
//!
//! SentencePiece and tiktoken have no list of merges: two neighbours merge where their text together is a token, the
//! token of the highest priority first, the leftmost where several are equal. The tokenizers library wants pairs, each
//! with a priority of its own. Every way to cut a token in two tokens is such a pair, in the order of the tokens.
//!
//! One thing is left to choose: the order of the cuts of one token. It matters where two of them overlap, in
//! neighbours `u v w` with `uv` = `vw`, and then the left one must go first. `uv` = `vw` says that the token goes on
//! after `u` as it began: `u` is a period of it. So cuts at a period go first. (Where both cuts are at periods, the
//! token is a repetition, and runs of repetitions are merged from the left: what is longer is left.)

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// The longest token, in bytes, whose cuts are looked for: the work grows with the square of it.
pub(super) const LONGEST: usize = 512;

/// The merges of a vocabulary.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Derived {
    /// Pairs of tokens, those that merge first in front.
    pub(super) pairs: Vec<(String, String)>,
    /// Two tokens of the same priority that overlap, so that no order of pairs merges the leftmost always: the one that
    /// goes first, and the one that should where it is on the left.
    pub(super) tie: Option<(String, String)>,
}

/// The merges of `tokens`, which come with their priorities, the highest first.
pub(super) fn derive(tokens: &[(&str, f64)]) -> Derived {
    let known: HashSet<&str> = tokens.iter().map(|&(text, _)| text).collect();
    let mut derived = Derived::default();
    // Of the tokens of one priority: the first that has this text as its left half.
    let mut begins: HashMap<&str, &str> = HashMap::new();
    let mut priority = f64::NAN;
    for &(token, its) in tokens {
        if its.total_cmp(&priority).is_ne() {
            begins.clear();
            priority = its;
        }
        for (left, right) in cuts(token, &known) {
            if derived.tie.is_none()
                && let Some(&first) = begins.get(right)
                && first != token
            {
                derived.tie = Some((first.into(), token.into()));
            }
            begins.entry(left).or_insert(token);
            derived.pairs.push((left.into(), right.into()));
        }
    }
    derived
}

/// Every way to cut `token` in two that are `known`, in the order in which they have to be tried.
fn cuts<'a>(token: &'a str, known: &HashSet<&str>) -> Vec<(&'a str, &'a str)> {
    let halves = token
        .char_indices()
        .skip(1)
        .map(|(at, _)| token.split_at(at));
    let mut cuts: Vec<_> = halves
        .filter(|(left, right)| known.contains(left) && known.contains(right))
        .collect();
    cuts.sort_by_key(|(left, right)| (!token.starts_with(right), Reverse(left.len())));
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(tokens: &[&str]) -> Vec<String> {
        let ranked: Vec<(&str, f64)> = (0..)
            .zip(tokens)
            .map(|(i, &t)| (t, -f64::from(i)))
            .collect();
        let derived = derive(&ranked);
        assert_eq!(derived.tie, None);
        let pairs = derived.pairs.iter();
        pairs
            .map(|(left, right)| format!("{left}+{right}"))
            .collect()
    }

    #[test]
    fn every_cut_of_every_token_in_the_order_of_the_tokens() {
        assert_eq!(
            pairs(&["bc", "ab", "abc", "a", "b", "c"]),
            ["b+c", "a+b", "ab+c", "a+bc"]
        );
    }

    #[test]
    fn cuts_at_a_period_go_first() {
        // In a + ba + ab both a+ba and ba+... no: `aba` goes on after `ab` as it began, not after `a`.
        assert_eq!(
            pairs(&["ab", "ba", "aba", "a", "b"]),
            ["a+b", "b+a", "ab+a", "a+ba"]
        );
        assert_eq!(pairs(&["aa", "aaa", "a"]), ["a+a", "aa+a", "a+aa"]);
    }

    #[test]
    fn tokens_of_one_priority_that_overlap_are_said() {
        // In `abc`, `ab` is on the left and has to go first: so it does, here.
        assert_eq!(
            derive(&[
                ("ab", 0.0),
                ("bc", 0.0),
                ("a", -1.0),
                ("b", -1.0),
                ("c", -1.0)
            ])
            .tie,
            None
        );
        let tie = derive(&[
            ("bc", 0.0),
            ("ab", 0.0),
            ("a", -1.0),
            ("b", -1.0),
            ("c", -1.0),
        ])
        .tie;
        assert_eq!(tie, Some(("bc".into(), "ab".into())));
        assert_eq!(
            derive(&[
                ("bc", 1.0),
                ("ab", 0.0),
                ("a", -1.0),
                ("b", -1.0),
                ("c", -1.0)
            ])
            .tie,
            None
        );
    }
}
