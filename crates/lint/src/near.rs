//! Near-duplicates: pairs of texts with ROUGE-L above 0.7, exactly, without computing it for every pair.
//!
//! ```text
//! P = LCS / a, R = LCS / b, F = 2 P R / (P + R) > 0.7      a, b: words of the texts; LCS: their longest common subsequence
//! ```
//!
//! This is Google's `rouge_score`, by which Self-Instruct filters, to the last bit: if F is exactly 0.7, its rounding decides.
//! The LCS is at most the number of words that both texts contain in any order (as bags), so pairs with
//! `20 overlap < 7 (a + b)` are skipped. They are skipped as in PPJoin (Xiao et al., "Efficient similarity joins for near
//! duplicate detection", 2008): with the words of each text sorted from the rarest, two bags that overlap in `o` words share
//! a word among their first `a - o + 1` and `b - o + 1`, so only these prefixes are indexed and looked up. The lengths and the
//! positions of the shared words bound the overlap further. The remaining pairs are compared as bags, then by [`Lcs`].
//!
//! Two texts with the same head (an instruction before its input) are compared by the rest, and two texts with the same rest
//! by their heads, with the same threshold. The candidates stay the same: with `h` common words more on both sides,
//! `2 (h + L) / (2h + a + b)` is at least `2 L / (a + b)`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;
use simmer_rouge::Lcs;

/// The texts to compare. Words are numbers below `vocabulary`.
#[derive(Default)]
pub(super) struct Texts {
    words: Vec<u32>,
    all: Vec<Text>,
    vocabulary: usize,
}

struct Text {
    start: usize,
    length: usize,
    /// The number of words of its head, and the head's hash.
    head: Option<(usize, u64)>,
}

/// The result of the comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Nearest {
    /// For each text, the first earlier text that it is a near-duplicate of.
    pub(super) earlier: Vec<Option<u32>>,
    /// The number of texts, the longest ones, that were not compared because the others took too long.
    pub(super) left: usize,
}

/// The maximum number of elementary steps of a comparison: about ten seconds on one core.
pub(super) const MOST_STEPS: u64 = 3_000_000_000;

/// The number of texts, and of their words, after which the steps are counted.
const BLOCK: (usize, usize) = (512, 16384);

/// ROUGE-L of texts of `a` and `b` words.
fn rouge(lcs: usize, a: usize, b: usize) -> f64 {
    if lcs == 0 {
        return 0.0;
    }
    let (p, r) = (lcs as f64 / a as f64, lcs as f64 / b as f64);
    2.0 * p * r / (p + r)
}

/// Whether ROUGE-L is above 0.7, for texts of `a` and `b` words.
fn near(lcs: usize, a: usize, b: usize) -> bool {
    rouge(lcs, a, b) > 0.7
}

/// The minimum number of words that near-duplicates of `a` and `b` words have in common.
fn fewest(a: usize, b: usize) -> usize {
    (7 * (a + b)).div_ceil(20)
}

/// The minimum number of words of a near-duplicate of a text of `a` words: `b >= fewest(a, b)` solved for `b`.
fn shortest(a: usize) -> usize {
    (7 * a).div_ceil(13)
}

impl Texts {
    /// Adds a text. `head` is the number of words of its head, and the head's hash.
    pub(super) fn push(&mut self, words: impl Iterator<Item = u32>, head: Option<(usize, u64)>) {
        let start = self.words.len();
        self.words.extend(words);
        let text = &self.words[start..];
        let most = text.iter().max().map_or(0, |&word| word as usize + 1);
        self.vocabulary = self.vocabulary.max(most);
        self.all.push(Text {
            start,
            length: text.len(),
            head,
        });
    }

    /// The number of words of all texts.
    pub(super) fn size(&self) -> usize {
        self.words.len()
    }

    /// Compares every text with all earlier ones, in about `most_steps` steps at most.
    pub(super) fn nearest(&self, most_steps: u64) -> Nearest {
        let index = Index::new(self);
        let earlier: Vec<_> = self.all.iter().map(|_| AtomicU32::new(u32::MAX)).collect();
        let threads = rayon::current_num_threads();
        let mut probes: Vec<_> = (0..threads).map(|_| Probe::new(&index, &earlier)).collect();
        let (mut steps, mut done) = (0, 0);
        while done < index.order.len() && steps <= most_steps {
            let block = index.block(done);
            let taken = probes.par_iter_mut().enumerate().map(|(thread, probe)| {
                let own = block.clone().skip(thread).step_by(threads);
                own.map(|place| probe.run(place)).sum::<u64>()
            });
            steps += taken.sum::<u64>();
            done = block.end;
        }
        let found = |earlier: AtomicU32| match earlier.into_inner() {
            u32::MAX => None,
            text => Some(text),
        };
        Nearest {
            earlier: earlier.into_iter().map(found).collect(),
            left: index.order.len() - done,
        }
    }

