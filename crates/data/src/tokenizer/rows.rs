//! Compares the tokens with the rows of a model's embedding.

use tokenizers::{AddedToken, Model};

use super::error::library;
use super::{Tokenizer, TokenizerError, plain};

impl Tokenizer {
    /// Checks that every token has a row in an embedding with `rows` rows. More rows than tokens are allowed.
    ///
    /// # Errors
    /// [`TokenizerError::Vocabulary`], which names tokens without a row.
    pub fn check_vocabulary(&self, rows: usize) -> Result<(), TokenizerError> {
        let vocab = self.inner.get_vocab(true).into_iter();
        let mut beyond: Vec<(u32, String)> = vocab
            .filter(|&(_, id)| id as usize >= rows)
            .map(|(token, id)| (id, token))
            .collect();
        if beyond.is_empty() {
            return Ok(());
        }
        beyond.sort_unstable();
        let count = beyond.len();
        beyond.truncate(4);
        Err(TokenizerError::Vocabulary {
            path: self.path.clone(),
            rows,
            count,
            tokens: beyond,
        })
    }

    /// Leaves out special tokens that have no row in an embedding with `rows` rows and no use: Gemma 3's models for text
    /// share a tokenizer with its models for images, which has one token more. Others stay, for
    /// [`check_vocabulary`](Self::check_vocabulary) to refuse.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the tokenizers library fails.
    pub fn fitted_to(mut self, rows: usize) -> Result<Tokenizer, TokenizerError> {
        let mut added: Vec<(u32, AddedToken)> =
            self.inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_unstable_by_key(|(id, _)| *id);
        let (kept, beyond): (Vec<_>, Vec<_>) =
            added.into_iter().partition(|(id, _)| (*id as usize) < rows);
        if beyond.is_empty() || beyond.iter().any(|(id, token)| self.is_used(*id, token)) {
            return Ok(self);
        }
        let mut inner = tokenizers::Tokenizer::new(self.inner.get_model().clone());
        library(inner.with_normalizer(self.inner.get_normalizer().cloned()))?;
        inner.with_pre_tokenizer(self.inner.get_pre_tokenizer().cloned());
        inner.with_decoder(self.inner.get_decoder().cloned());
        library(inner.add_tokens(kept.iter().map(|(_, token)| token.clone())))?;
        let same = |(id, token): &(u32, AddedToken)| inner.token_to_id(&token.content) == Some(*id);
        if !kept.iter().all(same) {
            return Ok(self);
        }
        let texts: Vec<String> = beyond
            .iter()
            .map(|(id, token)| format!("{id} `{}`", token.content))
            .collect();
        self.notes.push(format!(
            "{}: the model has {rows} tokens, so these of the tokenizer are ordinary text: {}",
            self.path.display(),
            texts.join(", ")
        ));
        self.plain = plain(&inner);
        self.inner = inner;
        Ok(self)
    }

    /// Whether a text or simmer may need an added token.
    fn is_used(&self, id: u32, token: &AddedToken) -> bool {
        let around = self.prefix.iter().chain(&self.suffix).chain(&self.eos);
        !token.special
            || around.chain(&self.bos).any(|used| *used == id)
            || self.specials.values().any(|text| *text == token.content)
            || self.inner.get_model().token_to_id(&token.content).is_some()
    }
}
