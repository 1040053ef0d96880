//! The text of an answer as it grows, up to the first of its stop texts.

use simmer_data::Tokenizer;
use simmer_data::tokenizer::{DecodeStream, TokenizerError};

/// A text that grows token by token. What may be the beginning of a stop text is held back until it is known.
#[derive(Debug)]
pub(crate) struct Growing<'a> {
    stream: DecodeStream<'a>,
    tail: Tail<'a>,
}

/// The end of the text, which nobody has seen yet.
#[derive(Debug)]
struct Tail<'a> {
    stops: &'a [String],
    held: String,
    stopped: bool,
}

impl<'a> Growing<'a> {
    /// With the names of special tokens in the text, or without.
    pub(crate) fn new(tokenizer: &'a Tokenizer, stops: &'a [String], with_specials: bool) -> Self {
        Self {
            stream: tokenizer.decode_stream(!with_specials),
            tail: Tail {
                stops,
                held: String::new(),
                stopped: false,
            },
        }
    }

    /// Whether a stop text was found.
    pub(crate) fn has_stopped(&self) -> bool {
        self.tail.stopped
    }

    /// The text that a token adds.
    ///
    /// # Errors
    /// If the tokenizers library fails.
    pub(crate) fn push(&mut self, token: u32) -> Result<String, TokenizerError> {
        let piece = self.stream.push(token)?;
        Ok(self.tail.add(&piece))
    }

    /// The text that was held back, after the last token, and whether a stop text was found.
    ///
    /// # Errors
    /// If the tokenizers library fails.
    pub(crate) fn finish(self) -> Result<(String, bool), TokenizerError> {
        let Self { stream, mut tail } = self;
        let mut text = tail.add(&stream.finish()?);
        text.push_str(&tail.held);
        Ok((text, tail.stopped))
    }
}

impl Tail<'_> {
    /// Adds a piece of the text. Returns what can be shown.
    fn add(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()));
        if let Some(place) = found.min() {
            self.stopped = true;
            self.held.truncate(place);
            return std::mem::take(&mut self.held);
        }
        let end = self.held.len() - self.may_be_stop();
        let rest = self.held.split_off(end);
        std::mem::replace(&mut self.held, rest)
    }

    /// The length of the longest end of the held text that a stop text begins with.
    fn may_be_stop(&self) -> usize {
        let ends = self
            .held
            .char_indices()
            .map(|(place, _)| &self.held[place..]);
        let mut ends = ends.filter(|end| self.stops.iter().any(|stop| stop.starts_with(end)));
        ends.next().map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown after each piece, and what is left at the end.
    fn shown(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut tail = Tail {
            stops: &stops,
            held: String::new(),
            stopped: false,
        };
        let shown = pieces.iter().map(|piece| tail.add(piece)).collect();
        (shown, tail.held, tail.stopped)
    }

    #[test]
    fn what_may_become_a_stop_text_is_held_back() {
        let found = shown(&["\n\n", "END"], &["a\n", "b", " E", "N", "X", "\n"]);
        let texts = ["a", "\nb", " ", "", "ENX", ""].map(str::to_owned);
        assert_eq!(found, (texts.to_vec(), "\n".to_owned(), false));
    }

    #[test]
    fn a_text_ends_before_the_first_stop_text() {
        let (texts, held, stopped) = shown(&["def", "bc"], &["a", "b", "cdef", "x"]);
        assert_eq!(
            (texts.concat(), held.as_str(), stopped),
            ("a".to_owned(), "", true)
        );
        let (texts, held, stopped) = shown(&["éè"], &["caf", "é", "s"]);
        assert_eq!(texts, ["caf", "", "és"]);
        assert_eq!((held.as_str(), stopped), ("", false));
    }
}