    /// ROUGE-L of two texts, as they are compared.
    pub(super) fn score(&self, one: usize, other: usize) -> f64 {
        let (_, words, others) = self.compared(&self.all[one], &self.all[other]);
        let mut lcs = Lcs::default();
        lcs.set(words, self.vocabulary);
        rouge(lcs.with(others), words.len(), others.len())
    }

    /// The part by which two texts are compared, and its words in both.
    fn compared(&self, a: &Text, b: &Text) -> (Part, &[u32], &[u32]) {
        let (words, others) = (self.words(a), self.words(b));
        match (a.head, b.head) {
            (Some((i, this)), Some((j, that))) if (i, this) == (j, that) => {
                (Part::Tail, &words[i..], &others[j..])
            }
            (Some((i, _)), Some((j, _))) if words[i..] == others[j..] => {
                (Part::Head, &words[..i], &others[..j])
            }
            _ => (Part::Whole, words, others),
        }
    }

    fn words(&self, text: &Text) -> &[u32] {
        &self.words[text.start..text.start + text.length]
    }
}

/// The texts sorted by length, and an index of their rare words.
struct Index<'t> {
    texts: &'t Texts,
    /// The texts from the shortest, those of equal length in order. The other fields number texts by their position here.
    order: Vec<u32>,
    /// The bag of each text, at the position of its words: rarest first. A repeated word counts as another word.
    bags: Vec<u32>,
    /// The start of each word's postings.
    starts: Vec<u32>,
    postings: Vec<Posting>,
}

/// An indexed word of a bag.
#[derive(Clone, Copy, Default)]
struct Posting {
    /// The text's position in `order`.
    place: u32,
    /// The word's position in the bag.
    at: u32,
}

impl<'t> Index<'t> {
    fn new(texts: &'t Texts) -> Index<'t> {
        let bags = bags(texts);
        let all = 0..texts.all.len() as u32;
        let mut order: Vec<u32> = all
            .filter(|&text| texts.all[text as usize].length > 0)
            .collect();
        order.sort_by_key(|&text| texts.all[text as usize].length);

        let indexed = |place: usize| {
            let text = &texts.all[order[place] as usize];
            // Only texts of at least this length look it up, so an equal length gives the smallest overlap.
            let prefix = text.length - fewest(text.length, text.length) + 1;
            &bags[text.start..text.start + prefix.min(text.length)]
        };
        let most = bags.iter().max().map_or(0, |&word| word as usize + 1);
        let mut starts = vec![0u32; most + 1];
        for place in 0..order.len() {
            for &word in indexed(place) {
                starts[word as usize + 1] += 1;
            }
        }
        for word in 0..most {
            starts[word + 1] += starts[word];
        }
        let mut next = starts.clone();
        let mut postings = vec![Posting::default(); starts[most] as usize];
        for place in 0..order.len() {
            for (at, &word) in indexed(place).iter().enumerate() {
                let next = &mut next[word as usize];
                postings[*next as usize] = Posting {
                    place: place as u32,
                    at: at as u32,
                };
                *next += 1;
            }
        }
        Index {
            texts,
            order,
            bags,
            starts,
            postings,
        }
    }

    fn text(&self, place: usize) -> &Text {
        &self.texts.all[self.order[place] as usize]
    }

    fn bag(&self, text: &Text) -> &[u32] {
        &self.bags[text.start..text.start + text.length]
    }

    fn postings(&self, word: u32) -> &[Posting] {
        let [start, end] = [0, 1].map(|next| self.starts[word as usize + next] as usize);
        &self.postings[start..end]
    }

    /// The positions from `start` that are compared before the steps are counted again.
    fn block(&self, start: usize) -> Range<usize> {
        let (mut end, mut words) = (start, 0);
        while end < self.order.len() && end - start < BLOCK.0 && words < BLOCK.1 {
            words += self.text(end).length;
            end += 1;
        }
        start..end
    }

    /// The first position of a text of at least `length` words.
    fn first_of(&self, length: usize) -> usize {
        self.order
            .partition_point(|&text| self.texts.all[text as usize].length < length)
    }
}

/// The words of each text sorted from the rarest, at the text's position. Occurrences are numbered, so that a bag is a set.
fn bags(texts: &Texts) -> Vec<u32> {
    let mut repeated: HashMap<(u32, u32), u32> = HashMap::new();
    let mut bags = texts.words.clone();
    for text in &texts.all {
        let bag = &mut bags[text.start..text.start + text.length];
        bag.sort_unstable();
        let (mut word, mut nth) = (u32::MAX, 0);
        for place in bag {
            nth = if *place == word { nth + 1 } else { 0 };
            word = *place;
            if nth > 0 {
                let next = texts.vocabulary + repeated.len();
                *place = *repeated.entry((word, nth)).or_insert(next as u32);
            }
        }
    }
    let mut counts = vec![0u32; texts.vocabulary + repeated.len()];
    for &word in &bags {
        counts[word as usize] += 1;
    }
    let mut rarest: Vec<u32> = (0..counts.len() as u32).collect();
    rarest.sort_by_key(|&word| counts[word as usize]);
    let mut ranks = counts;
    for (rank, &word) in rarest.iter().enumerate() {
        ranks[word as usize] = rank as u32;
    }
    for text in &texts.all {
        let bag = &mut bags[text.start..text.start + text.length];
        for word in &mut *bag {
            *word = ranks[*word as usize];
        }
        bag.sort_unstable();
    }
    bags
}

/// A candidate whose overlap can no longer be large enough.
const OUT: u32 = u32::MAX;

/// Looks up one text after the other among the texts before it in the order.
struct Probe<'i> {
    index: &'i Index<'i>,
    earlier: &'i [AtomicU32],
    /// For each position, the number of common words so far, or [`OUT`].
    common: Vec<u32>,
    /// The positions whose `common` is not 0.
    candidates: Vec<u32>,
    lcs: Lcs,
    /// The part of the text that `lcs` is prepared with.
    ready: Option<Part>,
}

