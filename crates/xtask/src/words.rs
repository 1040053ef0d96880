//! The glossary of STYLE.md, checked over the repository: what its last column lists is not written any more.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output};

/// Files that people read, by the ends of their names; programs without one have a first line that begins with `#!`.
const TEXTS: &[&str] = &[
    ".rs", ".md", ".toml", ".py", ".sh", ".snap", ".yaml", ".yml", ".html", ".css", ".jinja",
];

/// Files that may have every word: the glossary itself, what others have written, and data.
const LEFT_OUT: &[&str] = &[
    "STYLE.md",
    "crates/xtask/src/words.rs",
    "LICENSE",
    "data/kitchen/",
    "data/tasks/",
    "data/templates/",
    "fuzz/corpus/",
    "fuzz/inputs/",
    "tests/goldens/",
    "tests/reference/ifeval_texts.py",
    "tests/reference/texts.py",
];

/// Fails if a file has a phrase that the glossary replaces; lists every place.
pub(crate) fn check(root: &Path) -> Result<()> {
    let style = fs::read_to_string(root.join("STYLE.md")).context("cannot read STYLE.md")?;
    let entries = entries(&style);
    if entries.is_empty() {
        bail!("STYLE.md has no glossary: expected a table whose last column is `not`");
    }
    let mut found = 0;
    let files = output(&mut command(root, "git", &["ls-files"]))?;
    for name in files.lines().filter(|name| is_read(root, name)) {
        let Ok(text) = fs::read_to_string(root.join(name)) else {
            continue; // deleted in the working tree, or no text
        };
        let text = Flowing::of(&text);
        for entry in &entries {
            for line in text.lines_with(&entry.phrase) {
                println!(
                    "{name}:{line}: \"{}\"; write \"{}\"",
                    entry.phrase, entry.instead
                );
                found += 1;
            }
        }
    }
    if found > 0 {
        bail!("{found} places have words that STYLE.md replaces");
    }
    Ok(())
}

fn is_read(root: &Path, name: &str) -> bool {
    if LEFT_OUT.iter().any(|start| name.starts_with(start)) {
        return false;
    }
    let has_end = TEXTS.iter().any(|end| name.ends_with(end));
    let is_script = || {
        let bytes = fs::read(root.join(name)).unwrap_or_default();
        !name.contains('.') && bytes.starts_with(b"#!")
    };
    has_end || is_script()
}

/// A phrase that is not written, and what is.
struct Entry {
    phrase: String,
    instead: String,
}

/// The rows of the glossary: the first and the last column of the table that ends in `| not |`.
fn entries(style: &str) -> Vec<Entry> {
    let rows = style
        .lines()
        .skip_while(|line| !line.trim_end().ends_with("| not |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut entries = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim().trim_matches('|').split('|').collect();
        let (Some(instead), Some(not)) = (cells.first(), cells.last()) else {
            continue;
        };
        let phrases = not
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        entries.extend(phrases.map(|phrase| Entry {
            phrase: phrase.to_lowercase(),
            instead: instead.trim().to_owned(),
        }));
    }
    entries
}

/// A text in lower case whose lines flow into one another, without the marks of comments between them.
struct Flowing {
    text: String,
    /// Where each line begins in `text`.
    starts: Vec<usize>,
}

impl Flowing {
    fn of(text: &str) -> Self {
        let mut flowing = String::with_capacity(text.len());
        let mut starts = Vec::new();
        for line in text.lines() {
            starts.push(flowing.len());
            let line = line.trim();
            let line = line
                .trim_start_matches(['/', '!', '#', '*', '>', '"'])
                .trim();
            flowing.push_str(&line.to_lowercase());
            flowing.push(' ');
        }
        Self {
            text: flowing,
            starts,
        }
    }

    /// The numbers of the lines, from 1, where a phrase begins as whole words.
    fn lines_with(&self, phrase: &str) -> Vec<usize> {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let places = self.text.match_indices(phrase).map(|(at, _)| at);
        let whole = places.filter(|at| {
            let before = self.text[..*at].chars().next_back();
            let after = self.text[at + phrase.len()..].chars().next();
            !is_word(before) && !is_word(after)
        });
        whole
            .map(|at| self.starts.partition_point(|start| *start <= at))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_of_the_glossary_is_read() {
        let style = "| a | not |\n|---|---|\n| other table | x |\n\n\
                     | simmer writes | meaning | elsewhere | not |\n|---|---|---|---|\n\
                     | predict | m | e | foretell, foretells |\n| row | m | e | |\n\nEnd\n";
        let style = style.replacen("| a | not |", "| a | b |", 1);
        let found = entries(&style);
        let pairs: Vec<_> = found
            .iter()
            .map(|entry| (entry.phrase.as_str(), entry.instead.as_str()))
            .collect();
        assert_eq!(pairs, [("foretell", "predict"), ("foretells", "predict")]);
    }

    #[test]
    fn a_phrase_is_found_over_the_end_of_a_comments_line() {
        let text = Flowing::of("fn f() {}\n/// It is Learning by\n/// heart.\n");
        assert_eq!(text.lines_with("learning by heart"), [2]);
    }

    #[test]
    fn parts_of_words_are_not_found() {
        let text = Flowing::of("no numbers, a no number_type; no number.");
        assert_eq!(text.lines_with("no number"), [1]);
    }
}
