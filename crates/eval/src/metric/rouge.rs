//! ROUGE of two texts.
//!
//! Source: Lin 2004; `rouge_score` 0.1.2 without its stemmer: words are runs of `a-z0-9` in lower case.

use std::collections::{BTreeSet, HashMap};

/// `F = 2PR / (P + R)`, where `P` and `R` are the length of the longest common subsequence of words divided by the number of
/// words of the answer and of the reference. 0 if one of them has no words.
pub fn rouge_l(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (words(reference), words(answer));
    let common = longest_common(&reference, &answer);
    f(common, answer.len(), reference.len())
}

/// The same with the number of n-grams that both have.
pub(super) fn rouge_n(reference: &str, answer: &str, n: usize) -> f64 {
    let (reference, answer) = (words(reference), words(answer));
    let ngrams = |words: &[String]| (words.len() + 1).saturating_sub(n);
    let common = common_ngrams(&reference, &answer, n);
    f(common, ngrams(&answer), ngrams(&reference))
}

/// The number of n-grams of an answer that the reference has, each as often as there.
pub(super) fn common_ngrams(reference: &[String], answer: &[String], n: usize) -> usize {
    let known = counts(reference.windows(n));
    let found = counts(answer.windows(n)).into_iter();
    let common = found.map(|(ngram, count)| count.min(known.get(ngram).copied().unwrap_or(0)));
    common.sum()
}

/// ROUGE-Lsum: the longest common subsequences of each sentence of the reference with those of the answer, joined. Sentences
/// are lines.
pub(super) fn rouge_l_sum(reference: &str, answer: &str) -> f64 {
    let sentences = |text: &str| -> Vec<Vec<String>> {
        let lines = text.split('\n').filter(|line| !line.is_empty());
        lines.map(words).collect()
    };
    let (reference, answer) = (sentences(reference), sentences(answer));
    let mut in_reference = counts(reference.iter().flatten());
    let mut in_answer = counts(answer.iter().flatten());
    let lengths = [&reference, &answer].map(|side| side.iter().map(Vec::len).sum::<usize>());
    let mut common = 0;
    for sentence in &reference {
        let mut joined = BTreeSet::new();
        for other in &answer {
            joined.extend(common_places(sentence, other));
        }
        for place in joined {
            let word = &sentence[place];
            if let (Some(a @ 1..), Some(b @ 1..)) =
                (in_reference.get_mut(word), in_answer.get_mut(word))
            {
                *a -= 1;
                *b -= 1;
                common += 1;
            }
        }
    }
    f(common, lengths[1], lengths[0])
}

fn f(common: usize, in_answer: usize, in_reference: usize) -> f64 {
    if common == 0 {
        return 0.0;
    }
    let precision = common as f64 / in_answer as f64;
    let recall = common as f64 / in_reference as f64;
    2.0 * precision * recall / (precision + recall)
}

fn counts<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
}

fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The length of the longest common subsequence, row by row.
fn longest_common(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (place, other) in b.iter().enumerate() {
            let above = row[place + 1];
            row[place + 1] = if word == other {
                diagonal + 1
            } else {
                above.max(row[place])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// The places in `a` of a longest common subsequence: the one that `rouge_score` takes of several.
fn common_places(a: &[String], b: &[String]) -> Vec<usize> {
    let width = b.len() + 1;
    let mut table = vec![0_u32; (a.len() + 1) * width];
    for (i, word) in a.iter().enumerate() {
        for (j, other) in b.iter().enumerate() {
            table[(i + 1) * width + j + 1] = if word == other {
                table[i * width + j] + 1
            } else {
                table[i * width + j + 1].max(table[(i + 1) * width + j])
            };
        }
    }
    let (mut i, mut j) = (a.len(), b.len());
    let mut places = Vec::new();
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            places.push(i - 1);
            i -= 1;
            j -= 1;
        } else if table[i * width + j - 1] > table[(i - 1) * width + j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_rouge_score() {
        // rouge_scorer.RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure
        let cases = [
            ("The cat sat on the mat.", "the cat is on a mat", 4.0 / 6.0),
            ("a b c d", "d c b a", 0.25),
            ("one", "", 0.0),
            ("It's 5 o'clock", "its 5 oclock", 2.0 / 8.0),
            ("same words", "Same WORDS!", 1.0),
        ];
        for (reference, answer, expected) in cases {
            let found = rouge_l(reference, answer);
            assert!(
                (found - expected).abs() < 1e-12,
                "{reference} / {answer}: {found}"
            );
        }
    }
}
