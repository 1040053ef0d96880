//! Metrics of a task, and how answers are extracted and normalised.

use serde::{Deserialize, Serialize};

/// A metric of a multiple-choice question. `ℓ` is the log-likelihood of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceMetric {
    /// Whether the choice with the largest `ℓ` is right.
    Acc,
    /// The same with `ℓ` divided by the number of characters of the choice.
    AccNorm,
    /// The same with `ℓ` divided by the number of UTF-8 bytes of the choice.
    AccBytes,
    /// The same with `ℓ` divided by the number of tokens: the choice with the lowest perplexity.
    AccPerplexity,
    /// The same with `ℓ` minus the `ℓ` after a neutral context.
    AccMutualInfo,
    /// The probability of the right choices as a share of that of all choices, `Σ_right eˡ / Σ eˡ`.
    Mc2,
    /// The difference between the first two choices, `|ℓ₀ - ℓ₁|`.
    LikelihoodDiff,
    /// Whether the first choice, the stereotype, is more likely than the second (CrowS-Pairs).
    PctStereotype,
    /// The same by perplexity.
    PctStereotypePerplexity,
}

/// A metric of a generated text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextMetric {
    /// Whether the text is a right answer after extraction and normalisation; with several samples, the first counts.
    ExactMatch,
    /// Whether the most frequent extracted answer of several samples is right; the first, if several are equally frequent.
    Majority,
    /// Whether the instructions of the row are followed (IFEval).
    Instructions,
    /// ROUGE-L (F) with the most similar right answer.
    RougeL,
    /// The estimate of the probability that one of `k` samples is a program that passes (HumanEval).
    PassAtK,
    /// BLEU, ROUGE-1, ROUGE-2 and ROUGE-L in percent with the most similar right answer (`_max`), the same minus that with
    /// the most similar wrong answer (`_diff`), and whether this is above 0 (`_acc`) (TruthfulQA).
    Similarity,
    /// What the scorer that the user names says, from 0 to 1, and whether that is at least 0.5 (RealToxicityPrompts).
    Toxicity,
}

/// The answer in a text: the match of a regular expression, as listed by Python's `re.findall`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extraction {
    /// The regular expression. The answer is its first group that is not empty, or the whole match if it has no groups.
    pub pattern: Option<String>,
    /// Instead of a pattern: the content of the last `\boxed{...}`.
    #[serde(default)]
    pub boxed: bool,
    /// Which match is taken.
    #[serde(default)]
    pub take: Take,
    /// The answer if nothing matches; by default, a text that is never right.
    pub otherwise: Option<Otherwise>,
}

/// Which match is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// The first.
    #[default]
    First,
    /// The last.
    Last,
}

/// The answer if nothing matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// The whole text.
    All,
}

/// What is ignored when texts are compared.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of a task's file"
)]
pub struct Normalisation {
    /// Regular expressions whose matches are removed, one after another.
    pub without: Vec<String>,
    /// Upper and lower case.
    pub ignore_case: bool,
    /// ASCII punctuation.
    pub ignore_punctuation: bool,
    /// `a`, `an` and `the`.
    pub ignore_articles: bool,
    /// The amount of white space, and white space at the ends.
    pub ignore_spaces: bool,
    /// How a formula in LaTeX is written: spaces, units, kinds of fractions (the comparison of MATH). Comes last.
    pub math: bool,
}
