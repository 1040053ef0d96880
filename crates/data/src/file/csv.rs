//! CSV: a header of column names, then rows. Fields are separated by commas; by semicolons, tabs or vertical bars if the
//! header says so.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};
use serde_json::Value;
use simmer_files::size::counted;

use super::{Content, Fault, MAX_RECORD, twice};

/// The rows of a CSV file.
pub(super) struct Records {
    reader: Reader<Guarded>,
    delimiter: u8,
    columns: Vec<String>,
}

impl Records {
    /// `delimiter` is that of the file's type; otherwise the header tells it.
    pub(super) fn new(
        source: Box<dyn BufRead + Send>,
        delimiter: Option<u8>,
        columns: Option<&[String]>,
    ) -> Result<Records, Fault> {
        let mut source = Guarded {
            source,
            allowed: MAX_RECORD,
            end: &[],
            ended: false,
            head: VecDeque::new(),
            failed: None,
            lines: Lines::default(),
        };
        let first = source.look();
        let delimiter = match (delimiter, columns) {
            (Some(delimiter), _) => delimiter,
            (None, Some(_)) => b',',
            (None, None) => delimiter_of(first),
        };
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(source);
        let mut records = Records {
            reader,
            delimiter,
            columns: Vec::new(),
        };
        let columns: Vec<String> = if let Some(columns) = columns {
            columns.to_vec()
        } else {
            let header = records.record()?.map(|(header, _)| header);
            // spaces around a name are a slip, which nobody sees
            let names = header.iter().flatten();
            names.map(|name| name.trim().to_owned()).collect()
        };
        if let Some(column) = twice(columns.iter().map(String::as_str)) {
            let what = format!("duplicate column `{column}`");
            return Err(Fault::Csv { line: 1, what });
        }
        records.columns = columns;
        Ok(records)
    }

    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        let Some((row, line)) = self.record()? else {
            return Ok(None);
        };
        if row.len() != self.columns.len() {
            let mut what = format!(
                "expected {} as in the header, found {}",
                counted(self.columns.len(), "field"),
                row.len()
            );
            if self.delimiter != b',' {
                let name = match self.delimiter {
                    b'\t' => "tabs",
                    b'|' => "vertical bars",
                    _ => "semicolons",
                };
                what = format!("{what} (fields are separated by {name}, as in the header)");
            }
            return Err(Fault::Fields { line, what });
        }
        let values = row.iter().map(|text| Value::String(text.to_owned()));
        let columns = self.columns.iter().cloned().zip(values);
        Ok(Some((Content::Columns(columns.collect()), line)))
    }

    /// The next record and the line on which it starts. The header is a record.
    fn record(&mut self) -> Result<Option<(StringRecord, usize)>, Fault> {
        let start = self.reader.position().byte();
        self.reader.get_mut().allowed = MAX_RECORD;
        self.reader.get_mut().lines.record = start;
        let mut record = StringRecord::new();
        let read = self.reader.read_record(&mut record);
        // Lines are known as soon as they are read; the library's own count leaves out the line feed of the row before.
        let line = self.reader.get_ref().lines.of_record();
        if !read.map_err(|error| fault(error, line))? {
            return Ok(None);
        }
        if record.as_slice().len() > MAX_RECORD {
            return Err(Fault::Long { line });
        }
        match record.as_slice().strip_suffix(END.trim_start()) {
            None => {}
            Some("") => return Ok(None),
            Some(_) => {
                let what = "a quoted field that starts in this row has no closing quote".to_owned();
                return Err(Fault::Csv { line, what });
            }
        }
        Ok(Some((record, line)))
    }
}

/// Appended to the end of a file: a row of its own, unless the file ends inside quotes, which the parser does not
/// report.
const END: &str = "\n\0end\0";

/// A reader that fails at a record above the size limit.
struct Guarded {
    source: Box<dyn BufRead + Send>,
    /// Bytes that may be read before the next record must end.
    allowed: usize,
    /// The part of [`END`] that is not read yet.
    end: &'static [u8],
    ended: bool,
    /// The bytes that were looked at and not read yet, and the error that came after them.
    head: VecDeque<u8>,
    failed: Option<io::Error>,
    lines: Lines,
}

