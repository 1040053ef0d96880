//! ROUGE: how similar texts are, by the words that they have in common in the same order.
//!
//! Source: Lin 2004; `rouge_score` 0.1.2 without its stemmer: words are runs of `a-z0-9` in lower case. The longest common
//! subsequence of two texts is computed bit by bit ([`Lcs`]).

mod lcs;
mod pair;
mod similarity;

pub use lcs::Lcs;
pub use pair::{common_ngrams, rouge_l, rouge_l_sum, rouge_n};
pub use similarity::{Similar, Similarity};

/// The words of a text, as `rouge_score` has them.
pub fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `F = 2PR / (P + R)`, where `P` and `R` are what both texts have in common, divided by what either has; 0 if they have
/// nothing in common.
pub fn f_measure(common: usize, in_answer: usize, in_reference: usize) -> f64 {
    if common == 0 {
        return 0.0;
    }
    let precision = common as f64 / in_answer as f64;
    let recall = common as f64 / in_reference as f64;
    2.0 * precision * recall / (precision + recall)
}
