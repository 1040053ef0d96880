//! Texts that a model continues together, each of which may begin and end at any time.
//!
//! A step computes one token of every text that has its prompt in the cache, and a part of the prompts that have not, in one
//! forward pass. Keys are in pages of the cache. A text that begins like an earlier one, as the next message of a conversation
//! does, shares the pages of that beginning. If there are no more pages, the keys of texts that have ended are forgotten, the
//! oldest first; then the newest text gives up its own, and is computed again later.
//!
//! Source: Yu et al. 2022 (Orca), scheduling by iterations; Kwon et al. 2023 (PagedAttention), pages, shared beginnings, and
//! recomputation; Agrawal et al. 2023 (Sarathi), parts of prompts beside texts that are continued.
//!
//! Axes: B texts of a step, V vocabulary.

mod each;
mod grammar;
mod pages;
mod plan;
mod seats;
mod text;

use std::collections::VecDeque;

use rayon::prelude::*;
use simmer_kernels::Rows;

pub use self::each::Texts;
pub use self::grammar::Grammar;
pub use self::pages::PAGE;
use self::pages::{Keys, Pages};
use self::plan::Share;
use self::seats::Seats;
use self::text::Text;
use crate::cache::KvCache;
use crate::generate::{GenerateError, SCORE_CHUNK, Stop, values};
use crate::llama::LlamaForCausalLM;
use crate::prefix::SHORTEST;
use crate::sampler::Sampling;
use crate::sequence::Sequence;
use crate::steps::Steps;

/// The most tokens of prompts in a step, so that texts that are continued wait for no long prompt.
const PROMPT_TOKENS: usize = 512;

/// How many texts that have ended are remembered at most.
const REMEMBERED: usize = 256;

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TextId(u64);

/// A text to continue.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The tokens of its prompt.
    pub tokens: Vec<u32>,
    /// The most new tokens; at least 1, or 0 if only the prompt is scored.
    pub max_new_tokens: usize,
    /// How its tokens are chosen.
    pub sampling: Sampling,
    /// For how many of the most likely tokens at each place log-probabilities are told.
    pub top: usize,
    /// Whether the tokens of the prompt are scored, too.
    pub scores_prompt: bool,
}

/// What a step found for a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    /// The text.
    pub text: TextId,
    /// What is told once, before the first token.
    pub began: Option<Began>,
    /// Its new token; `None` if that is an EOS token, or if only the prompt is scored.
    pub chosen: Option<Chosen>,
    /// Why the text ends with it, if it does.
    pub stop: Option<Stop>,
    /// Why its grammar could not go on, if the text ends because of that.
    pub problem: Option<String>,
}

/// What became of a prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Began {
    /// How many of its first tokens were in the cache already.
    pub cached: usize,
    /// Its tokens after the first, if they are scored.
    pub scored: Vec<Chosen>,
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability, before temperature, top-k and top-p.
    pub log_prob: f32,
    /// The most likely tokens with theirs, the most likely first.
    pub top: Vec<(u32, f32)>,
}

/// A text that has ended, whose keys are still in the cache.
#[derive(Debug)]
struct Ended {
    tokens: Vec<u32>,
    keys: Keys,
}

/// The texts that a model continues together.
pub struct Running<'a> {
    model: &'a LlamaForCausalLM,
    eos: &'a [u32],
    /// The most tokens of a text.
    context: usize,
    cache: KvCache,
    pages: Pages,
    /// In the order in which they began.
    texts: Vec<Text>,
    ended: VecDeque<Ended>,
    seats: Option<Seats<'a>>,
    /// The number of the next text.
    next: u64,
}

/// A place of a step whose logits are wanted.
struct Wanted {
    place: u32,
    /// The text whose next token is scored there; `None` if the logits choose a token.
    scored: Option<usize>,
}

