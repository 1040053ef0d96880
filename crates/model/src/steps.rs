//! Decoding in steps of one token a text, which a GPU runs as one recorded graph.
//!
//! A text's keys lie in the cache wherever they were written; a table on the device has their places. The cache and the table
//! have room for more tokens than they hold. When one of them is full, both get twice the room, and the step is recorded anew.
//!
//! Axes: B texts, C places in the table of a text, V vocabulary.

use simmer_checkpoint::config::Positions;
use simmer_kernels::{Decoding, NewestToken, Rows};

use crate::cache::KvCache;
use crate::decoder::Pass;
use crate::llama::LlamaForCausalLM;
use crate::rotary::{Rotary, RotarySettings};

/// The least room for the keys of a text, in tokens.
const ROOM: usize = 256;

/// Steps of some texts.
pub(crate) struct Steps<'a> {
    model: &'a LlamaForCausalLM,
    decoding: Decoding,
    /// Number of texts.
    texts: usize,
    /// Places in the cache.
    places: usize,
    /// The rotary tables of all positions, `[C, R/2]`.
    rotary: [Option<Rotary>; 2],
    /// Lengths of texts that have the frequencies of these tables.
    frequencies: [usize; 2],
}

impl<'a> Steps<'a> {
    /// Whether the texts of a cache continue in steps on the model's device. A step is recorded on one device.
    pub(crate) fn are_for(model: &LlamaForCausalLM, cache: &KvCache) -> bool {
        let device = model.device();
        let chosen = cache
            .in_steps()
            .unwrap_or_else(|| Decoding::is_default(&device));
        chosen && model.offloaded.is_none() && model.places() == 1
    }

