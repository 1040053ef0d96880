//! Literals of Python in a field: some data sets store lists of objects as Python prints them.

use serde_json::{Map, Value};

/// Nesting that is accepted.
const DEPTH: usize = 64;

/// The value of a literal: lists, tuples, dicts, strings, numbers, `True`, `False` and `None`. A value that is no text is
/// returned as it is.
///
/// # Errors
/// If the text is not a literal; the message says where.
pub(super) fn value_of(value: &Value) -> Result<Value, String> {
    let Value::String(text) = value else {
        return Ok(value.clone());
    };
    let mut reader = Reader { text, at: 0 };
    let found = reader.value(DEPTH)?;
    reader.skip();
    if reader.at < text.len() {
        return Err(reader.wrong("expected the end"));
    }
    Ok(found)
}

struct Reader<'a> {
    text: &'a str,
    /// Bytes that were read.
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn wrong(&self, what: &str) -> String {
        let found: String = self.rest().chars().take(20).collect();
        format!(
            "not a Python literal: {what} at character {}, found `{found}`",
            self.text[..self.at].chars().count() + 1
        )
    }

    /// Takes a token, if it comes next.
    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth == 0 {
            return Err(self.wrong("nested too deeply"));
        }
        self.skip();
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.take(open) {
                return self.items(close, depth - 1).map(Value::Array);
            }
        }
        if self.take("{") {
            return self.members(depth - 1).map(Value::Object);
        }
        if self.rest().starts_with(['\'', '"']) {
            return self.texts().map(Value::String);
        }
        for (word, value) in [
            ("True", Value::Bool(true)),
            ("False", Value::Bool(false)),
            ("None", Value::Null),
        ] {
            if self.take(word) {
                return Ok(value);
            }
        }
        self.number()
    }

    fn items(&mut self, close: &str, depth: usize) -> Result<Vec<Value>, String> {
        let mut items = Vec::new();
        loop {
            self.skip();
            if self.take(close) {
                return Ok(items);
            }
            items.push(self.value(depth)?);
            self.skip();
            if !self.take(",") && !self.rest().starts_with(close) {
                return Err(self.wrong(&format!("expected `,` or `{close}`")));
            }
        }
    }

    fn members(&mut self, depth: usize) -> Result<Map<String, Value>, String> {
        let mut members = Map::new();
        loop {
            self.skip();
            if self.take("}") {
                return Ok(members);
            }
            if !self.rest().starts_with(['\'', '"']) {
                return Err(self.wrong("expected a key"));
            }
            let key = self.texts()?;
            self.skip();
            if !self.take(":") {
                return Err(self.wrong("expected `:`"));
            }
            members.insert(key, self.value(depth)?);
            self.skip();
            if !self.take(",") && !self.rest().starts_with('}') {
                return Err(self.wrong("expected `,` or `}`"));
            }
        }
    }

    /// Strings one after another are one string.
    fn texts(&mut self) -> Result<String, String> {
        let mut all = String::new();
        while let Some(quote) = ["'", "\""].into_iter().find(|quote| self.take(quote)) {
            self.text_until(quote, &mut all)?;
            self.skip();
        }
        Ok(all)
    }

    fn text_until(&mut self, quote: &str, out: &mut String) -> Result<(), String> {
        loop {
            if self.take(quote) {
                return Ok(());
            }
            let Some(c) = self.rest().chars().next() else {
                return Err(self.wrong("a string without an end"));
            };
            self.at += c.len_utf8();
            if c == '\\' {
                self.escape(out)?;
            } else {
                out.push(c);
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), String> {
        let Some(c) = self.rest().chars().next() else {
            return Err(self.wrong("a string without an end"));
        };
        self.at += c.len_utf8();
        match c {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'x' => out.push(self.character(2)?),
            'u' => out.push(self.character(4)?),
            'U' => out.push(self.character(8)?),
            // Python leaves other escapes as they are
            other => out.extend(['\\', other]),
        }
        Ok(())
    }

    /// The character whose code follows in hexadecimal digits.
    fn character(&mut self, digits: usize) -> Result<char, String> {
        let code = self.rest().get(..digits);
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        let Some(code) = code.and_then(char::from_u32) else {
            return Err(self.wrong("expected the digits of a character"));
        };
        self.at += digits;
        Ok(code)
    }

    fn number(&mut self) -> Result<Value, String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let length = self.rest().find(|c| !is_part(c));
        let word = &self.rest()[..length.unwrap_or(self.rest().len())];
        let number = match word.parse::<i64>() {
            Ok(whole) => Some(Value::from(whole)),
            Err(_) => word.parse::<f64>().ok().map(Value::from),
        };
        let Some(number) = number.filter(|number| !word.is_empty() && !number.is_null()) else {
            return Err(self.wrong("expected a value"));
        };
        self.at += word.len();
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_are_read_as_python_reads_them() {
        let read = |text: &str| value_of(&json!(text));
        assert_eq!(
            read(
                r#"[{'question': "It's _ .", 'options': ['a', "b\n", '\u00e9'], 'answer': 'A', 'n': (1, 2.5, True, None)}]"#
            ),
            Ok(
                json!([{"question": "It's _ .", "options": ["a", "b\n", "é"], "answer": "A", "n": [1, 2.5, true, null]}])
            )
        );
        assert_eq!(read("'a' \"b\""), Ok(json!("ab")));
        assert_eq!(read(r"'\d'"), Ok(json!(r"\d")));
        assert_eq!(value_of(&json!([1])), Ok(json!([1])));
        insta::assert_snapshot!(read("[1, 2").unwrap_err(), @"not a Python literal: expected `,` or `]` at character 6, found ``");
        insta::assert_snapshot!(read("{'a' 1}").unwrap_err(), @"not a Python literal: expected `:` at character 6, found `1}`");
        insta::assert_snapshot!(read("open('x')").unwrap_err(), @"not a Python literal: expected a value at character 1, found `open('x')`");
        assert!(read(&"[".repeat(1000)).is_err());
    }
}
