//! The length of the longest common subsequence of two texts, 64 words of one text at a time.
//!
//! For each word of the second text, with M the positions of the word in the first text as bits:
//! `U = V & M; V = (V + U) | (V - U)`. The length is the number of zero bits in V at the end (Hyyrö, "Bit-parallel LCS-length
//! computation revisited", 2004).

/// A word that has no row in the table.
const NONE: u32 = u32::MAX;

/// A text prepared for comparison with many others.
#[derive(Default)]
pub(super) struct Lcs {
    /// For each word of the vocabulary, its row of `places`, or [`NONE`].
    rows: Vec<u32>,
    /// The words that have a row.
    words: Vec<u32>,
    /// For each row, the positions of its word in the text, as bits.
    places: Vec<u64>,
    blocks: usize,
    v: Vec<u64>,
}

impl Lcs {
    /// Prepares `text`, whose words are below `vocabulary`.
    pub(super) fn set(&mut self, text: &[u32], vocabulary: usize) {
        for word in self.words.drain(..) {
            self.rows[word as usize] = NONE;
        }
        self.rows.resize(vocabulary, NONE);
        self.places.clear();
        self.blocks = text.len().div_ceil(64);
        for (place, &word) in text.iter().enumerate() {
            let row = &mut self.rows[word as usize];
            if *row == NONE {
                *row = self.words.len() as u32;
                self.words.push(word);
                self.places.resize(self.places.len() + self.blocks, 0);
            }
            self.places[*row as usize * self.blocks + place / 64] |= 1 << (place % 64);
        }
    }

    /// The length of the longest common subsequence with `other`.
    pub(super) fn with(&mut self, other: &[u32]) -> usize {
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
        // Bits past the end of the text match nothing and stay 1.
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
        #[test]
        fn it_is_the_longest_common_subsequence(
            a in proptest::collection::vec(0u32..9, 0..200),
            others in proptest::collection::vec(proptest::collection::vec(0u32..9, 0..200), 1..4),
        ) {
            let mut lcs = Lcs::default();
            for b in &others {
                lcs.set(&a, 9);
                prop_assert_eq!(lcs.with(b), plain(&a, b));
                lcs.set(b, 9);
                prop_assert_eq!(lcs.with(&a), plain(&a, b));
            }
        }
    }
}
