//! Batched generation: each step reads the weights once for all texts.
//!
//! The cache holds a prefix that several prompts share once, and keeps it for the next batch ([`KeptPrefix`]). Each text
//! writes its new tokens to its own pages, so that it always sees a few contiguous ranges of the cache.
//!
//! Axes: B texts that are still generating, H hidden size, V vocabulary.

use std::ops::{ControlFlow, Range};

use rayon::prelude::*;
use simmer_kernels::{NewestToken, Rows};

use crate::cache::KvCache;
use crate::generate::{GenerateError, Generated, Stop, log_softmax_at, values};
use crate::llama::LlamaForCausalLM;
use crate::prefix::SHORTEST;
use crate::sampler::{Sampler, Sampling};
use crate::sequence::{Sequence, ids};
use crate::steps::Steps;

/// Tokens per page.
const PAGE: usize = 64;

/// A text to continue.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    /// Its tokens.
    pub tokens: &'a [u32],
    /// How its tokens are chosen.
    pub sampling: &'a Sampling,
}

/// The tokens that all prompts of a batch begin with, and their keys and values. The next batch does not compute them again if
/// its prompts begin with them, too, such as with the worked examples of a task.
#[derive(Debug, Default)]
pub struct KeptPrefix {
    tokens: Vec<u32>,
    cache: KvCache,
}

impl KeptPrefix {
    /// Nothing yet, in a cache as [`KvCache::with_steps`] makes it.
    pub fn with_steps(in_steps: bool) -> Self {
        Self {
            tokens: Vec::new(),
            cache: KvCache::with_steps(in_steps),
        }
    }

    /// Leaves what all rows begin with, except the last token of a row. Returns its number of tokens.
    fn leave(&mut self, rows: &[&[u32]]) -> usize {
        let common = rows.iter().map(|row| {
            let before = &row[..row.len() - 1];
            let pairs = self.tokens.iter().zip(before);
            pairs.take_while(|(a, b)| a == b).count()
        });
        let common = common.min().unwrap_or(0);
        self.cut(if common < SHORTEST { 0 } else { common })
    }

    /// Keeps what all rows begin with: the first tokens of the cache are those of the first row.
    fn keep(&mut self, rows: &[&[u32]]) {
        let first = rows[0];
        let common = rows.iter().fold(first.len(), |end, row| {
            let pairs = first[..end].iter().zip(*row);
            pairs.take_while(|(a, b)| a == b).count()
        });
        self.tokens = first[..common].to_vec();
        self.cut(common);
    }

    fn cut(&mut self, length: usize) -> usize {
        self.tokens.truncate(length);
        self.cache.cut(length);
        length
    }
}

/// One text of a batch.
struct Text {
    tokens: Vec<u32>,
    /// Where its keys are in the cache, in order of position.
    keys: Vec<Range<usize>>,
    /// The free part of its last page.
    page: Range<usize>,
    sampler: Sampler,
    generated: Generated,
    ended: bool,
}