/// The part by which two texts are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Head,
    Tail,
}

impl<'i> Probe<'i> {
    fn new(index: &'i Index<'i>, earlier: &'i [AtomicU32]) -> Probe<'i> {
        Probe {
            index,
            earlier,
            common: vec![0; index.order.len()],
            candidates: Vec::new(),
            lcs: Lcs::default(),
            ready: None,
        }
    }

    /// Compares the text at `place`. Returns the number of steps, which is the same in every run.
    fn run(&mut self, place: usize) -> u64 {
        let mut steps = self.collect(place);
        self.ready = None;
        let text = self.index.order[place];
        // The first near-duplicate that this lookup has found; other threads may find an earlier one.
        let mut first = u32::MAX;
        for candidate in std::mem::take(&mut self.candidates) {
            let common = std::mem::take(&mut self.common[candidate as usize]);
            let other = self.index.order[candidate as usize];
            let (before, after) = (other.min(text), other.max(text));
            if common == OUT || (after == text && first <= before) {
                continue;
            }
            let known =
                after == other && self.earlier[after as usize].load(Ordering::Relaxed) <= before;
            if self.compare(place, candidate as usize, known, &mut steps) {
                self.earlier[after as usize].fetch_min(before, Ordering::Relaxed);
                if after == text {
                    first = before;
                }
            }
        }
        steps
    }

    /// Finds the texts that share a rare word with the text at `place`.
    fn collect(&mut self, place: usize) -> u64 {
        let text = self.index.text(place);
        let (length, shortest) = (text.length, shortest(text.length));
        let places: Range<u32> = self.index.first_of(shortest) as u32..place as u32;
        let prefix = length - fewest(length, shortest).min(length) + 1;
        let mut steps = 0;
        for (at, &word) in self.index.bag(text).iter().take(prefix).enumerate() {
            let postings = self.index.postings(word);
            let start = postings.partition_point(|posting| posting.place < places.start);
            for posting in &postings[start..] {
                if posting.place >= places.end {
                    break;
                }
                steps += 1;
                let common = &mut self.common[posting.place as usize];
                if *common == OUT {
                    continue;
                }
                if *common == 0 {
                    self.candidates.push(posting.place);
                }
                let other = self.index.text(posting.place as usize).length;
                let rest = (length - at).min(other - posting.at as usize);
                let most = *common as usize + rest;
                *common = if most < fewest(length, other) {
                    OUT
                } else {
                    *common + 1
                };
            }
        }
        self.candidates.sort_unstable();
        steps
    }

    /// Whether two texts are near-duplicates. If that is `known`, only the steps are counted.
    fn compare(&mut self, place: usize, candidate: usize, known: bool, steps: &mut u64) -> bool {
        let texts = self.index.texts;
        let (a, b) = (self.index.text(place), self.index.text(candidate));
        let (bag, other) = (self.index.bag(a), self.index.bag(b));
        *steps += (bag.len() + other.len()) as u64;
        if overlap(bag, other) < fewest(bag.len(), other.len()) {
            return false;
        }
        *steps += (b.length * a.length.div_ceil(64)) as u64;
        if known {
            return false;
        }
        let (part, words, others) = texts.compared(a, b);
        if self.ready != Some(part) {
            self.lcs.set(words, texts.vocabulary);
            self.ready = Some(part);
        }
        near(self.lcs.with(others), words.len(), others.len())
    }
}

/// The number of words that two sorted bags have in common.
fn overlap(a: &[u32], b: &[u32]) -> usize {
    let (mut i, mut j, mut common) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        common += usize::from(a[i] == b[j]);
        let (x, y) = (a[i], b[j]);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Row = (Vec<u32>, Option<(usize, u64)>);

    fn texts(rows: &[Row]) -> Texts {
        let mut texts = Texts::default();
        for (words, head) in rows {
            texts.push(words.iter().copied(), *head);
        }
        texts
    }

    /// The definition: every pair, computed as by `rouge_score`.
    fn all_pairs(rows: &[Row]) -> Vec<Option<u32>> {
        let parts = |row: &Row, other: &Row| match (row.1, other.1) {
            (Some((i, this)), Some((j, that))) if (i, this) == (j, that) => row.0[i..].to_vec(),
            (Some((i, _)), Some((j, _))) if row.0[i..] == other.0[j..] => row.0[..i].to_vec(),
            _ => row.0.clone(),
        };
        let is_near = |row: &Row, other: &Row| {
            let (a, b) = (parts(row, other), parts(other, row));
            let mut lcs = vec![vec![0; b.len() + 1]; a.len() + 1];
            for (i, x) in a.iter().enumerate() {
                for (j, y) in b.iter().enumerate() {
                    lcs[i + 1][j + 1] = if x == y {
                        lcs[i][j] + 1
                    } else {
                        lcs[i][j + 1].max(lcs[i + 1][j])
                    };
                }
            }
            let both = f64::from(lcs[a.len()][b.len()]);
            let (p, r) = (both / a.len() as f64, both / b.len() as f64);
            both > 0.0 && 2.0 * p * r / (p + r) > 0.7
        };
        let first = |text: usize| {
            let mut before = 0..text;
            before.find(|&before| is_near(&rows[before], &rows[text]))
        };
        (0..rows.len())
            .map(|text| Some(first(text)? as u32))
            .collect()
    }

    /// Rows with few different words, many of them changed copies of others, some with one of two heads.
    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let words = proptest::collection::vec(0u32..25, 0..80);
        let change = (
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            0u32..25,
        );
        let copy = (
            any::<prop::sample::Index>(),
            proptest::collection::vec(change, 0..6),
        );
        let row = (words, proptest::option::of(copy), 0u64..4);
        proptest::collection::vec(row, 1..40).prop_map(|seeds| {
            let mut rows: Vec<Row> = Vec::new();
            for (mut words, copy, head) in seeds {
                if let Some((of, changes)) = copy.filter(|_| !rows.is_empty()) {
                    words.clone_from(&rows[of.index(rows.len())].0);
                    for (from, to, word) in changes {
                        if !words.is_empty() {
                            words.remove(from.index(words.len()));
                        }
                        words.insert(to.index(words.len() + 1), word);
                    }
                }
                let head = (head < 2).then(|| {
                    let length = 3 + head as usize;
                    words.splice(0..0, (0..length as u32).map(|at| 30 + at));
                    (length, head)
                });
                rows.push((words, head));
            }
            rows
        })
    }

