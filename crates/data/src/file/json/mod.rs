//! JSON files, split into the texts of their rows: the elements of an array, the values of JSON Lines, or values over
//! several lines, one after another.

mod input;
mod lines;
mod scanner;
mod wrapped;

use std::io::BufRead;

use super::{Content, Fault, MAX_RECORD};
pub(super) use input::Input;
use lines::{Ahead, Line};
use scanner::{Scanner, length};

pub(super) use wrapped::{Shape, shape};

/// The rows of a JSON file. If the first character is `[`, the file is an array, unless its lines are lists; otherwise its
/// rows follow each other.
pub(super) struct Records<R> {
    input: Input<R>,
    state: State,
    ahead: Ahead,
    /// The key of the list with the rows.
    wrapper: Option<String>,
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

impl<R: BufRead> Records<R> {
    /// `wrapper` is the key of the list with the rows, if the file is an object that holds it.
    pub(super) fn new(source: R, wrapper: Option<String>) -> Self {
        Self {
            input: Input::new(source),
            state: State::Start,
            ahead: Ahead::default(),
            wrapper,
        }
    }

    /// The next row's text, and the line on which it starts.
    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        loop {
            match self.state {
                State::Start => self.start()?,
                State::Lines => {
                    let row = self.ahead.row(&mut self.input)?;
                    return row.map(content).transpose();
                }
                State::End => return Ok(None),
                State::Comma => match self.input.skip_blanks()? {
                    Some(b',') => {
                        self.input.take(1)?;
                        self.state = State::Element { needed: true };
                    }
                    Some(b']') => self.end()?,
                    Some(_) => return Err(self.input.wrong("expected `,` or `]`")),
                    None => return Err(self.input.wrong("EOF while parsing a list")),
                },
                State::Element { needed } => match self.input.skip_blanks()? {
                    Some(b']') if !needed => self.end()?,
                    Some(b']') => return Err(self.input.wrong("trailing comma")),
                    Some(_) => {
                        self.state = State::Comma;
                        return content(self.element()?).map(Some);
                    }
                    None => return Err(self.input.wrong("EOF while parsing a list")),
                },
            }
        }
    }

    fn start(&mut self) -> Result<(), Fault> {
        self.input.skip_mark();
        if let Some(key) = &self.wrapper {
            let found = self.input.enter(key)?;
            self.state = if found {
                State::Element { needed: false }
            } else {
                State::End
            };
            return Ok(());
        }
        self.state = match self.input.skip_blanks()? {
            Some(b'[') if !has_lists(self.input.look()) => {
                self.input.take(1)?;
                State::Element { needed: false }
            }
            Some(_) => State::Lines,
            None => State::End,
        };
        Ok(())
    }

    /// Takes the end of the array, and checks that only white space follows. After a wrapped array other keys may follow.
    fn end(&mut self) -> Result<(), Fault> {
        self.input.take(1)?;
        self.state = State::End;
        if self.wrapper.is_some() {
            return Ok(());
        }
        match self.input.skip_blanks()? {
            Some(_) => Err(self.input.wrong("trailing characters")),
            None => Ok(()),
        }
    }

    /// An element of the array, up to the comma or bracket after it.
    fn element(&mut self) -> Result<Line, Fault> {
        let (line, column) = (self.input.line, self.input.column);
        let mut bytes = Vec::new();
        let mut scanner = Scanner::default();
        loop {
            let buffer = self.input.buffer()?;
            let end = buffer.iter().position(|&byte| scanner.ends_before(byte));
            let (count, done) = match end {
                Some(end) => (end, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            bytes.extend_from_slice(&buffer[..count]);
            self.input.take(count)?;
            if bytes.len() > MAX_RECORD {
                return Err(Fault::Long { line });
            }
            if done {
                return Ok(Line {
                    bytes,
                    number: line,
                    column,
                });
            }
        }
    }
}

/// Whether the first line is a list, and the next one begins with a list: then each line is a row, and the file is no array.
fn has_lists(text: &[u8]) -> bool {
    let Some(end) = length(text) else {
        return false;
    };
    let (first, rest) = text.split_at(end);
    let next = rest.trim_ascii_start();
    let breaks = |text: &[u8]| memchr::memchr2(b'\n', b'\r', text).is_some();
    !breaks(first) && breaks(&rest[..rest.len() - next.len()]) && next.first() == Some(&b'[')
}

/// The content of a row, and its line.
fn content(row: Line) -> Result<(Content, usize), Fault> {
    let text = text(row.bytes, row.number)?;
    Ok((Content::Json(text, row.column), row.number))
}

/// The text of a row that starts on `line`, without trailing white space and with line feeds as line ends.
fn text(mut bytes: Vec<u8>, line: usize) -> Result<String, Fault> {
    for at in 0..bytes.len() {
        if bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n') {
            bytes[at] = b'\n';
        }
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Fault::Utf8(line + memchr::memchr_iter(b'\n', good).count())
    })?;
    let end = text.trim_end_matches([' ', '\t', '\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}
