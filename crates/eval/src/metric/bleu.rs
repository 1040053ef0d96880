//! BLEU of one sentence.
//!
//! Source: Papineni et al. 2002; sacrebleu 2.6, `corpus_bleu` of one pair with the tokenizer `intl` (mteval-v14) and the
//! smoothing `exp`.

use std::sync::LazyLock;

use fancy_regex::Regex;
use simmer_rouge::common_ngrams;

/// The longest n-grams that are counted.
const ORDER: usize = 4;

/// `100 · BP · (Π_{n=1}^{4} p_n)^{1/4}`, where `p_n` is the share of the answer's n-grams that the reference has, and `BP` is
/// `exp(1 - r / c)` for an answer of `c` tokens below the reference's `r`. The `i`-th `p_n` without a match is `1 / 2ⁱ` of one.
/// 0 without any match, and for fewer than four tokens.
pub(super) fn bleu(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (tokens(reference), tokens(answer));
    let mut smooth = 1.0;
    let mut logarithms = 0.0;
    let mut matched = false;
    for n in 1..=ORDER {
        let total = (answer.len() + 1).saturating_sub(n);
        let right = common_ngrams(&reference, &answer, n);
        matched |= right > 0;
        if total == 0 {
            return 0.0;
        }
        let precision = if right == 0 {
            smooth *= 2.0;
            100.0 / (smooth * total as f64)
        } else {
            100.0 * right as f64 / total as f64
        };
        logarithms += precision.ln();
    }
    if !matched {
        return 0.0;
    }
    let (long, short) = (reference.len() as f64, answer.len() as f64);
    let penalty = if short < long {
        (1.0 - long / short).exp()
    } else {
        1.0
    };
    penalty * (logarithms / ORDER as f64).exp()
}

/// Punctuation beside what is no digit, and symbols, are tokens of their own.
fn tokens(text: &str) -> Vec<String> {
    static APART: LazyLock<[Option<Regex>; 3]> = LazyLock::new(|| {
        [r"(\P{N})(\p{P})", r"(\p{P})(\P{N})", r"(\p{S})"].map(|pattern| Regex::new(pattern).ok())
    });
    let mut text = text.trim_end().to_owned();
    for (pattern, with) in APART.iter().zip(["$1 $2 ", " $1 $2", " $1 "]) {
        if let Some(pattern) = pattern {
            text = pattern.replace_all(&text, with).into_owned();
        }
    }
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_and_symbols_are_tokens() {
        let shown = |text: &str| tokens(text).join("|");
        assert_eq!(
            shown("It's 1,000.5 (no: $5)."),
            "It|'|s|1,000.5|(|no|:|$|5|)|."
        );
        // the number keeps the full stop at the end, as in mteval-v14
        assert_eq!(shown("in 1955."), "in|1955.");
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "0 is exact")]
    fn few_tokens_score_nothing() {
        assert_eq!(bleu("I have no comment.", "No"), 0.0);
        assert_eq!(bleu("a b c d", "e f g h"), 0.0);
        assert_eq!(bleu("a b c d", ""), 0.0);
        assert!((bleu("the cat sat on it", "the cat sat on it") - 100.0).abs() < 1e-9);
    }
}
