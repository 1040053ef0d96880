//! What limits the tokens of a text.
//!
//! Axes: V vocabulary.

use std::fmt::Debug;

/// Limits the tokens of a text, one after another: to a JSON schema, a regular expression, or another grammar.
pub trait Grammar: Debug + Send {
    /// Sets the logits `[V]` of tokens that may not come next to -∞. An EOS token may come where the text may end.
    ///
    /// # Errors
    /// Why the text cannot be continued: the grammar is too complex here, or no token fits.
    fn limit(&mut self, logits: &mut [f32]) -> Result<(), String>;

    /// Takes the next token, which is no EOS token. `true`: the text is complete, and nothing may follow.
    ///
    /// # Errors
    /// Why the text cannot be continued.
    fn take(&mut self, token: u32) -> Result<bool, String>;
}
