//! Python's text methods, where Rust's differ: the filters of the original programs are written with them.

/// `str.isspace` of one character: Unicode white space and four ASCII separators.
pub(crate) fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\x1c'..='\x1f').contains(&char)
}

/// `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.split()`.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `re.sub(r"\s+", " ", text).strip()`.
pub(crate) fn one_line(text: &str) -> String {
    words(text).collect::<Vec<_>>().join(" ")
}

/// `str.capitalize`: the first character in upper case, the others in lower case.
pub(crate) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else {
        return String::new();
    };
    // title case, in which ß is Ss: of several letters only the first is upper case
    let mut upper = first.to_uppercase();
    let mut out: String = upper.next().into_iter().collect();
    out.extend(upper.flat_map(char::to_lowercase));
    // the sigma at the end of a word depends on the letters before it, so that the whole text is changed
    let lower = text.to_lowercase();
    let skipped = first.to_lowercase().map(char::len_utf8).sum();
    out.push_str(lower.get(skipped..).unwrap_or_default());
    out
}

/// Whether `re.search(rf"\b({word})\b", text, re.IGNORECASE)` finds a word of ASCII letters and spaces.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let word: Vec<char> = word.chars().map(folded).collect();
    if word.is_empty() {
        return false;
    }
    let in_word = |place: usize| text.get(place).is_some_and(|&char| is_word(char));
    let starts = 0..(text.len() + 1).saturating_sub(word.len());
    starts.into_iter().any(|start| {
        let end = start + word.len();
        let same = text[start..end].iter().zip(&word);
        same.into_iter()
            .all(|(found, char)| folded(*found) == *char)
            && !(start > 0 && in_word(start - 1))
            && !in_word(end)
    })
}

/// Python's `\w`.
fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// A character as `re.IGNORECASE` compares it with ASCII letters: there are four others that count as one of them.
fn folded(char: char) -> char {
    match char {
        'İ' | 'ı' => 'i',
        'ſ' => 's',
        '\u{212a}' => 'k',
        char => char.to_ascii_lowercase(),
    }
}

/// A regular expression of Python's `re`, with `\s` and `\d` as Python has them.
#[expect(
    clippy::expect_used,
    reason = "every pattern is a constant of this crate, and the tests use it"
)]
pub(crate) fn pattern(python: &str) -> fancy_regex::Regex {
    let rust = python
        .replace(r"\s", r"[\s\x1c-\x1f]")
        .replace(r"\d", r"\p{Nd}");
    fancy_regex::Regex::new(&rust).expect("a pattern of this crate")
}

/// `re.split` by a pattern without groups.
pub(crate) fn split<'t>(pattern: &fancy_regex::Regex, text: &'t str) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    for found in pattern.find_iter(text).map_while(Result::ok) {
        parts.push(&text[begin..found.start()]);
        begin = found.end();
    }
    parts.push(&text[begin..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_change_as_in_python() {
        // str.capitalize()
        for (text, expected) in [
            ("write A Poem", "Write a poem"),
            ("ßtraße", "Sstraße"),
            ("éTUDE", "Étude"),
            ("İstanbul", "İstanbul"),
            ("ΟΔΟΣ", "Οδος"),
            ("", ""),
        ] {
            assert_eq!(capitalized(text), expected);
        }
        assert_eq!(one_line(" a\n\x1cb  c\u{a0}d "), "a b c d");
        assert_eq!(
            split(&pattern(r"\n\d+\s?\. "), "a\n10. b\n11 . c\n12.d"),
            ["a", "b", "c\n12.d"]
        );
    }

    #[test]
    fn a_keyword_is_a_whole_word() {
        for (text, word, expected) in [
            ("Draw a cat", "draw", true),
            ("Redraw a cat", "draw", false),
            ("a cat, draw_", "draw", false),
            ("Go to sleep", "go to", true),
            ("an Image's colour", "image", true),
            ("images", "image", false),
            ("fıle", "file", true),
            ("", "file", false),
        ] {
            assert_eq!(has_word(text, word), expected, "{text}");
        }
    }
}
