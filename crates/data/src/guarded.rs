//! Libraries that panic at some of the files that are none.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });

/// Whether this thread is in a piece of a library whose panics become errors, so that a panic hook need not speak of them.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs a piece of a library; `None` where it panicked.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(before);
    result.ok()
}

/// Makes what begins on a new thread as guarded as where it was begun from.
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
