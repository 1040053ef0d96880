//! What a task measures, and what counts as an answer there.

use serde::{Deserialize, Serialize};

/// A metric of a question with several answers, `ℓ` the log-likelihood of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceMetric {
    /// Whether the choice of the largest `ℓ` is right.
    Acc,
    /// The same of `ℓ` divided by the number of characters of the choice.
    AccNorm,
    /// The same of `ℓ` divided by the number of UTF-8 bytes of the choice.
    AccBytes,
    /// The same of `ℓ` divided by the number of tokens: the choice of the lowest perplexity.
    AccPerplexity,
    /// The same of `ℓ` less that after a context that says nothing.
    AccMutualInfo,
    /// The share of the right choices in the probability of all, `Σ_right eˡ / Σ eˡ`.
    Mc2,
    /// How far the first two choices are apart, `|ℓ₀ - ℓ₁|`.
    LikelihoodDiff,
    /// Whether the first choice is likelier than the second: the stereotype, of CrowS-Pairs.
    PctStereotype,
    /// The same by perplexity.
    PctStereotypePerplexity,
}

/// A metric of a generated text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextMetric {
    /// Whether it is a right answer, after extraction and normalisation. Of several samples the first.
    ExactMatch,
    /// Whether the most frequent extracted answer of several samples is right; of equals the first.
    Majority,
    /// Whether the instructions that a row names are followed: IFEval.
    Instructions,
    /// The longest common subsequence of words, ROUGE-L (F), with the nearest right answer.
    RougeL,
}

/// Where in a text the answer is: what the regular expression finds, as Python's `re.findall` would list it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extraction {
    /// The regular expression; its first group that is not empty, or all of it where it has none.
    pub pattern: String,
    /// Which of the places that fit is taken.
    #[serde(default)]
    pub take: Take,
    /// What counts where nothing fits; without it, a word that is never right.
    pub otherwise: Option<Otherwise>,
}

/// Which place counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// The first.
    #[default]
    First,
    /// The last.
    Last,
}

/// What counts where nothing is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// The whole text.
    All,
}

/// What does not count when texts are compared.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of a task's file"
)]
pub struct Normalisation {
    /// Regular expressions for what is left out, one after another.
    pub without: Vec<String>,
    /// Letters large or small.
    pub ignore_case: bool,
    /// ASCII punctuation.
    pub ignore_punctuation: bool,
    /// `a`, `an` and `the`.
    pub ignore_articles: bool,
    /// How much space there is, and space at the ends.
    pub ignore_spaces: bool,
}