impl<'a> Running<'a> {
    /// No texts yet. A text ends at an EOS token, and with `context` tokens at the latest, but not beyond the model's context. The cache has
    /// room for `places` tokens, and at least for one text of that length; memory is taken as it is needed.
    pub fn new(model: &'a LlamaForCausalLM, eos: &'a [u32], context: usize, places: usize) -> Self {
        Self::in_cache(model, eos, context, places, KvCache::default())
    }

    fn in_cache(
        model: &'a LlamaForCausalLM,
        eos: &'a [u32],
        context: usize,
        places: usize,
        cache: KvCache,
    ) -> Self {
        let context = context.min(model.config().max_position_embeddings);
        Self {
            model,
            eos,
            context,
            cache,
            pages: Pages::new(places.max(least_places(context))),
            texts: Vec::new(),
            ended: VecDeque::new(),
            seats: None,
            next: 0,
        }
    }

    /// The most places of the cache of texts with up to `context` tokens, if `places` are asked for: its room doubles.
    pub fn most_places(context: usize, places: usize) -> usize {
        let pages = places.max(least_places(context)).div_ceil(PAGE);
        (pages * PAGE).next_power_of_two()
    }

    /// Whether there is no text to continue.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Number of texts that are continued.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Adds a text.
    ///
    /// # Errors
    /// If its prompt is empty, longer than the context, or has tokens outside the vocabulary.
    ///
    /// # Panics
    /// If it gets no token, and its prompt is not scored.
    pub fn begin(&mut self, asked: Asked) -> Result<TextId, GenerateError> {
        self.begin_within(asked, None)
    }

    /// Adds a text whose new tokens a grammar limits. It ends, as if the caller had stopped it, where nothing may follow.
    ///
    /// # Errors
    /// As [`Self::begin`].
    ///
    /// # Panics
    /// As [`Self::begin`].
    pub fn begin_within(
        &mut self,
        asked: Asked,
        grammar: Option<Box<dyn Grammar>>,
    ) -> Result<TextId, GenerateError> {
        assert!(
            asked.max_new_tokens > 0 || asked.scores_prompt,
            "a text gets at least one token"
        );
        self.model.check_tokens(&asked.tokens)?;
        if asked.tokens.len() > self.context {
            return Err(GenerateError::TooLong {
                found: asked.tokens.len(),
                limit: self.context,
            });
        }
        let id = TextId(self.next);
        self.next += 1;
        self.texts.push(Text::new(id, asked, grammar));
        Ok(id)
    }

    /// Ends a text before its time. Its keys stay for texts that begin like it.
    pub fn end(&mut self, id: TextId) {
        if let Some(place) = self.texts.iter().position(|text| text.id == id) {
            let text = self.texts.remove(place);
            self.remember(text);
        }
    }

    /// Computes a step. Returns the new tokens, at most one a text; there may be none while prompts are computed.
    pub fn step(&mut self) -> Vec<Next> {
        self.forget_short_frequencies();
        let shares = self.plan();
        if shares.is_empty() {
            return Vec::new();
        }
        let whole: Vec<usize> = shares
            .iter()
            .filter(|share| self.texts[share.text].pending() == share.count)
            .map(|share| share.text)
            .collect();
        let logits = self.compute(&shares);
        let limit = self.context;
        let rows = logits.chunks(self.model.config().vocab_size);
        let texts = self.texts.iter_mut().enumerate();
        let texts = texts.filter(|(text, _)| whole.binary_search(text).is_ok());
        let texts: Vec<_> = texts.map(|(_, text)| text).zip(rows).collect();
        let eos = self.eos;
        let texts = texts.into_par_iter();
        let chosen: Vec<Next> = texts
            .map(|(text, row)| text.choose(row, eos, limit))
            .collect();
        for next in chosen.iter().filter(|next| next.stop.is_some()) {
            self.end(next.text);
        }
        chosen
    }

