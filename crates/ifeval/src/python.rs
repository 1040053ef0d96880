//! Python's behaviour of strings and regular expressions, where Rust's differs.

use fancy_regex::{Regex, RegexBuilder};

/// `str.isspace` of one character: Unicode white space and four ASCII separators.
pub(super) fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\x1c'..='\x1f').contains(&char)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Letters such as ǅ, which are neither upper nor lower case.
fn is_title(char: char) -> bool {
    matches!(
        char,
        '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}'
            | '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}'
    )
}

/// `str.isupper`: at least one upper-case letter, and no letter of another case.
pub(super) fn is_upper(text: &str) -> bool {
    !text.contains(|char: char| char.is_lowercase() || is_title(char))
        && text.contains(char::is_uppercase)
}

/// `str.islower`.
pub(super) fn is_lower(text: &str) -> bool {
    !text.contains(|char: char| char.is_uppercase() || is_title(char))
        && text.contains(char::is_lowercase)
}

/// The text as `re.IGNORECASE` sees it. Python treats the Turkish letters as an i, Rust as letters without another case.
pub(super) fn fold(text: &str) -> String {
    text.replace(['İ', 'ı'], "i")
}

/// Python's `\w`, which does not contain combining marks, unlike Rust's.
const WORD: &str = r"\p{L}\p{N}_";
/// Python's `\s`.
const SPACE: &str = r"\s\x1c-\x1f";

/// Compiles a pattern of Python's `re`. If it ignores case, texts must be [`fold`]ed.
pub(super) fn pattern(python: &str, ignore_case: bool) -> Result<Regex, Box<fancy_regex::Error>> {
    let folded = if ignore_case { &fold(python) } else { python };
    RegexBuilder::new(&translate(folded))
        .case_insensitive(ignore_case)
        .build()
        .map_err(Box::new)
}

/// Compiles a built-in pattern with the semantics of Python's `re`.
pub(super) fn own(python: &str) -> Regex {
    unicode(&translate(python))
}

/// Compiles a built-in pattern with Unicode's recommended classes, which Rust and Python's `regex` use.
#[expect(clippy::expect_used, reason = "the tests compile every one of them")]
pub(super) fn unicode(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this crate")
}

/// The number of matches. If the search exceeds the backtracking limit, it ends there.
pub(super) fn count(pattern: &Regex, text: &str) -> usize {
    pattern.find_iter(text).map_while(Result::ok).count()
}

/// Whether a pattern matches; `false` if the search exceeds the backtracking limit.
pub(super) fn found(pattern: &Regex, text: &str) -> bool {
    pattern.is_match(text).unwrap_or(false)
}

/// Replaces the classes that Rust defines differently, and `$`, which in Python also matches before a final line break.
fn translate(python: &str) -> String {
    let lines = python.starts_with("(?m)");
    let mut rust = String::new();
    let mut in_class = false;
    let mut chars = python.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => rust.push_str(&escape(chars.next(), in_class)),
            // in Rust, a bracket inside brackets starts a class
            '[' if in_class => rust.push_str(r"\["),
            '$' if !in_class && !lines => rust.push_str(r"(?=\n?\z)"),
            _ => {
                in_class = char == '[' || in_class && char != ']';
                rust.push(char);
            }
        }
    }
    rust
}

fn escape(letter: Option<char>, in_class: bool) -> String {
    let Some(letter) = letter else {
        return r"\".into();
    };
    match (letter, in_class) {
        ('w', false) => format!("[{WORD}]"),
        ('w', true) => WORD.into(),
        ('s', false) => format!("[{SPACE}]"),
        ('s', true) => SPACE.into(),
        ('W', _) => format!("[^{WORD}]"),
        ('S', _) => format!("[^{SPACE}]"),
        ('b', false) => format!("(?:(?<=[{WORD}])(?![{WORD}])|(?<![{WORD}])(?=[{WORD}]))"),
        ('B', false) => format!("(?:(?<=[{WORD}])(?=[{WORD}])|(?<![{WORD}])(?![{WORD}]))"),
        ('Z', false) => r"\z".into(),
        _ => format!(r"\{letter}"),
    }
}
