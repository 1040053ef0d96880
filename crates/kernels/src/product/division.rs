//! The division of a matrix multiplication into tasks.
//!
//! A task takes some output features and some tokens. It packs its part of the weight, which then stays in its cache, and
//! reads its tokens one block of rows after another.
//!
//! Axes: M tokens, N output features.

use std::ops::Range;

/// A multiplication as tasks.
pub(super) struct Division {
    m: usize,
    n: usize,
    /// Output features of a task, whole panels.
    features: usize,
    /// Tokens of a task.
    tokens: usize,
    /// Parts of the features.
    groups: usize,
    /// Parts of the tokens.
    blocks: usize,
}

impl Division {
    /// Divides `[M, N]` into panels of features, of which `fit` stay in a core's cache, and into at least as many tasks as
    /// there are threads, unless that leaves less than `rows` tokens.
    pub(super) fn new([m, n]: [usize; 2], panel: usize, fit: usize, rows: usize) -> Self {
        let panels = n.div_ceil(panel);
        let threads = rayon::current_num_threads();
        let groups = panels.div_ceil(fit).next_multiple_of(threads).min(panels);
        let features = panels.div_ceil(groups) * panel;
        let groups = n.div_ceil(features);
        let blocks = threads.div_ceil(groups).min(m.div_ceil(rows));
        Self {
            m,
            n,
            features,
            tokens: m.div_ceil(blocks),
            groups,
            blocks,
        }
    }

    /// The same with a multiple of `rows` tokens in each task but the last ones.
    pub(super) fn in_whole(mut self, rows: usize) -> Self {
        self.tokens = self.tokens.next_multiple_of(rows);
        self
    }

    /// Number of tasks.
    pub(super) fn count(&self) -> usize {
        self.groups * self.blocks
    }

    /// Tokens and features of a task, which no other task has.
    pub(super) fn part(&self, task: usize) -> [Range<usize>; 2] {
        let [block, group] = [task / self.groups, task % self.groups];
        let cut = |index: usize, length: usize, all: usize| {
            all.min(index * length)..all.min((index + 1) * length)
        };
        [
            cut(block, self.tokens, self.m),
            cut(group, self.features, self.n),
        ]
    }
}
