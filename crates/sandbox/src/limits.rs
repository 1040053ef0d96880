//! What a program may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limits of one program.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds from the program's begin to its end. A process also has at most one second more of processor time.
    pub seconds: f64,
    /// Address space of each process in bytes.
    pub memory: u64,
    /// Memory of all processes together in bytes.
    pub total_memory: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Open files of each process.
    pub files: u64,
    /// The size of the writable folder in bytes.
    pub scratch: u64,
    /// Bytes written to standard output and standard error.
    pub output: usize,
}

impl Default for Limits {
    /// Three seconds, as `code_eval` of Hugging Face's `evaluate`, and 1 GiB in each process and in all.
    fn default() -> Self {
        Self {
            seconds: 3.0,
            memory: 1 << 30,
            total_memory: 1 << 30,
            processes: 8,
            files: 64,
            scratch: 16 << 20,
            output: 1 << 20,
        }
    }
}

impl Limits {
    pub(crate) fn time(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::MAX)
    }
}
