//! Reads the tables of a zip archive with uncompressed entries. Their memory is bounded by the length of the tables in the
//! file.
//!
//! Source: PKWARE, APPNOTE.TXT 6.3.

use std::collections::HashMap;
use std::ops::Range;

use super::PthError;
use crate::pickle::shown;

/// The first bytes of an archive: the header of its first entry.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";
pub(super) const ENTRY: &[u8] = b"PK\x01\x02";
pub(super) const END: &[u8] = b"PK\x05\x06";
pub(super) const END64: &[u8] = b"PK\x06\x06";
pub(super) const LOCATOR64: &[u8] = b"PK\x06\x07";
/// Fixed lengths of these records.
pub(super) const HEADER_BYTES: usize = 30;
pub(super) const ENTRY_BYTES: usize = 46;
const END_BYTES: usize = 22;
pub(super) const END64_BYTES: usize = 56;
const LOCATOR64_BYTES: usize = 20;
/// Kind of the extra field with 64-bit numbers.
pub(super) const EXTRA64: u16 = 1;
const ENCRYPTED: u16 = 1;

/// The entries of an archive with their byte ranges.
#[derive(Debug)]
pub(super) struct Archive {
    entries: HashMap<String, Range<usize>>,
}

impl Archive {
    pub(super) fn read(file: &[u8]) -> Result<Self, PthError> {
        let directory = directory(file)?;
        let begin = directory.start;
        // a copy, because structured data must not change while it is parsed
        let table = file[directory].to_vec();
        let mut rest = table.as_slice();
        let mut entries = HashMap::new();
        while !rest.is_empty() {
            let (name, range, entry_len) = entry(&file[..begin], rest)?;
            rest = &rest[entry_len..];
            if entries.insert(name.to_owned(), range).is_some() {
                return Err(damaged("duplicate entry", name));
            }
        }
        Ok(Self { entries })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn entry(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).cloned()
    }
}

fn damaged(what: &'static str, entry: &str) -> PthError {
    PthError::Zip {
        what,
        entry: shown(entry),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The range of the table of entries, found from the record at the end of the file.
fn directory(file: &[u8]) -> Result<Range<usize>, PthError> {
    let no_end = || damaged("the end record is missing", "");
    let last = file.len().checked_sub(END_BYTES).ok_or_else(no_end)?;
    // a comment of at most 65,535 bytes may follow the record
    let end = (last.saturating_sub(usize::from(u16::MAX))..=last)
        .rev()
        .find(|&at| {
            let comment = u16_at(file, at + 20).map(usize::from);
            file[at..].starts_with(END) && comment == Some(last - at)
        })
        .ok_or_else(no_end)?;
    let narrow = (
        u16_at(file, end + 10),
        u32_at(file, end + 12),
        u32_at(file, end + 16),
    );
    let (Some(entries), Some(len), Some(begin)) = narrow else {
        return Err(no_end());
    };
    let wide = entries == u16::MAX || len == u32::MAX || begin == u32::MAX;
    let (len, begin, end) = if wide {
        let wide =
            end64(file, end).ok_or_else(|| damaged("the 64-bit end record is missing", ""))?;
        (wide.0, wide.1, wide.2)
    } else {
        (u64::from(len), u64::from(begin), end)
    };
    let range = begin.checked_add(len).filter(|&stop| stop <= end as u64);
    let stop = range
        .ok_or_else(|| damaged("the table of entries is not where the end record says", ""))?;
    Ok(begin as usize..stop as usize)
}

/// Length and start of the table of entries, and the place of the end record.
fn end64(file: &[u8], end: usize) -> Option<(u64, u64, usize)> {
    let locator = end.checked_sub(LOCATOR64_BYTES)?;
    if !file[locator..].starts_with(LOCATOR64) {
        return None;
    }
    let at = usize::try_from(u64_at(file, locator + 8)?).ok()?;
    let record = file.get(at..at.checked_add(END64_BYTES)?)?;
    if !record.starts_with(END64) || at + END64_BYTES > locator {
        return None;
    }
    Some((u64_at(record, 40)?, u64_at(record, 48)?, at))
}

/// The first entry of the table: its name, its byte range in the file, and its length in the table. `file` ends where the
/// table starts.
fn entry<'a>(file: &[u8], table: &'a [u8]) -> Result<(&'a str, Range<usize>, usize), PthError> {
    let short = || damaged("the table of entries is truncated", "");
    if !table.starts_with(ENTRY) {
        return Err(damaged("the table of entries holds something else", ""));
    }
    let field16 = |at| u16_at(table, at).ok_or_else(short);
    let field32 = |at| u32_at(table, at).ok_or_else(short);
    let (flags, method) = (field16(8)?, field16(10)?);
    let lengths = [field16(28)?, field16(30)?, field16(32)?].map(usize::from);
    let [name_len, extra_len, comment_len] = lengths;
    let extra_at = ENTRY_BYTES + name_len;
    let name = table.get(ENTRY_BYTES..extra_at).ok_or_else(short)?;
    let extra = table
        .get(extra_at..extra_at + extra_len)
        .ok_or_else(short)?;
    let entry_len = extra_at + extra_len + comment_len;
    if entry_len > table.len() {
        return Err(short());
    }
    let name = std::str::from_utf8(name).map_err(|_| damaged("a name is not UTF-8", ""))?;
    let packed = |how| PthError::Packed {
        entry: shown(name),
        how,
    };
    if flags & ENCRYPTED != 0 {
        return Err(packed("encrypted"));
    }
    if method != 0 {
        return Err(packed("compressed"));
    }
    let narrow = [field32(24)?, field32(20)?, field32(42)?];
    let [size, packed_size, header] =
        widened(narrow, extra).ok_or_else(|| damaged("64-bit numbers are missing", name))?;
    if size != packed_size {
        return Err(damaged(
            "an uncompressed entry has two different lengths",
            name,
        ));
    }
    let range = data(file, header, size);
    let range = range.ok_or_else(|| damaged("an entry is not where the table says", name))?;
    Ok((name, range, entry_len))
}

/// Length, compressed length and place of an entry; values of all ones are in the extra field.
fn widened(narrow: [u32; 3], mut extra: &[u8]) -> Option<[u64; 3]> {
    let mut wide = narrow.map(u64::from);
    if !narrow.contains(&u32::MAX) {
        return Some(wide);
    }
    loop {
        let len = usize::from(u16_at(extra, 2)?);
        let field = extra.get(4..4 + len)?;
        if u16_at(extra, 0)? == EXTRA64 {
            let mut at = 0;
            for (wide, narrow) in wide.iter_mut().zip(narrow) {
                if narrow == u32::MAX {
                    *wide = u64_at(field, at)?;
                    at += 8;
                }
            }
            return Some(wide);
        }
        extra = &extra[4 + len..];
    }
}

/// The byte range of an entry after its header.
fn data(file: &[u8], header: u64, size: u64) -> Option<Range<usize>> {
    let header = usize::try_from(header).ok()?;
    let fields = file.get(header..)?.get(..HEADER_BYTES)?;
    if !fields.starts_with(MAGIC) {
        return None;
    }
    let [name, extra] = [u16_at(fields, 26)?, u16_at(fields, 28)?].map(usize::from);
    let begin = header + HEADER_BYTES + name + extra;
    let end = begin.checked_add(usize::try_from(size).ok()?)?;
    (end <= file.len()).then_some(begin..end)
}
