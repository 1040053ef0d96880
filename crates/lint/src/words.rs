//! Texts as words, each a 64-bit hash. Near-duplicates and contamination are found by words.
//!
//! If most words of a text contain non-ASCII letters, a word is a run of letters and digits of any script, in lower case; in
//! scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese), every character is a word. Otherwise,
//! words are those of Google's `rouge_score` without its stemmer: runs of `a-z0-9` in the lower-case text.
//!
//! The hashes are written to files, so they must never change: FNV-1a of the word's UTF-8 bytes, then SplitMix64's last step.

use std::collections::HashMap;

/// The words of a text.
pub(super) fn words(text: &str) -> Vec<u64> {
    read(text, usize::MAX).0
}

/// The byte offset in `text` of its word number `word`.
pub(super) fn start(text: &str, word: usize) -> usize {
    read(text, word).1
}

/// The words of a text before word number `until`, and the byte offset of that word.
fn read(text: &str, until: usize) -> (Vec<u64>, usize) {
    let take: fn(&mut Words, char) = if !text.is_ascii() && foreign(text) {
        Words::unicode
    } else {
        Words::ascii
    };
    let mut words = Words::default();
    for (at, character) in text.char_indices() {
        take(&mut words, character);
        if words.found.len() + usize::from(words.open.is_some()) > until {
            return (words.found, at);
        }
    }
    words.end();
    (words.found, text.len())
}

/// Whether most words of a text contain non-ASCII letters.
fn foreign(text: &str) -> bool {
    let mut words = Words::default();
    text.chars().for_each(|character| words.unicode(character));
    words.end();
    2 * words.foreign > words.found.len()
}

/// The words so far, numbered in the order in which they came.
#[derive(Default)]
pub(super) struct Vocabulary {
    numbers: HashMap<u64, u32>,
}

impl Vocabulary {
    pub(super) fn number(&mut self, word: u64) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(word).or_insert(next)
    }
}

/// Mixes the bits of a number (SplitMix64's last step).
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01B3;

#[derive(Default)]
struct Words {
    found: Vec<u64>,
    /// The hash of the current word so far, if there is one.
    open: Option<u64>,
    /// Whether the current word contains a non-ASCII letter, and how many of the words found do.
    open_foreign: bool,
    foreign: usize,
}

impl Words {
    fn push(&mut self, character: char) {
        let mut bytes = [0; 4];
        let hash = self.open.unwrap_or(FNV_OFFSET);
        let bytes = character.encode_utf8(&mut bytes).bytes();
        self.open = Some(bytes.fold(hash, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
        }));
    }

    fn end(&mut self) {
        self.found.extend(self.open.take().map(mix));
        self.foreign += usize::from(std::mem::take(&mut self.open_foreign));
    }

    fn ascii(&mut self, character: char) {
        if character.is_ascii_alphanumeric() {
            self.push(character.to_ascii_lowercase());
        } else if character.is_ascii() {
            self.end();
        } else {
            // Some characters, such as the Kelvin sign, have a lower case in ASCII.
            for lower in character.to_lowercase() {
                if lower.is_ascii_alphanumeric() {
                    self.push(lower);
                } else {
                    self.end();
                }
            }
        }
    }

    fn unicode(&mut self, character: char) {
        if !character.is_alphanumeric() {
            return self.end();
        }
        if spaceless(character) {
            self.end();
            self.push(character);
            self.open_foreign = true;
            return self.end();
        }
        self.open_foreign |= !character.is_ascii();
        for lower in character.to_lowercase() {
            self.push(lower);
        }
    }
}

/// Whether the letter's script has no spaces between words.
fn spaceless(character: char) -> bool {
    matches!(character,
        '\u{0E00}'..='\u{0EFF}' // Thai, Lao
        | '\u{1000}'..='\u{109F}' // Burmese
        | '\u{1780}'..='\u{17FF}' // Khmer
        | '\u{2E80}'..='\u{312F}' | '\u{31A0}'..='\u{A4CF}' // Chinese, Japanese
        | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that the words of `text` are `spaced`, each of which is one word.
    fn are(text: &str, spaced: &[&str]) {
        let each: Vec<u64> = spaced.iter().flat_map(|word| words(word)).collect();
        assert_eq!(each.len(), spaced.len(), "{spaced:?}");
        assert_eq!(words(text), each, "{text}");
    }

    #[test]
    fn ascii_words_are_rouge_scores() {
        are("It's 3.5 x-rays!", &["it", "s", "3", "5", "x", "rays"]);
        are("The Café in Kraków", &["the", "caf", "in", "krak", "w"]);
        are("20 \u{212A}elvin", &["20", "kelvin"]);
        assert!(words(" -- \n").is_empty());
    }

    #[test]
    fn other_scripts_have_words_too() {
        are("Что такое GPT?", &["что", "такое", "gpt"]);
        assert_eq!(words("你好 ChatGPT 是什么？").len(), 6);
        assert_eq!(words("한국의 수도는?").len(), 2);
    }

    #[test]
    fn words_begin_where_they_stand() {
        assert_eq!([0, 1, 2].map(|word| start("  It's so.", word)), [2, 5, 7]);
        assert_eq!(
            [0, 2, 3].map(|word| start("你好 GPT, да", word)),
            [0, 7, 12]
        );
    }

    #[test]
    fn hashes_stay_as_files_have_them() {
        assert_eq!(words("Paris."), [5_148_083_760_791_848_858]);
    }
}
