//! What the stages are told, as one line of JSON.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Limits, Python};

/// One program to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) python: Python,
    pub(super) limits: Limits,
    pub(super) code: String,
    /// What is written to standard output before and after the program: not to be guessed.
    pub(super) begin: String,
    pub(super) end: String,
    /// Whether the user namespace has the second user, `NOBODY`.
    pub(super) has_nobody: bool,
    /// Folders of the system that are shown.
    pub(super) system: Vec<PathBuf>,
}

impl Job {
    pub(super) fn to_line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads one line and nothing behind it: the other end stays open.
    pub(super) fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut line = Vec::new();
        let mut piece = [0; 4096];
        while line.last() != Some(&b'\n') {
            match input.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => line.extend_from_slice(&piece[..read]),
            }
        }
        Ok(serde_json::from_slice(&line)?)
    }
}
