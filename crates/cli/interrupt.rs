//! Ctrl-C, and the terminate signal.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::output::note;

/// A flag that Ctrl-C (or a terminate signal) raises, with a message; the second one ends the program.
pub(crate) fn flag(message: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::SeqCst) {
            process::exit(130);
        }
        note(message);
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}
