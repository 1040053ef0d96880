//! Compressed files: gzip and zstd, undone on the way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::Fault;

/// Bytes that are read in one go.
const BUFFER: usize = 1 << 20;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

/// What a file's name says: the kind of its content, and how that is compressed.
pub(super) fn kind(path: &Path) -> (Option<String>, Option<Compression>) {
    let ending = |path: &Path| {
        path.extension()
            .map(|ending| ending.to_string_lossy().to_ascii_lowercase())
    };
    let compression = match ending(path).as_deref() {
        Some("gz" | "gzip") => Compression::Gzip,
        Some("zst" | "zstd") => Compression::Zstd,
        _ => return (ending(path), None),
    };
    (
        ending(Path::new(path.file_stem().unwrap_or_default())),
        Some(compression),
    )
}

/// A file that says how many of its bytes were read.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The content of a file; its bytes as they lie on the disk are counted in `read`.
pub(super) fn open(path: &Path, read: &Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>, Fault> {
    let file = Counted {
        file: File::open(path).map_err(Fault::Open)?,
        read: Arc::clone(read),
    };
    let file = BufReader::with_capacity(BUFFER, file);
    Ok(match kind(path).1 {
        None => Box::new(file),
        // A file may be several one after another.
        Some(Compression::Gzip) => {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)))
        }
        Some(Compression::Zstd) => {
            let decoder = zstd::Decoder::with_buffer(file).map_err(Fault::Io)?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        }
    })
}

/// A file to jump about in; a compressed one is unpacked into a temporary file.
pub(super) fn seekable(path: &Path) -> Result<File, Fault> {
    if kind(path).1.is_none() {
        return File::open(path).map_err(Fault::Open);
    }
    let mut source = open(path, &Arc::default())?;
    let mut unpack = || -> io::Result<File> {
        let mut unpacked = tempfile::tempfile()?;
        io::copy(&mut source, &mut unpacked)?;
        unpacked.seek(SeekFrom::Start(0))?;
        Ok(unpacked)
    };
    unpack().map_err(Fault::Io)
}
