//! Characters that a text should not contain: results of a wrong encoding, and invisible characters.

use super::Kind;

/// An odd character of a text: its kind, what it is, and its byte offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Odd {
    pub(super) kind: Kind,
    pub(super) what: String,
    pub(super) at: usize,
}

/// The first odd character of each of the two kinds.
pub(super) fn odd(text: &str) -> Vec<Odd> {
    let mut found: Vec<Odd> = Vec::new();
    if text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t'))
    {
        return found;
    }
    let mut push = |kind, what: String, at| {
        if !found.iter().any(|odd| odd.kind == kind) {
            found.push(Odd { kind, what, at });
        }
    };
    let right_to_left = text.chars().any(right_to_left);
    let mut before = '\0';
    for (at, character) in text.char_indices() {
        if let Some(what) = damage(character) {
            push(
                Kind::Encoding,
                format!("{what} U+{:04X}", character as u32),
                at,
            );
        } else if let Some(what) = invisible(before, character, right_to_left) {
            push(
                Kind::Invisible,
                format!("{what} U+{:04X}", character as u32),
                at,
            );
        } else if let Some((garbled, meant)) = mojibake(&text[at..]) {
            push(
                Kind::Encoding,
                format!("`{garbled}` instead of `{meant}`"),
                at,
            );
        }
        before = character;
    }
    found
}

/// What a character is that does not occur in proper text.
fn damage(character: char) -> Option<&'static str> {
    Some(match character {
        '\t' | '\n' | '\r' => return None,
        '\u{FFFD}' => "replacement character",
        '\u{FEFF}' => "byte order mark",
        '\u{0}'..='\u{1F}' | '\u{7F}'..='\u{9F}' => "control character",
        '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{10FFFF}' => "private-use character",
        '\u{FDD0}'..='\u{FDEF}' => "noncharacter",
        _ if character as u32 & 0xFFFE == 0xFFFE => "noncharacter",
        _ => return None,
    })
}

/// What an invisible character is, unless its neighbours require it.
fn invisible(before: char, character: char, right_to_left: bool) -> Option<&'static str> {
    Some(match character {
        // Joiners shape letters beyond Latin, Greek and Cyrillic, and combine several emoji into one.
        '\u{200C}' | '\u{200D}' if before >= '\u{0590}' || before == '\u{FE0F}' => return None,
        '\u{200B}'..='\u{200D}' | '\u{2060}'..='\u{2064}' => "zero-width character",
        '\u{200E}' | '\u{200F}' | '\u{061C}' if right_to_left => return None,
        '\u{200E}' | '\u{200F}' | '\u{061C}' => "direction mark",
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => "direction override",
        '\u{00AD}' => "soft hyphen",
        // Flags of regions, such as Scotland's, consist of them.
        '\u{E0000}'..='\u{E007F}' if before < '\u{1F000}' => "tag character",
        _ => return None,
    })
}

/// Whether a character belongs to a right-to-left script.
fn right_to_left(character: char) -> bool {
    matches!(character, '\u{0590}'..='\u{08FF}' | '\u{FB1D}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFC}')
}

/// The characters of the bytes 80 to 9F in cp1252; bytes that it does not define are read as Latin-1.
const CP1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];

/// The byte, from 80, that cp1252 or Latin-1 decodes to this character.
fn byte(character: char) -> Option<u8> {
    if let Some(at) = CP1252.iter().position(|&known| known == character) {
        return Some(0x80 + at as u8);
    }
    u8::try_from(character).ok().filter(|&byte| byte >= 0x80)
}

/// UTF-8 at the start of `text` that was decoded as cp1252 or Latin-1: the garbled text and the original.
///
/// Accented letters may also stand before quotation marks, so only likely originals count: Western European letters after
/// `Ã` and `Â`, punctuation after `â`, emoji after `ð`, and three letters in a row of other scripts.
fn mojibake(text: &str) -> Option<(&str, String)> {
    let (first, length) = decoded(text)?;
    let likely = matches!(first,
        '\u{A0}'..='\u{FF}' | '\u{2010}'..='\u{203A}' | '\u{20AC}' | '\u{2122}' | '\u{2190}'..='\u{22FF}'
        | '\u{2500}'..='\u{27BF}' | '\u{FEFF}' | '\u{1F300}'..='\u{1FAFF}');
    if likely {
        return Some((&text[..length], first.into()));
    }
    let (mut meant, mut end) = (String::from(first), length);
    while meant.chars().count() < 3 {
        let (next, length) = decoded(&text[end..])?;
        meant.push(next);
        end += length;
    }
    Some((&text[..end], meant))
}

