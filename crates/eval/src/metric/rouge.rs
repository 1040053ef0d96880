//! ROUGE-L of two texts.
//!
//! Source: Lin 2004; `rouge_score` 0.1.2 without its stemmer: words are runs of `a-z0-9` in lower case.

/// `F = 2PR / (P + R)`, where `P` and `R` are the length of the longest common subsequence of words divided by the number of
/// words of the answer and of the reference. 0 if one of them has no words.
pub fn rouge_l(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (words(reference), words(answer));
    let common = longest_common(&reference, &answer) as f64;
    if common == 0.0 {
        return 0.0;
    }
    let precision = common / answer.len() as f64;
    let recall = common / reference.len() as f64;
    2.0 * precision * recall / (precision + recall)
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
