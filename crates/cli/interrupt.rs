//! Ctrl-C, and the terminate signal.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::output::note;

/// A flag that Ctrl-C (or a terminate signal) raises, with a message, while `heeded` is true: while something is done that
/// looks at the flag and has a result to keep. The second one, and any other, ends the program.
pub(crate) fn flag(
    message: &'static str,
    heeded: Arc<AtomicBool>,
) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if !heeded.load(Ordering::SeqCst) || raised.swap(true, Ordering::SeqCst) {
            process::exit(130);
        }
        note(message);
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}
