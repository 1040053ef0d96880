//! YAML of values as JSON has them: mappings and lists in blocks, texts of several lines as they are, other texts quoted as JSON
//! quotes them, which is YAML.

use std::fmt::Write as _;

use serde_json::Value;

/// A document.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    block(&mut text, value, 0);
    text.trim_start_matches('\n').to_owned()
}

/// A value after its key or hyphen: on the same line, or in lines below.
fn block(text: &mut String, value: &Value, depth: usize) {
    let indent = " ".repeat(depth);
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                let _ = write!(text, "\n{indent}{}:", scalar(key));
                // lists are as deep as their key
                let below = if value.is_array() { depth } else { depth + 2 };
                block(text, value, below);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(&mut inner, item, depth + 2);
                let _ = write!(text, "\n{indent}- {}", inner.trim_start());
            }
        }
        Value::String(words) if is_literal(words) => {
            text.push_str(" |");
            for line in words.trim_end_matches('\n').split('\n') {
                text.push('\n');
                if !line.is_empty() {
                    text.push_str(&indent);
                    text.push_str(line);
                }
            }
        }
        Value::String(words) => {
            let _ = write!(text, " {}", scalar(words));
        }
        // numbers, true, and what is empty are as in JSON
        other => {
            let _ = write!(text, " {other}");
        }
    }
}

/// Whether a text can stand as lines: it ends with one line break, and has no character that YAML changes.
fn is_literal(text: &str) -> bool {
    let plain = |c: char| c == '\n' || (c == '\t' || !c.is_control()) && !is_changed(c);
    let body = text.strip_suffix('\n').unwrap_or_default();
    !body.is_empty()
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\t', '\n'])
        && body.chars().all(plain)
}

/// Line breaks of YAML that are none elsewhere, and what it forbids.
fn is_changed(c: char) -> bool {
    matches!(
        c,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    )
}

/// A text on one line: as it is if nobody can take it for something else, or else quoted.
fn scalar(text: &str) -> String {
    let letters = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    if begins && text.chars().all(letters) && !words.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    let mut quoted = String::new();
    for c in Value::from(text).to_string().chars() {
        // serde_json leaves these as they are
        if c.is_control() || is_changed(c) {
            let _ = write!(quoted, "\\u{:04x}", c as u32);
        } else {
            quoted.push(c);
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_blocks() {
        let value = json!({
            "name": "a",
            "number": 4,
            "text": "4",
            "word": "No",
            "odd": "it's: \"é\" # \u{85}\u{2028}",
            "script": "set -u\n\nif true; then\n  echo \"a: b\"\nfi\n",
            "spaces": " a\nb\n",
            "open": "a\nb",
            "empty": {},
            "list": ["a", {"b": 1, "c": ["d", "-e"]}],
            "deep": {"more": {"key of a": true}},
        });
        insta::assert_snapshot!(document(&value));
    }
}
