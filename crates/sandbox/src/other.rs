//! Systems without a sandbox.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::{Limits, Outcome, Python, SandboxError};

pub(crate) fn counts_all_memory() -> bool {
    false
}

pub(crate) fn run(_: &Path, _: &Python, _: &Limits, _: &str) -> Result<Outcome, SandboxError> {
    Err(SandboxError::NotLinux)
}

pub(crate) fn stage(_: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    None
}
