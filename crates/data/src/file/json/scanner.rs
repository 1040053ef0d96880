//! Finds the ends of JSON values without parsing them.

/// Follows brackets and strings.
#[derive(Debug, Clone, Default)]
pub(super) struct Scanner {
    pub(super) depth: usize,
    pub(super) in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// Whether a value ends before this byte. If not, the byte is part of it.
    pub(super) fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b',' | b']' | b'}' if self.depth == 0 => return true,
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth -= 1,
            _ => {}
        }
        false
    }

    /// Takes bytes of a value.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_string && !self.escaped {
                let Some(next) = memchr::memchr2(b'"', b'\\', &bytes[at..]) else {
                    return;
                };
                at += next;
            }
            self.ends_before(bytes[at]);
            at += 1;
        }
    }

    /// Whether the value so far is complete.
    pub(super) fn is_closed(&self) -> bool {
        self.depth == 0 && !self.in_string
    }
}

/// The length of the list or object at the start of `text`; `None` if it does not end there.
pub(super) fn length(text: &[u8]) -> Option<usize> {
    let mut scanner = Scanner::default();
    let mut bytes = text.iter().enumerate();
    bytes
        .find(|(_, byte)| {
            scanner.ends_before(**byte);
            scanner.is_closed()
        })
        .map(|(at, _)| at + 1)
}
