//! Short excerpts of a row, on one line and safe to print.

/// The maximum number of characters of an excerpt.
const LENGTH: usize = 60;

/// The start of `text` in backticks.
pub(super) fn beginning(text: &str) -> String {
    let end = after(text, LENGTH);
    quoted(&text[..end], false, end < text.len())
}

/// The start and the end of `text` in backticks.
pub(super) fn middle(text: &str) -> String {
    let (start, end) = (after(text, LENGTH), before(text, LENGTH));
    if start >= end {
        return quoted(text, false, false);
    }
    format!("`{} ... {}`", line(&text[..start]), line(&text[end..]))
}

/// The end of `text` in backticks.
pub(super) fn ending(text: &str) -> String {
    let start = before(text, LENGTH);
    quoted(&text[start..], start > 0, false)
}

/// The text around byte `at` of `text`, in backticks.
pub(super) fn around(text: &str, at: usize) -> String {
    let start = before(&text[..at], LENGTH / 2);
    let end = at + after(&text[at..], LENGTH / 2);
    quoted(&text[start..end], start > 0, end < text.len())
}

/// The text as one line, with control characters escaped.
pub(super) fn line(text: &str) -> String {
    let escaped = |character: char| match character {
        '"' | '\'' | '\\' => character.to_string(),
        other => other.escape_debug().to_string(),
    };
    text.chars().map(escaped).collect()
}

fn quoted(text: &str, more_before: bool, more_after: bool) -> String {
    let dots = |more| if more { "..." } else { "" };
    format!("`{}{}{}`", dots(more_before), line(text), dots(more_after))
}

/// The byte offset after the first `count` characters.
fn after(text: &str, count: usize) -> usize {
    let mut characters = text.char_indices();
    characters.nth(count).map_or(text.len(), |(at, _)| at)
}

/// The byte offset before the last `count` characters.
fn before(text: &str, count: usize) -> usize {
    let mut characters = text.char_indices().rev();
    characters.nth(count - 1).map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_short_lines() {
        let text = format!("é\t\u{1B}[31m\u{202E}{}\n\"end\"", "é".repeat(100));
        insta::assert_snapshot!(beginning(&text), @r"`é\t\u{1b}[31m\u{202e}éééééééééééééééééééééééééééééééééééééééééééééééééééé...`");
        insta::assert_snapshot!(ending(&text), @r#"`...éééééééééééééééééééééééééééééééééééééééééééééééééééééé\n"end"`"#);
        insta::assert_snapshot!(around(&text, text.find('\n').unwrap()), @r#"`...éééééééééééééééééééééééééééééé\n"end"`"#);
        assert_eq!(beginning("as it is"), "`as it is`");
        assert_eq!(ending(""), "``");
        assert_eq!(around("ab", 2), "`ab`");
    }
}
