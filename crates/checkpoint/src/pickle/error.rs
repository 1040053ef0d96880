//! What can be wrong with a pickle.

use simmer_hint::Hint;

use super::MAX_OPCODES;
use crate::error::INCOMPLETE_DOWNLOAD;

/// Characters of a name that a message shows.
const MAX_SHOWN: usize = 100;

/// Why a pickle is not read; `at` counts bytes from its beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// It wants a function or class that tensors are not made of.
    #[error("wants `{wanted}` at byte {at}, which is no part of a tensor")]
    Forbidden {
        /// `module.name`.
        wanted: String,
        /// Where.
        at: usize,
    },
    /// It calls something that is allowed, but not like this.
    #[error("calls `{function}` at byte {at} with {found}; expected {expected}")]
    Call {
        /// `module.name`.
        function: &'static str,
        /// Where.
        at: usize,
        /// What is accepted.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// An opcode that state dicts have no use for.
    #[error("uses opcode {opcode:#04x} at byte {at}, which is no part of a tensor")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where.
        at: usize,
    },
    /// A program that does not make sense.
    #[error("is damaged at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: usize,
        /// The problem.
        what: &'static str,
    },
    /// It ends too early.
    #[error("is truncated: what begins at byte {at} goes beyond its end at {len}")]
    Truncated {
        /// Where what is cut begins.
        at: usize,
        /// Bytes that are there.
        len: usize,
    },
    /// Longer than any state dict.
    #[error("has more than {MAX_OPCODES} opcodes, more than the tensors of a model take")]
    TooLong,
    /// It holds something else than a dictionary of tensors.
    #[error("holds {found}; expected a dictionary from names to tensors")]
    NotAStateDict {
        /// What it holds.
        found: String,
    },
    /// A member of the dictionary is no tensor.
    #[error("holds {found} as `{name}`; expected a tensor")]
    NotATensor {
        /// Its name.
        name: String,
        /// What it is.
        found: String,
    },
    /// A duplicate name.
    #[error("holds `{name}` twice")]
    Twice {
        /// The name.
        name: String,
    },
}

impl Hint for PickleError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Forbidden { .. } | Self::Call { .. } | Self::Opcode { .. } => {
                "a pickle can run any program, so only tensors are read; if you trust the file, load it with PyTorch and save its state dict alone"
            }
            Self::NotAStateDict { .. } | Self::NotATensor { .. } => {
                "the weights may be a member of the file, beside the state of a training run: load it with PyTorch and save the state dict alone"
            }
            Self::Truncated { .. } | Self::Damaged { .. } => INCOMPLETE_DOWNLOAD,
            Self::TooLong | Self::Twice { .. } => return None,
        };
        Some(text.to_owned())
    }
}

/// A name from a file as a message shows it: one line, of bounded length.
pub(crate) fn shown(name: &str) -> String {
    let mut shown: String = name.escape_debug().take(MAX_SHOWN).collect();
    if name.escape_debug().nth(MAX_SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}
