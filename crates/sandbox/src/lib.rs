//! Runs Python programs that a model wrote, each alone and with almost no rights. Linux only.
//!
//! ```text
//! simmer --starts itself--> outer stage: new user, network, IPC and process namespaces; watches the time
//!            outer stage --starts itself--> inner stage: new root file system, limits, system call filter
//!                                 inner stage --becomes--> Python, process 1 of its namespace
//! ```
//!
//! A program sees the system's libraries and the Python installation, read-only, four devices, and one writable folder
//! in memory. It has no network, no processes but its own, no environment variables of the user, no file of the user, and
//! no privilege. When it ends, or time is up, the kernel ends every process that it started.
//!
//! The stages are the program itself with a hidden first argument ([`stage`]), because Rust has no safe `fork`. Where the
//! kernel does not allow a step, nothing runs: [`SandboxError::Refused`] says which step.
//!
//! The address space of one process is bounded, and so is the number of processes. The memory of all of them together is read from
//! `/proc` every few milliseconds, and a program above the limit is ended: control groups, with which the kernel would bound it,
//! are for few users. Where the kernel does not list the children of a process, only the product of the two bounds holds:
//! [`Sandbox::counts_all_memory`].

mod error;
mod limits;
mod python;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

pub use error::SandboxError;
pub use limits::Limits;
pub use python::Python;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use other as system;

/// A Python installation, and the limits under which programs run in it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// This program, which starts itself again.
    program: PathBuf,
    python: Python,
    limits: Limits,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ran to its end.
    Passed,
    /// It raised an exception, exited or was killed: the last line that it wrote, or what happened.
    Failed(String),
    /// It did not end in time.
    TimedOut,
    /// It wrote more than the limit.
    TooMuchOutput,
    /// Its processes had more memory together than the limit.
    TooMuchMemory,
}

impl Sandbox {
    /// A sandbox for `python`. `program` handles [`stage`]; `None` is the running program.
    ///
    /// # Errors
    /// If a first, empty program cannot be run: the system is not Linux, or the kernel refuses.
    pub fn new(
        program: Option<PathBuf>,
        python: Python,
        limits: Limits,
    ) -> Result<Self, SandboxError> {
        let program = match program {
            Some(program) => program,
            None => std::env::current_exe().map_err(|source| SandboxError::Start { source })?,
        };
        let sandbox = Self {
            program,
            python,
            limits,
        };
        match sandbox.run("")? {
            Outcome::Passed => Ok(sandbox),
            outcome => Err(SandboxError::Refused {
                step: format!("an empty program did not pass: {outcome:?}"),
            }),
        }
    }

    /// Runs a program: `exec` of its text with new globals, as `code_eval` of Hugging Face's `evaluate` does.
    ///
    /// # Errors
    /// If the sandbox cannot be set up. What the program does is an [`Outcome`].
    pub fn run(&self, code: &str) -> Result<Outcome, SandboxError> {
        system::run(&self.program, &self.python, &self.limits, code)
    }

    /// The Python installation.
    pub fn python(&self) -> &Python {
        &self.python
    }

    /// Whether the memory of all processes of a program is bounded together. If not, each has its own bound alone.
    pub fn counts_all_memory(&self) -> bool {
        system::counts_all_memory()
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// Runs a stage of a sandbox, if the program was started as one. To be called before anything else, while the process has
/// one thread.
pub fn stage(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    system::stage(arguments)
}
