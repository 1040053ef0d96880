use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use proptest::prelude::*;
use serde_json::{Value, json};
use simmer_checkpoint::config::ModelConfig;

use super::*;
use crate::base::{BaseConfig, load};
use crate::generate::Generated;

fn model(more: &Value, device: &Device) -> LlamaForCausalLM {
    let mut json = json!({
        "vocab_size": 40, "hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.6,
        "max_position_embeddings": 320
    });
    for (key, value) in more.as_object().unwrap() {
        json[key] = value.clone();
    }
    let mut base = BaseConfig::default();
    base.init = Some(ModelConfig::from_json(&json, Path::new("config.json")).unwrap());
    load(&base, 7, device).unwrap()
}

fn asked(tokens: &[u32], max_new_tokens: usize) -> Asked {
    Asked {
        tokens: tokens.to_vec(),
        max_new_tokens,
        sampling: Sampling::default(),
        top: 0,
        scores_prompt: false,
    }
}

/// Tokens that no other `seed` gives.
fn prompt(seed: u32, length: u32) -> Vec<u32> {
    (0..length)
        .map(|place| (place * place * (seed + 3) + place * 7 + seed * 11) % 40)
        .collect()
}

/// What a text is alone.
fn alone(model: &LlamaForCausalLM, asked: &Asked, eos: &[u32]) -> Generated {
    let mut go_on = |_| ControlFlow::Continue(());
    let mut cache = KvCache::default();
    let most = asked.max_new_tokens;
    model
        .generate(
            &asked.tokens,
            &mut cache,
            most,
            eos,
            &asked.sampling,
            &mut go_on,
        )
        .unwrap()
}

/// Continues all texts to their ends; text `n` begins before step `when[n]`.
fn together(running: &mut Running<'_>, texts: &[(usize, Asked)]) -> Vec<Generated> {
    let mut found: BTreeMap<TextId, (usize, Generated)> = BTreeMap::new();
    let mut steps = 0;
    let mut begun = 0;
    while begun < texts.len() || !running.is_empty() {
        for (number, (when, asked)) in texts.iter().enumerate() {
            if *when == steps {
                let id = running.begin(asked.clone()).unwrap();
                let nothing = Generated {
                    tokens: Vec::new(),
                    log_probs: Vec::new(),
                    stop: Stop::Caller,
                };
                found.insert(id, (number, nothing));
                begun += 1;
            }
        }
        for next in running.step() {
            let (_, text) = found.get_mut(&next.text).unwrap();
            if let Some(chosen) = next.chosen {
                text.tokens.push(chosen.token);
                text.log_probs.push(chosen.log_prob);
            }
            text.stop = next.stop.unwrap_or(Stop::Caller);
        }
        steps += 1;
        assert!(steps < 5_000, "the texts do not end");
    }
    let mut found: Vec<(usize, Generated)> = found.into_values().collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, text)| text).collect()
}

/// Sums of a few tens of numbers in f32, in another order.
fn assert_near(found: &Generated, expected: &Generated) {
    assert_eq!(found.tokens, expected.tokens);
    assert_eq!(found.stop, expected.stop);
    for (found, expected) in found.log_probs.iter().zip(&expected.log_probs) {
        assert!((found - expected).abs() < 2e-4, "{found} {expected}");
    }
}

fn assert_as_alone(model: &LlamaForCausalLM, mut running: Running<'_>, texts: &[(usize, Asked)]) {
    let found = together(&mut running, texts);
    for (found, (_, asked)) in found.iter().zip(texts) {
        assert_near(found, &alone(model, asked, running.eos));
    }
}

#[test]
fn texts_that_come_and_go_are_as_each_alone() {
    let window = json!({"model_type": "mistral", "sliding_window": 20});
    for more in [json!({}), window] {
        let model = model(&more, &Device::flex());
        let texts = [
            (0, asked(&prompt(1, 5), 30)),
            (0, asked(&prompt(2, 90), 4)),
            (3, asked(&prompt(3, 40), 90)),
            (3, asked(&prompt(4, 1), 9)),
            (60, asked(&prompt(5, 200), 20)),
            (150, asked(&prompt(6, 7), 3)),
        ];
        assert_as_alone(&model, Running::new(&model, &[], 320, 0), &texts);
    }
}

#[test]
fn a_text_ends_at_an_eos_token_and_where_the_context_is_full() {
    let model = model(&json!({"max_position_embeddings": 40}), &Device::flex());
    let whole = alone(&model, &asked(&prompt(1, 9), 50), &[]);
    assert_eq!((whole.tokens.len(), whole.stop), (31, Stop::Context));
    let eos = [whole.tokens[12]];
    let texts = [
        (0, asked(&prompt(1, 9), 50)),
        (2, asked(&prompt(2, 30), 50)),
    ];
    assert_as_alone(&model, Running::new(&model, &[], 320, 0), &texts);
    assert_as_alone(&model, Running::new(&model, &eos, 320, 0), &texts);
}

