//! Compressed files: gzip and zstd, decompressed while they are read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::Fault;

/// The size of the read buffers, in bytes.
const BUFFER: usize = 1 << 20;

/// Bytes that any file may decompress to.
const PLENTY: u64 = 1 << 30;
/// Above [`PLENTY`], how many times its size a file may decompress to. Text compresses to a tenth, the most repetitive
/// logs to a fiftieth.
const MOST_TIMES: u64 = 200;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

/// The type of a file's content and its compression, by the extensions of its name.
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

/// A file that counts the bytes that are read from it.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
    /// Bytes read from this file alone.
    own: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        self.own.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A decompressor that stops decompression bombs.
struct Bounded<R> {
    source: R,
    /// Bytes read from the compressed file, and bytes returned.
    packed: Arc<AtomicU64>,
    unpacked: u64,
    /// Bytes that are returned in any case.
    plenty: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.unpacked += count as u64;
        let packed = self.packed.load(Ordering::Relaxed);
        if self.unpacked > self.plenty && self.unpacked / MOST_TIMES > packed {
            let problem = format!("it decompresses to more than {MOST_TIMES} times its size");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, problem));
        }
        Ok(count)
    }
}

/// The content of an open file, decompressed if its name says so. `read` counts its bytes as stored on disk.
pub(super) fn reader(
    file: File,
    path: &Path,
    read: &Arc<AtomicU64>,
) -> Result<Box<dyn BufRead + Send>, Fault> {
    let packed = Arc::default();
    let file = Counted {
        file,
        read: Arc::clone(read),
        own: Arc::clone(&packed),
    };
    let file = BufReader::with_capacity(BUFFER, file);
    Ok(match kind(path).1 {
        None => Box::new(file),
        // A gzip file may have several members, one after another.
        Some(Compression::Gzip) => Box::new(bounded(MultiGzDecoder::new(file), packed)),
        Some(Compression::Zstd) => {
            let decoder = zstd::Decoder::with_buffer(file).map_err(Fault::Io)?;
            Box::new(bounded(decoder, packed))
        }
    })
}

fn bounded<R: Read>(source: R, packed: Arc<AtomicU64>) -> BufReader<Bounded<R>> {
    let source = Bounded {
        source,
        packed,
        unpacked: 0,
        plenty: PLENTY,
    };
    BufReader::with_capacity(BUFFER, source)
}

/// The content of an open file for random access. A compressed file is decompressed to a temporary file.
pub(super) fn seekable(file: File, path: &Path) -> Result<File, Fault> {
    if kind(path).1.is_none() {
        return Ok(file);
    }
    let mut source = reader(file, path, &Arc::default())?;
    let mut unpack = || -> io::Result<File> {
        let mut unpacked = tempfile::tempfile()?;
        io::copy(&mut source, &mut unpacked)?;
        unpacked.seek(SeekFrom::Start(0))?;
        Ok(unpacked)
    };
    unpack().map_err(Fault::Io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_stopped() {
        let unpack = |bytes: u64, packed: u64| {
            let mut source = Bounded {
                source: io::repeat(b'x').take(bytes),
                packed: Arc::new(packed.into()),
                unpacked: 0,
                plenty: 1 << 20,
            };
            io::copy(&mut source, &mut io::sink())
        };
        assert_eq!(unpack(1 << 20, 1).unwrap(), 1 << 20);
        assert_eq!(unpack(8 << 20, 1 << 16).unwrap(), 8 << 20);
        let error = unpack(2 << 20, 1 << 10).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it decompresses to more than 200 times its size"
        );
    }
}
