//! Text for a terminal: lines are broken between words, and control characters are shown.

use console::measure_text_width;

/// A narrower terminal breaks lines itself.
const NARROWEST: usize = 30;
/// The indent of what goes on.
const INDENT: usize = 2;

/// Text whose lines fit into a terminal of so many columns. Lines are broken between words and go on with an indent, in tables
/// with that of the last column. Commands are not broken, so that they can be copied, nor is what stands in backticks if it
/// fits into a line.
pub(crate) fn folded(text: &str, columns: usize) -> String {
    let line = |line: &str| {
        if columns < NARROWEST || measure_text_width(line) <= columns {
            line.to_owned()
        } else {
            folded_line(line, columns)
        }
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Text whose control characters are shown, so that they do nothing to the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn folded_line(line: &str, columns: usize) -> String {
    let indent = hanging(line, columns);
    let mut folded = String::with_capacity(line.len() + 16);
    let mut width = 0;
    for (space, word) in words(line, columns - indent) {
        let more = measure_text_width(word);
        let is_long = width + space.len() + more > columns;
        if is_long && width > indent && indent + more <= columns {
            folded.push('\n');
            folded.extend(std::iter::repeat_n(' ', indent));
            width = indent + more;
        } else {
            folded.push_str(space);
            width += space.len() + more;
            // the terminal breaks what is longer than a line
            if width > columns {
                width %= columns;
            }
        }
        folded.push_str(word);
    }
    folded
}

/// The indent of the lines that go on: that of the last column in the left half, if the line is one of a table.
fn hanging(line: &str, columns: usize) -> usize {
    let text = line.trim_start_matches(' ');
    let indent = line.len() - text.len();
    let mut column = indent + INDENT;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("  ") {
        rest = after.trim_start_matches(' ');
        let at = measure_text_width(line) - measure_text_width(rest);
        if before.is_empty() || rest.is_empty() || at > columns / 2 {
            break;
        }
        column = at;
    }
    column.min(columns / 2)
}

/// The words of a line, each with the spaces before it. A command is one word; words in backticks are one if they are at most
/// `longest` wide.
fn words(line: &str, longest: usize) -> Vec<(&str, &str)> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let text = rest.trim_start_matches(' ');
        let (space, _) = rest.split_at(rest.len() - text.len());
        let end = text.find(' ').unwrap_or(text.len());
        let before = words.last().map(|(_, word): &(&str, &str)| *word);
        let end = if text.starts_with("simmer ") && before.is_none_or(|word| word.ends_with(':')) {
            text.len()
        } else {
            let quoted = quoted(text).filter(|end| measure_text_width(&text[..*end]) <= longest);
            quoted.unwrap_or(end)
        };
        let (word, after) = text.split_at(end);
        if !word.is_empty() {
            words.push((space, word));
        }
        rest = after;
    }
    words
}

/// The end of the word with which a text begins, if it has words in backticks.
fn quoted(text: &str) -> Option<usize> {
    let begin = text.find('`')?;
    if text[..begin].contains(' ') {
        return None;
    }
    let end = begin + 1 + text[begin + 1..].find('`')? + 1;
    Some(end + text[end..].find(' ').unwrap_or(text.len() - end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let text = "no recipe given: training the quickstart (`simmer recipes copy quickstart my.toml` writes its recipe to a file)\n\
                    short\n  before: hot chocolate you need you need you need and five minutes, says Leo\n\
                    run                  23 s  296 steps, 2 validations of 763 ms, comparison with the base model 1.60 s\n\n  \
                    simmer generate --base data/tiny-base --adapter runs/quickstart/adapter --prompt Why\n\
                    resume with: simmer train my.toml --out runs/my --resume --set a=1\n\
                    error: cannot read /a/folder/with/a/name/that/is/longer/than/the/line/is/wide/x.json: it is missing";
        insta::assert_snapshot!(folded(text, 60), @"
        no recipe given: training the quickstart
          (`simmer recipes copy quickstart my.toml` writes its
          recipe to a file)
        short
          before: hot chocolate you need you need you need and five
            minutes, says Leo
        run                  23 s  296 steps, 2 validations of 763
                                   ms, comparison with the base
                                   model 1.60 s

          simmer generate --base data/tiny-base --adapter runs/quickstart/adapter --prompt Why
        resume with:
          simmer train my.toml --out runs/my --resume --set a=1
        error: cannot read /a/folder/with/a/name/that/is/longer/than/the/line/is/wide/x.json: it is missing
        ");
        assert_eq!(folded(text, 200), text);
        assert_eq!(folded(text, NARROWEST - 1), text);
    }

    #[test]
    fn colours_have_no_width() {
        let red = format!("\x1b[31m{}\x1b[0m {}", "a".repeat(30), "b".repeat(9));
        assert_eq!(folded(&red, 40), red);
        assert_eq!(folded(&red, 39), red.replace(' ', "\n  "));
        let words = ["漢字"; 8].join(" ");
        assert_eq!(
            folded(&words, 30),
            ["漢字 漢字 漢字 漢字 漢字 漢字", "漢字 漢字"].join("\n  ")
        );
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(
            printable("a\tb\n\x1b[31mc\u{9b}é"),
            "a\tb\n\\u{1b}[31mc\\u{9b}é"
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "[a-z `:\n漢]{0,200}", columns in 0..90_usize) {
            let bare = |text: &str| text.replace([' ', '\n'], "");
            let folded = folded(&text, columns);
            prop_assert_eq!(bare(&folded), bare(&text));
            for line in folded.lines().filter(|_| columns >= NARROWEST) {
                let longest = line.split(' ').map(measure_text_width).max();
                prop_assert!(measure_text_width(line) <= columns || longest > Some(columns / 2), "{}", line);
            }
        }
    }
}