#[test]
fn samples_and_penalties_are_those_of_each_text() {
    let model = model(&json!({}), &Device::flex());
    let sampled = |seed, temperature| Asked {
        sampling: Sampling {
            temperature,
            top_p: 0.9,
            frequency_penalty: 0.5,
            repetition_penalty: 1.2,
            seed,
            ..Sampling::default()
        },
        ..asked(&prompt(1, 20), 40)
    };
    let texts = [
        (0, sampled(1, 0.8)),
        (0, sampled(2, 0.8)),
        (5, sampled(3, 1.4)),
    ];
    assert_as_alone(&model, Running::new(&model, &[], 320, 0), &texts);
}

#[test]
fn a_beginning_that_texts_share_is_computed_once() {
    let model = model(&json!({}), &Device::flex());
    let mut running = Running::new(&model, &[], 320, 0);
    let first = asked(&prompt(1, 100), 10);
    let answer = together(&mut running, &[(0, first.clone())]).remove(0);
    let cached = |running: &mut Running<'_>, asked: Asked| {
        let id = running.begin(asked).unwrap();
        let next = running.step().remove(0);
        assert_eq!(next.text, id);
        running.end(id);
        next.began.unwrap().cached
    };
    // the next message of a conversation; the last token of an answer was not computed
    let talk = [&first.tokens[..], &answer.tokens, &[1, 2, 3]].concat();
    let pages = running.pages.left();
    assert_eq!(cached(&mut running, asked(&talk, 6)), 109);
    // it went on in the last page
    assert_eq!(running.pages.left(), pages);
    // another answer to the same message, and a text that differs early
    assert_eq!(cached(&mut running, first.clone()), 99);
    let early = [&first.tokens[..5], &[9, 9, 9]].concat();
    assert_eq!(cached(&mut running, asked(&early, 6)), 0);
    let running = Running::new(&model, &[], 320, 0);
    let texts = [
        (0, first.clone()),
        (0, first.clone()),
        (0, asked(&talk, 6)),
        (40, asked(&talk, 20)),
        (41, first),
    ];
    assert_as_alone(&model, running, &texts);
}

#[test]
fn equal_prompts_that_begin_together_take_the_pages_of_one() {
    let model = model(&json!({}), &Device::flex());
    let mut running = Running::new(&model, &[], 320, 10_000);
    for _ in 0..8 {
        running.begin(asked(&prompt(1, 300), 5)).unwrap();
    }
    let _ = running.step();
    let _ = running.step();
    // 300 tokens are 5 pages; each of 8 texts has one more
    assert!(running.pages.end() <= 13 * PAGE, "{}", running.pages.end());
}

/// A prompt of many steps, and short ones that begin after it.
#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let model = model(&json!({"max_position_embeddings": 4000}), &Device::flex());
    let mut running = Running::new(&model, &[], 4000, 0);
    let long = running.begin(asked(&prompt(1, 3000), 2)).unwrap();
    assert!(running.step().is_empty());
    let short = [20, 300].map(|length| running.begin(asked(&prompt(2, length), 1)).unwrap());
    let mut ended = Vec::new();
    while !running.is_empty() {
        let next = running.step().into_iter();
        ended.extend(
            next.filter(|next| next.stop.is_some())
                .map(|next| next.text),
        );
    }
    assert_eq!(ended, [short[0], short[1], long]);
}

#[test]
fn texts_wait_and_are_computed_again_if_the_cache_is_full() {
    let model = model(&json!({"max_position_embeddings": 200}), &Device::flex());
    let running = Running::new(&model, &[], 320, 0);
    assert_eq!(running.pages.left(), 7);
    let texts: Vec<(usize, Asked)> = (0..6)
        .map(|number| (number, asked(&prompt(number as u32, 60), 140)))
        .collect();
    assert_as_alone(&model, running, &texts);
}

#[test]
fn a_text_that_outgrows_the_short_frequencies_is_computed_again() {
    let model = model(
        &json!({
            "max_position_embeddings": 128, "original_max_position_embeddings": 40,
            "rope_scaling": {
                "type": "longrope", "short_factor": [1, 1, 1], "long_factor": [2, 3, 5]
            }
        }),
        &Device::flex(),
    );
    let texts = [
        (0, asked(&prompt(1, 30), 30)),
        (0, asked(&prompt(1, 35), 3)),
        (2, asked(&prompt(1, 60), 3)),
        (9, asked(&prompt(1, 32), 20)),
    ];
    assert_as_alone(&model, Running::new(&model, &[], 320, 0), &texts);
}

