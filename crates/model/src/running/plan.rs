//! What a step computes: which texts, and how many of their tokens.

use super::pages::Keys;
use super::text::Text;
use super::{PROMPT_TOKENS, Running};
use crate::llama::LlamaForCausalLM;
use crate::prefix::SHORTEST;

/// A part of a step: which text, and how many of its tokens are computed.
pub(super) struct Share {
    pub(super) text: usize,
    pub(super) count: usize,
}

impl Running<'_> {
    /// What the next step computes, in the order in which the texts began.
    pub(super) fn plan(&mut self) -> Vec<Share> {
        let waits: Vec<bool> = (0..self.texts.len())
            .map(|place| self.texts[place].keys.len() == 0 && !self.begin_like_others(place))
            .collect();
        let parts = self.parts_of_prompts(&waits);
        let mut shares: Vec<Share> = Vec::new();
        let mut pages = 0;
        for (place, part) in parts.into_iter().enumerate() {
            let text = &self.texts[place];
            let pending = text.pending();
            let count = match pending {
                _ if waits[place] => 0,
                1 => 1,
                _ if part > 0 && self.is_whole(text) => pending,
                _ => pending.min(part),
            };
            let needed = text.keys.pages_for(count);
            if count > 0 && self.make_room(pages + needed, place) {
                pages += needed;
                shares.push(Share { text: place, count });
            }
        }
        shares
    }

    /// How many tokens of each prompt a step computes: short ones are computed whole, and long ones share the rest, so that no prompt waits
    /// for all of a longer one.
    fn parts_of_prompts(&self, waits: &[bool]) -> Vec<usize> {
        let texts = self.texts.iter().enumerate();
        let prompts = texts.filter(|(place, text)| text.pending() > 1 && !waits[*place]);
        let mut prompts: Vec<(usize, usize)> = prompts
            .map(|(place, text)| (text.pending(), place))
            .collect();
        prompts.sort_unstable();
        let mut parts = vec![0; self.texts.len()];
        let mut left = PROMPT_TOKENS;
        for (number, (pending, place)) in prompts.iter().enumerate() {
            let part = (*pending).min(left / (prompts.len() - number));
            parts[*place] = part;
            left -= part;
        }
        parts
    }

    /// Makes at least so many pages free, without those of the texts up to `place`. `false`: that cannot be.
    fn make_room(&mut self, pages: usize, place: usize) -> bool {
        while self.pages.left() < pages {
            if let Some(mut ended) = self.ended.pop_front() {
                self.pages.release(&mut ended.keys);
                continue;
            }
            let newer = self.texts[place + 1..].iter_mut().rev();
            let Some(newest) = newer.into_iter().find(|text| text.keys.len() > 0) else {
                // this one waits, and needs no pages meanwhile
                self.pages.release(&mut self.texts[place].keys);
                return false;
            };
            self.pages.release(&mut newest.keys);
        }
        true
    }

    /// Whether all tokens of a text have to be computed in one pass: their frequencies depend on its length.
    fn is_whole(&self, text: &Text) -> bool {
        let most = self.model.config().same_frequencies_up_to();
        most.is_some_and(|most| text.tokens.len() > most)
    }

    /// Keys have the frequencies of the text's length when they were computed. Those of a text that has outgrown the shorter ones are
    /// computed again, as transformers' Phi-3 does.
    pub(super) fn forget_short_frequencies(&mut self) {
        let Some(most) = self.model.config().same_frequencies_up_to() else {
            return;
        };
        for text in &mut self.texts {
            if text.tokens.len() > most && text.keys.len() <= most {
                self.pages.release(&mut text.keys);
            }
        }
    }

    /// How many keys of another text are those of the first of these tokens. The last token is always computed.
    fn shared(&self, tokens: &[u32], other: &[u32], keys: &Keys) -> usize {
        common(tokens, other, self.model).min(keys.len())
    }

    /// Takes over the beginning of an earlier text. `false` if one that is longer is being computed for another text.
    fn begin_like_others(&mut self, place: usize) -> bool {
        if !self.texts[place].scored_whole() {
            // each of its places has to be computed
            return true;
        }
        let tokens = &self.texts[place].tokens;
        let ended = self.ended.iter();
        let ended = ended.map(|ended| self.shared(tokens, &ended.tokens, &ended.keys));
        let ended = ended.enumerate().max_by_key(|(_, count)| *count);
        let begun = self.texts.iter().enumerate();
        let begun = begun
            .filter(|(other, _)| *other != place)
            .map(|(other, text)| {
                let count = self.shared(tokens, &text.tokens, &text.keys);
                (other, count)
            });
        let begun = begun.max_by_key(|(_, count)| *count);
        let count_of = |found: Option<(usize, usize)>| found.map_or(0, |(_, count)| count);
        let count = count_of(ended).max(count_of(begun));
        let waits = self.texts[..place].iter().any(|earlier| {
            earlier.pending() > 1 && common(tokens, &earlier.tokens, self.model) > count
        });
        if waits {
            return false;
        }
        if count < SHORTEST {
            return true;
        }
        let keys = match (ended, begun) {
            (Some((number, of_ended)), _) if of_ended == count => {
                let ended = &self.ended[number];
                if ended.keys.len() == count {
                    // all of it: the text goes on in its last page
                    self.ended.remove(number).map(|ended| ended.keys)
                } else {
                    Some(self.pages.beginning(&ended.keys, count))
                }
            }
            (_, Some((other, _))) => {
                let keys = self.texts[other].keys.clone();
                Some(self.pages.beginning(&keys, count))
            }
            _ => None,
        };
        let text = &mut self.texts[place];
        text.keys = keys.unwrap_or_default();
        text.note_cached();
        true
    }
}

/// How many tokens two texts begin with that have the same keys; 0 if they are too few to be shared. At least the last token of
/// `tokens` is not one of them.
fn common(tokens: &[u32], other: &[u32], model: &LlamaForCausalLM) -> usize {
    let before_last = &tokens[..tokens.len() - 1];
    let pairs = before_last.iter().zip(other);
    let count = pairs.take_while(|(a, b)| a == b).count();
    let most = model.config().same_frequencies_up_to();
    let same = most.is_none_or(|most| tokens.len() <= most && other.len() <= most);
    if same && count >= SHORTEST { count } else { 0 }
}
