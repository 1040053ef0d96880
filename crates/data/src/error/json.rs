//! What to do about text that is not JSON, by what is commonly written instead.

/// What a file of rows is.
const SAVE: &str =
    "save the file in UTF-8, as a JSON array of objects or as JSONL (one object per line)";

/// The text at a place of a row, from the character before it: errors name the last character that was read, or the next.
pub(super) fn at(text: &str, line: usize, column: usize) -> String {
    const MOST: usize = 12;
    let line = text.split('\n').nth(line.saturating_sub(1)).unwrap_or("");
    let mut start = column.saturating_sub(2).min(line.len());
    while !line.is_char_boundary(start) {
        start -= 1;
    }
    line[start..].chars().take(MOST).collect()
}

/// The hint for a JSON error; `found` is the text at its place.
pub(super) fn hint(what: &str, found: &str) -> &'static str {
    let mut rest = found.chars();
    rest.next();
    let begins = |starts: &[&str]| {
        let is_one = |text: &str| {
            starts
                .iter()
                .any(|start| text.trim_start().starts_with(start))
        };
        is_one(found) || is_one(rest.as_str())
    };
    if begins(&["NaN", "Infinity", "-Infinity"]) {
        "Python writes NaN and Infinity, which are not JSON: write null, or leave the key out"
    } else if begins(&["'", "None", "True", "False"]) {
        "this is how Python prints values, not JSON: write the rows with json.dumps"
    } else if what.starts_with("trailing comma") {
        "remove the comma before the closing bracket"
    } else if begins(&["//", "#"]) {
        "remove the comments: JSON has none"
    } else if what.starts_with("trailing characters") {
        "write one row per line, and nothing between the rows: no commas"
    } else if what.contains("surrogate") || what.contains("unexpected end of hex escape") {
        "a \\u escape from \\ud800 to \\udfff is half of a character: write both halves, or the character itself"
    } else if what.starts_with("EOF while parsing") {
        "the row ends too early: the file is incomplete, or a text has a line break that should be written as \\n"
    } else {
        SAVE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_have_hints_of_their_own() {
        let of = |text: &str| {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            hint(&error.to_string(), &at(text, error.line(), error.column()))
        };
        for text in [
            r#"{"score": NaN}"#,
            r#"{"score": -Infinity}"#,
            "{\n\"a\":Infinity}",
        ] {
            assert!(of(text).contains("write null"), "{text}: {}", of(text));
        }
        for text in ["{'a': 1}", r#"{"a": None}"#, r#"[{"a": True}]"#] {
            assert!(of(text).contains("json.dumps"), "{text}: {}", of(text));
        }
        assert!(of(r#"{"a": 1,}"#).contains("comma before"));
        assert!(of("// rows\n{}").contains("comments"));
        assert!(of(r#"{"a": 1},"#).contains("no commas"));
        assert!(of(r#"{"a": "x"#).contains("too early"));
        for text in [
            r#"{"a": "\ud800"}"#,
            r#"{"a": "\ud800x"}"#,
            r#"{"a": "\udc00"}"#,
        ] {
            assert!(
                of(text).contains("half of a character"),
                "{text}: {}",
                of(text)
            );
        }
        assert_eq!(of(r#"{"ö": ?}"#), SAVE);
    }
}