#[test]
fn a_text_may_be_ended_before_its_time() {
    let model = model(&json!({}), &Device::flex());
    let mut running = Running::new(&model, &[], 320, 0);
    let id = running.begin(asked(&prompt(1, 20), 50)).unwrap();
    let other = running.begin(asked(&prompt(2, 20), 4)).unwrap();
    assert_eq!(running.step().len(), 2);
    running.end(id);
    let mut left = Vec::new();
    while !running.is_empty() {
        left.extend(running.step().into_iter().map(|next| next.text));
    }
    assert_eq!(left, [other; 3]);
}

#[test]
fn a_context_may_be_shorter_than_the_model_s() {
    let model = model(&json!({}), &Device::flex());
    let mut running = Running::new(&model, &[], 30, 0);
    assert!(running.begin(asked(&prompt(1, 31), 5)).is_err());
    let found = together(&mut running, &[(0, asked(&prompt(1, 20), 50))]).remove(0);
    assert_eq!((found.tokens.len(), found.stop), (10, Stop::Context));
}

#[test]
fn the_most_likely_tokens_are_told() {
    let model = model(&json!({}), &Device::flex());
    let mut running = Running::new(&model, &[], 320, 0);
    let asked = Asked {
        top: 3,
        ..asked(&prompt(1, 20), 2)
    };
    running.begin(asked).unwrap();
    let next = running.step().remove(0).chosen.unwrap();
    assert_eq!(next.top.len(), 3);
    assert_eq!(next.top[0], (next.token, next.log_prob));
    assert!(next.top[0].1 >= next.top[1].1 && next.top[1].1 >= next.top[2].1);
}

/// Prompts of several steps, beside texts that are continued; also if their pages are taken from them on the way.
#[test]
fn prompts_are_scored() {
    for (context, places) in [(1200, 0), (1200, 9000)] {
        let model = model(&json!({"max_position_embeddings": 1200}), &Device::flex());
        let mut running = Running::new(&model, &[], context, places);
        let mut expected = BTreeMap::new();
        for (number, length) in [700, 1, 30, 700, 1100].into_iter().enumerate() {
            let prompt = prompt(number as u32 % 3, length);
            let asked = Asked {
                top: 2,
                scores_prompt: true,
                ..asked(&prompt, number * 20)
            };
            let id = running.begin(asked).unwrap();
            expected.insert(id, (model.score(&prompt).unwrap(), prompt, number * 20));
        }
        let mut tokens = 0;
        while !running.is_empty() {
            for next in running.step() {
                let (scores, prompt, _) = &expected[&next.text];
                tokens += usize::from(next.chosen.is_some());
                let Some(began) = next.began else { continue };
                assert_eq!(began.scored.len(), scores.len());
                for ((found, expected), token) in began.scored.iter().zip(scores).zip(&prompt[1..])
                {
                    assert_eq!(found.token, *token);
                    assert!((found.log_prob - expected).abs() < 2e-4);
                    assert_eq!(found.top.len(), 2);
                }
            }
        }
        assert_eq!(
            tokens,
            expected.values().map(|(_, _, most)| most).sum::<usize>()
        );
    }
}

#[test]
fn a_prompt_that_the_model_cannot_continue_is_refused() {
    let model = model(&json!({}), &Device::flex());
    let mut running = Running::new(&model, &[], 320, 0);
    for tokens in [vec![], vec![40], vec![1; 321]] {
        assert!(running.begin(asked(&tokens, 1)).is_err());
    }
    assert!(running.is_empty());
}

/// As on a GPU, where steps are recorded.
#[cfg(feature = "libtorch")]
#[test]
fn texts_keep_their_rows_in_steps() {
    let model = model(&json!({}), &crate::device::named("libtorch").unwrap());
    let texts = [
        (0, asked(&prompt(1, 5), 30)),
        (0, asked(&prompt(2, 90), 4)),
        (8, asked(&prompt(3, 40), 60)),
        (12, asked(&prompt(4, 3), 9)),
        (45, asked(&prompt(5, 100), 20)),
        (46, asked(&prompt(6, 7), 3)),
    ];
    let running = Running::in_cache(&model, &[], 320, 0, KvCache::with_steps(true));
    assert_as_alone(&model, running, &texts);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_texts_are_as_each_alone(
        plan in prop::collection::vec((0_usize..40, 0_u32..3, 1_u32..120, 1_usize..30), 1..9),
    ) {
        let model = model(&json!({"max_position_embeddings": 160}), &Device::flex());
        let texts: Vec<(usize, Asked)> = plan
            .iter()
            .map(|(when, seed, length, most)| (*when, asked(&prompt(*seed, *length), *most)))
            .collect();
        assert_as_alone(&model, Running::new(&model, &[], 320, 0), &texts);
    }
}
