//! Panics of parsing libraries, turned into errors: some libraries panic on malformed files.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });

/// Whether this thread runs library code whose panics become errors. A panic hook prints nothing then.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs library code; `None` if it panicked.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(before);
    result.ok()
}

/// Sets the guarded state of a new thread to that of the thread that started it.
pub(crate) fn carry(guarded: bool) {
    GUARDED.set(guarded);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_nothing() {
        assert_eq!(guarded(|| 1), Some(1));
        assert_eq!(guarded(|| guarded(is_guarded)), Some(Some(true)));
        let none: Option<()> = guarded(|| panic!("as a library does"));
        assert_eq!(none, None);
        assert!(!is_guarded());
    }
}
