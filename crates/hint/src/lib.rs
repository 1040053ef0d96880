//! What a user can do about an error.

use std::error::Error;

/// An error that may know what the user can do about it.
///
/// Every error type of a library implements it, so that the program can print `hint: ...` under any error.
/// The method has no default: whoever adds an error type decides whether it has hints.
pub trait Hint: Error {
    /// An instruction in the imperative, without a full stop; `None` if there is nothing to suggest.
    fn hint(&self) -> Option<String>;
}

/// The operating system's errors have no hints of their own; those who know what was tried have.
impl Hint for std::io::Error {
    fn hint(&self) -> Option<String> {
        None
    }
}
