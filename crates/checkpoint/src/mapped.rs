//! A file in memory, page by page as it is read.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;

use crate::CheckpointError;

/// Bytes that are read ahead in one go.
const READ_BYTES: usize = 8 << 20;

/// A file that is mapped for reading. Clones share the map.
#[derive(Clone)]
pub(crate) struct Mapped {
    path: PathBuf,
    map: Arc<Mmap>,
    /// The same bytes, in the form that tensors share without a copy.
    shared: Bytes,
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
        let file = File::open(path).map_err(CheckpointError::io(path, "open"))?;
        Self::new(&file, path)
    }

    /// Maps an open file; `path` is for messages.
    pub(crate) fn new(file: &File, path: &Path) -> Result<Self, CheckpointError> {
        let map = simmer_map::map_file(file).map_err(CheckpointError::io(path, "map"))?;
        let map = Arc::new(map);
        Ok(Self {
            path: path.into(),
            shared: Bytes::from_owner(Shared(map.clone())),
            map,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A range of the file that keeps the map alive.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Bytes {
        self.shared.slice(range)
    }

    /// Reads the file into memory; `progress` is told the bytes as they come.
    pub(crate) fn read_ahead(&self, progress: &mut dyn FnMut(u64)) {
        for begin in (0..self.len()).step_by(READ_BYTES) {
            let len = READ_BYTES.min(self.len() - begin);
            simmer_map::read_pages(&self.map, begin, len);
            progress(len as u64);
        }
    }

    /// Lets go of the pages of a range; reading them again reads the file again.
    pub(crate) fn release(&self, range: Range<usize>) {
        simmer_map::release_pages(&self.map, range.start, range.len());
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
