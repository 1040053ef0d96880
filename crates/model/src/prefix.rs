//! Prefixes that several rows share, computed once.
//!
//! Rows of instruction data share text: every row of Alpaca starts with one of two preambles, and a
//! chat starts with its system prompt. A token's hidden state depends only on the tokens before it, so
//! rows that start with the same tokens have the same hidden states there. The packed sequence holds
//! such a prefix once, as a row that the other rows continue; their gradients add up in it.

use simmer_kernels::{Capabilities, Rows};

use crate::llama::LlamaForCausalLM;
use crate::sequence::Sequence;

/// Length in tokens from which a shared prefix becomes a row of its own. A shorter prefix saves less
/// than the additional row costs in attention.
pub(crate) const SHORTEST: usize = 12;
/// The same where rows are only scored on a processor: nothing but products costs time there, and each token saved saves some.
const SHORTEST_SCORED: usize = 2;

/// A packed sequence that holds each shared prefix once.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The packed sequence, without dropout.
    pub sequence: Sequence,
    /// For each row, the index in the packed sequence of each of its tokens.
    pub places: Vec<Vec<u32>>,
}

/// When rows share prefixes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sharing {
    /// The length in tokens up to which rows can; `None` for every length.
    pub up_to: Option<usize>,
    /// The fraction of the tokens that it must save, as
    /// [`Capabilities::shares_from`](simmer_kernels::Capabilities::shares_from).
    pub from: f64,
}

impl Sharing {
    /// Packs rows as [`Sequence::sharing_prefixes`] does, or one after another if that saves too few tokens.
    ///
    /// # Panics
    /// If a row is empty.
    pub fn packed(self, rows: &[&[u32]]) -> Shared {
        let shared = Sequence::sharing_prefixes(rows, self.up_to);
        let total: usize = rows.iter().map(|row| row.len()).sum();
        let saved = total - shared.sequence.len();
        if saved == 0 || saved as f64 >= self.from * total as f64 {
            return shared;
        }
        let mut next = 0;
        let places = rows.iter().map(|row| {
            let first = next;
            next += row.len() as u32;
            (first..next).collect()
        });
        Shared {
            places: places.collect(),
            sequence: Sequence::from_rows(rows),
        }
    }
}

impl Sequence {
    /// Packs rows that start at position 0, each shared prefix once.
    ///
    /// Without dropout: rows that share a prefix would share its dropout masks. Rows longer than `up_to`
    /// tokens, if it is given, share nothing: the model's rotary frequencies depend on their length
    /// ([`ModelConfig::same_frequencies_up_to`](simmer_checkpoint::config::ModelConfig::same_frequencies_up_to)).
    ///
    /// # Panics
    /// If a row is empty.
    pub fn sharing_prefixes(rows: &[&[u32]], up_to: Option<usize>) -> Shared {
        Self::sharing_prefixes_from(SHORTEST, rows, up_to)
    }

    fn sharing_prefixes_from(shortest: usize, rows: &[&[u32]], up_to: Option<usize>) -> Shared {
        let mut tree = Tree {
            shortest: shortest.max(1),
            rows,
            tokens: Vec::new(),
            segments: Vec::new(),
            places: vec![Vec::new(); rows.len()],
        };
        let (sharing, alone): (Vec<usize>, Vec<usize>) =
            (0..rows.len()).partition(|row| up_to.is_none_or(|most| rows[*row].len() <= most));
        if !sharing.is_empty() {
            tree.grow(&sharing, 0, None);
        }
        for row in alone {
            tree.push(&[row], 0..rows[row].len(), None);
        }
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

impl LlamaForCausalLM {
    /// Packs rows whose tokens are scored, each shared prefix once.
    ///
    /// # Panics
    /// If a row is empty.
    pub fn packed_for_scores(&self, rows: &[&[u32]]) -> Shared {
        let shortest = if Capabilities::of(&self.device()).reads_in_place {
            SHORTEST_SCORED
        } else {
            SHORTEST
        };
        Sequence::sharing_prefixes_from(shortest, rows, self.config().same_frequencies_up_to())
    }
}

/// The prefix tree (trie) of the rows.
struct Tree<'a> {
    /// Length from which a prefix is shared.
    shortest: usize,
    rows: &'a [&'a [u32]],
    tokens: Vec<u32>,
    /// Length of each segment, and the segment that it continues.
    segments: Vec<(usize, Option<usize>)>,
    places: Vec<Vec<u32>>,
}

