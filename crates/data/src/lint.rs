//! The table `[data.lint]` of a recipe: the kinds of findings, their meaning, and when they stop training.
//!
//! The checks are in the crate `simmer-lint`, which sees every row through [`Inspect`](crate::Inspect).

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// The consequence of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Not checked.
    Off,
    /// Reported.
    Warning,
    /// Reported, and training does not start.
    Error,
}

/// A kind of problem in the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Kind {
    /// The EOS token is a token that has another meaning.
    EndToken,
    /// No EOS token with a label follows the answer.
    EndMissing,
    /// The same for an answer before the last.
    TurnEndMissing,
    /// Two BOS tokens in a row.
    DoubledBeginning,
    /// Two EOS tokens in a row.
    DoubledEnd,
    /// The text before the answer differs between training and generation.
    PromptText,
    /// The text before the answer is the same, but its tokens differ.
    PromptTokens,
    /// Text that becomes the unknown token.
    UnknownTokens,
    /// A message contains the text of a special token.
    SpecialTokens,
    /// Rows without a label.
    Untrained,
    /// Rows dropped because they are too long.
    Dropped,
    /// Truncated rows.
    Truncated,
    /// Empty answers.
    EmptyAnswer,
    /// Answers that start with the question.
    RepeatedQuestion,
    /// Answers that stop in the middle of a sentence or code block.
    UnfinishedAnswer,
    /// Conversations that end with a question.
    Unanswered,
    /// Answers without a question.
    Unasked,
    /// Calls whose arguments or names a model cannot learn well.
    Calls,
    /// Fields of earlier messages that the template does not print.
    LostFields,
    /// Characters that result from a wrong encoding.
    Encoding,
    /// Invisible characters.
    Invisible,
    /// Validation rows that are also training rows.
    TrainedValidation,
    /// Copies of an earlier conversation.
    Duplicates,
    /// Copies of an earlier question with a different answer.
    ConflictingAnswers,
    /// Questions in nearly the same words as an earlier one.
    NearDuplicates,
    /// Rows that overlap with an evaluation set.
    Contamination,
}

/// The properties of a kind.
struct Spec {
    name: &'static str,
    /// The severity if at most half of a source's rows are affected, and if more are.
    severities: [Severity; 2],
    means: &'static str,
    remedy: &'static str,
}

/// Problems of single rows. If most rows of a source have one, the set-up is wrong, and it is an error.
const FAULT: [Severity; 2] = [Severity::Warning, Severity::Error];
/// Possible problems that may be intended.
const ODDITY: [Severity; 2] = [Severity::Warning; 2];
/// Problems that are never intended.
const BREAKAGE: [Severity; 2] = [Severity::Error; 2];

