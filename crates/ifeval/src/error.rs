//! What can be wrong with an instruction.

use simmer_hint::Hint;

/// What can be wrong with an instruction; every message names it.
#[derive(Debug, thiserror::Error)]
pub enum InstructionError {
    /// There is no such instruction.
    #[error("there is no instruction `{id}`")]
    Unknown {
        /// As given.
        id: String,
    },
    /// An argument cannot be used.
    #[error("instruction `{id}`: `{key}` {problem}")]
    Kwarg {
        /// The instruction.
        id: String,
        /// The argument.
        key: String,
        /// What is wrong with it.
        problem: KwargProblem,
    },
    /// A row does not have the layout of IFEval's file.
    #[error("{problem}")]
    Row {
        /// What is wrong with it.
        problem: String,
    },
}

impl Hint for InstructionError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unknown { .. } => "use the ids of IFEval's input_data.jsonl",
            Self::Kwarg { .. } => {
                "give each instruction the arguments that IFEval's input_data.jsonl gives it"
            }
            Self::Row { .. } => {
                "write `instruction_id_list` and `kwargs` as two lists of the same length"
            }
        };
        Some(hint.to_owned())
    }
}

/// What can be wrong with an argument.
#[derive(Debug, thiserror::Error)]
pub enum KwargProblem {
    /// It is not there, or null, zero or empty.
    #[error("is missing")]
    Missing,
    /// The instruction has no such argument.
    #[error("is not one of its arguments")]
    Unexpected,
    /// It is of another kind, or not in its range.
    #[error("must be {0}")]
    MustBe(&'static str),
    /// It is no regular expression.
    #[error("is no pattern that can be searched for: {0}")]
    Pattern(Box<fancy_regex::Error>),
}
