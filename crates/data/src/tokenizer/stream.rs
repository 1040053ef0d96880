//! Text from tokens as they come.

use super::{Tokenizer, TokenizerError};

/// What an unfinished or broken character decodes to.
const REPLACEMENT: char = '\u{FFFD}';

/// How many tokens are waited for while the text ends broken. A character takes four at most; a text that really has
/// [`REPLACEMENT`]s before one takes more; a model that writes nothing but broken bytes must not be waited for.
const PATIENCE: usize = 16;

/// Turns tokens into text one by one and never gives half a character.
///
/// Decoders look at a token's neighbours (SentencePiece drops the first space of a text), so each token is decoded with
/// the ones before it, and only what it adds is given.
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Tokens from the last piece given on: its own, then those not given yet.
    window: Vec<u32>,
    /// How many of `window` have been given.
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

    /// The text that `token` completes; empty while a character is unfinished.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] when the tokenizers library refuses.
    pub fn push(&mut self, token: u32) -> Result<String, TokenizerError> {
        self.window.push(token);
        let text = self.pending()?;
        let unfinished = text.ends_with(REPLACEMENT) && self.window.len() - self.given < PATIENCE;
        if unfinished {
            return Ok(String::new());
        }
        // Tokens without text (special ones that are left out) are no neighbour to decode by: the ones before them stay.
        if !text.is_empty() {
            self.window.drain(..self.given);
        }
        self.given = self.window.len();
        Ok(text)
    }

    /// The text that is left when no token follows: an unfinished character, as the replacement character.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] when the tokenizers library refuses.
    pub fn finish(self) -> Result<String, TokenizerError> {
        self.pending()
    }

    /// What the tokens not given yet add to those given.
    fn pending(&self) -> Result<String, TokenizerError> {
        let decode = |tokens| self.tokenizer.decode(tokens, self.skip_special);
        let given = decode(&self.window[..self.given])?;
        let mut all = decode(&self.window)?;
        // A decoder that changes its mind about text already given cannot take it back.
        Ok(all.split_off(all.floor_char_boundary(given.len())))
    }
}
