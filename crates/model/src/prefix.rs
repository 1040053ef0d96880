//! Beginnings that rows have in common, computed once.
//!
//! Instruction data repeats itself: every row of Alpaca begins with one of two preambles, a chat
//! with its system prompt. A token's hidden state depends on what comes before it alone, so rows
//! that begin with the same tokens have the same states there. The sequence then holds each beginning
//! once, as a row that the others continue, and gradients of all of them meet in it.

use simmer_kernels::Rows;

use crate::sequence::Sequence;

/// Tokens from which on a common beginning becomes a row of its own. A shorter one saves less than
/// one more row costs attention.
const SHORTEST: usize = 12;

/// A sequence without repeated beginnings, and where the tokens of each row went.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The sequence, without dropout.
    pub sequence: Sequence,
    /// For each row, the place in the sequence of each of its tokens.
    pub places: Vec<Vec<u32>>,
}

impl Sequence {
    /// A sequence of rows that begin at position 0, each common beginning computed once.
    ///
    /// Without dropout: rows that share a beginning would share its masks.
    ///
    /// # Panics
    /// On a row without a token.
    pub fn sharing_prefixes(rows: &[&[u32]]) -> Shared {
        let mut tree = Tree {
            rows,
            tokens: Vec::new(),
            segments: Vec::new(),
            places: vec![Vec::new(); rows.len()],
        };
        let all: Vec<usize> = (0..rows.len()).collect();
        tree.grow(&all, 0, None);
        Shared {
            sequence: Self {
                tokens: tree.tokens,
                rows: Rows::from_tree(tree.segments),
                dropout_keys: None,
            },
            places: tree.places,
        }
    }
}

struct Tree<'a> {
    rows: &'a [&'a [u32]],
    tokens: Vec<u32>,
    /// Length of each branch, and the one that it continues.
    segments: Vec<(usize, Option<usize>)>,
    places: Vec<Vec<u32>>,
}

impl Tree<'_> {
    /// Adds what rows that agree up to `start` have from there on, after branch `parent`.
    fn grow(&mut self, rows: &[usize], start: usize, parent: Option<usize>) {
        let end = self.agree_up_to(rows, start);
        if let [row] = rows {
            self.push(&[*row], start..end, parent);
            return;
        }
        let mut from = start;
        let mut parent = parent;
        if end - start >= SHORTEST {
            parent = self.push(rows, start..end, parent);
            from = end;
        }
        for group in self.by_token(rows, end) {
            let ended = self.rows[group[0]].len() == end;
            if !ended {
                self.grow(&group, from, parent);
            } else if from < end {
                // equal rows that are too short to be a common beginning
                for row in group {
                    self.push(&[row], from..end, parent);
                }
            }
        }
    }

    /// Where rows that agree up to `start` first differ or one ends.
    fn agree_up_to(&self, rows: &[usize], start: usize) -> usize {
        let first = self.rows[rows[0]];
        rows.iter().fold(first.len(), |end, row| {
            let row = self.rows[*row];
            let pairs = first[start..end].iter().zip(&row[start..]);
            start + pairs.take_while(|(a, b)| a == b).count()
        })
    }

    /// Rows by their token at a place, in the order of the first of each; those that end there
    /// together.
    fn by_token(&self, rows: &[usize], place: usize) -> Vec<Vec<usize>> {
        let mut groups: Vec<(Option<u32>, Vec<usize>)> = Vec::new();
        for row in rows {
            let token = self.rows[*row].get(place).copied();
            match groups.iter_mut().find(|(of, _)| *of == token) {
                Some((_, group)) => group.push(*row),
                None => groups.push((token, vec![*row])),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// Adds tokens that rows have in common; the new branch, or `parent` where there are none.
    fn push(
        &mut self,
        rows: &[usize],
        tokens: std::ops::Range<usize>,
        parent: Option<usize>,
    ) -> Option<usize> {
        if tokens.is_empty() {
            return parent;
        }
        let first = self.tokens.len() as u32;
        self.tokens.extend(&self.rows[rows[0]][tokens.clone()]);
        for row in rows {
            let places = first..first + tokens.len() as u32;
            self.places[*row].extend(places);
        }
        self.segments.push((tokens.len(), parent));
        Some(self.segments.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(parts: &[(u32, usize)]) -> Vec<u32> {
        let parts = parts.iter();
        parts
            .flat_map(|(token, count)| std::iter::repeat_n(*token, *count))
            .collect()
    }

    #[test]
    fn a_beginning_is_there_once() {
        let rows = [
            row(&[(1, 20), (2, 3)]),
            row(&[(1, 20), (3, 4)]),
            row(&[(5, 2)]),
        ];
        let slices: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let shared = Sequence::sharing_prefixes(&slices);
        assert_eq!(shared.sequence.len(), 20 + 3 + 4 + 2);
        let expected = Rows::from_tree([(20, None), (3, Some(0)), (4, Some(0)), (2, None)]);
        assert_eq!(shared.sequence.rows, expected);
    }

    #[test]
    fn a_short_beginning_splits_into_longer_ones() {
        // as Alpaca's two preambles: a few tokens in common, then two long beginnings
        let rows = [
            row(&[(1, 8), (2, 20), (7, 2)]),
            row(&[(1, 8), (3, 20), (8, 2)]),
            row(&[(1, 8), (2, 20), (9, 2)]),
            row(&[(1, 8), (3, 20)]),
        ];
        let slices: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let shared = Sequence::sharing_prefixes(&slices);
        assert_eq!(shared.sequence.len(), 28 + 2 + 2 + 28 + 2);
    }

    proptest! {
        #[test]
        fn every_token_has_its_place(
            rows in prop::collection::vec(prop::collection::vec((0_u32..3, 1_usize..20), 1..4), 1..9),
        ) {
            let rows: Vec<Vec<u32>> = rows.iter().map(|parts| row(parts)).collect();
            let slices: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            let shared = Sequence::sharing_prefixes(&slices);
            let positions = shared.sequence.rows.positions();
            prop_assert!(shared.sequence.len() <= slices.iter().map(|row| row.len()).sum());
            for (row, places) in rows.iter().zip(&shared.places) {
                prop_assert_eq!(row.len(), places.len());
                for (position, (token, place)) in row.iter().zip(places).enumerate() {
                    prop_assert_eq!(*token, shared.sequence.tokens[*place as usize]);
                    prop_assert_eq!(position as u32, positions[*place as usize]);
                }
                // the last token sees the places of the row, all of them, in order
                let last = places[places.len() - 1] as usize;
                let segment = shared.sequence.rows.iter().find(|row| row.queries.contains(&last));
                let segment = segment.unwrap();
                let unseen = segment.queries.end - 1 - last;
                let keys: Vec<u32> = segment.keys.iter().cloned().flatten().map(|key| key as u32).collect();
                prop_assert_eq!(&keys[..keys.len() - unseen], &places[..]);
            }
        }
    }
}
