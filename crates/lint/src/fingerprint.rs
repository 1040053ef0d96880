//! The texts of evaluation sets as hashes, from which the texts cannot be recovered.
//!
//! A text is recognised by runs of [`RUN`] words, a shorter text as a whole. A file keeps only some runs of a long text, chosen
//! by winnowing (Schleimer, Wilkerson and Aiken, 2003): of every [`WINDOW`] consecutive runs, the one with the smallest hash.
//! So `RUN + WINDOW - 1` consecutive words in common are always found. Runs that several texts of a set share are the wording
//! of its questions, and are not kept.
//!
//! The file format, with little-endian numbers: `simmer-sets-1\n`; the number of sets (u32); for each set its name (length as
//! u32, then UTF-8) and its number of hashes (u32); then the hashes of all sets, 6 bytes each, in ascending order within a set.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::words::{mix, words};

/// The words of a run: as in the contamination checks of GPT-3 and LLaMA.
pub(super) const RUN: usize = 13;

/// The number of consecutive runs of which at least one is kept.
const WINDOW: usize = 8;

/// The minimum number of words of a text that a file keeps as a whole: shorter texts are common phrases.
const SHORT: usize = 5;

/// A run that more texts of a set share is the wording of its questions.
const SHARED: usize = 5;

/// The first bytes of a file.
const MAGIC: &[u8] = b"simmer-sets-1\n";

/// The bytes of a hash: 2.8e14 values. Among seven million rows of 150 runs each, about one run matches one of 250,000 hashes
/// at random.
const BYTES: usize = 6;

/// The built-in sets, written by `tests/reference/evaluation_sets.py`.
const BUILT_IN: &[u8] = include_bytes!("../../../data/evaluation-sets.bin");

/// Hashes, and the set of each.
#[derive(Debug, Default)]
pub(super) struct Fingerprint {
    sets: Vec<String>,
    hashes: HashMap<u64, u32>,
}

impl Fingerprint {
    /// The public evaluation sets.
    pub(super) fn built_in() -> Fingerprint {
        #[expect(clippy::expect_used, reason = "a test reads this very file")]
        Fingerprint::read(BUILT_IN).expect("the fingerprint was written by this program")
    }

    pub(super) fn read(mut bytes: &[u8]) -> Option<Fingerprint> {
        bytes = bytes.strip_prefix(MAGIC)?;
        let mut take = |count: usize| {
            let (taken, rest) = bytes.split_at_checked(count)?;
            bytes = rest;
            Some(taken)
        };
        let number = |bytes: Option<&[u8]>| Some(u32::from_le_bytes(bytes?.try_into().ok()?));
        let count = number(take(4))?;
        let mut fingerprint = Fingerprint::default();
        let mut counts = Vec::new();
        for _ in 0..count {
            let length = number(take(4))? as usize;
            let name = std::str::from_utf8(take(length)?).ok()?;
            fingerprint.sets.push(name.into());
            counts.push(number(take(4))? as usize);
        }
        for (set, count) in counts.into_iter().enumerate() {
            for hash in take(count.checked_mul(BYTES)?)?.chunks_exact(BYTES) {
                let mut wide = [0; 8];
                wide[..BYTES].copy_from_slice(hash);
                fingerprint.insert(u64::from_le_bytes(wide), set);
            }
        }
        bytes.is_empty().then_some(fingerprint)
    }

    fn insert(&mut self, hash: u64, set: usize) {
        self.hashes.entry(hash).or_insert(set as u32);
    }

    /// Adds a set. Returns its number.
    pub(super) fn name(&mut self, set: String) -> usize {
        self.sets.push(set);
        self.sets.len() - 1
    }

    /// Adds every run of a text to a set, or the whole text if it is shorter than a run.
    pub(super) fn add(&mut self, set: usize, text: &str) {
        let words = words(text);
        if words.len() < RUN && !words.is_empty() {
            self.insert(whole(&words), set);
        }
        for hash in runs(&words) {
            self.insert(hash, set);
        }
    }

    /// The number of hashes.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The set that contains the whole text, if the text is shorter than a run.
    pub(super) fn has(&self, text: &[u64]) -> Option<&str> {
        let short = !text.is_empty() && text.len() < RUN;
        let set = short.then(|| self.hashes.get(&whole(text)))??;
        Some(&self.sets[*set as usize])
    }

    /// The first run of `text` that a set contains: the position of its first word, and the set.
    pub(super) fn find(&self, text: &[u64]) -> Option<(usize, &str)> {
        let known = |hash| self.hashes.get(&hash);
        let (at, set) = runs(text)
            .enumerate()
            .find_map(|(at, hash)| Some((at, known(hash)?)))?;
        Some((at, &self.sets[*set as usize]))
    }
}

/// The file for `texts`, pairs of the set's name and a text.
pub(super) fn file<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> Vec<u8> {
    let mut sets: BTreeMap<&str, Vec<Vec<u64>>> = BTreeMap::new();
    for (set, text) in texts {
        sets.entry(set).or_default().push(words(text));
    }
    let sets: BTreeMap<_, _> = sets.iter().map(|(set, texts)| (set, kept(texts))).collect();
    let mut file = MAGIC.to_vec();
    let number = |count: usize| (count as u32).to_le_bytes();
    file.extend(number(sets.len()));
    for (set, hashes) in &sets {
        file.extend(number(set.len()));
        file.extend(set.as_bytes());
        file.extend(number(hashes.len()));
    }
    for hash in sets.values().flatten() {
        file.extend(&hash.to_le_bytes()[..BYTES]);
    }
    file
}

