//! An example for display: the text of each token, and whether it is trained on.

use console::Style;
use simmer_data::{Example, Tokenizer};

use crate::failure::Failure;

/// A token of an example.
pub(crate) struct ShownToken {
    pub(crate) id: u32,
    /// Its text; empty if it ends inside a character that a later token completes.
    pub(crate) text: String,
    pub(crate) trained: bool,
    pub(crate) special: bool,
}

/// The tokens of an example.
pub(crate) fn tokens(example: &Example, tokenizer: &Tokenizer) -> Result<Vec<ShownToken>, Failure> {
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
pub(crate) struct Look {
    pub(crate) trained: bool,
    pub(crate) special: bool,
}

/// The text, in pieces of neighbouring tokens that look the same.
pub(crate) fn runs(tokens: &[ShownToken]) -> Vec<(Look, String)> {
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

/// Text in colour, or between marks if there are no colours.
pub(crate) fn styled(look: Look, text: &str, colours: bool) -> String {
    let style = match (look.trained, look.special) {
        (true, false) => Style::new().green().bold(),
        (true, true) => Style::new().green().bold().underlined(),
        (false, true) => Style::new().magenta(),
        (false, false) => return text.to_owned(),
    };
    if colours {
        let style = style.force_styling(true);
        // Line by line, because pagers reset the colour at the end of a line.
        let lines: Vec<_> = text
            .split('\n')
            .map(|line| style.apply_to(line).to_string())
            .collect();
        lines.join("\n")
    } else if look.trained {
        format!("⟦{text}⟧")
    } else {
        text.to_owned()
    }
}

/// Text with its invisible characters escaped.
pub(crate) fn visible(text: &str) -> String {
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
