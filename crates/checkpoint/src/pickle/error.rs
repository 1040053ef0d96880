//! Errors of pickles.

use simmer_hint::Hint;

use super::MAX_OPCODES;
use crate::error::INCOMPLETE_DOWNLOAD;

/// Maximum characters of a name in a message.
const MAX_SHOWN: usize = 100;

/// Why a pickle cannot be read; `at` is a byte offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// It refers to a function or class that tensors do not need.
    #[error("refers to `{wanted}` at byte {at}, which is not part of a tensor")]
    Forbidden {
        /// `module.name`.
        wanted: String,
        /// The byte offset.
        at: usize,
    },
    /// It calls an allowed function with wrong arguments.
    #[error("calls `{function}` at byte {at} with {found}; expected {expected}")]
    Call {
        /// `module.name`.
        function: &'static str,
        /// The byte offset.
        at: usize,
        /// What is accepted.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// An opcode that state dicts do not need.
    #[error("uses opcode {opcode:#04x} at byte {at}, which is not part of a tensor")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// The byte offset.
        at: usize,
    },
    /// An invalid program.
    #[error("is damaged at byte {at}: {what}")]
    Damaged {
        /// The byte offset.
        at: usize,
        /// The problem.
        what: &'static str,
    },
    /// It ends too early.
    #[error("is truncated: the item at byte {at} exceeds its end at byte {len}")]
    Truncated {
        /// The start of the truncated item.
        at: usize,
        /// Length in bytes.
        len: usize,
    },
    /// More opcodes than any state dict has.
    #[error("has more than {MAX_OPCODES} opcodes, more than the state dict of any model")]
    TooLong,
    /// It does not hold a dictionary of tensors.
    #[error("holds {found}; expected a dictionary from names to tensors")]
    NotAStateDict {
        /// What it holds.
        found: String,
    },
    /// A value of the dictionary is not a tensor.
    #[error("holds {found} as `{name}`; expected a tensor")]
    NotATensor {
        /// Its name.
        name: String,
        /// The value found.
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
                "if you trust the file, load it with PyTorch and save only its state dict; a pickle can run any program, so simmer reads tensors only"
            }
            Self::NotAStateDict { .. } | Self::NotATensor { .. } => {
                "load the file with PyTorch and save only the state dict of the model; the file may hold the state of a training run too"
            }
            Self::Truncated { .. } | Self::Damaged { .. } => INCOMPLETE_DOWNLOAD,
            Self::TooLong | Self::Twice { .. } => return None,
        };
        Some(text.to_owned())
    }
}

/// A name from a file for a message: one line of bounded length.
pub(crate) fn shown(name: &str) -> String {
    let mut shown: String = name.escape_debug().take(MAX_SHOWN).collect();
    if name.escape_debug().nth(MAX_SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}
