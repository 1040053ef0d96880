//! Files whose first bytes say that they are something else than their names do.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use super::{Fault, decompress};

/// A kind of file, and what to do with one whose name says something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    start: &'static [u8],
    name: &'static str,
    /// The extension that files of this kind are read by.
    ending: Option<&'static str>,
    remedy: &'static str,
}

const fn kind(
    start: &'static [u8],
    name: &'static str,
    ending: Option<&'static str>,
    remedy: &'static str,
) -> Kind {
    Kind {
        start,
        name,
        ending,
        remedy,
    }
}

const DECOMPRESS: &str = "decompress it; files that end in `.gz` or `.zst` are read as they are";

const KINDS: [Kind; 12] = [
    kind(
        b"\x1f\x8b",
        "gzip data",
        Some("gz"),
        "end the name of the file in `.gz`, or decompress it",
    ),
    kind(
        b"\x28\xb5\x2f\xfd",
        "zstd data",
        Some("zst"),
        "end the name of the file in `.zst`, or decompress it",
    ),
    kind(b"BZh91AY&SY", "bzip2 data", None, DECOMPRESS),
    kind(b"\xfd7zXZ\0", "xz data", None, DECOMPRESS),
    kind(
        b"PK\x03\x04",
        "a zip archive or a spreadsheet",
        None,
        "extract its files, or save the table as CSV",
    ),
    kind(
        b"PAR1",
        "a Parquet file",
        Some("parquet"),
        "end the name of the file in `.parquet`",
    ),
    kind(
        b"ARROW1",
        "an Arrow file",
        Some("arrow"),
        "end the name of the file in `.arrow`",
    ),
    kind(b"%PDF-", "a PDF document", None, "save its text as `.txt`"),
    kind(
        b"SQLite format 3\0",
        "an SQLite database",
        None,
        "save its rows as JSONL: one object per line",
    ),
    kind(b"\xff\xfe", "UTF-16 text", None, "save the file in UTF-8"),
    kind(b"\xfe\xff", "UTF-16 text", None, "save the file in UTF-8"),
    kind(
        b"<!DOCTYPE html",
        "an HTML page",
        None,
        "download the file itself: this is a page about it",
    ),
];

/// The kind of a file that starts like this, if it is known.
fn of(start: &[u8]) -> Option<Kind> {
    KINDS.into_iter().find(|kind| {
        let found = start.get(..kind.start.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(kind.start))
    })
}

/// Checks that a file, or what is compressed in it, is not something else than its name says. `start` is how it starts.
pub(super) fn check(file: &mut File, path: &Path, start: &[u8]) -> Result<(), Fault> {
    let (ending, compression) = decompress::kind(path);
    let ending = ending.as_deref();
    let wrong = |found: Kind, expected| {
        Err(Fault::OtherKind {
            expected,
            found: found.name,
            remedy: found.remedy,
        })
    };
    if compression.is_some()
        && let Some(found) = of(start)
        && !matches!(found.ending, Some("gz" | "zst"))
    {
        return wrong(found, "compressed data, as the name says");
    }
    let inside;
    let start = if compression.is_some() {
        inside = first_bytes(file, path).map_err(Fault::Io)?;
        inside.as_slice()
    } else {
        start
    };
    let (own, expected) = match ending {
        Some("parquet") => (Some("parquet"), "a Parquet file"),
        Some("arrow") => (Some("arrow"), "an Arrow file"),
        Some("csv" | "tsv") => (None, "a table of text"),
        Some("txt") => (None, "text"),
        _ => (None, "rows of JSON"),
    };
    match of(start) {
        Some(found) if compression.is_some() && matches!(found.ending, Some("gz" | "zst")) => {
            Err(Fault::OtherKind {
                expected,
                found: found.name,
                remedy: "decompress the file once: it is compressed twice",
            })
        }
        Some(found) if found.ending != own || own.is_none() => {
            // a text may well be about HTML
            if expected == "text" && found.start.starts_with(b"<") {
                return Ok(());
            }
            wrong(found, expected)
        }
        _ => Ok(()),
    }
}

/// How the decompressed file starts. An error comes again where the rows are read. The file is at its start again afterwards.
fn first_bytes(file: &mut File, path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    // Both handles share one position.
    if let Ok(unpacked) = decompress::reader(file.try_clone()?, path, &Arc::default()) {
        let _ = unpacked.take(64).read_to_end(&mut start);
    }
    file.rewind()?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let name = |start: &[u8]| of(start).map(|kind| kind.name);
        assert_eq!(name(b"PAR1\x15\x04"), Some("a Parquet file"));
        assert_eq!(name(b"<!doctype HTML><html>"), Some("an HTML page"));
        assert_eq!(name(b"{\"prompt\": \"a\"}"), None);
        assert_eq!(name(b""), None);
    }
}
