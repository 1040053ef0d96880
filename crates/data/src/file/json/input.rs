//! The bytes of a file and the position in them.

use std::io::{self, BufRead};

use super::super::Fault;

/// How far a file is looked into before it is read.
const LOOK: usize = 1 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A file that knows its position. Lines end with a line feed, a carriage return, or both.
pub(in super::super) struct Input<R> {
    source: R,
    /// The bytes that were looked at, and how many of them were taken.
    head: Vec<u8>,
    taken: usize,
    /// The error that came after the bytes that were looked at.
    failed: Option<io::Error>,
    /// The position of the next byte, from 1.
    pub(in super::super) line: usize,
    pub(super) column: usize,
    /// Whether the last byte was a carriage return.
    after_return: bool,
}

impl<R: BufRead> Input<R> {
    pub(in super::super) fn new(source: R) -> Self {
        Self {
            source,
            head: Vec::new(),
            taken: 0,
            failed: None,
            line: 1,
            column: 1,
            after_return: false,
        }
    }

    /// Skips a byte order mark: JSON has none, but some editors write one.
    pub(in super::super) fn skip_mark(&mut self) {
        if self.look().starts_with(BYTE_ORDER_MARK) {
            self.taken += BYTE_ORDER_MARK.len();
        }
    }

    /// The next bytes, at most a mebibyte, which stay to be read. An error is returned where they end, so that the rows
    /// before it are read.
    pub(super) fn look(&mut self) -> &[u8] {
        while self.failed.is_none() && self.head.len() < self.taken + LOOK {
            let more = match self.source.fill_buf() {
                Ok([]) => break,
                Ok(more) => more,
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            };
            let count = more.len().min(self.taken + LOOK - self.head.len());
            self.head.extend_from_slice(&more[..count]);
            self.source.consume(count);
        }
        &self.head[self.taken..]
    }

    /// The next bytes; none at the end.
    pub(super) fn buffer(&mut self) -> Result<&[u8], Fault> {
        if self.taken < self.head.len() {
            return Ok(&self.head[self.taken..]);
        }
        match self.failed.take() {
            Some(error) => Err(Fault::Io(error)),
            None => self.source.fill_buf().map_err(Fault::Io),
        }
    }

    /// Takes so many bytes of the buffer.
    pub(super) fn take(&mut self, count: usize) -> Result<(), Fault> {
        let (mut line, mut column, before) = (self.line, self.column, self.after_return);
        let taken = &self.buffer()?[..count];
        let mut start = 0;
        for at in memchr::memchr2_iter(b'\n', b'\r', taken) {
            let after_return = match at {
                0 => before,
                _ => taken[at - 1] == b'\r',
            };
            line += usize::from(taken[at] == b'\r' || !after_return);
            (column, start) = (1, at + 1);
        }
        column += count - start;
        let after_return = taken.last().map_or(before, |&last| last == b'\r');
        (self.line, self.column, self.after_return) = (line, column, after_return);
        if self.taken < self.head.len() {
            self.taken += count;
        } else {
            self.source.consume(count);
        }
        Ok(())
    }

    /// The next byte that is not white space.
    pub(super) fn skip_blanks(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            let buffer = self.buffer()?;
            let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            match buffer.iter().position(|byte| !blank(byte)) {
                Some(at) => {
                    let next = buffer[at];
                    self.take(at)?;
                    return Ok(Some(next));
                }
                None if buffer.is_empty() => return Ok(None),
                None => {
                    let all = buffer.len();
                    self.take(all)?;
                }
            }
        }
    }

    /// Takes the next line without its end, at most `most` bytes of it; `None` at the end of the file.
    pub(in super::super) fn line(&mut self, most: usize) -> Result<Option<Vec<u8>>, Fault> {
        let mut line = Vec::new();
        let mut ended = false;
        loop {
            let buffer = self.buffer()?;
            if buffer.is_empty() {
                return Ok((ended || !line.is_empty()).then_some(line));
            }
            if ended {
                // the line feed after a carriage return
                if buffer[0] == b'\n' {
                    self.take(1)?;
                }
                return Ok(Some(line));
            }
            let left = &buffer[..buffer.len().min(most - line.len())];
            let end = memchr::memchr2(b'\n', b'\r', left);
            line.extend_from_slice(&left[..end.unwrap_or(left.len())]);
            let (count, by) = (
                end.map_or(left.len(), |end| end + 1),
                end.map(|end| left[end]),
            );
            self.take(count)?;
            match by {
                Some(b'\n') => return Ok(Some(line)),
                Some(_) => ended = true,
                None if line.len() >= most => return Ok(Some(line)),
                None => {}
            }
        }
    }

    /// An error at this position.
    pub(super) fn wrong(&self, what: &str) -> Fault {
        Fault::Json {
            line: self.line,
            column: self.column,
            what: what.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn every_line_end_counts_once() {
        for size in [1, 2, 64] {
            let text: &[u8] = b"a\r\nb\rc\n\r\n\r\rd";
            let mut input = Input::new(BufReader::with_capacity(size, text));
            let mut lines = Vec::new();
            loop {
                let at = input.line;
                match input.line(100).unwrap() {
                    Some(line) => lines.push((at, String::from_utf8(line).unwrap())),
                    None => break,
                }
            }
            let expected = ["a", "b", "c", "", "", "", "d"];
            let expected: Vec<_> = (1..).zip(expected.map(str::to_owned)).collect();
            assert_eq!(lines, expected, "{size}");
        }
    }

    #[test]
    fn what_was_looked_at_is_still_read() {
        let text = b"\xEF\xBB\xBF  x\n y".as_slice();
        let mut input = Input::new(BufReader::with_capacity(3, text));
        input.skip_mark();
        assert_eq!(input.look(), b"  x\n y");
        assert_eq!(input.skip_blanks().unwrap(), Some(b'x'));
        assert_eq!((input.line, input.column), (1, 3));
        assert_eq!(input.line(9).unwrap().unwrap(), b"x");
        assert_eq!(input.skip_blanks().unwrap(), Some(b'y'));
        assert_eq!((input.line, input.column), (2, 2));
    }
}
