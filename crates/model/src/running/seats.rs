//! The rows of steps of fixed operations, and which text each is of.
//!
//! Axes: B rows, V vocabulary.

use std::ops::Range;

use simmer_kernels::NewestToken;

use super::TextId;
use super::text::Text;
use crate::cache::KvCache;
use crate::llama::LlamaForCausalLM;
use crate::steps::Steps;

/// The rows of steps. Their number stays for a while, so that a GPU records one graph for many texts.
pub(super) struct Seats<'a> {
    /// The text of each row, if it has one.
    rows: Vec<Option<TextId>>,
    steps: Option<Steps<'a>>,
    /// Where rows without a text write.
    unused: Range<usize>,
}

impl<'a> Seats<'a> {
    /// No rows yet; those without a text write to the place `unused`.
    pub(super) fn new(unused: usize) -> Self {
        Self {
            rows: Vec::new(),
            steps: None,
            unused: unused..unused + 1,
        }
    }

    /// The logits of the texts' newest tokens, `[B, V]`, row after row, in the order of `texts`. `None` if the texts cannot be continued
    /// in steps.
    pub(super) fn run(
        &mut self,
        model: &'a LlamaForCausalLM,
        texts: &[&Text],
        end: usize,
        cache: &mut KvCache,
    ) -> Option<Vec<f32>> {
        let changed = self.seat(texts);
        let find = |id: TextId| texts.iter().find(|text| text.id == id);
        let next = self.rows.iter().map(|row| match row.and_then(find) {
            None => NewestToken {
                token: 0,
                keys: std::slice::from_ref(&self.unused),
            },
            Some(text) => NewestToken {
                token: text.tokens[text.tokens.len() - 1],
                keys: &text.keys.ranges,
            },
        });
        let next: Vec<NewestToken<'_>> = next.collect();
        if !Steps::fit_or_new(&mut self.steps, model, cache, &next, end) {
            return None;
        }
        let steps = self.steps.as_mut()?;
        for row in changed {
            steps.replace(row, &next[row]);
        }
        let logits = steps.run(cache, &next, end);
        let vocabulary = model.config().vocab_size;
        let row_of = |text: &&Text| self.rows.iter().position(|row| *row == Some(text.id));
        let rows = texts.iter().filter_map(row_of);
        let rows = rows.flat_map(|row| &logits[row * vocabulary..(row + 1) * vocabulary]);
        Some(rows.copied().collect())
    }

    /// Gives each text a row. Returns the rows that have another text than in the last step.
    fn seat(&mut self, texts: &[&Text]) -> Vec<usize> {
        let is_there = |id: TextId| texts.iter().any(|text| text.id == id);
        for row in &mut self.rows {
            *row = row.filter(|id| is_there(*id));
        }
        let count = self.rows.len();
        if texts.len() > count || texts.len() * 4 <= count {
            self.rows = vec![None; texts.len().next_power_of_two()];
            self.steps = None;
        }
        let mut changed = Vec::new();
        for text in texts {
            if self.rows.contains(&Some(text.id)) {
                continue;
            }
            if let Some(row) = self.rows.iter().position(Option::is_none) {
                self.rows[row] = Some(text.id);
                changed.push(row);
            }
        }
        changed
    }
}
