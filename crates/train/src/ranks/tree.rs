//! The order in which the micro-batches of a step are added: a binary tree over their numbers.
//!
//! A block of level l holds the micro-batches `index·2^l` to `(index + 1)·2^l`, as far as there are so many. It is the sum of its two
//! halves, or its first half if the second is beyond the last micro-batch. The tree does not depend on who computes which
//! micro-batch, so neither does any bit of the sum. Whoever adds micro-batches in their order holds one block for each
//! level at most.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Ranks, RanksError};

/// The order of a sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// One after another, as before there were ranks: of full fine-tuning, and of runs that began so.
    #[default]
    Sequential,
    /// By the tree.
    Tree,
}

/// A block of micro-batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    level: u32,
    index: usize,
}

/// The sums of blocks that cannot be added yet.
#[derive(Debug)]
pub(crate) struct TreeSum<T> {
    leaves: usize,
    order: Order,
    blocks: Vec<(Block, T)>,
}

impl<T> TreeSum<T> {
    /// For a step of so many micro-batches.
    pub(crate) fn new(order: Order, leaves: usize) -> Self {
        Self {
            leaves,
            order,
            blocks: Vec::new(),
        }
    }

    /// Adds a micro-batch; those of a rank come in their order.
    pub(crate) fn push(&mut self, leaf: usize, value: T, mut plus: impl FnMut(T, T) -> T) {
        let level = 0;
        if self.order == Order::Sequential
            && let Some((block, sum)) = self.blocks.pop()
        {
            self.blocks.push((block, plus(sum, value)));
            return;
        }
        self.blocks.push((Block { level, index: leaf }, value));
        self.settle(&mut plus);
    }

    /// Adds blocks that are halves of one.
    fn settle(&mut self, plus: &mut impl FnMut(T, T) -> T) {
        while let Some((last, _)) = self.blocks.last() {
            let Block { level, index } = *last;
            let up = last.above();
            if index == 0 && (1_usize << level) >= self.leaves {
                break;
            }
            let halves = index % 2 == 1 && {
                let before = self.blocks.len().checked_sub(2).map(|at| self.blocks[at].0);
                before
                    == Some(Block {
                        level,
                        index: index - 1,
                    })
            };
            let has_no_other = index % 2 == 0 && (index + 1) << level >= self.leaves;
            if halves
                && let (Some((_, other)), Some((_, one))) = (self.blocks.pop(), self.blocks.pop())
            {
                self.blocks.push((up, plus(one, other)));
            } else if has_no_other && let Some((_, value)) = self.blocks.pop() {
                self.blocks.push((up, value));
            } else {
                break;
            }
        }
    }

    /// The same sums in another form.
    pub(crate) fn map<U>(self, mut into: impl FnMut(T) -> U) -> TreeSum<U> {
        let blocks = self.blocks.into_iter();
        TreeSum {
            leaves: self.leaves,
            order: self.order,
            blocks: blocks.map(|(block, value)| (block, into(value))).collect(),
        }
    }

    /// The sum of the micro-batches that this has; `None` if it has none.
    pub(crate) fn of_own(self, mut plus: impl FnMut(T, T) -> T) -> Option<T> {
        let values = self.blocks.into_iter().map(|(_, value)| value);
        values.reduce(&mut plus)
    }

    /// The sum of all micro-batches, if this has all of them.
    pub(crate) fn total(mut self) -> Option<T> {
        self.blocks.pop().map(|(_, value)| value)
    }
}

/// The most sums that one rank holds while it computes a micro-batch, in a step of so many.
pub(crate) fn most_held(leaves: usize) -> usize {
    let levels = usize::BITS - leaves.saturating_sub(1).leading_zeros();
    levels.max(1) as usize
}

/// Adds up the sums of all ranks, `own` among them, in the order of the tree. Rank 0 gets the result; the others get `None`.
///
/// `shares` are the micro-batches of each rank. `encode` and `decode` turn a sum into bytes and back.
///
/// # Errors
/// If a rank has ended.
pub(crate) fn exchange<T>(
    ranks: &dyn Ranks,
    shares: &[Range<usize>],
    own: TreeSum<T>,
    mut plus: impl FnMut(T, T) -> T,
    encode: impl Fn(T) -> Vec<u8>,
    mut decode: impl FnMut(Vec<u8>, usize) -> Result<T, RanksError>,
) -> Result<Option<T>, RanksError> {
    let me = ranks.rank();
    let leaves = own.leaves;
    let mut mine = own.blocks.into_iter();
    // every rank walks through the same additions, and takes part in its own
    let own = |rank| {
        let of_mine = if rank == me { mine.next() } else { None };
        of_mine.map(|(_, value)| value)
    };
    let total = additions(leaves, shares, own, |one: Held<Option<T>>, other| {
        Ok(match (one.rank == me, other.rank == me) {
            (true, true) => one
                .value
                .zip(other.value)
                .map(|(one, other)| plus(one, other)),
            (true, false) => {
                let other = decode(ranks.receive(other.rank)?, other.rank)?;
                one.value.map(|one| plus(one, other))
            }
            (false, true) => {
                if let Some(value) = other.value {
                    ranks.send(one.rank, encode(value))?;
                }
                None
            }
            (false, false) => None,
        })
    })?;
    Ok(total.and_then(|held| held.value))
}

