//! The length of the longest common subsequence of two texts, 64 words of one text at a time.
//!
//! For each word of the second text, with M the positions of the word in the first text as bits:
//! `U = V & M; V = (V + U) | (V - U)`. The length is the number of zero bits in V at the end (Hyyrö, "Bit-parallel LCS-length
//! computation revisited", 2004). Bits past the end of the text match nothing and stay 1.

/// A word that has no row in the table.
const NONE: u32 = u32::MAX;
/// The number of words whose positions fit in one number.
const BITS: usize = u64::BITS as usize;

/// A text prepared for comparison with many others. Words are numbers.
#[derive(Debug, Default)]
pub struct Lcs {
    /// The different words of the text.
    words: Vec<u32>,
    /// For a text of up to 64 words: the positions of each word of the vocabulary, as bits.
    short: Vec<u64>,
    /// For a longer text: for each word of the vocabulary its row of `places`, or [`NONE`].
    rows: Vec<u32>,
    /// For each row, the positions of its word in the text, as bits.
    places: Vec<u64>,
    /// The numbers of a row; at most 1 for a short text.
    blocks: usize,
    v: Vec<u64>,
}

impl Lcs {
    /// Prepares `text`, whose words are below `vocabulary`.
    pub fn set(&mut self, text: &[u32], vocabulary: usize) {
        self.clear();
        self.blocks = text.len().div_ceil(BITS);
        if text.len() <= BITS {
            self.short.resize(self.short.len().max(vocabulary), 0);
            for (place, &word) in text.iter().enumerate() {
                let places = &mut self.short[word as usize];
                if *places == 0 {
                    self.words.push(word);
                }
                *places |= 1 << place;
            }
            return;
        }
        self.rows.resize(self.rows.len().max(vocabulary), NONE);
        for (place, &word) in text.iter().enumerate() {
            let row = &mut self.rows[word as usize];
            if *row == NONE {
                *row = self.words.len() as u32;
                self.words.push(word);
                self.places.resize(self.places.len() + self.blocks, 0);
            }
            self.places[*row as usize * self.blocks + place / BITS] |= 1 << (place % BITS);
        }
    }

    /// Removes the text; the tables keep their size.
    fn clear(&mut self) {
        for word in self.words.drain(..) {
            let word = word as usize;
            if self.blocks <= 1 {
                self.short[word] = 0;
            } else {
                self.rows[word] = NONE;
            }
        }
        self.places.clear();
    }

    /// The length of the longest common subsequence with `other`, whose words are below the vocabulary.
    pub fn with(&mut self, other: &[u32]) -> usize {
        if self.blocks <= 1 {
            let mut v = u64::MAX;
            for &word in other {
                let u = v & self.short[word as usize];
                v = v.wrapping_add(u) | (v - u);
            }
            return v.count_zeros() as usize;
        }
        self.v.clear();
        self.v.resize(self.blocks, u64::MAX);
        for &word in other {
            let row = self.rows[word as usize];
            if row == NONE {
                continue;
            }
            let start = row as usize * self.blocks;
            let places = &self.places[start..start + self.blocks];
            let mut carry = false;
            for (v, m) in self.v.iter_mut().zip(places) {
                let u = *v & m;
                let (sum, first) = v.overflowing_add(u);
                let (sum, second) = sum.overflowing_add(u64::from(carry));
                carry = first || second;
                *v = sum | (*v - u);
            }
        }
        let zeros: u32 = self.v.iter().map(|v| v.count_zeros()).sum();
        zeros as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: the quadratic table.
    fn plain(a: &[u32], b: &[u32]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for x in a {
            let mut diagonal = 0;
            for (j, y) in b.iter().enumerate() {
                let above = row[j + 1];
                row[j + 1] = if x == y {
                    diagonal + 1
                } else {
                    above.max(row[j])
                };
                diagonal = above;
            }
        }
        row[b.len()]
    }

    proptest! {
        /// Short and long texts follow each other, and the vocabulary grows.
        #[test]
        fn it_is_the_longest_common_subsequence(
            a in proptest::collection::vec(0u32..9, 0..200),
            others in proptest::collection::vec(proptest::collection::vec(0u32..9, 0..200), 1..4),
        ) {
            let mut lcs = Lcs::default();
            for (more, b) in others.iter().enumerate() {
                lcs.set(&a, 9 + more);
                prop_assert_eq!(lcs.with(b), plain(&a, b));
                lcs.set(b, 9 + more);
                prop_assert_eq!(lcs.with(&a), plain(&a, b));
            }
        }
    }
}
