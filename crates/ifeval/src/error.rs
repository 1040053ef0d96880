//! Errors of instructions.

use simmer_hint::Hint;

/// An error of an instruction, which the message names.
#[derive(Debug, thiserror::Error)]
pub enum InstructionError {
    /// The id is unknown.
    #[error("unknown instruction `{id}`")]
    Unknown {
        /// The id as given.
        id: String,
    },
    /// An argument is invalid.
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

/// An error of an argument.
#[derive(Debug, thiserror::Error)]
pub enum KwargProblem {
    /// It is missing, null, zero or empty.
    #[error("is missing")]
    Missing,
    /// The instruction does not take this argument.
    #[error("is not an argument of this instruction")]
    Unexpected,
    /// It has another type, or is out of range.
    #[error("must be {0}")]
    MustBe(&'static str),
    /// It does not result in a valid regular expression.
    #[error("is not a valid regular expression: {0}")]
    Pattern(Box<fancy_regex::Error>),
}
