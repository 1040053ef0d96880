//! Texts as words, each a 64-bit hash: what near-duplicates and contamination are told by.
//!
//! A word is a run of letters and digits of any script, in lower case; scripts that put no spaces between words (Chinese,
//! Japanese, Thai, Lao, Khmer, Burmese) have one a character. Unless most of its words are beyond ASCII, a text has those
//! of Google's `rouge_score` without its stemmer instead: the text in lower case, runs of `a-z0-9`.
//!
//! The hashes are written to files, so they must never change: FNV-1a of the word's UTF-8, then SplitMix64's last step.

use std::collections::HashMap;

/// The words of a text.
pub(super) fn words(text: &str) -> Vec<u64> {
    read(text, usize::MAX).0
}

/// Where the word of that number begins in `text`.
pub(super) fn start(text: &str, word: usize) -> usize {
    read(text, word).1
}

/// The words of a text up to the one of that number, and where that begins.
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

/// Whether most words of a text have letters beyond ASCII.
fn foreign(text: &str) -> bool {
    let mut words = Words::default();
    text.chars().for_each(|character| words.unicode(character));
    words.end();
    2 * words.foreign > words.found.len()
}

/// The words so far, numbered as they came.
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

/// Spreads the bits of a number over all of it (SplitMix64's last step).
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
    /// The hash of the word so far, if one has begun.
    open: Option<u64>,
    /// Whether that word has a letter that is not ASCII, and how many of those found have.
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
            // Some have a lower case in ASCII, such as the Kelvin sign.
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

/// Whether a letter's script puts no spaces between words.
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

    /// That the words of `text` are those of `spaced`, each of which is a word on its own.
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
