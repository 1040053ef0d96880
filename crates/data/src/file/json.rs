//! JSON files, split into the texts of their rows: the elements of an array, or the lines of JSONL.

use std::io::{BufRead, Read};

use super::{Content, Fault, MAX_RECORD};

/// The rows of a JSON file. If the first character is `[`, the file is an array; otherwise it is JSONL.
pub(super) struct Records<R> {
    source: R,
    state: State,
    /// The position of the next byte, from 1.
    line: usize,
    column: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Lines,
    /// Inside an array: before an element, which is needed after a comma.
    Element {
        needed: bool,
    },
    /// Inside an array: after an element.
    Comma,
    End,
}

const BYTE_ORDER_MARK: [u8; 3] = *b"\xEF\xBB\xBF";

impl<R: BufRead> Records<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            state: State::Start,
            line: 1,
            column: 1,
        }
    }

    /// The next row's text, and the line on which it starts.
    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        loop {
            match self.state {
                State::Start => self.start()?,
                State::Lines => return self.next_line(),
                State::End => return Ok(None),
                State::Comma => match self.skip_blanks()? {
                    Some(b',') => {
                        self.take()?;
                        self.state = State::Element { needed: true };
                    }
                    Some(b']') => {
                        self.take()?;
                        self.end()?;
                    }
                    Some(_) => return Err(self.wrong("expected `,` or `]`")),
                    None => return Err(self.wrong("EOF while parsing a list")),
                },
                State::Element { needed } => match self.skip_blanks()? {
                    Some(b']') if !needed => {
                        self.take()?;
                        self.end()?;
                    }
                    Some(b']') => return Err(self.wrong("trailing comma")),
                    Some(_) => {
                        self.state = State::Comma;
                        return self.element().map(Some);
                    }
                    None => return Err(self.wrong("EOF while parsing a list")),
                },
            }
        }
    }

    fn start(&mut self) -> Result<(), Fault> {
        // JSON has no byte order mark, but some editors write one.
        if self.source.fill_buf().map_err(Fault::Io)?.first() == Some(&BYTE_ORDER_MARK[0]) {
            let mut mark = [0; BYTE_ORDER_MARK.len()];
            if self.source.read_exact(&mut mark).is_err() || mark != BYTE_ORDER_MARK {
                return Err(self.wrong("expected value"));
            }
        }
        self.state = match self.skip_blanks()? {
            Some(b'[') => {
                self.take()?;
                State::Element { needed: false }
            }
            Some(_) => State::Lines,
            None => State::End,
        };
        Ok(())
    }

    /// Checks that only white space follows the array.
    fn end(&mut self) -> Result<(), Fault> {
        self.state = State::End;
        match self.skip_blanks()? {
            Some(_) => Err(self.wrong("trailing characters")),
            None => Ok(()),
        }
    }

    fn next_line(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        loop {
            let (line, column) = (self.line, self.column);
            let mut bytes = Vec::new();
            let mut limited = (&mut self.source).take(MAX_RECORD as u64 + 1);
            limited.read_until(b'\n', &mut bytes).map_err(Fault::Io)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            if bytes.len() > MAX_RECORD {
                return Err(Fault::Long { line });
            }
            (self.line, self.column) = (line + 1, 1);
            let text = text(bytes, line)?;
            if !text.is_empty() {
                return Ok(Some((Content::Json(text, column), line)));
            }
        }
    }

    /// An element of the array, up to the comma or bracket after it.
    fn element(&mut self) -> Result<(Content, usize), Fault> {
        let (line, column) = (self.line, self.column);
        let mut bytes = Vec::new();
        let mut scanner = Scanner::default();
        loop {
            let buffer = self.source.fill_buf().map_err(Fault::Io)?;
            let end = buffer.iter().position(|&byte| scanner.ends_before(byte));
            let taken = &buffer[..end.unwrap_or(buffer.len())];
            let breaks = memchr::memchr_iter(b'\n', taken).count();
            match memchr::memrchr(b'\n', taken) {
                Some(last) => (self.line, self.column) = (self.line + breaks, taken.len() - last),
                None => self.column += taken.len(),
            }
            bytes.extend_from_slice(taken);
            let (taken, at_end) = (taken.len(), buffer.is_empty() || end.is_some());
            self.source.consume(taken);
            if bytes.len() > MAX_RECORD {
                return Err(Fault::Long { line });
            }
            if at_end {
                return Ok((Content::Json(text(bytes, line)?, column), line));
            }
        }
    }

    /// The next byte that is not white space.
    fn skip_blanks(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            let buffer = self.source.fill_buf().map_err(Fault::Io)?;
            match buffer.first() {
                None => return Ok(None),
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.take()?,
                Some(&byte) => return Ok(Some(byte)),
            }
        }
    }

    fn take(&mut self) -> Result<(), Fault> {
        let buffer = self.source.fill_buf().map_err(Fault::Io)?;
        if buffer.first() == Some(&b'\n') {
            (self.line, self.column) = (self.line + 1, 1);
        } else {
            self.column += 1;
        }
        self.source.consume(1);
        Ok(())
    }

    fn wrong(&self, what: &str) -> Fault {
        Fault::Json {
            line: self.line,
            column: self.column,
            what: what.into(),
        }
    }
}

/// The text of a row that starts on `line`, without trailing white space.
fn text(bytes: Vec<u8>, line: usize) -> Result<String, Fault> {
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Fault::Utf8(line + memchr::memchr_iter(b'\n', good).count())
    })?;
    let end = text.trim_end_matches([' ', '\t', '\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}

/// Finds the end of an element without parsing it.
#[derive(Default)]
struct Scanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// Whether the element ends before this byte. If not, the byte is part of it.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b',' | b']' | b'}' if self.depth == 0 => return true,
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth -= 1,
            _ => {}
        }
        false
    }
}