/// How much of a file is looked at for its header.
const LOOK: usize = 1 << 16;

/// A byte order mark, which some editors write.
const MARK: [u8; 3] = *b"\xEF\xBB\xBF";

impl Guarded {
    /// The first bytes, which stay to be read, without a byte order mark.
    fn look(&mut self) -> &[u8] {
        while self.head.len() < LOOK {
            let more = match self.source.fill_buf() {
                Ok([]) => break,
                Ok(more) => more,
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            };
            let count = more.len().min(LOOK);
            self.head.extend(&more[..count]);
            self.source.consume(count);
        }
        if self.head.iter().take(MARK.len()).eq(&MARK) {
            self.head.drain(..MARK.len());
        }
        self.head.make_contiguous()
    }

    /// The next bytes of the file.
    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.head.is_empty() {
            return self.head.read(buffer);
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.source.read(buffer),
        }
    }
}

/// The lines of the part of a file that was read and whose rows were not.
#[derive(Debug, Default)]
struct Lines {
    /// The offset of the record that is being read.
    record: u64,
    /// The offset of the first byte of each line that is not empty, and its number.
    starts: VecDeque<(u64, usize)>,
    /// The number of bytes and of line ends so far.
    bytes: u64,
    ends: usize,
    last: u8,
}

impl Lines {
    /// Takes the next bytes. All bytes before them are part of the record that is being read, or of earlier ones.
    fn pass(&mut self, bytes: &[u8]) {
        let first = self
            .starts
            .iter()
            .position(|(start, _)| *start >= self.record);
        self.starts.drain(..first.unwrap_or(self.starts.len()));
        self.starts.truncate(1);
        for &byte in bytes {
            let is_end = matches!(byte, b'\n' | b'\r');
            if !is_end && (self.bytes == 0 || matches!(self.last, b'\n' | b'\r')) {
                self.starts.push_back((self.bytes, self.ends + 1));
            }
            let second = byte == b'\n' && self.last == b'\r';
            self.ends += usize::from(is_end && !second);
            (self.last, self.bytes) = (byte, self.bytes + 1);
        }
    }

    /// The line on which the record starts: the first that is not empty.
    fn of_record(&self) -> usize {
        let mut starts = self.starts.iter();
        let line = starts.find(|(start, _)| *start >= self.record);
        line.map_or(self.ends.max(1), |(_, line)| *line)
    }
}

/// The delimiter of a header: a comma, unless there are more semicolons, tabs or vertical bars outside quotes.
fn delimiter_of(text: &[u8]) -> u8 {
    let mut in_quotes = false;
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0), (b'|', 0)];
    for &byte in text {
        match byte {
            b'"' => in_quotes = !in_quotes,
            b'\n' | b'\r' if !in_quotes => break,
            _ if in_quotes => {}
            _ => {
                for (delimiter, count) in &mut counts {
                    *count += usize::from(byte == *delimiter);
                }
            }
        }
    }
    let [comma, others @ ..] = counts;
    let most = others.into_iter().fold(
        comma,
        |most, other| {
            if other.1 > most.1 { other } else { most }
        },
    );
    most.0
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.allowed == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let most = buffer.len().min(self.allowed);
        if !self.ended && most > 0 {
            let count = self.next(&mut buffer[..most])?;
            self.lines.pass(&buffer[..count]);
            self.allowed -= count;
            if count > 0 {
                return Ok(count);
            }
            self.ended = true;
            self.end = END.as_bytes();
        }
        self.end.read(buffer)
    }
}

fn fault(error: csv::Error, line: usize) -> Fault {
    match error.into_kind() {
        ErrorKind::Utf8 { .. } => Fault::Utf8(line),
        ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => Fault::Long { line },
        ErrorKind::Io(error) => Fault::Io(error),
        other => Fault::Csv {
            line,
            what: format!("{other:?}"),
        },
    }
}