/// Walks through the additions of sums of all ranks, level by level. `own` gives the sums of a rank, one after another;
/// `plus` adds a sum and the next one, and the first one's rank holds the result.
///
/// All ranks walk in one order, so that no two wait for each other. Where neighbours share a block, those with an even first
/// rank come before the others: a rank with a neighbour on each side would else make a chain of all ranks.
///
/// # Errors
/// Those of `plus`.
pub(crate) fn additions<V, E>(
    leaves: usize,
    shares: &[Range<usize>],
    mut own: impl FnMut(usize) -> V,
    mut plus: impl FnMut(Held<V>, Held<V>) -> Result<V, E>,
) -> Result<Option<Held<V>>, E> {
    let mut waiting: BTreeMap<Block, Held<V>> = BTreeMap::new();
    for (rank, share) in shares.iter().enumerate() {
        let mut blocks = TreeSum::new(Order::Tree, leaves);
        for leaf in share.clone() {
            blocks.push(leaf, (), |(), ()| ());
        }
        for (block, ()) in blocks.blocks {
            let value = own(rank);
            waiting.insert(block, Held { rank, value });
        }
    }
    while waiting.len() > 1 {
        let level = waiting.keys().next().map_or(0, |block| block.level);
        let above = waiting.split_off(&Block {
            level: level + 1,
            index: 0,
        });
        let mut whole = above;
        let mut pairs = Vec::new();
        let mut halves = std::mem::take(&mut waiting).into_iter();
        while let Some((block, one)) = halves.next() {
            // the last one may have no other half
            match halves.next() {
                Some((_, other)) => pairs.push((block.above(), one, other)),
                None => {
                    whole.insert(block.above(), one);
                }
            }
        }
        pairs.sort_by_key(|(_, one, _)| one.rank % 2);
        for (block, one, other) in pairs {
            let rank = one.rank;
            let value = plus(one, other)?;
            whole.insert(block, Held { rank, value });
        }
        waiting = whole;
    }
    Ok(waiting.into_values().next())
}

impl Block {
    /// The block that it is a half of.
    fn above(self) -> Self {
        Self {
            level: self.level + 1,
            index: self.index / 2,
        }
    }
}

/// A sum, or what stands for it, and the rank that holds it.
#[derive(Debug)]
pub(crate) struct Held<V> {
    pub(crate) rank: usize,
    pub(crate) value: V,
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::ranks::{Threads, deal};

    /// The sum by the definition.
    fn by_definition(leaves: &[String], level: u32, index: usize) -> String {
        if level == 0 {
            return leaves[index].clone();
        }
        let first = by_definition(leaves, level - 1, 2 * index);
        if (2 * index + 1) << (level - 1) >= leaves.len() {
            return first;
        }
        let second = by_definition(leaves, level - 1, 2 * index + 1);
        format!("({first}+{second})")
    }

    fn plus(one: String, other: String) -> String {
        format!("({one}+{other})")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However many ranks there are, and whoever has which micro-batch.
        #[test]
        fn every_number_of_ranks_adds_in_the_same_order(
            tokens in prop::collection::vec(1..9_usize, 1..20),
            ranks in 1..9_usize,
        ) {
            let leaves: Vec<String> = (0..tokens.len()).map(|leaf| leaf.to_string()).collect();
            let levels = (0..9).find(|level| 1_usize << level >= leaves.len()).unwrap();
            let expected = by_definition(&leaves, levels, 0);
            let shares = deal(&tokens, ranks);
            let results: Vec<Option<String>> = thread::scope(|scope| {
                let running: Vec<_> = Threads::of(ranks)
                    .into_iter()
                    .map(|rank| {
                        let (shares, leaves) = (&shares, &leaves);
                        scope.spawn(move || {
                            let mut own = TreeSum::new(Order::Tree, leaves.len());
                            let mut most = 0;
                            for leaf in shares[rank.rank()].clone() {
                                most = most.max(own.blocks.len());
                                own.push(leaf, leaves[leaf].clone(), plus);
                            }
                            assert!(most <= most_held(leaves.len()) * ranks.min(2));
                            let decode = |bytes, _| Ok(String::from_utf8(bytes).unwrap());
                            exchange(&rank, shares, own, plus, String::into_bytes, decode).unwrap()
                        })
                    })
                    .collect();
                running.into_iter().map(|rank| rank.join().unwrap()).collect()
            });
            prop_assert_eq!(results[0].as_ref(), Some(&expected));
            prop_assert!(results[1..].iter().all(Option::is_none));
        }
    }

    #[test]
    fn runs_that_began_before_add_one_after_another() {
        let mut sum = TreeSum::new(Order::Sequential, 5);
        for leaf in 0..5 {
            sum.push(leaf, leaf.to_string(), plus);
        }
        assert_eq!(sum.total().as_deref(), Some("((((0+1)+2)+3)+4)"));
    }
}
