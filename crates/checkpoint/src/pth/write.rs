//! Writes an archive of tensors: its layout is fixed at the start, and its tensors may be written in any order.

use std::io::{self, Cursor, Seek, SeekFrom, Write};

use crc32fast::Hasher;

use super::zip;
use crate::{TensorSpec, pickle};

/// Alignment of the bytes of an entry, as in files of torch.
const ALIGNMENT: u64 = 64;
/// Flag: names are UTF-8.
const FLAGS: u16 = 1 << 11;
/// Version of the format that a reader must support: stored entries, and 64-bit lengths.
const NEEDS: u16 = 20;
const NEEDS64: u16 = 45;
/// 1 January 1980, so that equal tensors give equal files.
const DATE: u16 = 0x21;
/// Offset of the checksum in a header; it is written last.
const CHECKSUM_AT: u64 = 14;
/// Kind of the extra field that torch pads with.
const PADDING: u16 = u16::from_le_bytes(*b"FB");

/// Writes tensors as `torch.save` does.
///
/// All places are fixed at the start, so tensors may be written in any order and in pieces of any size. Only one piece is
/// in memory at a time.
#[derive(Debug)]
pub(crate) struct PthWriter<W> {
    out: W,
    entries: Vec<Entry>,
    /// Index of the first tensor's entry.
    first: usize,
}

#[derive(Debug)]
struct Entry {
    name: String,
    header: u64,
    /// Offset of its contents.
    data: u64,
    len: u64,
    written: u64,
    checksum: Hasher,
}

