//! Files: how they are read, mapped into memory, written, hashed, and how their sizes are shown.
//!
//! Weights are mapped read-only and loaded page by page; small files are read completely, up to a limit. Files and
//! folders are written atomically. The `unsafe` calls that mapping needs are here, so that the crates above can forbid
//! `unsafe`.

mod atomic;
mod bus_error;
pub mod digest;
mod error;
mod lfs;
pub mod size;
pub mod splits;
mod whole;

use std::fs::File;
use std::io;

use memmap2::Mmap;

pub use atomic::{Existing, StagedFolder, try_write_file, write_file};
pub use bus_error::explain_bus_errors;
pub use error::WriteError;
pub use lfs::{LFS_HINT, is_lfs_pointer};
pub use whole::{open, read, read_text};

/// Maps a whole file for reading.
///
/// # Errors
///
/// The error of the operating system if it cannot map the file.
#[expect(unsafe_code, reason = "mapping a file is unsafe")]
pub fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: a map is sound while its file does not change. simmer writes new files and renames them, and never changes
    // a file that could be mapped. No Rust reader of maps is protected against another program that does, but the effect
    // is limited: only numbers are read through the map, and they are valid in every bit pattern. Structured data (the
    // header) is copied and checked in the copy. A truncated file ends the process (SIGBUS), and [`explain_bus_errors`]
    // explains why.
    unsafe { Mmap::map(file) }
}

/// Reads a range of a mapped file into memory in one request, which is faster than page faults at the first access.
///
/// This is only a hint: if the system does not support it, pages are loaded when they are read.
///
/// # Panics
///
/// If the range is outside the map.
pub fn read_pages(map: &Mmap, offset: usize, len: usize) {
    assert!(
        offset.checked_add(len).is_some_and(|end| end <= map.len()),
        "range outside the map"
    );
    #[cfg(target_os = "linux")]
    let _ = map
        .advise_range(memmap2::Advice::PopulateRead, offset, len)
        .or_else(|_| map.advise_range(memmap2::Advice::WillNeed, offset, len));
}

/// Tells the operating system that a range of a map is not needed soon, so that its pages no longer count as memory of
/// this process. Reading the range again reads the file again.
///
/// This is only a hint: a failure affects nothing but the memory in use, and is not reported.
///
/// # Panics
///
/// If the range is outside the map.
#[cfg_attr(
    unix,
    expect(unsafe_code, reason = "memmap2 has no safe form of MADV_DONTNEED")
)]
pub fn release_pages(map: &Mmap, offset: usize, len: usize) {
    assert!(
        offset.checked_add(len).is_some_and(|end| end <= map.len()),
        "range outside the map"
    );
    // SAFETY: DONTNEED loses contents only if they exist nowhere else. Pages of a read-only file map are read from the
    // file again with the same bytes, so that no reader, not even a concurrent one, sees a difference.
    #[cfg(unix)]
    let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn released_pages_read_the_same_again() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..20_000_u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let map = map_file(&file).unwrap();
        assert_eq!(&map[..], &bytes[..]);
        release_pages(&map, 5_000, 10_000);
        assert_eq!(&map[..], &bytes[..]);
    }

    #[test]
    #[should_panic(expected = "range outside the map")]
    fn a_range_outside_panics() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; 16]).unwrap();
        release_pages(&map_file(&file).unwrap(), 10, 7);
    }
}