    /// The logits of the texts whose tokens are then all computed, `[B, V]`, row after row.
    fn compute(&mut self, shares: &[Share]) -> Vec<f32> {
        let mut places = Vec::new();
        for share in shares {
            let text = &mut self.texts[share.text];
            places.extend(text.keys.grow(share.count, &mut self.pages));
        }
        if let Some(logits) = self.in_steps(shares) {
            return logits;
        }
        let end = self.pages.end().max(self.cache.len());
        let mut tokens = Vec::with_capacity(places.len());
        let mut wanted: Vec<Wanted> = Vec::new();
        for share in shares {
            let text = &self.texts[share.text];
            let computed = text.keys.len();
            for position in computed - share.count..computed {
                let place = tokens.len() as u32;
                tokens.push(text.tokens[position]);
                let is_scored = text.is_to_score(position + 1);
                if is_scored || position + 1 == text.tokens.len() {
                    wanted.push(Wanted {
                        place,
                        scored: is_scored.then_some(share.text),
                    });
                }
            }
        }
        let rows = shares.iter().map(|share| {
            let ranges = self.texts[share.text].keys.ranges.clone();
            (share.count, ranges)
        });
        let sequence = Sequence {
            rows: Rows::seeing(rows, end),
            tokens,
            dropout_keys: None,
        };
        self.cache.place(places, end);
        self.logits(&sequence, &wanted)
    }

    /// Scores the tokens of prompts that are wanted; returns the logits of the other places, `[B, V]`, row after row.
    fn logits(&mut self, sequence: &Sequence, wanted: &[Wanted]) -> Vec<f32> {
        let mut places: Vec<u32> = wanted.iter().map(|wanted| wanted.place).collect();
        if places.is_empty() {
            // a forward pass returns something; nobody asks for it
            places.push(sequence.len() as u32 - 1);
        }
        let hidden = self
            .model
            .hidden_at(sequence, Some(&mut self.cache), &places); // [N, H]
        let mut next = Vec::new();
        for (chunk, wanted) in wanted.chunks(SCORE_CHUNK).enumerate() {
            let hidden = hidden.clone().narrow(0, chunk * SCORE_CHUNK, wanted.len());
            let logits = values(self.model.logits(hidden));
            for (wanted, row) in wanted
                .iter()
                .zip(logits.chunks(self.model.config().vocab_size))
            {
                match wanted.scored {
                    Some(text) => self.texts[text].score(row),
                    None => next.extend_from_slice(row),
                }
            }
        }
        next
    }

    /// The same in steps of fixed operations, where the device has them and no prompt is computed.
    fn in_steps(&mut self, shares: &[Share]) -> Option<Vec<f32>> {
        let decodes = |share: &Share| {
            let text = &self.texts[share.text];
            share.count == 1 && text.pending() == 0 && text.keys.len() > 1
        };
        if !Steps::are_for(self.model, &self.cache)
            || self.cache.is_empty()
            || !shares.iter().all(decodes)
        {
            return None;
        }
        let texts: Vec<&Text> = shares.iter().map(|share| &self.texts[share.text]).collect();
        if self.seats.is_none() {
            let page = self.pages.take()?;
            self.seats = Some(Seats::new(page * PAGE));
        }
        let end = self.pages.end();
        let seats = self.seats.as_mut()?;
        seats.run(self.model, &texts, end, &mut self.cache)
    }

    fn remember(&mut self, text: Text) {
        let Text {
            tokens, mut keys, ..
        } = text;
        if keys.len() < SHORTEST {
            self.pages.release(&mut keys);
            return;
        }
        self.ended.push_back(Ended { tokens, keys });
        if self.ended.len() > REMEMBERED
            && let Some(mut oldest) = self.ended.pop_front()
        {
            self.pages.release(&mut oldest.keys);
        }
    }
}

/// The places that a text needs: also of a page that is shared in part, and of one where steps of fixed rows write for rows without a
/// text.
fn least_places(context: usize) -> usize {
    context + 3 * PAGE
}

#[cfg(test)]
mod tests;
