//! Decides which panics are findings.

use std::panic::{set_hook, take_hook};

/// All panics, except those of libraries that are converted to errors.
pub(super) fn are_findings_unless_guarded() {
    let end = take_hook();
    set_hook(Box::new(move |panic| {
        if !simmer_data::is_guarded() {
            end(panic);
        }
    }));
}
