//! Reads the lines of `metrics.jsonl` that a server does not have yet, while the run writes more of them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::TrainError;
use crate::metrics::{METRICS_FILE, Metrics};

/// Bytes that are read at a time; a line has a few hundred.
const PIECE: u64 = 1 << 20;

/// A place between two lines of the file.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    /// Bytes before the place.
    offset: u64,
    /// Lines before the place.
    pub(super) number: u64,
}

/// Lines after a place, and the place behind them.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) lines: Vec<Metrics>,
    offset: u64,
    number: u64,
}

impl Lines {
    /// The place after `number` lines, or at the end if there are fewer.
    pub(super) fn after(run: &Path, number: u64) -> Result<Self, TrainError> {
        let mut place = Self {
            path: run.join(METRICS_FILE),
            offset: 0,
            number: 0,
        };
        while place.number < number {
            let next = place.next((number - place.number) as usize)?;
            if next.number == place.number {
                break;
            }
            place.advance(&next);
        }
        Ok(place)
    }

    /// At most `most` lines after the place. A last line without a line break is still being written; a line that cannot be
    /// read is counted and left out, and `simmer report` names it.
    pub(super) fn next(&self, most: usize) -> Result<Next, TrainError> {
        let text = match self.read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text.map_err(TrainError::io(&self.path, "read"))?,
        };
        let mut next = Next {
            lines: Vec::new(),
            offset: self.offset,
            number: self.number,
        };
        let lines = text.split_inclusive(|byte| *byte == b'\n').take(most);
        for line in lines.take_while(|line| line.ends_with(b"\n")) {
            next.offset += line.len() as u64;
            next.number += 1;
            let parsed = std::str::from_utf8(line).ok().map(Metrics::parse);
            next.lines.extend(parsed.and_then(Result::ok));
        }
        Ok(next)
    }

    /// Moves behind lines that have been sent.
    pub(super) fn advance(&mut self, next: &Next) {
        (self.offset, self.number) = (next.offset, next.number);
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = Vec::new();
        file.take(PIECE).read_to_end(&mut text)?;
        Ok(text)
    }
}

impl Next {
    /// Whether there is no further line.
    pub(super) fn is_empty(&self, place: &Lines) -> bool {
        self.number == place.number
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::tracking::scalars::time_and_step;

    #[test]
    fn lines_are_read_while_they_are_written() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join(METRICS_FILE);
        assert!(Lines::after(run.path(), 3).unwrap().number == 0, "no file");
        let line = |step: u64| {
            format!(
                "{{\"step\":{step},\"epoch\":1.0,\"validation_loss\":1.0,\"best\":true,\"targets\":1,\"seconds\":1.0}}\n"
            )
        };
        let mut file = File::create(&path).unwrap();
        write!(file, "{}broken\n{}{}", line(1), line(2), &line(3)[..20]).unwrap();
        let mut place = Lines::after(run.path(), 1).unwrap();
        let steps = |next: &Next| -> Vec<u64> {
            next.lines
                .iter()
                .map(|line| time_and_step(line).1)
                .collect()
        };
        let next = place.next(9).unwrap();
        assert_eq!((steps(&next), next.number), (vec![2], 3));
        place.advance(&next);
        assert!(place.next(9).unwrap().is_empty(&place));
        write!(file, "{}{}", &line(3)[20..], line(4)).unwrap();
        assert_eq!(steps(&place.next(1).unwrap()), [3]);
        assert_eq!(steps(&place.next(9).unwrap()), [3, 4]);
        // fewer lines than were sent before: the run resumed from an earlier step
        assert_eq!(Lines::after(run.path(), 99).unwrap().number, 5);
    }
}
