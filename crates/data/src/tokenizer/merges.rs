//! The merges that a vocabulary with priorities implies.
//!
//! SentencePiece and tiktoken have no list of merges: two neighbours merge if their joined text is a token. The token
//! with the highest priority merges first, and of equal ones the leftmost. The tokenizers library needs pairs, each
//! with its own priority. Every way to split a token into two tokens is such a pair, in the order of the tokens.
//!
//! One choice is left: the order of the splits of one token. It matters if two of them overlap, in neighbours `u v w`
//! with `uv` = `vw`; then the left one must go first. `uv` = `vw` means that the token continues after `u` as it
//! started: `u` is a period of the token. So splits at a period go first. (If both splits are at periods, the token is
//! a repetition. Runs of repetitions are merged from the left, so the split with the longer left half goes first.)

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// The length limit of a token, in bytes: the work to find its splits grows with the square of the length.
pub(super) const LONGEST: usize = 512;

/// The merges of a vocabulary.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Derived {
    /// Pairs of tokens, in the order in which they merge.
    pub(super) pairs: Vec<(String, String)>,
    /// Two tokens of the same priority that can overlap, so that no order of pairs always merges the leftmost: the
    /// token that merges first, and the other, which should merge first when it is on the left.
    pub(super) tie: Option<(String, String)>,
}

/// The merges of `tokens`, which are given with their priorities.
///
/// Of tokens with the same priority, the longer goes first. In a run of repetitions, where all of them overlap, the
/// leftmost token then grows as long as possible before the next one starts, as it does when the leftmost pair merges
/// first.
pub(super) fn derive(mut tokens: Vec<(&str, f64)>) -> Derived {
    tokens.sort_by(|(a, of_a), (b, of_b)| of_b.total_cmp(of_a).then(b.len().cmp(&a.len())));
    let known: HashSet<&str> = tokens.iter().map(|&(text, _)| text).collect();
    let mut derived = Derived::default();
    // Tokens of the current priority by their left half: the first, and the first that is not a repetition of the same
    // text.
    let mut begins: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut priority = f64::NAN;
    for &(token, its) in &tokens {
        if its.total_cmp(&priority).is_ne() {
            begins.clear();
            priority = its;
        }
        for (left, right) in cuts(token, &known) {
            let before = begins.get(right).into_iter().flatten();
            if let Some(first) = before.copied().find(|first| !repeat(first, token)) {
                let tie = || (first.into(), token.into());
                derived.tie.get_or_insert_with(tie);
            }
            let firsts = begins.entry(left).or_default();
            if firsts.len() < 2 && !firsts.iter().any(|first| repeat(first, token)) {
                firsts.push(token);
            }
            derived.pairs.push((left.into(), right.into()));
        }
    }
    derived
}

/// Whether both are repetitions of one text.
fn repeat(a: &str, b: &str) -> bool {
    a == b || [a, b].concat() == [b, a].concat()
}

/// Every split of `token` into two `known` tokens, in the order in which they must be tried.
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
        let derived = derive(ranked);
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
        // In `ab a ba`, both neighbours of `a` can merge with it to `aba`, which continues after `ab` as it started.
        assert_eq!(
            pairs(&["ab", "ba", "aba", "a", "b"]),
            ["a+b", "b+a", "ab+a", "a+ba"]
        );
        assert_eq!(pairs(&["aa", "aaa", "a"]), ["a+a", "aa+a", "a+aa"]);
    }

    #[test]
    fn tokens_of_one_priority_that_overlap_are_reported() {
        let tie = |tokens: &[(&'static str, f64)]| {
            let letters = [("a", -9.0), ("b", -9.0), ("c", -9.0)];
            derive([tokens, &letters].concat()).tie
        };
        // In `abc`, `ab` is on the left and must merge first, and it does.
        assert_eq!(tie(&[("ab", 0.0), ("bc", 0.0)]), None);
        let said = Some(("bc".to_owned(), "ab".to_owned()));
        assert_eq!(tie(&[("bc", 0.0), ("ab", 0.0)]), said);
        assert_eq!(tie(&[("bc", 1.0), ("ab", 0.0)]), None);
        // In `aaab`, the left one is `aa`, whether or not `aaa` merges first.
        let said = Some(("ab".to_owned(), "aa".to_owned()));
        assert_eq!(tie(&[("aaa", 0.0), ("ab", 0.0), ("aa", 0.0)]), said);
    }

    #[test]
    fn runs_grow_on_the_left() {
        let spaces = [("▁▁", 0.0), ("▁▁▁▁", 0.0), ("▁▁▁", 0.0), ("▁", -9.0)];
        let derived = derive(spaces.to_vec());
        assert_eq!(derived.tie, None);
        let longest = &derived.pairs[0];
        assert_eq!(longest, &("▁▁▁".to_owned(), "▁".to_owned()));
    }
}
