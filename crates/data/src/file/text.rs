//! Text files: every line, every paragraph, or the whole file is a row with the key `text`.

use std::io::BufRead;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::Input;
use super::{Content, Fault, MAX_RECORD};

/// What one row of a text file is, as in the `text` loader of Hugging Face's datasets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum SampleBy {
    /// A line that is not blank.
    #[default]
    Line,
    /// Lines up to a blank one.
    Paragraph,
    /// The whole file.
    Document,
}

impl SampleBy {
    /// Whether it is the default.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(crate) fn is_line(&self) -> bool {
        *self == SampleBy::Line
    }
}

/// The rows of a text file.
pub(super) struct Records<R> {
    input: Input<R>,
    by: SampleBy,
    started: bool,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(source: R, by: SampleBy) -> Self {
        Self {
            input: Input::new(source),
            by,
            started: false,
        }
    }

    /// The next row, and the line on which it starts.
    pub(super) fn next(&mut self) -> Result<Option<(Content, usize)>, Fault> {
        if !self.started {
            self.input.skip_mark();
            self.started = true;
        }
        let mut text: Vec<u8> = Vec::new();
        let mut first = None;
        let mut breaks = 0;
        loop {
            let line = self.input.line;
            let Some(bytes) = self.input.line(MAX_RECORD + 1)? else {
                break;
            };
            let blank = bytes.trim_ascii().is_empty();
            let start = *first.get_or_insert(line);
            if blank && text.is_empty() {
                first = None;
                continue;
            }
            if blank && self.by == SampleBy::Paragraph {
                break;
            }
            if !text.is_empty() {
                breaks += 1;
            }
            if !blank {
                text.resize(text.len() + std::mem::take(&mut breaks), b'\n');
                text.extend_from_slice(&bytes);
            }
            if text.len() > MAX_RECORD {
                return Err(Fault::Long { line: start });
            }
            if self.by == SampleBy::Line {
                break;
            }
        }
        let Some(line) = first.filter(|_| !text.is_empty()) else {
            return Ok(None);
        };
        let text = String::from_utf8(text).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            Fault::Utf8(line + memchr::memchr_iter(b'\n', good).count())
        })?;
        let column = ("text".to_owned(), Value::String(text));
        Ok(Some((Content::Columns(vec![column]), line)))
    }
}
