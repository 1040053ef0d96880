//! What `data.lint` in a recipe can say: the kinds of findings, what each means, and when it stops training.
//!
//! The checks themselves are in the crate `simmer-lint`, which sees the rows through [`Inspect`](crate::Inspect).

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// What a finding leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Not looked for.
    Off,
    /// Shown.
    Warning,
    /// Stops training.
    Error,
}

/// A kind of fault that rows may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The tokenizer's end of sequence is another token's job.
    EndToken,
    /// An answer ends without an end of sequence that is trained on.
    EndMissing,
    /// An answer before the last ends without one.
    TurnEndMissing,
    /// Two beginnings of sequence in a row.
    DoubledBeginning,
    /// Two ends of sequence in a row.
    DoubledEnd,
    /// Training and generation see another text before the answer.
    PromptText,
    /// Training and generation see the same text before the answer in other tokens.
    PromptTokens,
    /// Text that the tokenizer has no tokens for.
    UnknownTokens,
    /// A message spells out a special token.
    SpecialTokens,
    /// Rows without a token to train on.
    Untrained,
    /// Rows that were left out for their length.
    Dropped,
    /// Rows whose end was cut off.
    Truncated,
    /// Answers that say nothing.
    EmptyAnswer,
    /// Answers that begin with the question.
    RepeatedQuestion,
    /// Answers that stop in the middle.
    UnfinishedAnswer,
    /// Conversations that end with a question.
    Unanswered,
    /// Answers that follow no question.
    Unasked,
    /// Characters that a wrong encoding leaves behind.
    Encoding,
    /// Characters that nobody sees.
    Invisible,
    /// Conversations that are there already.
    Duplicates,
    /// Questions that are there already, with another answer.
    ConflictingAnswers,
    /// Questions that are there already in nearly the same words.
    NearDuplicates,
    /// Words of a set that models are evaluated on.
    Contamination,
}

/// What is to be said of a kind.
struct Spec {
    name: &'static str,
    /// The severity of a few rows of a source, and of more than half of them.
    severities: [Severity; 2],
    means: &'static str,
    remedy: &'static str,
}

/// Faults of rows: shown, and an error where most rows of a source have them, which is a fault of the set-up.
const FAULT: [Severity; 2] = [Severity::Warning, Severity::Error];
/// Faults that may be meant.
const ODDITY: [Severity; 2] = [Severity::Warning; 2];
/// Faults that are never meant.
const BREAKAGE: [Severity; 2] = [Severity::Error; 2];

