//! Whether files are still those that they were.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::error::DataError;

/// Files with the length and time that they had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamps(Vec<Stamp>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    /// In bytes.
    length: u64,
    /// When it was last written, if the file system says it.
    modified: Option<SystemTime>,
}

impl Stamps {
    /// What files are now.
    ///
    /// # Errors
    /// [`DataError::Read`] for a file that is not there.
    pub(crate) fn of(files: Vec<PathBuf>) -> Result<Self, DataError> {
        let stamp = |path: PathBuf| match std::fs::metadata(&path) {
            Ok(found) => Ok(Stamp {
                length: found.len(),
                modified: found.modified().ok(),
                path,
            }),
            Err(source) => Err(DataError::Read { path, source }),
        };
        Ok(Self(
            files.into_iter().map(stamp).collect::<Result<_, _>>()?,
        ))
    }

    /// Checks that files are what they were.
    ///
    /// # Errors
    /// [`DataError::Changed`] for the first one that is not, [`DataError::Read`] for one that is gone.
    pub(crate) fn check(&self, files: Vec<PathBuf>) -> Result<(), DataError> {
        let now = Self::of(files)?;
        let is_new = |stamp: &&Stamp| !self.0.contains(stamp);
        let changed = now.0.iter().find(is_new);
        let gone = || self.0.iter().find(|stamp| !now.0.contains(stamp));
        match changed.or_else(gone) {
            None => Ok(()),
            Some(stamp) => Err(DataError::Changed {
                path: stamp.path.clone(),
            }),
        }
    }
}
