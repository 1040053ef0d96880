//! Detects the language of a text: langdetect 1.0.9 (Shuyo's language-detection) with its profiles and seed 0.
//!
//! Without a seed, the original gives different results in every process. Here, a text always has the result of
//! `DetectorFactory.seed = 0`.

mod gram;
mod profiles;

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::python::unicode;
use crate::python_random::PythonRandom;
use gram::{Gram, Window};
use profiles::{PROFILES, Profiles};

/// The maximum number of characters that are used.
const LONGEST: usize = 10_000;
const TRIALS: usize = 7;
const MOST_STEPS: usize = 1000;
/// The smoothing added to every probability: its mean and standard deviation, and its divisor.
const SMOOTHING: f64 = 0.5;
const SPREAD: f64 = 0.05;
const BASE: f64 = 10_000.0;
/// A trial ends when a language reaches this probability.
const CONVERGED: f64 = 0.99999;
/// A detected language must have a higher probability.
const LEAST: f64 = 0.1;

/// The language of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// The text has no known n-grams.
    NoFeatures,
    /// No language is likely enough.
    Unknown,
    /// The code of the language.
    Known(&'static str),
}

/// Detects the language of a text.
pub(super) fn detect(text: &str) -> Language {
    let profiles = &*PROFILES;
    let grams = grams(&cleaned(text), profiles);
    if grams.is_empty() {
        return Language::NoFeatures;
    }
    let mut mean = vec![0.0; profiles.languages.len()];
    let mut random = PythonRandom::new(0);
    for _ in 0..TRIALS {
        let trial = trial(&grams, profiles, &mut random);
        for (mean, probability) in mean.iter_mut().zip(trial) {
            *mean += probability / TRIALS as f64;
        }
    }
    let mut best = (LEAST, Language::Unknown);
    for (name, probability) in profiles.languages.iter().zip(mean) {
        if probability > best.0 {
            best = (probability, Language::Known(name));
        }
    }
    best.1
}

/// Multiplies probabilities of random n-grams until one language is left.
fn trial(grams: &[Gram], profiles: &Profiles, random: &mut PythonRandom) -> Vec<f64> {
    let count = profiles.languages.len();
    let mut probabilities = vec![1.0 / count as f64; count];
    let weight = (SMOOTHING + random.gauss() * SPREAD) / BASE;
    for step in 0.. {
        let gram = grams[random.below(grams.len())];
        let mut factors = vec![weight; count];
        for &(language, probability) in profiles.of(gram) {
            factors[usize::from(language)] += probability;
        }
        for (probability, factor) in probabilities.iter_mut().zip(factors) {
            *probability *= factor;
        }
        if step % 5 == 0 && (normalise(&mut probabilities) > CONVERGED || step >= MOST_STEPS) {
            break;
        }
    }
    probabilities
}

/// Divides by the sum. Returns the largest probability.
fn normalise(probabilities: &mut [f64]) -> f64 {
    let sum: f64 = probabilities.iter().sum();
    let mut largest = 0.0;
    for probability in probabilities {
        *probability /= sum;
        largest = f64::max(largest, *probability);
    }
    largest
}

/// The n-grams of a text that occur in a profile, in order.
fn grams(text: &[char], profiles: &Profiles) -> Vec<Gram> {
    let mut window = Window::new();
    let mut grams = Vec::new();
    for &char in text {
        window.push(profiles.normal(char));
        grams.extend(window.grams().filter(|gram| profiles.has(*gram)));
    }
    grams
}

/// The text without URLs, e-mail addresses and repeated spaces, and without Latin letters if most letters are others.
fn cleaned(text: &str) -> Vec<char> {
    static URL: LazyLock<Regex> =
        LazyLock::new(|| unicode(r"https?://[-_.?&~;+=/#0-9A-Za-z]{1,2076}"));
    static MAIL: LazyLock<Regex> = LazyLock::new(|| {
        unicode(r"[-_.0-9A-Za-z]{1,64}@[-_0-9A-Za-z]{1,255}[-_.0-9A-Za-z]{1,255}")
    });
    let text = URL.replace_all(text, " ");
    let text = gram::compose_vietnamese(&MAIL.replace_all(&text, " "));
    let mut chars: Vec<char> = text.chars().take(LONGEST).collect();
    chars.dedup_by(|next, char| *next == ' ' && *char == ' ');
    let latin = |char: char| ('A'..='z').contains(&char);
    let latins = chars.iter().filter(|char| latin(**char)).count();
    // the original intends to exclude Vietnamese letters here, but compares a number with a name
    let others = chars.iter().filter(|char| **char >= '\u{300}').count();
    if latins * 2 < others {
        chars.retain(|char| !latin(*char));
    }
    chars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_apart() {
        let known = |text| match detect(text) {
            Language::Known(name) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(known("The quick brown fox jumps over the lazy dog."), "en");
        assert_eq!(
            known("Der schnelle braune Fuchs springt über den Hund."),
            "de"
        );
        assert_eq!(known("यह एक छोटा सा वाक्य है जो हिंदी में लिखा गया है।"), "hi");
        assert_eq!(known("Đây là một câu ngắn bằng tiếng Việt."), "vi");
        assert_eq!(known("これは日本語の短い文です。"), "ja");
    }

    #[test]
    fn addresses_and_numbers_are_no_language() {
        assert_eq!(detect("12345 !?"), Language::NoFeatures);
        assert_eq!(
            detect("https://example.com/words/in/English someone@example.com"),
            Language::NoFeatures
        );
    }
}
