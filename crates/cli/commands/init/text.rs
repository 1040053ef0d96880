//! Lines of TOML with their comments in one column.

use simmer_files::size::{grouped, plural};
use std::fmt;

/// The widest line.
const WIDTH: usize = 120;
/// Code that is wider has its comment on the line above.
const CODE: usize = 56;

/// A line of a table.
enum Line {
    /// A key with its comment.
    Key { code: String, comment: String },
    /// Text as it is.
    Plain(String),
    /// A comment.
    Note(String),
}

/// Lines of a table.
#[derive(Default)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// A key and what it means.
    pub(super) fn add(&mut self, code: impl Into<String>, comment: &str) {
        self.0.push(Line::Key {
            code: code.into(),
            comment: line(comment),
        });
    }

    /// A comment of its own.
    pub(super) fn note(&mut self, comment: &str) {
        self.0.push(Line::Note(comment.to_owned()));
    }

    /// A line without a comment.
    pub(super) fn head(&mut self, text: &str) {
        self.0.push(Line::Plain(text.to_owned()));
    }

    /// An empty line.
    pub(super) fn blank(&mut self) {
        self.head("");
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |line: &Line| match line {
            Line::Key { code, .. } => Some(code.chars().count()),
            Line::Plain(_) | Line::Note(_) => None,
        };
        let codes = self.0.iter().filter_map(width);
        let column = codes.filter(|width| *width <= CODE).max().unwrap_or(0);
        for line in &self.0 {
            match line {
                Line::Plain(text) => writeln!(f, "{text}")?,
                Line::Note(text) => note(f, text)?,
                Line::Key { code, comment } => {
                    let all = column + 4 + comment.chars().count();
                    if code.chars().count() <= column && all <= WIDTH {
                        writeln!(f, "{code:column$}  # {comment}")?;
                    } else {
                        note(f, comment)?;
                        writeln!(f, "{code}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A count with its noun: `1 row`, `1,200 rows`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{} {}", grouped(count as u64), plural(count, noun))
}

/// A text on one line, as a comment must be.
pub(super) fn line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A comment, broken into lines.
fn note(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut line = "#".to_owned();
    for word in self::line(text).split(' ') {
        if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{line}")?;
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(f, "{line}")
}

/// A text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_stand_in_one_column_or_above() {
        let mut lines = Lines::default();
        lines.head("[data]");
        lines.add("a = 1", "one");
        lines.add("long = 22", "two");
        lines.add(format!("wide = {:?}", "x".repeat(CODE)), "three");
        lines.add("b = 3", &"word ".repeat(30));
        insta::assert_snapshot!(lines.to_string(), @r#"
        [data]
        a = 1      # one
        long = 22  # two
        # three
        wide = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        # word word word word word word word word word word word word word word word word word word word word word word word
        # word word word word word word word
        b = 3
        "#);
    }

    #[test]
    fn every_text_is_one_string() {
        for text in ["a \"b\"", "it's", "two\nlines", "C:\\x", "ü\u{7f}\t"] {
            let parsed: toml::Table = format!("key = {}", quoted(text)).parse().unwrap();
            assert_eq!(parsed["key"].as_str(), Some(text));
            assert!(!quoted(text).contains('\n') || text.contains('\n'));
        }
    }
}