impl Kind {
    /// Every kind, in the order in which they are reported.
    pub const ALL: [Kind; 26] = [
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
        Kind::Calls,
        Kind::LostFields,
        Kind::Encoding,
        Kind::Invisible,
        Kind::TrainedValidation,
        Kind::Duplicates,
        Kind::ConflictingAnswers,
        Kind::NearDuplicates,
        Kind::Contamination,
    ];

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// What the problem is, in one line.
    pub fn means(self) -> &'static str {
        self.spec().means
    }

    /// What to do about it, in one line.
    pub fn remedy(self) -> &'static str {
        self.spec().remedy
    }

    /// The severity of `rows` affected rows among the `of` rows of a source, if the recipe does not set it.
    pub fn severity(self, rows: usize, of: usize) -> Severity {
        self.spec().severities[usize::from(2 * rows > of)]
    }

    fn spec(self) -> &'static Spec {
        match self {
            Kind::EndToken => &Spec {
                name: "end_token",
                severities: BREAKAGE,
                means: "the EOS token is a token with another meaning",
                remedy: "set the right eos_token in the model's tokenizer_config.json",
            },
            Kind::EndMissing => &Spec {
                name: "end_missing",
                severities: FAULT,
                means: "no EOS token follows the answer, or it is masked: the model does not learn to stop",
                remedy: "end the answers in the template with {eos}, or put that token inside the chat template's {% generation %} block",
            },
            Kind::TurnEndMissing => &Spec {
                name: "turn_end_missing",
                severities: ODDITY,
                means: "an earlier answer in the conversation has no EOS token: the model may continue with the user's next message",
                remedy: "end every answer in the template with {eos}, or pass the text that starts a user message as a stop sequence",
            },
            Kind::DoubledBeginning => &Spec {
                name: "doubled_beginning",
                severities: FAULT,
                means: "two BOS tokens in a row",
                remedy: "remove the BOS token from the rows or the template; the tokenizer adds its own",
            },
            Kind::DoubledEnd => &Spec {
                name: "doubled_end",
                severities: FAULT,
                means: "an answer ends with two EOS tokens in a row",
                remedy: "remove the EOS token from the rows or the template, or list both tokens as eos_token_id in generation_config.json",
            },
            Kind::PromptText => &Spec {
                name: "prompt_text",
                severities: FAULT,
                means: "the text before the answer differs between training and generation",
                remedy: "use a chat template whose generation prompt is exactly the text that it puts before an answer",
            },
            Kind::PromptTokens => &Spec {
                name: "prompt_tokens",
                severities: FAULT,
                means: "the end of the prompt and the start of the answer share a token in training, but not in generation",
                remedy: "end the prompt at a token boundary: after a line break, or just before the space that the answer starts with, but not both",
            },
            Kind::UnknownTokens => &Spec {
                name: "unknown_tokens",
                severities: FAULT,
                means: "the text contains characters that the tokenizer does not know",
                remedy: "remove these characters, or use a tokenizer with byte fallback",
            },
            Kind::SpecialTokens => &Spec {
                name: "special_tokens",
                severities: FAULT,
                means: "a message contains the text of a special token: this model's becomes that token, another model's stays plain text",
                remedy: "remove what another template has left in the rows",
            },
            Kind::Untrained => &Spec {
                name: "untrained",
                severities: FAULT,
                means: "the row has no token to train on and is skipped",
                remedy: "raise data.max_tokens if the prompt alone is too long, add an answer to the row, or raise the weight of its answers",
            },
            Kind::Dropped => &Spec {
                name: "dropped",
                severities: FAULT,
                means: "the row is longer than data.max_tokens and is dropped",
                remedy: "raise data.max_tokens, or choose another data.overlong",
            },
            Kind::Truncated => &Spec {
                name: "truncated",
                severities: FAULT,
                means: "the row is longer than data.max_tokens and is truncated",
                remedy: "raise data.max_tokens, or choose another data.overlong",
            },
            Kind::EmptyAnswer => &Spec {
                name: "empty_answer",
                severities: FAULT,
                means: "the answer is empty: the model learns to stop at once",
                remedy: "remove the row, or check the field names",
            },
            Kind::RepeatedQuestion => &Spec {
                name: "repeated_question",
                severities: FAULT,
                means: "the answer starts with the question",
                remedy: "remove the question from the answer, unless the model should repeat it",
            },
            Kind::UnfinishedAnswer => &Spec {
                name: "unfinished_answer",
                severities: FAULT,
                means: "the answer stops in the middle of a sentence or code block: the model learns to stop there",
                remedy: "complete the answer or remove the row; it was probably cut off by a length limit when it was written",
            },
            Kind::Unanswered => &Spec {
                name: "unanswered",
                severities: ODDITY,
                means: "the conversation ends with a message that has no answer and is not trained on",
                remedy: "remove the last message",
            },
            Kind::Unasked => &Spec {
                name: "unasked",
                severities: ODDITY,
                means: "an answer has no question before it",
                remedy: "add a question to the row, or load the source as plain text",
            },
            Kind::Calls => &Spec {
                name: "calls",
                severities: ODDITY,
                means: "a call has arguments that are no object, or names a tool that is not among the row's tools",
                remedy: "write arguments as JSON objects without nulls that the tool does not expect, and list every tool in `tools`",
            },
            Kind::LostFields => &Spec {
                name: "lost_fields",
                severities: ODDITY,
                means: "the text does not have a field of an earlier message",
                remedy: "nothing, if the template drops earlier thoughts or the names of results on purpose; otherwise split the row after each answer",
            },
            Kind::Encoding => &Spec {
                name: "encoding",
                severities: FAULT,
                means: "characters that result from reading text in the wrong encoding, or from binary data",
                remedy: "read the original again in its real encoding, usually UTF-8, or remove these characters",
            },
            Kind::Invisible => &Spec {
                name: "invisible",
                severities: ODDITY,
                means: "invisible characters: zero-width, or changing the text direction",
                remedy: "remove them unless the script needs them",
            },
            Kind::TrainedValidation => &Spec {
                name: "trained_validation",
                severities: ODDITY,
                means: "the validation row is trained on as well: the validation loss does not show whether the model overfits",
                remedy: "remove it from the training rows or the validation rows, or hold out training rows: validation = { fraction = 0.05 }",
            },
            Kind::Duplicates => &Spec {
                name: "duplicates",
                severities: ODDITY,
                means: "the conversation is a copy of an earlier one and counts again in the loss",
                remedy: "remove the later copies; to repeat rows on purpose, set a weight for their source",
            },
            Kind::ConflictingAnswers => &Spec {
                name: "conflicting_answers",
                severities: ODDITY,
                means: "the question is a copy of an earlier one, with a different answer",
                remedy: "keep one of the answers, unless several are right",
            },
            Kind::NearDuplicates => &Spec {
                name: "near_duplicates",
                severities: ODDITY,
                means: "the question is nearly the same as an earlier one (ROUGE-L above 0.7, the filter of Self-Instruct)",
                remedy: "remove the later rows if you want varied questions",
            },
            Kind::Contamination => &Spec {
                name: "contamination",
                severities: FAULT,
                means: "the row overlaps with an evaluation set: scores on that set become meaningless",
                remedy: "remove the row, or do not evaluate on that set",
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

/// The table `[data.lint]` of a recipe: which kinds are checked, and which stop training.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct LintConfig {
    /// Kinds that are not checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Kind>,
    /// Kinds that are reported but never stop training.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warn: Vec<Kind>,
    /// Kinds that stop training if a single row is affected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Kind>,
    /// Files of further evaluation sets that rows must not overlap with. Public sets are built in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<PathBuf>,
}

impl LintConfig {
    /// # Errors
    /// [`DataError::Config`] if a kind is in two of the lists.
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

    /// The severity of a kind that affects `rows` of the `of` rows of a source.
    pub fn severity(&self, kind: Kind, rows: usize, of: usize) -> Severity {
        let lists = [
            (&self.allow, Severity::Off),
            (&self.warn, Severity::Warning),
            (&self.deny, Severity::Error),
        ];
        let set = lists.into_iter().find(|(list, _)| list.contains(&kind));
        set.map_or_else(|| kind.severity(rows, of), |(_, severity)| severity)
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