/// The bytes of a file with these tensors, little endian and row-major; `root` is the folder inside the archive.
///
/// # Errors
/// As the writer of files; a tensor with too few or too many bytes.
pub fn encode(root: &str, tensors: &[(TensorSpec, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let specs: Vec<TensorSpec> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = PthWriter::new(Cursor::new(Vec::new()), root, &specs)?;
    for (index, (_, bytes)) in tensors.iter().enumerate() {
        writer.append(index, bytes)?;
    }
    Ok(writer.finish()?.into_inner())
}

impl<W: Write + Seek> PthWriter<W> {
    /// Plans a file; `root` is the folder inside the archive.
    ///
    /// # Errors
    /// For dtypes that torch does not have, and errors of the operating system.
    pub(crate) fn new(out: W, root: &str, tensors: &[TensorSpec]) -> io::Result<Self> {
        let state = pickle::state_dict(tensors);
        let state = state.ok_or_else(|| invalid("torch does not have this dtype"))?;
        let small: [(&str, &[u8]); 3] = [
            ("data.pkl", &state),
            ("byteorder", b"little"),
            ("version", b"3\n"),
        ];
        let mut writer = Self {
            out,
            entries: Vec::new(),
            first: small.len(),
        };
        for (name, bytes) in small {
            writer.begin(format!("{root}/{name}"), bytes.len() as u64)?;
        }
        for (key, tensor) in tensors.iter().enumerate() {
            let bits = |bits: u64, &size: &usize| bits.checked_mul(size as u64);
            let bits = tensor
                .shape
                .iter()
                .try_fold(tensor.dtype.bitsize() as u64, bits);
            let bits = bits.ok_or_else(|| invalid("a tensor is too large"))?;
            writer.begin(format!("{root}/data/{key}"), bits / 8)?;
        }
        for (entry, (_, bytes)) in small.iter().enumerate() {
            writer.fill(entry, bytes)?;
        }
        Ok(writer)
    }

    /// Appends bytes to the tensor at this index of the list.
    ///
    /// # Errors
    /// If the tensor has fewer bytes, and errors of the operating system.
    pub(crate) fn append(&mut self, tensor: usize, bytes: &[u8]) -> io::Result<()> {
        self.fill(self.first + tensor, bytes)
    }

    /// Leaves a tensor as a hole in a sparse file, with a wrong checksum, for tests of large files.
    #[cfg(test)]
    pub(crate) fn skip(&mut self, tensor: usize) {
        let entry = &mut self.entries[self.first + tensor];
        entry.written = entry.len;
    }

    /// Finishes the file and returns `out`.
    ///
    /// # Errors
    /// If a tensor is incomplete, and errors of the operating system.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let mut table = Vec::new();
        for entry in &self.entries {
            if entry.written != entry.len {
                return Err(invalid("a tensor is incomplete"));
            }
            let checksum = entry.checksum.clone().finalize();
            self.out.seek(SeekFrom::Start(entry.header + CHECKSUM_AT))?;
            self.out.write_all(&checksum.to_le_bytes())?;
            entry.list(&mut table, checksum);
        }
        let begin = self.end();
        push_end(&mut table, begin, self.entries.len() as u64);
        self.out.seek(SeekFrom::Start(begin))?;
        self.out.write_all(&table)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// The start of the next entry.
    fn end(&self) -> u64 {
        self.entries
            .last()
            .map_or(0, |entry| entry.data + entry.len)
    }

    fn begin(&mut self, name: String, len: u64) -> io::Result<()> {
        let mut entry = Entry {
            name,
            header: self.end(),
            data: 0,
            len,
            written: 0,
            checksum: Hasher::new(),
        };
        let header = entry.header();
        entry.data = entry.header + header.len() as u64;
        self.out.seek(SeekFrom::Start(entry.header))?;
        self.out.write_all(&header)?;
        self.entries.push(entry);
        Ok(())
    }

    fn fill(&mut self, entry: usize, bytes: &[u8]) -> io::Result<()> {
        let entry = &mut self.entries[entry];
        if bytes.len() as u64 > entry.len - entry.written {
            return Err(invalid("more bytes than the tensor has"));
        }
        self.out.seek(SeekFrom::Start(entry.data + entry.written))?;
        self.out.write_all(bytes)?;
        entry.checksum.update(bytes);
        entry.written += bytes.len() as u64;
        Ok(())
    }
}

impl Entry {
    /// The header before its bytes, padded so that they are aligned, without the checksum.
    fn header(&self) -> Vec<u8> {
        let wide = self.len >= u64::from(u32::MAX);
        let mut extra = Vec::new();
        if wide {
            push_extra64(&mut extra, &[self.len, self.len]);
        }
        let fixed = zip::HEADER_BYTES + self.name.len() + extra.len();
        let end = self.header + fixed as u64;
        let mut padding = end.next_multiple_of(ALIGNMENT) - end;
        // a padding field has at least four bytes
        if (1..4).contains(&padding) {
            padding += ALIGNMENT;
        }
        if padding > 0 {
            extra.extend(PADDING.to_le_bytes());
            extra.extend((padding as u16 - 4).to_le_bytes());
            extra.resize(extra.len() + padding as usize - 4, 0);
        }
        let mut header = zip::MAGIC.to_vec();
        header.extend(if wide { NEEDS64 } else { NEEDS }.to_le_bytes());
        header.extend(FLAGS.to_le_bytes());
        // stored; no time of day
        header.extend([0; 4]);
        header.extend(DATE.to_le_bytes());
        header.extend([0; 4]);
        header.extend(narrow(self.len).to_le_bytes());
        header.extend(narrow(self.len).to_le_bytes());
        header.extend((self.name.len() as u16).to_le_bytes());
        header.extend((extra.len() as u16).to_le_bytes());
        header.extend(self.name.bytes());
        header.extend(extra);
        header
    }

    /// Its entry in the table at the end of the file.
    fn list(&self, table: &mut Vec<u8>, checksum: u32) {
        let numbers = [self.len, self.len, self.header];
        let wide = numbers.map(|number| number >= u64::from(u32::MAX));
        let mut extra = Vec::new();
        if wide.contains(&true) {
            let wide = numbers.into_iter().zip(wide).filter(|(_, wide)| *wide);
            push_extra64(
                &mut extra,
                &wide.map(|(number, _)| number).collect::<Vec<_>>(),
            );
        }
        let needs = if extra.is_empty() { NEEDS } else { NEEDS64 };
        table.extend(zip::ENTRY);
        table.extend(needs.to_le_bytes());
        table.extend(needs.to_le_bytes());
        table.extend(FLAGS.to_le_bytes());
        table.extend([0; 4]);
        table.extend(DATE.to_le_bytes());
        table.extend(checksum.to_le_bytes());
        table.extend(narrow(self.len).to_le_bytes());
        table.extend(narrow(self.len).to_le_bytes());
        table.extend((self.name.len() as u16).to_le_bytes());
        table.extend((extra.len() as u16).to_le_bytes());
        // no comment, on the first disk, no attributes
        table.extend([0; 10]);
        table.extend(narrow(self.header).to_le_bytes());
        table.extend(self.name.bytes());
        table.extend(extra);
    }
}

/// A 64-bit number in a 32-bit field; all ones mean that it is in an extra field.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn push_extra64(extra: &mut Vec<u8>, numbers: &[u64]) {
    extra.extend(zip::EXTRA64.to_le_bytes());
    extra.extend((8 * numbers.len() as u16).to_le_bytes());
    for number in numbers {
        extra.extend(number.to_le_bytes());
    }
}

/// The records after the table, which starts at `begin`. As in torch, the 64-bit records are always included.
fn push_end(table: &mut Vec<u8>, begin: u64, entries: u64) {
    let len = table.len() as u64;
    table.extend(zip::END64);
    table.extend((zip::END64_BYTES as u64 - 12).to_le_bytes());
    table.extend(NEEDS64.to_le_bytes());
    table.extend(NEEDS64.to_le_bytes());
    table.extend([0; 8]);
    for number in [entries, entries, len, begin] {
        table.extend(number.to_le_bytes());
    }
    table.extend(zip::LOCATOR64);
    table.extend([0; 4]);
    table.extend((begin + len).to_le_bytes());
    table.extend(1_u32.to_le_bytes());
    let few = u16::try_from(entries).unwrap_or(u16::MAX);
    table.extend(zip::END);
    table.extend([0; 4]);
    table.extend(few.to_le_bytes());
    table.extend(few.to_le_bytes());
    table.extend(narrow(len).to_le_bytes());
    table.extend(narrow(begin).to_le_bytes());
    table.extend([0; 2]);
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
