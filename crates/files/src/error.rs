//! Errors of atomic writes.

use std::io;
use std::path::{Path, PathBuf};

use simmer_hint::Hint;
use thiserror::Error;

/// A file or folder that cannot be written. The old contents are unchanged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The operating system refuses an operation.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The operation, as a verb: "create", "write".
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// An output that would overwrite something.
    #[error("{}: already exists and is not an empty folder", path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
}

impl WriteError {
    /// Converts an error of the operating system; `action` is a verb.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

impl Hint for WriteError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "the disk is full and nothing was overwritten; free some space and run the command again"
            }
            Self::Io { .. } => return None,
            Self::OutputExists { .. } => "name another folder, or remove this one first",
        };
        Some(text.to_owned())
    }
}
