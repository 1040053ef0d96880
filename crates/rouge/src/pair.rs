//! ROUGE of two texts.

use std::collections::{BTreeSet, HashMap};

use crate::{Lcs, f_measure, words};

/// `F = 2PR / (P + R)`, where `P` and `R` are the length of the longest common subsequence of words divided by the number of
/// words of the answer and of the reference. 0 if one of them has no words.
pub fn rouge_l(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (words(reference), words(answer));
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let [first, second] = [&reference, &answer].map(|words| {
        let numbered = words.iter().map(|word| {
            let next = numbers.len() as u32;
            *numbers.entry(word.as_str()).or_insert(next)
        });
        numbered.collect::<Vec<u32>>()
    });
    let mut lcs = Lcs::default();
    lcs.set(&first, numbers.len());
    f_measure(lcs.with(&second), answer.len(), reference.len())
}

/// The same with the number of n-grams that both have.
pub fn rouge_n(reference: &str, answer: &str, n: usize) -> f64 {
    let (reference, answer) = (words(reference), words(answer));
    let ngrams = |words: &[String]| (words.len() + 1).saturating_sub(n);
    let common = common_ngrams(&reference, &answer, n);
    f_measure(common, ngrams(&answer), ngrams(&reference))
}

/// The number of n-grams of an answer that the reference has, each as often as there.
pub fn common_ngrams(reference: &[String], answer: &[String], n: usize) -> usize {
    let known = counts(reference.windows(n));
    let found = counts(answer.windows(n)).into_iter();
    let common = found.map(|(ngram, count)| count.min(known.get(ngram).copied().unwrap_or(0)));
    common.sum()
}

/// ROUGE-Lsum: the longest common subsequences of each sentence of the reference with those of the answer, joined. Sentences
/// are lines.
pub fn rouge_l_sum(reference: &str, answer: &str) -> f64 {
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
    f_measure(common, lengths[1], lengths[0])
}

fn counts<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
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
