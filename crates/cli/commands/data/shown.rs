//! An example for display: the text of each token, and whether it is trained on.

use simmer_data::{Example, Tokenizer};

use crate::failure::Failure;

/// A token of an example.
pub(super) struct ShownToken {
    pub(super) id: u32,
    /// Its text; empty if it ends inside a character that a later token completes.
    pub(super) text: String,
    pub(super) trained: bool,
    pub(super) special: bool,
}

/// The tokens of an example.
pub(super) fn tokens(example: &Example, tokenizer: &Tokenizer) -> Result<Vec<ShownToken>, Failure> {
    let special = tokenizer.special_tokens();
    let mut decoded = tokenizer.decode_stream(false);
    let mut shown = Vec::with_capacity(example.tokens.len());
    for (&id, &trained) in example.tokens.iter().zip(&example.trained) {
        let text = decoded.push(id)?;
        let special = tokenizer
            .token(id)
            .is_some_and(|token| special.contains(&token));
        shown.push(ShownToken {
            id,
            text,
            trained,
            special,
        });
    }
    let rest = decoded.finish()?;
    if let Some(last) = shown.last_mut() {
        last.text.push_str(&rest);
    }
    Ok(shown)
}

/// How tokens look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) trained: bool,
    pub(super) special: bool,
}

/// The text, in pieces of neighbouring tokens that look the same.
pub(super) fn runs(tokens: &[ShownToken]) -> Vec<(Look, String)> {
    let mut runs: Vec<(Look, String)> = Vec::new();
    for token in tokens {
        let look = Look {
            trained: token.trained,
            special: token.special,
        };
        match runs.last_mut() {
            Some((last, text)) if *last == look => text.push_str(&token.text),
            _ => runs.push((look, token.text.clone())),
        }
    }
    runs
}

/// Text with its invisible characters escaped.
pub(super) fn visible(text: &str) -> String {
    let hidden = |c: char| {
        c != '\n'
            && (c.is_control()
                || matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}'))
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}
