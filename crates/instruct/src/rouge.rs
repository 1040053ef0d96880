//! ROUGE-L of a text with each of many others.
//!
//! Source: Lin 2004; `rouge_score` 0.1.2 without its stemmer: words are runs of `a-z0-9` in lower case. The longest common
//! subsequence is computed bit by bit: each bit of a word of the machine is a word of the new text (Hyyrö, "Bit-parallel LCS-length
//! computation revisited", 2004). A text of up to 64 words costs an addition and three logical operations per word of the other
//! text, so that tens of thousands of texts are compared in a millisecond, without bounds, an index or a second thread.

use std::collections::HashMap;

/// Texts, and how similar a new one is to each of them.
#[derive(Debug, Default)]
pub struct Similarity {
    /// The number of each word.
    vocabulary: HashMap<String, u32>,
    /// The words of all texts.
    words: Vec<u32>,
    /// Where each text ends in `words`.
    ends: Vec<usize>,
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

/// The words of a text, as `rouge_score` has them.
fn words(text: &str) -> impl Iterator<Item = String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    words.into_iter()
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
    pub fn compare(&self, text: &str) -> Similar {
        // a word that no other text has is 0 in all masks
        let new: Vec<Option<u32>> = words(text)
            .map(|word| self.vocabulary.get(&word).copied())
            .collect();
        let masks = Masks::new(&new, self.vocabulary.len());
        let mut rows = vec![u64::MAX; masks.blocks];
        let mut begin = 0;
        let scores = self.ends.iter().map(|&end| {
            let other = &self.words[begin..end];
            begin = end;
            f_measure(masks.common(other, &mut rows), other.len(), new.len())
        });
        Similar {
            scores: scores.collect(),
        }
    }
}

fn f_measure(common: usize, a: usize, b: usize) -> f64 {
    if common == 0 {
        return 0.0;
    }
    let (precision, recall) = (common as f64 / a as f64, common as f64 / b as f64);
    2.0 * precision * recall / (precision + recall)
}

/// Where the words of a text are in it, as bits.
struct Masks {
    /// For each word of the vocabulary, `blocks` masks.
    of: Vec<u64>,
    blocks: usize,
    length: usize,
}

impl Masks {
    fn new(text: &[Option<u32>], vocabulary: usize) -> Self {
        let blocks = text.len().div_ceil(64).max(1);
        let mut of = vec![0_u64; vocabulary * blocks];
        for (place, word) in text.iter().enumerate() {
            if let Some(word) = word {
                of[*word as usize * blocks + place / 64] |= 1 << (place % 64);
            }
        }
        Self {
            of,
            blocks,
            length: text.len(),
        }
    }

    /// The length of the longest common subsequence with another text.
    fn common(&self, other: &[u32], rows: &mut [u64]) -> usize {
        if self.blocks == 1 {
            let mut row = u64::MAX;
            for &word in other {
                let matches = self.of[word as usize];
                let here = row & matches;
                row = row.wrapping_add(here) | (row & !matches);
            }
            return zeros(row, self.length);
        }
        rows.fill(u64::MAX);
        for &word in other {
            let matches = &self.of[word as usize * self.blocks..][..self.blocks];
            let mut carry = false;
            for (row, &matches) in rows.iter_mut().zip(matches) {
                let (sum, first) = row.overflowing_add(*row & matches);
                let (sum, second) = sum.overflowing_add(u64::from(carry));
                carry = first || second;
                *row = sum | (*row & !matches);
            }
        }
        let of_block =
            |(block, row): (usize, &u64)| zeros(*row, (self.length - block * 64).min(64));
        rows.iter().enumerate().map(of_block).sum()
    }
}

/// The number of zeros among the lowest bits.
fn zeros(row: u64, bits: usize) -> usize {
    (bits as u32).saturating_sub(
        ((row << (64 - bits.clamp(1, 64))) >> (64 - bits.clamp(1, 64))).count_ones(),
    ) as usize
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
