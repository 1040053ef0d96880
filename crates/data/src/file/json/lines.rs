//! Rows one after another: one a line (JSON Lines), or over several lines.

use std::collections::VecDeque;
use std::io::BufRead;

use serde::de::IgnoredAny;

use super::super::{Fault, MAX_RECORD};
use super::input::Input;
use super::scanner::Scanner;

/// The least number of bytes that are looked at to find the end of a row.
const LEAST: usize = 1 << 16;

/// A line that is not blank, without white space at its end.
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    pub(super) number: usize,
    pub(super) column: usize,
}

/// Lines that were read to find the end of a row that has none.
pub(super) struct Ahead {
    lines: VecDeque<Line>,
    /// How many bytes are looked at to find the end of a row.
    reach: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            reach: MAX_RECORD,
        }
    }
}

impl Ahead {
    /// The next row. The value of a row begins with its line. If the line ends inside it, the row goes on in the next
    /// lines, unless it is damaged: then it ends before the next line that begins as rows do.
    pub(super) fn row(&mut self, input: &mut Input<impl BufRead>) -> Result<Option<Line>, Fault> {
        let Some(mut row) = self.line(input)? else {
            return Ok(None);
        };
        let mut scanner = Scanner::default();
        scanner.pass(&row.bytes);
        // No string has a line break.
        if scanner.depth == 0 || scanner.in_string || !begins(&row.bytes) {
            return Ok(Some(row));
        }
        let (mut parts, mut ends) = (Vec::new(), Vec::new());
        let (mut line, mut most) = (row.number, MAX_RECORD);
        while let Some(part) = self.line(input)? {
            ends.push(row.bytes.len());
            // Blank lines count, too.
            row.bytes
                .resize(row.bytes.len() + part.number - line, b'\n');
            row.bytes.extend_from_slice(&part.bytes);
            line = part.number;
            scanner.pass(&part.bytes);
            if begins(&part.bytes) {
                most = self.reach;
            }
            parts.push(part);
            if scanner.depth == 0 || scanner.in_string || row.bytes.len() > most {
                break;
            }
        }
        let next = parts.iter().position(|part| begins(&part.bytes));
        let is_one = scanner.is_closed()
            && (next.is_none() || serde_json::from_slice::<IgnoredAny>(&row.bytes).is_ok());
        match next {
            Some(next) if !is_one => {
                row.bytes.truncate(ends[next]);
                for part in parts.drain(next..).rev() {
                    self.lines.push_front(part);
                }
                self.reach = (self.reach / 4).max(LEAST);
            }
            _ if row.bytes.len() > MAX_RECORD => return Err(Fault::Long { line: row.number }),
            _ => {}
        }
        Ok(Some(row))
    }

    /// The next line that is not blank.
    fn line(&mut self, input: &mut Input<impl BufRead>) -> Result<Option<Line>, Fault> {
        if let Some(line) = self.lines.pop_front() {
            return Ok(Some(line));
        }
        loop {
            let (line, column) = (input.line, input.column);
            let Some(mut bytes) = input.line(MAX_RECORD + 1)? else {
                return Ok(None);
            };
            if bytes.len() > MAX_RECORD {
                return Err(Fault::Long { line });
            }
            let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
            let end = bytes.iter().rposition(|byte| !blank(byte));
            if let Some(end) = end {
                bytes.truncate(end + 1);
                return Ok(Some(Line {
                    bytes,
                    number: line,
                    column,
                }));
            }
        }
    }
}

/// Whether a line begins as rows do.
fn begins(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'{' | b'['))
}