    proptest! {
        #[test]
        fn it_is_what_all_pairs_give(rows in rows()) {
            let found = texts(&rows).nearest(u64::MAX);
            prop_assert_eq!(found, Nearest { earlier: all_pairs(&rows), left: 0 });
        }
    }

    #[test]
    fn rounding_decides_at_seven_tenths() {
        // Seven words in common: F is 0.7 for texts of 10 and 10 words, and slightly more in f64 for 11 and 9.
        let nearest = |other: u32| {
            let first: Row = ((0..20 - other).collect(), None);
            let second: Row = ((0..7).chain(50..43 + other).collect(), None);
            texts(&[first, second]).nearest(u64::MAX).earlier
        };
        assert_eq!(nearest(10), [None, None]);
        assert_eq!(nearest(9), [None, Some(0)]);
    }

    #[test]
    fn texts_without_words_are_near_nothing() {
        let rows = [
            (vec![], None),
            (vec![], None),
            (vec![1], Some((1, 5))),
            (vec![1], Some((1, 5))),
        ];
        assert_eq!(
            texts(&rows).nearest(u64::MAX),
            Nearest {
                earlier: vec![None; 4],
                left: 0
            }
        );
    }

    #[test]
    fn what_takes_too_long_is_left_and_counted() {
        let rows: Vec<Row> = (0..2000)
            .map(|row| (vec![1, 2, 3, 4, 5, 6 + row], None))
            .collect();
        let texts = texts(&rows);
        let all = texts.nearest(u64::MAX);
        assert_eq!((all.earlier[1999], all.left), (Some(0), 0));
        let some = texts.nearest(1);
        assert_eq!(
            (some.earlier[511], some.earlier[512], some.left),
            (Some(0), None, 2000 - 512)
        );
    }
}
