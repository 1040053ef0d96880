//! The sandbox of Linux: namespaces, limits and a filter of system calls.

mod filter;
mod inner;
mod job;
mod memory;
mod mounts;
mod names;
mod outer;
mod run;

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) use memory::is_counted as counts_all_memory;
pub(crate) use run::run;

/// The hidden first argument of the outer and of the inner stage.
const OUTER: &str = "__sandbox-outer";
const INNER: &str = "__sandbox-inner";

/// The exit codes of a stage; Python's own are below.
mod code {
    /// The largest that is passed on.
    pub(super) const LARGEST: u8 = 99;
    pub(super) const TIME: u8 = 100;
    pub(super) const KILLED: u8 = 101;
    pub(super) const REFUSED: u8 = 102;
    pub(super) const MEMORY: u8 = 103;
}

/// A step that the kernel refused, in words.
type Refusal = String;

/// Says which step failed.
trait Step<T> {
    fn step(self, what: &str) -> Result<T, Refusal>;
}

impl<T, E: std::fmt::Display> Step<T> for Result<T, E> {
    fn step(self, what: &str) -> Result<T, Refusal> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

pub(crate) fn stage(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let name = arguments.nth(1)?;
    let done = match name.to_str()? {
        OUTER => outer::outer(),
        INNER => inner::inner().map(|never| match never {}),
        _ => return None,
    };
    Some(done.unwrap_or_else(|refusal| {
        use std::io::Write as _;
        let _ = std::io::stderr().write_all(refusal.as_bytes());
        ExitCode::from(code::REFUSED)
    }))
}
