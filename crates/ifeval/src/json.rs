//! What Python's `json.loads` accepts: JSON, `NaN`, `Infinity`, lone surrogates and numbers of any size.

/// The maximum depth. Beyond it, Python raises an exception that ends the evaluation; here, the text is not JSON.
const DEEPEST: usize = 990;
/// The maximum number of digits of a Python integer.
const MOST_DIGITS: usize = 4300;

/// Whether Python's `json.loads` accepts a text.
pub(super) fn is_json(text: &str) -> bool {
    let mut reader = Reader {
        bytes: text.as_bytes(),
        at: 0,
    };
    reader.space();
    reader.value(0).is_some() && {
        reader.space();
        reader.at == reader.bytes.len()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take_while(|byte| wanted(**byte)).count();
        self.at += count;
        count
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, token: &[u8]) -> Option<()> {
        self.bytes[self.at..].starts_with(token).then(|| {
            self.at += token.len();
        })
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match self.peek()? {
            b'"' => self.string(),
            b'{' => self.many(b'}', |reader| {
                reader.string()?;
                reader.space();
                reader.eat(b":")?;
                reader.space();
                reader.value(depth + 1)
            }),
            b'[' => self.many(b']', |reader| reader.value(depth + 1)),
            b'n' => self.eat(b"null"),
            b't' => self.eat(b"true"),
            b'f' => self.eat(b"false"),
            b'N' => self.eat(b"NaN"),
            b'I' => self.eat(b"Infinity"),
            b'-' => self.eat(b"-Infinity").or_else(|| self.number()),
            _ => self.number(),
        }
    }

    /// Comma-separated items up to the closing bracket.
    fn many(&mut self, close: u8, item: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.space();
        if self.eat(&[close]).is_some() {
            return Some(());
        }
        loop {
            item(self)?;
            self.space();
            if self.eat(&[close]).is_some() {
                return Some(());
            }
            self.eat(b",")?;
            self.space();
        }
    }

    fn string(&mut self) -> Option<()> {
        self.eat(b"\"")?;
        loop {
            self.skip(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
            match self.peek()? {
                b'"' => return self.eat(b"\""),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        self.at += 1;
        let letter = self.peek()?;
        self.at += 1;
        match letter {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.bytes.get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.eat(b"-");
        let digits = if self.eat(b"0").is_some() {
            1
        } else {
            self.skip(|byte| byte.is_ascii_digit())
        };
        if digits == 0 {
            return None;
        }
        let whole = self.at;
        self.tail(b".", b"");
        self.tail(b"eE", b"+-");
        (self.at > whole || digits <= MOST_DIGITS).then_some(())
    }

    /// A complete fraction or exponent, if there is one.
    fn tail(&mut self, begin: &[u8], sign: &[u8]) {
        let before = self.at;
        if !self.peek().is_some_and(|byte| begin.contains(&byte)) {
            return;
        }
        self.at += 1;
        if self.peek().is_some_and(|byte| sign.contains(&byte)) {
            self.at += 1;
        }
        if self.skip(|byte| byte.is_ascii_digit()) == 0 {
            self.at = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_accepts() {
        for good in [
            "{}",
            "[]",
            "[1, 2.5e-3, -0]",
            "NaN",
            "-Infinity",
            "1e999",
            r#""\ud800""#,
            " [ ] \n",
            r#"{"a": {"b": [null, true, false]}, "a": ""}"#,
            "\"\u{7f}é\"",
            "-0.0E+1",
        ] {
            assert!(is_json(good), "{good}");
        }
    }

    #[test]
    fn what_python_does_not_accept() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "01",
            "1.",
            "-",
            "+1",
            ".5",
            "1e",
            "'a'",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\u{feff}{}",
            "[1] 2",
            "nan",
            "-NaN",
            "{1: 2}",
            "\u{a0}1",
            "\"",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
        assert!(is_json(&"9".repeat(4300)) && !is_json(&"9".repeat(4301)));
        assert!(!is_json(&"[".repeat(100_000)));
    }
}