impl LlamaForCausalLM {
    /// Continues each prompt until an end-of-sequence token, `max_new_tokens` new tokens, a full context, or
    /// `on_token` breaks. `on_token` gets the index of the prompt and the new token.
    ///
    /// # Errors
    /// If a prompt is empty, longer than the context, or has tokens outside the vocabulary.
    pub fn generate_batch(
        &self,
        prompts: &[Prompt<'_>],
        max_new_tokens: usize,
        eos: &[u32],
        on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>, GenerateError> {
        let mut kept = KeptPrefix::default();
        self.generate_batch_after(&mut kept, prompts, max_new_tokens, eos, on_token)
    }

    /// As [`LlamaForCausalLM::generate_batch`], after other batches of the same model, whose common prefix is `kept`.
    ///
    /// # Errors
    /// As [`LlamaForCausalLM::generate_batch`].
    pub fn generate_batch_after(
        &self,
        kept: &mut KeptPrefix,
        prompts: &[Prompt<'_>],
        max_new_tokens: usize,
        eos: &[u32],
        on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>, GenerateError> {
        for prompt in prompts {
            self.check_tokens(prompt.tokens)?;
        }
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        if self.changes_frequencies(prompts, max_new_tokens) {
            kept.cut(0);
            return self.generate_each(&mut kept.cache, prompts, max_new_tokens, eos, on_token);
        }
        let (mut texts, mut logits) = self.prefill(prompts, kept);
        let mut seats = Steps::are_for(self, &kept.cache).then(|| Seats::new(&mut kept.cache));
        for left in (0..max_new_tokens).rev() {
            self.choose(&mut texts, &logits, eos, on_token);
            if left == 0 || texts.iter().all(|text| text.ended) {
                break;
            }
            let mut end = kept.cache.len();
            let growing = texts.iter_mut().filter(|text| !text.ended);
            let places = growing.map(|text| text.place(&mut end)).collect();
            let in_steps = seats
                .as_mut()
                .and_then(|seats| seats.grow(self, &texts, end, &mut kept.cache));
            logits = match in_steps {
                Some(logits) => logits,
                None => self.grow(&texts, places, end, &mut kept.cache),
            };
        }
        if self.shares(prompts) {
            let rows: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens).collect();
            kept.keep(&rows);
        } else {
            kept.cut(0);
        }
        Ok(texts.into_iter().map(|text| text.generated).collect())
    }

    /// Whether a text may grow beyond the length at which the model's rotary frequencies change; all its
    /// keys are then computed again.
    fn changes_frequencies(&self, prompts: &[Prompt<'_>], max_new_tokens: usize) -> bool {
        let most = self.config().same_frequencies_up_to();
        most.is_some_and(|most| {
            let mut lengths = prompts.iter().map(|prompt| prompt.tokens.len());
            lengths.any(|length| length <= most && length.saturating_add(max_new_tokens) > most)
        })
    }

    /// Whether the keys of a prefix are the same in all prompts.
    fn shares(&self, prompts: &[Prompt<'_>]) -> bool {
        let most = self.config().same_frequencies_up_to();
        most.is_none_or(|most| prompts.iter().all(|prompt| prompt.tokens.len() <= most))
    }

    /// As [`LlamaForCausalLM::generate_batch`], one prompt after another.
    fn generate_each(
        &self,
        cache: &mut KvCache,
        prompts: &[Prompt<'_>],
        max_new_tokens: usize,
        eos: &[u32],
        on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>, GenerateError> {
        let one = |(number, prompt): (usize, &Prompt<'_>)| {
            cache.empty();
            let sampling = prompt.sampling;
            let mut on_token = |token| on_token(number, token);
            let tokens = prompt.tokens;
            self.generate(tokens, cache, max_new_tokens, eos, sampling, &mut on_token)
        };
        prompts.iter().enumerate().map(one).collect()
    }

    /// Computes the prompts; returns the texts and the logits of their next tokens, `[B, V]`.
    fn prefill(&self, prompts: &[Prompt<'_>], kept: &mut KeptPrefix) -> (Vec<Text>, Vec<f32>) {
        let mut rows: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens).collect();
        let seen = if self.shares(prompts) {
            kept.leave(&rows)
        } else {
            kept.cut(0)
        };
        for row in &mut rows {
            *row = &row[seen..];
        }
        let shared = Sequence::sharing_prefixes(&rows, self.config().same_frequencies_up_to());
        let sequence = shared.sequence.after(seen);
        // equal prompts have the same last place
        let last = shared.places.iter().filter_map(|places| places.last());
        let last: Vec<u32> = last.copied().collect();
        let mut places = last.clone();
        places.sort_unstable();
        places.dedup();
        let hidden = self.hidden_at(&sequence, Some(&mut kept.cache), &places);
        let rows = last
            .iter()
            .map(|last| places.partition_point(|place| place < last));
        let rows = rows.map(|row| row as u32);
        let rows = ids(rows, &hidden.device());
        let hidden = hidden.select(0, rows); // [B, H]
        let texts = prompts.iter().zip(&shared.places);
        let texts = texts.map(|(prompt, places)| Text {
            tokens: prompt.tokens.to_vec(),
            keys: ranges(seen, places),
            page: 0..0,
            sampler: Sampler::new(prompt.sampling),
            generated: Generated {
                tokens: Vec::new(),
                log_probs: Vec::new(),
                stop: Stop::Length,
            },
            ended: false,
        });
        (texts.collect(), values(self.logits(hidden)))
    }

    /// Chooses the next token of every text that is still generating.
    ///
    /// # Shapes
    /// `logits`: `[B, V]`, of the same texts in order.
    fn choose(
        &self,
        texts: &mut [Text],
        logits: &[f32],
        eos: &[u32],
        on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) {
        let limit = self.config().max_position_embeddings;
        let growing = texts.iter_mut().enumerate().filter(|(_, text)| !text.ended);
        let growing: Vec<_> = growing
            .zip(logits.chunks(self.config().vocab_size))
            .collect();
        let chosen = growing.into_par_iter().map(|((number, text), logits)| {
            let token = text.sampler.next(logits, &text.tokens);
            (number, text, token, log_softmax_at(logits, token))
        });
        let chosen: Vec<_> = chosen.collect();
        for (number, text, token, log_prob) in chosen {
            if eos.contains(&token) {
                text.end(Stop::Eos(token));
                continue;
            }
            text.tokens.push(token);
            text.generated.tokens.push(token);
            text.generated.log_probs.push(log_prob);
            if on_token(number, token).is_break() {
                text.end(Stop::Caller);
            } else if text.tokens.len() >= limit {
                text.end(Stop::Context);
            }
        }
    }

    /// Computes the newest tokens of the texts that are still generating; returns the logits of the next ones, `[B, V]`.
    /// Their keys go to `places`, after which the cache has length `end`.
    fn grow(
        &self,
        texts: &[Text],
        places: Vec<usize>,
        end: usize,
        cache: &mut KvCache,
    ) -> Vec<f32> {
        let texts = texts.iter().filter(|text| !text.ended);
        let texts: Vec<&Text> = texts.collect();
        let seen = texts.iter().map(|text| (1, text.keys.clone()));
        let sequence = Sequence {
            tokens: texts
                .iter()
                .map(|text| text.tokens[text.tokens.len() - 1])
                .collect(),
            rows: Rows::seeing(seen, end),
            dropout_keys: None,
        };
        cache.place(places, end);
        values(self.logits(self.hidden(&sequence, Some(cache))))
    }
}

/// The rows of a batch's steps. Each step has the same rows, so that a text that has ended keeps its row for a while.
struct Seats<'a> {
    /// Which text each row is of.
    texts: Vec<usize>,
    steps: Option<Steps<'a>>,
    /// The place where rows of ended texts write.
    unused: Range<usize>,
}

impl<'a> Seats<'a> {
    fn new(cache: &mut KvCache) -> Self {
        let unused = cache.len()..cache.len() + 1;
        cache.reserve(unused.end);
        cache.reach(unused.end);
        Self {
            texts: Vec::new(),
            steps: None,
            unused,
        }
    }

    /// As [`LlamaForCausalLM::grow`]; `None` if the texts do not continue in steps.
    fn grow(
        &mut self,
        model: &'a LlamaForCausalLM,
        texts: &[Text],
        end: usize,
        cache: &mut KvCache,
    ) -> Option<Vec<f32>> {
        let growing = texts.iter().enumerate().filter(|(_, text)| !text.ended);
        let growing: Vec<usize> = growing.map(|(number, _)| number).collect();
        if growing.len() * 2 <= self.texts.len() || self.texts.is_empty() {
            self.texts = growing;
            self.steps = None;
        }
        let next = self.texts.iter().map(|number| match &texts[*number] {
            ended if ended.ended => NewestToken {
                token: 0,
                keys: std::slice::from_ref(&self.unused),
            },
            text => NewestToken {
                token: text.tokens[text.tokens.len() - 1],
                keys: &text.keys,
            },
        });
        let next: Vec<NewestToken<'_>> = next.collect();
        if !Steps::fit_or_new(&mut self.steps, model, cache, &next, end) {
            return None;
        }
        let logits = self.steps.as_mut()?.run(cache, &next, end);
        let rows = logits.chunks(model.config().vocab_size).zip(&self.texts);
        let rows = rows.filter(|(_, number)| !texts[**number].ended);
        Some(rows.flat_map(|(logits, _)| logits).copied().collect())
    }
}

impl Text {
    fn end(&mut self, stop: Stop) {
        self.generated.stop = stop;
        self.ended = true;
    }

    /// Where the newest token goes in the cache; opens a new page if the last one is full.
    fn place(&mut self, end: &mut usize) -> usize {
        if self.page.is_empty() {
            self.page = *end..*end + PAGE;
            self.keys.push(*end..*end);
            *end += PAGE;
        }
        let place = self.page.start;
        self.page.start += 1;
        if let Some(last) = self.keys.last_mut() {
            last.end = place + 1;
        }
        place
    }
}

/// The first `seen` places and those of ascending `places` after them, as contiguous ranges.
fn ranges(seen: usize, places: &[u32]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let places = places.iter().map(|place| seen + *place as usize);
    for place in (0..seen).chain(places) {
        match ranges.last_mut() {
            Some(last) if last.end == place => last.end += 1,
            _ => ranges.push(place..place + 1),
        }
    }
    ranges
}
