//! Ctrl-C and the terminate signal.

use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Context, Failure};
use crate::output::note;
use crate::{live_line, terminal};

/// The exit code of a command that was interrupted: 128 + SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// What an interrupted command returns.
pub(crate) fn exit_code() -> ExitCode {
    ExitCode::from(INTERRUPTED)
}

/// A flag that Ctrl-C (or a terminate signal) sets while `heeded` is true: while work runs that checks the flag and has a
/// result to save. `message` is printed then, unless it is empty. A second Ctrl-C ends the program, and so does one while `heeded` is false.
pub(crate) fn flag(
    message: &'static str,
    heeded: Arc<AtomicBool>,
) -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if !heeded.load(Ordering::SeqCst) || raised.swap(true, Ordering::SeqCst) {
            live_line::hide();
            terminal::restore();
            process::exit(INTERRUPTED.into());
        }
        if !message.is_empty() {
            note(message);
        }
    })
    .map_err(Failure::foreign)
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}