impl Kind {
    /// Every kind, in the order in which they are reported.
    pub const ALL: [Kind; 23] = [
        Kind::EndToken,
        Kind::EndMissing,
        Kind::TurnEndMissing,
        Kind::DoubledBeginning,
        Kind::DoubledEnd,
        Kind::PromptText,
        Kind::PromptTokens,
        Kind::UnknownTokens,
        Kind::SpecialTokens,
        Kind::Untrained,
        Kind::Dropped,
        Kind::Truncated,
        Kind::EmptyAnswer,
        Kind::RepeatedQuestion,
        Kind::UnfinishedAnswer,
        Kind::Unanswered,
        Kind::Unasked,
        Kind::Encoding,
        Kind::Invisible,
        Kind::Duplicates,
        Kind::ConflictingAnswers,
        Kind::NearDuplicates,
        Kind::Contamination,
    ];

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// What such a fault is, in a line.
    pub fn means(self) -> &'static str {
        self.spec().means
    }

    /// What to do about it, in a line.
    pub fn remedy(self) -> &'static str {
        self.spec().remedy
    }

    /// What `rows` findings among the `of` rows of a source lead to, unless a recipe says otherwise.
    pub fn severity(self, rows: usize, of: usize) -> Severity {
        self.spec().severities[usize::from(2 * rows > of)]
    }

    fn spec(self) -> &'static Spec {
        match self {
            Kind::EndToken => &Spec {
                name: "end_token",
                severities: BREAKAGE,
                means: "the end of sequence is a token that means something else",
                remedy: "name the right eos_token in the model's tokenizer_config.json",
            },
            Kind::EndMissing => &Spec {
                name: "end_missing",
                severities: FAULT,
                means: "the answer is not followed by an end of sequence that is trained on: the model would not learn to stop",
                remedy: "let the template end an answer with {eos}, or mark that token as the assistant's",
            },
            Kind::TurnEndMissing => &Spec {
                name: "turn_end_missing",
                severities: ODDITY,
                means: "an answer before the last ends without an end of sequence: in a conversation the model may go on as the user",
                remedy: "end every answer with {eos} in the template, or stop generation at the text that begins the user's turn",
            },
            Kind::DoubledBeginning => &Spec {
                name: "doubled_beginning",
                severities: FAULT,
                means: "two beginnings of sequence stand in a row",
                remedy: "take the token out of the rows or the template: the tokenizer adds its own",
            },
            Kind::DoubledEnd => &Spec {
                name: "doubled_end",
                severities: FAULT,
                means: "an answer ends with two ends of sequence in a row",
                remedy: "take the token out of the rows or the template, or name both tokens as eos_token_id in generation_config.json",
            },
            Kind::PromptText => &Spec {
                name: "prompt_text",
                severities: FAULT,
                means: "the model is trained after another text than the one that it will be asked with",
                remedy: "use a template whose generation prompt is how its answers begin, in training and after it",
            },
            Kind::PromptTokens => &Spec {
                name: "prompt_tokens",
                severities: FAULT,
                means: "the last tokens of the prompt merge with the answer in training, and will not when the model is asked",
                remedy: "let the prompt end, or the answers begin, where tokens do: after a line break or before a space, but not both",
            },
            Kind::UnknownTokens => &Spec {
                name: "unknown_tokens",
                severities: FAULT,
                means: "the tokenizer has no token for a part of the text",
                remedy: "remove those characters, or take a tokenizer with byte fallback",
            },
            Kind::SpecialTokens => &Spec {
                name: "special_tokens",
                severities: FAULT,
                means: "a message spells out a special token: a model's own becomes that token, another model's stays as text",
                remedy: "remove what an earlier template left in the rows",
            },
            Kind::Untrained => &Spec {
                name: "untrained",
                severities: FAULT,
                means: "the row has no token to train on and is left out",
                remedy: "raise data.max_tokens where the prompt alone is longer, or give the row an answer",
            },
            Kind::Dropped => &Spec {
                name: "dropped",
                severities: FAULT,
                means: "the row has more than data.max_tokens tokens and is left out",
                remedy: "raise data.max_tokens, or choose another data.overlong",
            },
            Kind::Truncated => &Spec {
                name: "truncated",
                severities: FAULT,
                means: "the row has more than data.max_tokens tokens and its end is cut off",
                remedy: "raise data.max_tokens, or choose another data.overlong",
            },
            Kind::EmptyAnswer => &Spec {
                name: "empty_answer",
                severities: FAULT,
                means: "the answer says nothing: the model learns to end at once",
                remedy: "remove the row, or check the names of the fields",
            },
            Kind::RepeatedQuestion => &Spec {
                name: "repeated_question",
                severities: FAULT,
                means: "the answer begins with the question",
                remedy: "remove the question from the answers, unless it is what they should say",
            },
            Kind::UnfinishedAnswer => &Spec {
                name: "unfinished_answer",
                severities: FAULT,
                means: "the answer stops in the middle of a sentence or of a block of code: the model learns to stop there",
                remedy: "finish or remove the row; its author probably ran into a limit of length",
            },
            Kind::Unanswered => &Spec {
                name: "unanswered",
                severities: ODDITY,
                means: "the conversation ends with a message that nobody answers and that is not trained on",
                remedy: "remove the last message",
            },
            Kind::Unasked => &Spec {
                name: "unasked",
                severities: ODDITY,
                means: "an answer follows no question",
                remedy: "give the row a question, or read it as text",
            },
            Kind::Encoding => &Spec {
                name: "encoding",
                severities: FAULT,
                means: "characters that are left when a text is read in the wrong encoding, or when it was binary",
                remedy: "read the source again as what it is, usually UTF-8, or remove the characters",
            },
            Kind::Invisible => &Spec {
                name: "invisible",
                severities: ODDITY,
                means: "characters that nobody sees: of no width, or that turn the direction of the text",
                remedy: "remove them where the writing does not need them",
            },
            Kind::Duplicates => &Spec {
                name: "duplicates",
                severities: ODDITY,
                means: "the same conversation is there already: it counts that many times in the loss",
                remedy: "remove the later rows, or say so by the weight of their source",
            },
            Kind::ConflictingAnswers => &Spec {
                name: "conflicting_answers",
                severities: ODDITY,
                means: "the same question is there already, with another answer",
                remedy: "keep one of the answers, unless several are right",
            },
            Kind::NearDuplicates => &Spec {
                name: "near_duplicates",
                severities: ODDITY,
                means: "nearly the same question is there already (ROUGE-L above 0.7, as Self-Instruct filters)",
                remedy: "remove the later rows where variety counts",
            },
            Kind::Contamination => &Spec {
                name: "contamination",
                severities: FAULT,
                means: "the row has words of a set that models are evaluated on: scores on it would say nothing",
                remedy: "remove the row, or leave that set out of the evaluation",
            },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Off => "off",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// The `lint` table of a recipe's `[data]`: which faults are looked for, and what they lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LintConfig {
    /// Kinds that are not looked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Kind>,
    /// Kinds that are shown and never stop training.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warn: Vec<Kind>,
    /// Kinds of which one row stops training.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Kind>,
    /// Files of evaluation sets that no row should have words of; the public ones are known without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<PathBuf>,
}

impl LintConfig {
    /// # Errors
    /// [`DataError::Config`] when a kind is in two of the lists.
    pub fn check(&self) -> Result<(), DataError> {
        let lists = [&self.allow, &self.warn, &self.deny];
        for kind in Kind::ALL {
            if lists.iter().filter(|list| list.contains(&kind)).count() > 1 {
                return Err(DataError::Config {
                    key: "lint",
                    problem: format!("`{kind}` is in more than one of allow, warn and deny"),
                });
            }
        }
        Ok(())
    }

    /// What `rows` faults of a kind among the `of` rows of a source lead to.
    pub fn severity(&self, kind: Kind, rows: usize, of: usize) -> Severity {
        let lists = [
            (&self.allow, Severity::Off),
            (&self.warn, Severity::Warning),
            (&self.deny, Severity::Error),
        ];
        let said = lists.into_iter().find(|(list, _)| list.contains(&kind));
        said.map_or_else(|| kind.severity(rows, of), |(_, severity)| severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place_and_its_name() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn most_rows_of_a_source_make_an_error() {
        assert_eq!(Kind::EndMissing.severity(5, 10), Severity::Warning);
        assert_eq!(Kind::EndMissing.severity(6, 10), Severity::Error);
        assert_eq!(Kind::Duplicates.severity(10, 10), Severity::Warning);
        assert_eq!(Kind::EndToken.severity(0, 10), Severity::Error);
    }
}