/// The hashes that a file keeps of the texts of a set.
fn kept(texts: &[Vec<u64>]) -> BTreeSet<u64> {
    let mut sharing: HashMap<u64, usize> = HashMap::new();
    for text in texts {
        let own: BTreeSet<u64> = runs(text).collect();
        for hash in own {
            *sharing.entry(hash).or_default() += 1;
        }
    }
    let mut kept = BTreeSet::new();
    for text in texts {
        if (SHORT..RUN).contains(&text.len()) {
            kept.insert(whole(text));
        }
        let telling: Vec<u64> = runs(text).filter(|hash| sharing[hash] <= SHARED).collect();
        let windows = telling.windows(WINDOW.min(telling.len()).max(1));
        kept.extend(windows.filter_map(|window| window.iter().min().copied()));
    }
    kept
}

const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// The hash mixed and cut to the bytes that a file keeps.
fn cut(hash: u64) -> u64 {
    mix(hash) & ((1 << (8 * BYTES)) - 1)
}

/// The hashes of all runs, by the polynomial `sum of word[i] · BASE^(RUN - 1 - i)`.
fn runs(words: &[u64]) -> impl Iterator<Item = u64> {
    let last = BASE.wrapping_pow(RUN as u32);
    let step = |hash: u64, word: u64| hash.wrapping_mul(BASE).wrapping_add(word);
    let mut hash = words
        .iter()
        .take(RUN - 1)
        .fold(0, |hash, &word| step(hash, word));
    (RUN - 1..words.len()).map(move |at| {
        hash = step(hash, words[at]);
        if let Some(gone) = at.checked_sub(RUN) {
            hash = hash.wrapping_sub(words[gone].wrapping_mul(last));
        }
        cut(hash)
    })
}

/// The hash of a text that is shorter than a run.
fn whole(words: &[u64]) -> u64 {
    let length = words.len() as u64;
    cut(words.iter().fold(length, |hash, &word| {
        hash.wrapping_mul(BASE).wrapping_add(word)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_built_in_sets_are_read() {
        let sets = Fingerprint::built_in();
        insta::assert_snapshot!(sets.sets.join("\n"), @"
        ARC-Challenge (test)
        ARC-Easy (test)
        BIG-bench Hard
        BoolQ (dev)
        CrowS-Pairs
        GSM8K (test)
        HellaSwag (validation)
        HumanEval
        IFEval
        Koala test set
        MATH-500
        MBPP (test)
        MMLU (test)
        MMLU (validation)
        MT-bench
        Natural Questions (open, dev)
        OpenBookQA (test)
        PIQA (validation)
        Self-Instruct (user-oriented)
        Social IQa (validation)
        TruthfulQA
        Vicuna bench
        WinoGender
        WinoGrande (validation)
        ");
        assert!(sets.hashes.len() > 100_000);
    }

    #[test]
    fn a_cut_file_is_refused() {
        let file = file([
            ("one", "What is the name of the sea there?"),
            ("two", &"a b c ".repeat(9)),
        ]);
        let read = Fingerprint::read(&file).unwrap();
        assert_eq!(read.sets, ["one", "two"]);
        for end in 0..file.len() {
            assert!(Fingerprint::read(&file[..end]).is_none(), "{end}");
        }
        assert!(Fingerprint::read(&[&file[..], b"\0"].concat()).is_none());
    }

    #[test]
    fn the_wording_of_questions_is_not_kept() {
        let asked = |n: usize| {
            format!(
                "Please answer the question that follows here in as few words as you can: {n} {n} {n}?"
            )
        };
        let texts: Vec<String> = (0..20).map(asked).collect();
        let sets =
            Fingerprint::read(&file(texts.iter().map(|text| ("set", text.as_str())))).unwrap();
        assert_eq!(
            sets.find(&words(
                "Please answer the question that follows here in as few words as you can: 77 78"
            )),
            None
        );
        assert!(sets.find(&words(&asked(7))).is_some());
    }

    proptest! {
        #[test]
        fn runs_hash_as_one_by_one(words in proptest::collection::vec(0u64..5, 0..60)) {
            let each = words.windows(RUN).map(|run| {
                cut(run.iter().fold(0u64, |hash, &word| hash.wrapping_mul(BASE).wrapping_add(word)))
            });
            prop_assert!(runs(&words).eq(each));
        }

        #[test]
        fn long_enough_overlaps_are_found(
            own in proptest::collection::vec(0u64..1_000_000, 40..80),
            start in 0usize..20,
            before in proptest::collection::vec(2_000_000u64..3_000_000, 0..20),
        ) {
            let hashes = kept(std::slice::from_ref(&own));
            let sets = Fingerprint { sets: vec!["set".into()], hashes: hashes.into_iter().map(|hash| (hash, 0)).collect() };
            let quoted = [&before[..], &own[start..start + RUN + WINDOW - 1]].concat();
            prop_assert!(sets.find(&quoted).is_some());
            prop_assert_eq!(sets.find(&before), None);
        }
    }
}