impl Tree<'_> {
    /// Adds the tokens from `start` on of rows that agree up to `start`; they continue segment `parent`.
    fn grow(&mut self, rows: &[usize], start: usize, parent: Option<usize>) {
        let end = self.agree_up_to(rows, start);
        if let [row] = rows {
            self.push(&[*row], start..end, parent);
            return;
        }
        let mut from = start;
        let mut parent = parent;
        if end - start >= self.shortest {
            parent = self.push(rows, start..end, parent);
            from = end;
        }
        for group in self.by_token(rows, end) {
            let ended = self.rows[group[0]].len() == end;
            if !ended {
                self.grow(&group, from, parent);
            } else if from < end {
                // equal rows, too short to share a prefix
                for row in group {
                    self.push(&[row], from..end, parent);
                }
            }
        }
    }

    /// Where rows that agree up to `start` first differ, or one of them ends.
    fn agree_up_to(&self, rows: &[usize], start: usize) -> usize {
        let first = self.rows[rows[0]];
        rows.iter().fold(first.len(), |end, row| {
            let row = self.rows[*row];
            let pairs = first[start..end].iter().zip(&row[start..]);
            start + pairs.take_while(|(a, b)| a == b).count()
        })
    }

    /// Groups rows by their token at `place`, in the order of each group's first row. Rows that end
    /// there form one group.
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

    /// Appends a segment that the rows share, and returns its index; returns `parent` if it has no tokens.
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
    fn a_shared_prefix_is_packed_once() {
        let rows = [
            row(&[(1, 20), (2, 3)]),
            row(&[(1, 20), (3, 4)]),
            row(&[(5, 2)]),
        ];
        let slices: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let shared = Sequence::sharing_prefixes(&slices, None);
        assert_eq!(shared.sequence.len(), 20 + 3 + 4 + 2);
        let expected = Rows::from_tree([(20, None), (3, Some(0)), (4, Some(0)), (2, None)]);
        assert_eq!(shared.sequence.rows, expected);
    }

    #[test]
    fn prefixes_that_save_too_little_are_not_shared() {
        let rows = [row(&[(1, 20), (2, 30)]), row(&[(1, 20), (3, 30)])];
        let slices: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let packed = |from| Sharing { up_to: None, from }.packed(&slices);
        for from in [0.0, 0.2] {
            assert_eq!(packed(from).sequence.len(), 80);
        }
        let apart = packed(0.21);
        assert_eq!(apart.sequence.rows, Rows::from_lengths([50, 50]));
        assert_eq!(apart.sequence.tokens, rows.concat());
        assert_eq!(apart.places[1], (50..100).collect::<Vec<u32>>());
    }

    #[test]
    fn rows_with_other_frequencies_share_nothing() {
        let rows = [
            row(&[(1, 20), (2, 3)]),
            row(&[(1, 20), (3, 4)]),
            row(&[(1, 20), (4, 2)]),
        ];
        let slices: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let shared = Sequence::sharing_prefixes(&slices, Some(23));
        let expected = Rows::from_tree([(20, None), (3, Some(0)), (2, Some(0)), (24, None)]);
        assert_eq!(shared.sequence.rows, expected);
        assert_eq!(shared.places[1], (25..49).collect::<Vec<u32>>());
        let shared = Sequence::sharing_prefixes(&slices, Some(1));
        assert_eq!(shared.sequence.rows, Rows::from_lengths([23, 24, 22]));
    }

    #[test]
    fn a_short_prefix_splits_into_longer_ones() {
        // like Alpaca's two preambles: a few tokens in common, then two long prefixes
        let rows = [
            row(&[(1, 8), (2, 20), (7, 2)]),
            row(&[(1, 8), (3, 20), (8, 2)]),
            row(&[(1, 8), (2, 20), (9, 2)]),
            row(&[(1, 8), (3, 20)]),
        ];
        let slices: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let shared = Sequence::sharing_prefixes(&slices, None);
        assert_eq!(shared.sequence.len(), 28 + 2 + 2 + 28 + 2);
    }

    proptest! {
        #[test]
        fn every_token_has_its_place(
            rows in prop::collection::vec(prop::collection::vec((0_u32..3, 1_usize..20), 1..4), 1..9),
            shortest in 1_usize..14,
        ) {
            let rows: Vec<Vec<u32>> = rows.iter().map(|parts| row(parts)).collect();
            let slices: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            let shared = Sequence::sharing_prefixes_from(shortest, &slices, None);
            let positions = shared.sequence.rows.positions();
            prop_assert!(shared.sequence.len() <= slices.iter().map(|row| row.len()).sum());
            for (row, places) in rows.iter().zip(&shared.places) {
                prop_assert_eq!(row.len(), places.len());
                for (position, (token, place)) in row.iter().zip(places).enumerate() {
                    prop_assert_eq!(*token, shared.sequence.tokens[*place as usize]);
                    prop_assert_eq!(position as u32, positions[*place as usize]);
                }
                // the last token sees all tokens of its row, in order
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
