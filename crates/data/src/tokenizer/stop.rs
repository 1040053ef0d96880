//! Texts that are generated token by token, each up to the first of several stop texts.

use std::ops::ControlFlow;

use super::{DecodeStream, Tokenizer, TokenizerError};

/// Texts that are generated together, and where each of them stops.
#[derive(Debug)]
pub struct StopTexts<'a> {
    tokenizer: &'a Tokenizer,
    ends: &'a [String],
    texts: Vec<(DecodeStream<'a>, String)>,
    failure: Option<TokenizerError>,
}

impl<'a> StopTexts<'a> {
    /// For `count` texts.
    pub fn new(tokenizer: &'a Tokenizer, count: usize, ends: &'a [String]) -> Self {
        let texts = (0..count).map(|_| (tokenizer.decode_stream(true), String::new()));
        Self {
            tokenizer,
            ends,
            texts: texts.collect(),
            failure: None,
        }
    }

    /// Adds a token to a text; breaks if the text then has a stop text, or cannot be decoded.
    pub fn push(&mut self, text: usize, token: u32) -> ControlFlow<()> {
        let (stream, text) = &mut self.texts[text];
        match stream.push(token) {
            Ok(piece) => text.push_str(&piece),
            Err(error) => {
                self.failure.get_or_insert(error);
                return ControlFlow::Break(());
            }
        }
        if self.ends.iter().any(|end| text.contains(end.as_str())) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// The text of each list of tokens, before its first stop text.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the tokenizers library fails, or has failed in [`StopTexts::push`].
    pub fn finish<'t>(
        self,
        generated: impl IntoIterator<Item = &'t [u32]>,
    ) -> Result<Vec<String>, TokenizerError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let texts = generated.into_iter().map(|tokens| {
            let mut text = self.tokenizer.decode(tokens, true)?;
            for end in self.ends.iter().filter(|end| !end.is_empty()) {
                if let Some(place) = text.find(end.as_str()) {
                    text.truncate(place);
                }
            }
            Ok(text)
        });
        texts.collect()
    }
}
