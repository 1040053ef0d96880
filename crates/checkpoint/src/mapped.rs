//! A memory-mapped file.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use memmap2::Mmap;

use crate::CheckpointError;

/// Bytes per read-ahead request.
const READ_BYTES: usize = 8 << 20;

/// A file that is mapped for reading. Clones share the map.
#[derive(Clone)]
pub(crate) struct Mapped {
    path: PathBuf,
    file: Arc<File>,
    /// The file when it was mapped.
    seen: Seen,
    map: Arc<Mmap>,
    /// The same bytes as [`Bytes`], which tensors share without a copy.
    shared: Bytes,
}

/// Length and modification time, by which a change of the file is detected. A change that keeps both is not detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Seen {
    fn of(file: &File) -> io::Result<Self> {
        let about = file.metadata()?;
        Ok(Self {
            bytes: about.len(),
            modified: about.modified().ok(),
        })
    }
}

/// Lets [`Bytes`] keep the map alive.
struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapped {
    /// Opens and maps a file.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = simmer_files::open(path).map_err(CheckpointError::io(path, "open"))?;
        Self::new(file, path)
    }

    /// Maps an open file; `path` is for messages.
    pub(crate) fn new(file: File, path: &Path) -> Result<Self, CheckpointError> {
        let seen = Seen::of(&file).map_err(CheckpointError::io(path, "read"))?;
        let map = simmer_files::map_file(&file).map_err(CheckpointError::io(path, "map"))?;
        let map = Arc::new(map);
        Ok(Self {
            path: path.into(),
            file: Arc::new(file),
            seen,
            shared: Bytes::from_owner(Shared(map.clone())),
            map,
        })
    }

    /// Checks by length and modification time that the file has not changed since it was mapped.
    ///
    /// # Errors
    /// If another program has changed the file.
    pub(crate) fn check_unchanged(&self) -> Result<(), CheckpointError> {
        let now = Seen::of(&self.file).map_err(CheckpointError::io(&self.path, "read"))?;
        if now == self.seen {
            return Ok(());
        }
        Err(CheckpointError::Changed {
            file: self.path.clone(),
            before: self.seen.bytes,
            now: now.bytes,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn map(&self) -> &Mmap {
        &self.map
    }

    /// A range of the file; it keeps the map alive.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Bytes {
        self.shared.slice(range)
    }

    /// Reads the file into memory; `progress` receives the number of bytes read.
    pub(crate) fn read_ahead(&self, progress: &mut dyn FnMut(u64)) {
        for begin in (0..self.len()).step_by(READ_BYTES) {
            let len = READ_BYTES.min(self.len() - begin);
            simmer_files::read_pages(&self.map, begin, len);
            progress(len as u64);
        }
    }

    /// Releases the pages of a range; reading them again reads the file again.
    pub(crate) fn release(&self, range: Range<usize>) {
        simmer_files::release_pages(&self.map, range.start, range.len());
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