/// The non-ASCII character that the first characters of `text`, taken as bytes, encode in UTF-8, and their length in `text`.
fn decoded(text: &str) -> Option<(char, usize)> {
    let mut characters = text.char_indices();
    let lead = byte(characters.next()?.1)?;
    let length = match lead {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return None,
    };
    let mut bytes = [lead, 0, 0, 0];
    for place in &mut bytes[1..length] {
        *place = byte(characters.next()?.1)?;
    }
    let meant = std::str::from_utf8(&bytes[..length]).ok()?.chars().next()?;
    Some((meant, characters.offset()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> String {
        let found: Vec<_> = odd(text)
            .into_iter()
            .map(|odd| format!("{}: {} at {}", odd.kind, odd.what, odd.at))
            .collect();
        found.join("; ")
    }

    #[test]
    fn damage_is_found() {
        insta::assert_snapshot!(found("a \u{FFFD} b"), @"encoding: replacement character U+FFFD at 2");
        insta::assert_snapshot!(found("a\u{FEFF}b"), @"encoding: byte order mark U+FEFF at 1");
        insta::assert_snapshot!(found("a\u{0}\u{8}"), @"encoding: control character U+0000 at 1");
        insta::assert_snapshot!(found("it\u{92}s"), @"encoding: control character U+0092 at 2");
        insta::assert_snapshot!(found("\u{F0B7} point"), @"encoding: private-use character U+F0B7 at 0");
        insta::assert_snapshot!(found("\u{FFFE}\u{2FFFF}"), @"encoding: noncharacter U+FFFE at 0");
    }

    #[test]
    fn utf_8_read_as_latin_is_found() {
        insta::assert_snapshot!(found("donâ€™t"), @"encoding: `â€™` instead of `’` at 3");
        insta::assert_snapshot!(found("cafÃ©"), @"encoding: `Ã©` instead of `é` at 3");
        insta::assert_snapshot!(found("20Â°C"), @"encoding: `Â°` instead of `°` at 2");
        insta::assert_snapshot!(found("ðŸ˜€"), @"encoding: `ðŸ˜€` instead of `😀` at 0");
        insta::assert_snapshot!(found("ï»¿one"), @"encoding: `ï»¿` instead of `\u{feff}` at 0");
        insta::assert_snapshot!(found("ÐŸÑ€Ð¸Ð²ÐµÑ‚"), @"encoding: `ÐŸÑ€Ð¸` instead of `При` at 0");
        let latin1: String = "“quoted”".bytes().map(char::from).collect();
        assert_eq!(
            found(&latin1),
            "encoding: `â\u{80}\u{9C}` instead of `“` at 0"
        );
    }

    #[test]
    fn invisible_characters_are_found() {
        insta::assert_snapshot!(found("a\u{200B}b"), @"invisible: zero-width character U+200B at 1");
        insta::assert_snapshot!(found("a\u{202E}b\u{AD}"), @"invisible: direction override U+202E at 1");
        insta::assert_snapshot!(found("a\u{200E}b"), @"invisible: direction mark U+200E at 1");
        insta::assert_snapshot!(found("co\u{AD}op\u{7F}"), @"invisible: soft hyphen U+00AD at 2; encoding: control character U+007F at 6");
    }

    #[test]
    fn proper_text_is_not_odd() {
        let texts = [
            "Tabs\tand\r\nlines.",
            "naïve “quotes” – dashes… €5 ™ 20°C",
            "«CAFÉ» «à\u{A0}»",
            "SÃO PAULO, MAÇÃ, Ângela, Økonomi",
            "你好，世界。 Привет! हिन्दी 한국어",
            "👨\u{200D}👩\u{200D}👧 ❤\u{FE0F}\u{200D}🔥 🏴\u{E0067}\u{E0062}\u{E007F}",
            "می\u{200C}خواهم \u{200E}(123) क्\u{200D}ष",
            "∀x ∈ ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β → β ∨ ¬α",
        ];
        for text in texts {
            assert_eq!(found(text), "", "{text}");
        }
    }
}
