//! Decodes tokens one by one.

use super::{Tokenizer, TokenizerError};

/// The text of an incomplete or invalid character.
const REPLACEMENT: char = '\u{FFFD}';

/// How many tokens to wait for while the text ends with an incomplete character. A character takes at most four; a text
/// that really has [`REPLACEMENT`]s before one takes more. The limit is for a model that generates only invalid bytes.
const PATIENCE: usize = 16;

/// Decodes tokens one by one, and never returns a part of a character.
///
/// Decoding depends on a token's neighbours (SentencePiece drops the first space of a text). So each token is decoded
/// together with the ones before it, and only the text that it adds is returned.
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The tokens of the last text that was returned, then those without returned text.
    window: Vec<u32>,
    /// How many of `window` are tokens whose text was returned.
    given: usize,
}

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> DecodeStream<'a> {
        DecodeStream {
            tokenizer,
            skip_special,
            window: Vec::new(),
            given: 0,
        }
    }

    /// The text that `token` completes; empty while a character is incomplete.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the tokenizers library fails.
    pub fn push(&mut self, token: u32) -> Result<String, TokenizerError> {
        self.window.push(token);
        let text = self.pending()?;
        let unfinished = text.ends_with(REPLACEMENT) && self.window.len() - self.given < PATIENCE;
        if unfinished {
            return Ok(String::new());
        }
        // Tokens without text (skipped special tokens) are no context for decoding, so the ones before them stay.
        if !text.is_empty() {
            self.window.drain(..self.given);
        }
        self.given = self.window.len();
        Ok(text)
    }

    /// The rest of the text at the end: an incomplete character, as the replacement character.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the tokenizers library fails.
    pub fn finish(self) -> Result<String, TokenizerError> {
        self.pending()
    }

    /// The text that the tokens without returned text add.
    fn pending(&self) -> Result<String, TokenizerError> {
        let decode = |tokens| self.tokenizer.decode(tokens, self.skip_special);
        let given = decode(&self.window[..self.given])?;
        let mut all = decode(&self.window)?;
        // Text that was returned stays, even if the decoder now gives another text for the same tokens.
        Ok(all.split_off(all.floor_char_boundary(given.len())))
    }
}
