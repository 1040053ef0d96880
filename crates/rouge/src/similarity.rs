//! ROUGE-L of a text with each of many others.
//!
//! A text of up to 64 words costs an addition and three logical operations per word of the other text, so that tens of thousands of
//! texts are compared in a millisecond, without bounds, an index or a second thread.

use std::collections::HashMap;

use crate::{Lcs, f_measure, words};

/// Texts, and how similar a new one is to each of them.
#[derive(Debug, Default)]
pub struct Similarity {
    /// The number of each word.
    vocabulary: HashMap<String, u32>,
    /// The words of all texts.
    words: Vec<u32>,
    /// Where each text ends in `words`.
    ends: Vec<usize>,
    /// The new text.
    new: Lcs,
}

/// The similarity of a new text to the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Similar {
    /// ROUGE-L F-measure with each text.
    pub scores: Vec<f64>,
}

impl Similar {
    /// The largest score; 0 without other texts.
    pub fn max(&self) -> f64 {
        self.scores.iter().copied().fold(0.0, f64::max)
    }

    /// The mean of the scores.
    pub fn mean(&self) -> f64 {
        self.scores.iter().sum::<f64>() / self.scores.len().max(1) as f64
    }

    /// The most similar texts with their scores, the most similar first.
    pub fn nearest(&self, count: usize) -> Vec<(usize, f64)> {
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        let by_score =
            |a: &usize, b: &usize| self.scores[*b].total_cmp(&self.scores[*a]).then(a.cmp(b));
        if order.len() > count && count > 0 {
            order.select_nth_unstable_by(count - 1, by_score);
        }
        order.truncate(count);
        order.sort_unstable_by(by_score);
        order
            .into_iter()
            .map(|text| (text, self.scores[text]))
            .collect()
    }
}

impl Similarity {
    /// The number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a text.
    pub fn push(&mut self, text: &str) {
        for word in words(text) {
            let next = self.vocabulary.len() as u32;
            self.words
                .push(*self.vocabulary.entry(word).or_insert(next));
        }
        self.ends.push(self.words.len());
    }

    /// Compares a new text with all texts.
    ///
    /// `F = 2PR / (P + R)`, where `P` and `R` are the length of the longest common subsequence divided by the number of words of
    /// either text; 0 if one of them has no words.
    pub fn compare(&mut self, text: &str) -> Similar {
        // a word that no other text has is one beyond the vocabulary
        let unknown = self.vocabulary.len() as u32;
        let number = |word: String| self.vocabulary.get(&word).copied().unwrap_or(unknown);
        let new: Vec<u32> = words(text).into_iter().map(number).collect();
        self.new.set(&new, self.vocabulary.len() + 1);
        let mut begin = 0;
        let scores = self.ends.iter().map(|&end| {
            let other = &self.words[begin..end];
            begin = end;
            f_measure(self.new.with(other), other.len(), new.len())
        });
        Similar {
            scores: scores.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_rouge_score() {
        // rouge_scorer.RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure
        for (reference, answer, expected) in [
            ("The cat sat on the mat.", "the cat is on a mat", 4.0 / 6.0),
            ("a b c d", "d c b a", 0.25),
            ("one", "", 0.0),
            ("", "one", 0.0),
            ("It's 5 o'clock", "its 5 oclock", 2.0 / 8.0),
            ("same words", "Same WORDS!", 1.0),
        ] {
            let mut texts = Similarity::default();
            texts.push(reference);
            let found = texts.compare(answer).scores;
            assert!(
                (found[0] - expected).abs() < 1e-15,
                "{reference} / {answer}: {found:?}"
            );
        }
    }

    /// The length of the longest common subsequence, row by row.
    fn longest(a: &[u8], b: &[u8]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for x in a {
            let mut diagonal = 0;
            for (place, y) in b.iter().enumerate() {
                let above = row[place + 1];
                row[place + 1] = if x == y {
                    diagonal + 1
                } else {
                    above.max(row[place])
                };
                diagonal = above;
            }
        }
        row[b.len()]
    }

    proptest! {
        #[test]
        fn bits_count_as_the_table_does(
            a in prop::collection::vec(b'a'..b'f', 0..150), b in prop::collection::vec(b'a'..b'f', 0..150),
        ) {
            let text = |letters: &[u8]| letters.iter().flat_map(|&c| [char::from(c), ' ']).collect::<String>();
            let mut texts = Similarity::default();
            texts.push(&text(&a));
            let found = texts.compare(&text(&b)).scores[0];
            prop_assert_eq!(found.to_bits(), f_measure(longest(&a, &b), a.len(), b.len()).to_bits());
        }
    }

    #[test]
    fn the_nearest_are_in_order() {
        let similar = Similar {
            scores: vec![0.1, 0.5, 0.3, 0.5],
        };
        assert_eq!(similar.nearest(3), [(1, 0.5), (3, 0.5), (2, 0.3)]);
        assert_eq!(similar.nearest(9).len(), 4);
        assert_eq!(similar.max().to_bits(), 0.5_f64.to_bits());
    }
}
