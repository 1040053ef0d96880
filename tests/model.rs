//! The model against transformers on the same weights and tokens.

use burn::tensor::{Device, Tensor, s};
use simmer_kernels::{Capabilities, Rows};
use simmer_model::base::{self, BaseConfig};
use simmer_model::{
    KeptPrefix, KvCache, LlamaForCausalLM, Prompt, Sampling, Sequence, Stop, Target,
};
use std::ops::ControlFlow;

use crate::golden::{self, ModelGolden, Tensors};

pub(crate) fn load(model: &str, device: &Device) -> LlamaForCausalLM {
    base::load(&BaseConfig::from_path(golden::folder(model)), 0, device).unwrap()
}

pub(crate) fn model_golden(model: &str) -> ModelGolden {
    golden::json(golden::folder(model).join("golden.json"))
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// f32 against f32 in another order of summation: conditioning.py found 2e-5 between f32 and f64.
const TOLERANCE: f32 = 1e-4;

#[test]
fn logits_equal_transformers() {
    for name in golden::models() {
        let model = load(name, &golden::device());
        let rows = model_golden(name).rows;
        let expected = Tensors::open(golden::folder(name).join("golden.safetensors"));
        let ids: Vec<&[u32]> = rows.iter().map(|row| &row.input_ids[..]).collect();
        let together = model.logits(model.hidden(&Sequence::from_rows(&ids), None));
        let bounds = Rows::from_lengths(ids.iter().map(|row| row.len()));
        let ranges: Vec<_> = bounds.ranges().collect();
        for index in expected.rows_with_logits() {
            let (row, range) = (ids[index], ranges[index].clone());
            let expected = expected.f32(&format!("logits.{index}"));
            let alone = values(model.logits(model.hidden(&Sequence::from_rows(&[row]), None)));
            let difference = golden::max_difference(&alone, &expected);
            assert!(
                difference <= TOLERANCE,
                "{name} row {index} alone: {difference}"
            );
            let in_run = values(together.clone().slice(s![range]));
            let difference = golden::max_difference(&in_run, &expected);
            assert!(
                difference <= TOLERANCE,
                "{name} row {index} in a sequence: {difference}"
            );
        }
    }
}

/// A golden's logits under the configuration as transformers 4 spelled it.
#[test]
fn the_old_spelling_of_a_config_is_the_same_model() {
    for name in golden::models_with_old_config() {
        let folder = tempfile::tempdir().unwrap();
        let golden = golden::folder(name);
        let copy = |from: &str, to: &str| {
            std::fs::copy(golden.join(from), folder.path().join(to)).unwrap();
        };
        copy("model.safetensors", "model.safetensors");
        copy("config.old.json", "config.json");
        let base = BaseConfig::from_path(folder.path());
        let model = base::load(&base, 0, &golden::device()).unwrap();
        let expected = Tensors::open(golden.join("golden.safetensors"));
        let rows = model_golden(name).rows;
        for index in expected.rows_with_logits() {
            let sequence = Sequence::from_rows(&[&rows[index].input_ids]);
            let logits = values(model.logits(model.hidden(&sequence, None)));
            let difference =
                golden::max_difference(&logits, &expected.f32(&format!("logits.{index}")));
            assert!(difference <= TOLERANCE, "{name} row {index}: {difference}");
        }
    }
}

#[test]
fn loss_equals_transformers() {
    for name in golden::models() {
        let model = load(name, &golden::device());
        let golden = model_golden(name);
        let ids: Vec<&[u32]> = golden.rows.iter().map(|row| &row.input_ids[..]).collect();
        let targets: Vec<_> = golden.rows.iter().flat_map(golden::Row::targets).collect();
        let sum: f32 = model
            .loss(&Sequence::from_rows(&ids), &Target::from_slots(&targets))
            .into_scalar();
        let mean = f64::from(sum) / targets.iter().flatten().count() as f64;
        assert!(
            (mean - golden.loss).abs() <= 1e-4,
            "{name}: {mean} against {}",
            golden.loss
        );
    }
}

#[test]
fn greedy_answers_equal_transformers() {
    for name in golden::models() {
        let model = load(name, &golden::device());
        let eos = model.config().eos_token_id.clone();
        for greedy in model_golden(name).greedy {
            let generate = |eos: &[u32]| {
                let mut cache = KvCache::default();
                let sampling = Sampling::default();
                let mut on_token = |_| ControlFlow::Continue(());
                model
                    .generate(
                        &greedy.prompt,
                        &mut cache,
                        32,
                        eos,
                        &sampling,
                        &mut on_token,
                    )
                    .unwrap()
            };
            assert_eq!(generate(&[]).tokens, greedy.ids, "{name}");
            let mut stopped = generate(&eos);
            if let Stop::Eos(token) = stopped.stop {
                stopped.tokens.push(token);
            }
            assert_eq!(stopped.tokens, greedy.until_eos, "{name}");
        }
    }
}

/// Whatever the others of a batch are, and wherever its keys are kept.
#[test]
fn a_batch_continues_each_text_as_if_it_were_alone() {
    for name in golden::models() {
        let model = load(name, &golden::device());
        let eos = model.config().eos_token_id.clone();
        let golden = model_golden(name);
        let greedy = Sampling::default();
        let drawn = Sampling {
            temperature: 0.8,
            seed: 5,
            ..Sampling::default()
        };
        let texts: Vec<&[u32]> = golden.greedy.iter().map(|g| g.prompt.as_slice()).collect();
        // texts that begin alike, one text twice, and one that grows over several pages
        let again = [texts[0], &golden.greedy[0].ids[..1]].concat();
        let prompts: Vec<Prompt<'_>> = texts
            .iter()
            .chain([&texts[0], &again.as_slice()])
            .flat_map(|tokens| [&greedy, &drawn].map(|sampling| Prompt { tokens, sampling }))
            .collect();
        let mut told = vec![Vec::new(); prompts.len()];
        let mut on_token = |text: usize, token| {
            told[text].push(token);
            ControlFlow::Continue(())
        };
        let batch = model
            .generate_batch(&prompts, 150, &eos, &mut on_token)
            .unwrap();
        for ((prompt, found), told) in prompts.iter().zip(&batch).zip(told) {
            let mut cache = KvCache::default();
            let mut go_on = |_| ControlFlow::Continue(());
            let sampling = prompt.sampling;
            let alone = model
                .generate(prompt.tokens, &mut cache, 150, &eos, sampling, &mut go_on)
                .unwrap();
            assert_eq!(found.tokens, alone.tokens, "{name}");
            assert_eq!(found.stop, alone.stop, "{name}");
            assert_eq!(found.tokens, told, "{name}");
            let difference = golden::max_difference(&found.log_probs, &alone.log_probs);
            assert!(difference <= TOLERANCE, "{name}: {difference}");
        }
    }
}

/// A device of libtorch, on which texts can continue in steps of fixed operations.
#[cfg(feature = "libtorch")]
fn device_with_steps() -> burn::tensor::Device {
    match golden::device_name().as_str() {
        "cpu" => simmer_model::device::named("libtorch").unwrap(),
        _ => golden::device(),
    }
}

/// In steps of fixed operations, or with a cache whose tensors grow: alone, and in batches whose texts end at different times.
#[cfg(feature = "libtorch")]
#[test]
fn steps_of_fixed_operations_change_no_text() {
    let device = device_with_steps();
    for name in golden::models() {
        let model = load(name, &device);
        let eos = model.config().eos_token_id.clone();
        let golden = model_golden(name);
        let sampling = Sampling::default();
        let prompts = golden.greedy.iter().take(2).map(|greedy| Prompt {
            tokens: &greedy.prompt,
            sampling: &sampling,
        });
        let mut prompts: Vec<Prompt<'_>> = prompts.collect();
        prompts.push(prompts[0]);
        let [steps, grows] = [true, false].map(|in_steps| {
            // each text ends after another number of tokens
            let mut counts = vec![0; prompts.len()];
            let mut on_token = |text: usize, _| {
                counts[text] += 1;
                if counts[text] > 2 * text {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let mut kept = KeptPrefix::with_steps(in_steps);
            let mut found = model
                .generate_batch_after(&mut kept, &prompts, 5, &[], &mut on_token)
                .unwrap();
            let mut cache = KvCache::with_steps(in_steps);
            let mut go_on = |_| ControlFlow::Continue(());
            let tokens = prompts[0].tokens;
            let alone = model.generate(tokens, &mut cache, 4, &eos, &sampling, &mut go_on);
            found.push(alone.unwrap());
            found
        });
        for (steps, grows) in steps.iter().zip(&grows) {
            assert_eq!(steps.tokens, grows.tokens, "{name}");
            assert_eq!(steps.stop, grows.stop, "{name}");
            let difference = golden::max_difference(&steps.log_probs, &grows.log_probs);
            assert!(difference <= TOLERANCE, "{name}: {difference}");
        }
    }
}

/// Batch after batch, each with prompts that begin alike.
#[test]
fn a_kept_prefix_changes_no_text() {
    for name in golden::models() {
        let model = load(name, &golden::device());
        let eos = model.config().eos_token_id.clone();
        let sampling = Sampling::default();
        let head: Vec<u32> = (0..24).map(|place| 3 + place % 7).collect();
        let ends: [&[&[u32]]; 5] = [
            &[&[5, 9, 4], &[5, 9], &[6]],
            &[&[8, 8, 8, 8, 3], &[9]],
            // one text, and one twice
            &[&[4, 4]],
            &[&[4, 4], &[4, 4]],
            &[&[7], &[5, 9, 4]],
        ];
        let mut kept = KeptPrefix::default();
        for (number, ends) in ends.iter().enumerate() {
            // the last batch begins alike for a while only
            let head = &head[..if number == 4 { 15 } else { head.len() }];
            let texts: Vec<Vec<u32>> = ends.iter().map(|end| [head, *end].concat()).collect();
            let prompts = texts.iter().map(|tokens| Prompt {
                tokens,
                sampling: &sampling,
            });
            let prompts: Vec<Prompt<'_>> = prompts.collect();
            let mut go_on = |_, _| ControlFlow::Continue(());
            let after = model
                .generate_batch_after(&mut kept, &prompts, 20, &eos, &mut go_on)
                .unwrap();
            let anew = model
                .generate_batch(&prompts, 20, &eos, &mut go_on)
                .unwrap();
            for (after, anew) in after.iter().zip(&anew) {
                assert_eq!(after.tokens, anew.tokens, "{name}, batch {number}");
                let difference = golden::max_difference(&after.log_probs, &anew.log_probs);
                assert!(
                    difference <= TOLERANCE,
                    "{name}, batch {number}: {difference}"
                );
            }
        }
    }
}

#[test]
fn scores_equal_transformers() {
    for name in golden::models() {
        let model = load(name, &golden::device());
        for score in model_golden(name).score {
            let log_probs = model.score(&score.ids).unwrap();
            let difference = golden::max_difference(&log_probs, &score.log_probs);
            assert!(difference <= TOLERANCE, "{name}: {difference}");
        }
    }
}

#[derive(serde::Deserialize)]
struct Widened {
    ids: Vec<u32>,
    /// Log-probabilities by a plain model of transformers with the widened weights.
    widened: Vec<f32>,
}

/// Checkpoints as bitsandbytes writes them, and fp8 as published models have it; see `tests/reference/quantised.py`.
/// The last layer computes only tokens whose scores are asked for, and each shared prefix is there once.
#[test]
fn some_scores_are_those_of_whole_rows() {
    for name in golden::models() {
        let model = load(name, &golden::device());
        let rows = model_golden(name).rows;
        let row = rows.iter().map(|row| &row.input_ids);
        let row = row.max_by_key(|row| row.len()).unwrap();
        let (length, vocab) = (row.len(), model.config().vocab_size as u32);
        // the same beginning, of three tokens, twice; another end
        let other = row[..3].iter().copied();
        let other: Vec<u32> = other
            .chain(row[3..].iter().map(|token| (token + 1) % vocab))
            .collect();
        let rows = [&row[..], &other];
        let shared = model.packed_for_scores(&rows);
        let may_share = model
            .config()
            .same_frequencies_up_to()
            .is_none_or(|most| length <= most);
        let saved = 2 * length - shared.sequence.len();
        assert_eq!(
            saved,
            if may_share && is_processor() { 3 } else { 0 },
            "{name}"
        );
        let mut targets = Vec::new();
        let mut expected = Vec::new();
        for (row, places) in rows.iter().zip(&shared.places) {
            let whole = model.score(row).unwrap();
            // not in order, and with tokens that are keys alone between them
            for at in [length - 2, 2, 4] {
                targets.push(Target {
                    place: places[at],
                    token: row[at + 1],
                });
                expected.push(whole[at]);
            }
        }
        let found = model.score_targets(&shared.sequence, &targets);
        let found: Vec<f32> = found.iter().map(|scored| scored.log_prob).collect();
        let difference = golden::max_difference(&found, &expected);
        assert!(difference <= TOLERANCE, "{name}: {difference}");
    }
}

fn is_processor() -> bool {
    Capabilities::of(&golden::device()).reads_in_place
}

#[test]
fn quantised_checkpoints_score_as_transformers() {
    for folder in [
        "nf4",
        "nf4-bf16",
        "fp4",
        "int8",
        "fp8-blocks",
        "fp8-tensor",
        "fp8-channel",
        "fp8-fbgemm",
    ] {
        let folder = golden::folder("quantised").join(folder);
        let expected: Widened = golden::json(folder.join("expected.json"));
        let base = BaseConfig::from_path(&folder);
        let model = base::load(&base, 0, &golden::device()).unwrap();
        let found = model.score(&expected.ids).unwrap();
        let difference = golden::max_difference(&found, &expected.widened);
        assert!(
            difference <= TOLERANCE,
            "{}: {difference}",
            folder.display()
        );
    }
}

#[test]
fn a_cache_changes_nothing() {
    let model = load("tied-gqa", &golden::device());
    let tokens: Vec<u32> = (3..20).collect();
    let whole = values(model.hidden(&Sequence::from_rows(&[&tokens]), None));
    let mut cache = KvCache::default();
    let mut parts = Vec::new();
    for (start, end) in [(0, 5), (5, 6), (6, 13), (13, 17)] {
        let sequence = Sequence::continuing(&tokens[start..end], start);
        parts.extend(values(model.hidden(&sequence, Some(&mut cache))));
    }
    let difference = golden::max_difference(&whole, &parts);
    assert!(difference <= 1e-5, "{difference}");
}
