//! langdetect's profiles: the frequencies of n-grams in each language.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::gram::{self, Gram};
use crate::table;

/// The languages and their n-grams.
pub(super) struct Profiles {
    /// The codes of the languages.
    pub(super) languages: Vec<&'static str>,
    grams: HashMap<Gram, Vec<(u8, f64)>>,
    /// Chinese characters, and the representative of each.
    kanji: HashMap<char, char>,
}

/// The profiles, read once.
pub(super) static PROFILES: LazyLock<Profiles> = LazyLock::new(|| {
    Profiles::read(&table::unpack(include_bytes!(
        "../../../../data/ifeval/languages.tsv.gz"
    )))
});

impl Profiles {
    fn read(text: &str) -> Self {
        let mut profiles = Self {
            languages: Vec::new(),
            grams: HashMap::new(),
            kanji: HashMap::new(),
        };
        let mut totals = Vec::new();
        for line in text.lines() {
            let mut fields = line.split('\t');
            match (fields.next(), fields.next()) {
                (Some("kanji"), Some(class)) => profiles.read_kanji(class),
                (Some("language"), Some(name)) => {
                    profiles.languages.push(name.to_owned().leak());
                    totals = fields.map(number).collect();
                }
                (Some(gram), Some(count)) => profiles.read_gram(gram, number(count), &totals),
                _ => {}
            }
        }
        profiles
    }

    fn read_kanji(&mut self, class: &str) {
        let first = class.chars().next();
        self.kanji
            .extend(class.chars().filter_map(|char| Some((char, first?))));
    }

    fn read_gram(&mut self, gram: &str, count: f64, totals: &[f64]) {
        let language = self.languages.len().saturating_sub(1) as u8;
        if let Some(total) = totals.get(gram.chars().count().wrapping_sub(1)) {
            self.grams
                .entry(gram::gram(gram.chars()))
                .or_default()
                .push((language, count / total));
        }
    }

    /// Whether the n-gram occurs in a profile.
    pub(super) fn has(&self, gram: Gram) -> bool {
        self.grams.contains_key(&gram)
    }

    /// The probability of the n-gram in each language that contains it.
    pub(super) fn of(&self, gram: Gram) -> &[(u8, f64)] {
        self.grams.get(&gram).map_or(&[], Vec::as_slice)
    }

    /// The normalised character.
    pub(super) fn normal(&self, char: char) -> char {
        match char {
            '\u{4e00}'..='\u{9fff}' => self.kanji.get(&char).copied().unwrap_or(char),
            _ => gram::normal(char),
        }
    }
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or(0.0)
}
