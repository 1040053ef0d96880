//! The bytes of single tokens. A token may be a part of a character, which has no text by itself.

use super::pieces::SPACE;
use super::{Tokenizer, TokenizerError};

impl Tokenizer {
    /// The bytes that a token adds to a text, within it.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the tokenizers library fails.
    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>, TokenizerError> {
        let piece = self.token(id).unwrap_or_default();
        let text = self.decode(&[id], false)?;
        if let Some(bytes) = of_byte_level(&piece)
            && String::from_utf8_lossy(&bytes) == text
        {
            return Ok(bytes);
        }
        if let Some(byte) = of_byte(&piece)
            && text != piece
        {
            return Ok(vec![byte]);
        }
        let spaced = piece.replace(SPACE, " ");
        // decoding drops the space before the first word of a text
        if spaced == text || spaced.strip_prefix(' ') == Some(&text) {
            return Ok(spaced.into_bytes());
        }
        Ok(text.into_bytes())
    }
}

/// The byte of a piece such as `<0x0A>`.
fn of_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// The bytes of a piece of byte-level BPE, which has a printable character for each.
///
/// Source: GPT-2, `bytes_to_unicode`.
fn of_byte_level(piece: &str) -> Option<Vec<u8>> {
    piece.chars().map(byte).collect()
}

/// The byte that a character of byte-level BPE stands for: its own number if that is printable; the others count from 256 on.
fn byte(c: char) -> Option<u8> {
    let is_own = |number: u32| matches!(number, 33..=126 | 161..=172 | 174..=255);
    let number = u32::from(c);
    if is_own(number) {
        return u8::try_from(number).ok();
    }
    let place = number.checked_sub(256)? as usize;
    let mut others = (0..=255).filter(|number| !is_own(*number));
    others
        .nth(place)
        .and_then(|number| u8::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn characters_of_byte_level_bpe_stand_for_bytes() {
        assert_eq!(
            of_byte_level("\u{120}caf\u{c3}\u{a9}"),
            Some(" caf\u{e9}".into())
        );
        assert_eq!(byte('\u{100}'), Some(0));
        assert_eq!(byte('\u{143}'), Some(173));
        assert_eq!(byte('\u{144}'), None);
        assert_eq!(of_byte_level("\u{2581}a"), None);
        assert_eq!(
            (of_byte("<0xE4>"), of_byte("<0xE>"), of_byte("<s>")),
            (Some(0xe4), None, None)
        );
    }

    /// The bytes of a text's tokens are the text, also of characters of several tokens.
    #[test]
    fn the_bytes_of_tokens_are_those_of_the_text() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tokenizer = Tokenizer::from_folder(root.join("data/tiny-base")).unwrap();
        let text = "Say: \u{1f642}\u{1f643} \u{4f60}\u{597d}, caf\u{e9} <0x0A>!";
        let tokens = tokenizer.encode(text).unwrap().ids;
        let bytes = tokens
            .iter()
            .map(|token| tokenizer.token_bytes(*token).unwrap());
        assert_eq!(bytes.collect::<Vec<_>>().concat(), text.as_bytes());
    }
}