    /// Steps that begin with these tokens, after which the cache has length `end`; `None` if the device has no steps, or if the
    /// texts have different rotary frequencies.
    fn new(
        model: &'a LlamaForCausalLM,
        cache: &mut KvCache,
        next: &[NewestToken<'_>],
        end: usize,
    ) -> Option<Self> {
        let frequencies = model.frequencies(next)?;
        let longest = next.iter().map(|token| token.position() + 1).max()?;
        let room = (longest + ROOM / 2).max(ROOM).next_power_of_two();
        let places = cache.reserve(end);
        let device = model.device();
        let mut decoding = Decoding::new(next, room, model.config.vocab_size, &device)?;
        if model.has_token_rows() {
            decoding.record_no_step("the trained rows of tokens are found by a list of the host");
        }
        let rotary = KINDS.map(|kind| {
            let settings = RotarySettings::of(&model.config, kind);
            model
                .has_positions(kind)
                .then(|| Rotary::of_all(&settings, longest, room, &device))
        });
        Some(Self {
            model,
            decoding,
            texts: next.len(),
            places,
            rotary,
            frequencies,
        })
    }

    /// Whether there are steps for these tokens, after which the cache has length `end`: those so far if they fit, or else new ones.
    pub(crate) fn fit_or_new(
        steps: &mut Option<Self>,
        model: &'a LlamaForCausalLM,
        cache: &mut KvCache,
        next: &[NewestToken<'_>],
        end: usize,
    ) -> bool {
        if steps.as_ref().is_none_or(|steps| !steps.fit(next, end)) {
            // its memory is free for the next ones
            *steps = None;
            *steps = Self::new(model, cache, next, end);
        }
        steps.is_some()
    }

    fn fit(&self, next: &[NewestToken<'_>], end: usize) -> bool {
        let room = self.decoding.room();
        self.texts == next.len()
            && end <= self.places
            && next.iter().all(|token| token.position() < room)
            && self.model.frequencies(next) == Some(self.frequencies)
    }

    /// A row is of another text now, whose keys these are.
    pub(crate) fn replace(&mut self, row: usize, next: &NewestToken<'_>) {
        self.decoding.replace(row, next);
    }

    /// The logits of the texts' newest tokens, for which these steps are, `[B, V]`, row after row. Their keys are written to the
    /// cache, which has length `end` afterwards.
    pub(crate) fn run(
        &mut self,
        cache: &mut KvCache,
        next: &[NewestToken<'_>],
        end: usize,
    ) -> &[f32] {
        cache.reach(end);
        let Self {
            model,
            rotary,
            decoding,
            ..
        } = self;
        let none = Rows::from_lengths([]);
        decoding.run(next, &mut |step| {
            let positions = step.positions();
            let pass = Pass {
                config: &model.config,
                rotary: rotary
                    .each_ref()
                    .map(|all| all.as_ref().map(|all| all.at(positions.clone()))),
                rows: &none,
                dropout_keys: None,
                step: Some(step),
                needed: None,
            };
            let mut x = model.model.embed_tokens.forward(step.tokens()); // [B, H]
            for (index, layer) in model.model.layers.iter().enumerate() {
                x = layer.forward(x, &pass, Some((&mut *cache, index)));
            }
            model.logits(x)
        })
    }
}

/// The kinds of layers with rotary positions, in the order of a [`Pass`].
pub(crate) const KINDS: [Positions; 2] = [Positions::Global, Positions::Local];

impl LlamaForCausalLM {
    /// Whether a layer has positions of this kind.
    pub(crate) fn has_positions(&self, kind: Positions) -> bool {
        let mut layers = self.model.layers.iter();
        layers.any(|layer| layer.place.positions == kind)
    }

    /// Whether some rows of the embedding or of the head are trained.
    fn has_token_rows(&self) -> bool {
        let rows = [
            &self.model.embed_tokens.token_adapter,
            &self.lm_head.token_adapter,
        ];
        rows.into_iter().any(Option::is_some)
    }

    /// A length of texts with the rotary frequencies of these, by kind of positions; `None` if they have different ones.
    fn frequencies(&self, next: &[NewestToken<'_>]) -> Option<[usize; 2]> {
        let of = |token: &NewestToken<'_>| {
            KINDS.map(|kind| {
                RotarySettings::of(&self.config, kind).representative(token.position() + 1)
            })
        };
        let (first, others) = next.split_first()?;
        let first = of(first);
        others
            .iter()
            .all(|token| of(token) == first)
            .then_some(first)
    }
}

#[cfg(test)]
#[cfg(feature = "libtorch")]
mod tests {
    use std::ops::ControlFlow;
    use std::path::Path;

    use serde_json::{Value, json};
    use simmer_checkpoint::config::ModelConfig;
    use simmer_kernels::{Capabilities, NewestToken};

    use super::Steps;
    use crate::base::{BaseConfig, load};
    use crate::batch::{KeptPrefix, Prompt};
    use crate::cache::KvCache;
    use crate::generate::{Generated, values};
    use crate::llama::LlamaForCausalLM;
    use crate::sampler::Sampling;
    use crate::sequence::Sequence;

    fn model(more: &Value) -> LlamaForCausalLM {
        let mut json = json!({
            "vocab_size": 40, "hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.6,
            "max_position_embeddings": 2048
        });
        for (key, value) in more.as_object().unwrap() {
            json[key] = value.clone();
        }
        let mut base = BaseConfig::default();
        base.init = Some(ModelConfig::from_json(&json, Path::new("config.json")).unwrap());
        let name = std::env::var("SIMMER_TEST_DEVICE").unwrap_or_default();
        let name = if name.starts_with("libtorch") {
            &name
        } else {
            "libtorch"
        };
        load(&base, 7, &crate::device::named(name).unwrap()).unwrap()
    }

    fn assert_near(found: &Generated, expected: &Generated) {
        assert_eq!(found.tokens, expected.tokens);
        for (found, expected) in found.log_probs.iter().zip(&expected.log_probs) {
            assert!((found - expected).abs() < 2e-4, "{found} {expected}");
        }
    }

    /// On a GPU; a processor launches each step.
    #[test]
    fn steps_of_a_model_are_recorded() {
        let model = model(&json!({}));
        let text = [3, 1, 4, 1, 5, 9, 2];
        let mut cache = KvCache::with_steps(true);
        let _ = model.hidden(&Sequence::from_rows(&[&text[..5]]), Some(&mut cache));
        let mut steps = None;
        for end in [6, 7] {
            let keys = 0..end;
            let next = [NewestToken {
                token: text[end - 1],
                keys: std::slice::from_ref(&keys),
            }];
            assert!(Steps::fit_or_new(
                &mut steps, &model, &mut cache, &next, end
            ));
            let steps = steps.as_mut().unwrap();
            let found = steps.run(&mut cache, &next, end).to_vec();
            let is_gpu = Capabilities::of(&model.device()).is_asynchronous;
            let reason = steps.decoding.not_recorded();
            assert_eq!(reason.is_none(), is_gpu, "{reason:?}");
            let hidden = model.hidden(&Sequence::from_rows(&[&text[..end]]), None);
            let expected = values(model.logits(hidden.slice_dim(0, end - 1..end)));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 2e-4, "{found} {expected}");
            }
        }
    }

    /// Both the table of a text and the cache get more room on the way.
    #[test]
    fn a_text_outgrows_its_memory() {
        let window = json!({"model_type": "mistral", "sliding_window": 100});
        for more in [json!({}), window] {
            let model = model(&more);
            let prompt: Vec<u32> = (0..240).map(|place| place * 7 % 40).collect();
            let [steps, grows] = [true, false].map(|in_steps| {
                let mut cache = KvCache::with_steps(in_steps);
                let sampling = Sampling::default();
                let mut go_on = |_| ControlFlow::Continue(());
                model
                    .generate(&prompt, &mut cache, 30, &[], &sampling, &mut go_on)
                    .unwrap()
            });
            assert_eq!(steps.tokens.len(), 30);
            assert_near(&steps, &grows);
        }
    }

    /// A conversation continues with the cache of its first answer.
    #[test]
    fn a_cache_is_continued_in_steps_and_without() {
        let model = model(&json!({}));
        let sampling = Sampling::default();
        let [steps, grows] = [true, false].map(|in_steps| {
            let mut cache = KvCache::with_steps(in_steps);
            let mut text: Vec<u32> = (0..7).collect();
            [9, 12].map(|count| {
                let mut go_on = |_| ControlFlow::Continue(());
                let answer = model
                    .generate(&text, &mut cache, count, &[], &sampling, &mut go_on)
                    .unwrap();
                text.extend(&answer.tokens);
                text.extend([5, 6, 7]);
                answer
            })
        });
        for (steps, grows) in steps.iter().zip(&grows) {
            assert_near(steps, grows);
        }
    }

    /// Beyond a length the frequencies change, and all keys with them.
    #[test]
    fn frequencies_that_depend_on_the_length() {
        let model = model(&json!({
            "max_position_embeddings": 64, "original_max_position_embeddings": 12,
            "rope_scaling": {
                "type": "longrope", "short_factor": [1, 1, 1], "long_factor": [2, 3, 5]
            }
        }));
        let sampling = Sampling::default();
        // both long, one of them short, both short
        for lengths in [[14, 20], [5, 20], [3, 4]] {
            let texts = lengths.map(|length| (0..length).collect::<Vec<u32>>());
            let prompts = texts.each_ref().map(|tokens| Prompt {
                tokens,
                sampling: &sampling,
            });
            let [steps, grows] = [true, false].map(|in_steps| {
                let mut kept = KeptPrefix::with_steps(in_steps);
                let mut go_on = |_, _| ControlFlow::Continue(());
                model
                    .generate_batch_after(&mut kept, &prompts, 6, &[], &mut go_on)
                    .unwrap()
            });
            for (steps, grows) in steps.iter().zip(&grows) {
                assert_near(steps, grows);
            }
        }
    }
}
