use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use serde_json::{Value, json};
use simmer_checkpoint::ModelConfig;

use super::*;
use crate::adapter::{AdapterTable, AdaptionPromptConfig, Ia3Config, LoraConfig, Starts, attach};
use crate::base::{Base, BaseConfig, BaseError, Compute};
use crate::{Parameters, Placement};

/// The layers of one, two and three places.
const COUNTS: [&[usize]; 3] = [&[5], &[2, 3], &[1, 3, 1]];

fn device(name: &str) -> Device {
    crate::device::named(name).unwrap()
}

/// The processor by each backend of this build.
fn processors() -> Vec<Device> {
    let libtorch = cfg!(feature = "libtorch").then_some("libtorch");
    let names = ["cpu"].into_iter().chain(libtorch);
    names.map(device).collect()
}

fn base(more: &Value) -> Base {
    let mut json = json!({
        "model_type": "llama", "vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 5,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "tie_word_embeddings": false
    });
    for (key, value) in more.as_object().unwrap() {
        json[key] = value.clone();
    }
    let mut base = BaseConfig::default();
    base.init = Some(ModelConfig::from_json(&json, Path::new("config.json")).unwrap());
    base.open().unwrap()
}

/// A model with an adapter whose tensors are as after some steps.
fn tuned(base: &Base, placement: &Placement, table: &dyn AdapterTable) -> LlamaForCausalLM {
    let model = base.load_at(7, placement).unwrap();
    let model = attach(model, table, 3, "base", Starts::OfWeights)
        .unwrap()
        .model;
    let segments = Segments::of(&model);
    let moved: Vec<f32> = (0..segments.elements())
        .map(|place| 0.02 * ((place % 17) as f32 - 8.0))
        .collect();
    let count = moved.len();
    let home = model.device().without_autodiff();
    let moved = Tensor::from_data(TensorData::new(moved, [count]), &home);
    let flat = segments.values(&model) + moved;
    segments.cut(model, &flat, None)
}

fn micro_batches(dropout: bool) -> Vec<(Sequence, Vec<Target>)> {
    let sequences = [
        Sequence::from_rows(&[&[1, 5, 9, 13, 2], &[4, 4, 21]]),
        Sequence::from_rows(&[&[29, 1, 7]]),
        Sequence::sharing_prefixes(&[&[1, 2, 3, 4], &[1, 2, 3, 9], &[1, 2, 8]], None).sequence,
        Sequence::from_rows(&[&[3, 17, 11, 2, 6, 19]]),
    ];
    let all = sequences.into_iter().zip(1..).map(|(sequence, key)| {
        let count = sequence.len() as u64;
        let keys: Arc<[u64]> = (0..count).map(|token| 1000 * key + token).collect();
        let sequence = Sequence {
            dropout_keys: dropout.then_some(keys),
            ..sequence
        };
        let slots = sequence.tokens.iter().enumerate();
        let slots: Vec<Option<u32>> = slots
            .map(|(place, token)| (place % 3 != 1).then_some(*token))
            .collect();
        let targets = Target::from_slots(&slots);
        (sequence, targets)
    });
    all.collect()
}

/// The bits of a loss and of gradients by name.
type Bits = (Vec<u32>, Vec<(String, Vec<u32>)>);

fn values(of: Tensor<1>) -> Vec<f32> {
    of.into_data().iter::<f32>().collect()
}

fn bits(of: Tensor<1>) -> Vec<u32> {
    values(of).into_iter().map(f32::to_bits).collect()
}

/// The losses and gradients of each micro-batch.
fn results(model: &LlamaForCausalLM, recompute: Recompute, dropout: bool) -> Vec<Bits> {
    let segments = Segments::of(model);
    let all = micro_batches(dropout);
    let all: Vec<_> = all
        .iter()
        .map(|(one, targets)| (one, &targets[..]))
        .collect();
    let mut found = Vec::new();
    let mut finished = |loss: Tensor<1>, gradients| {
        let named = segments.named_gradients(gradients).into_iter();
        let named = named.map(|(name, of)| (name, bits(of)));
        found.push((bits(loss), named.collect()));
    };
    let all_finished =
        model.each_loss_and_gradients(&segments, &all, 0.25, recompute, &|| true, &mut finished);
    assert!(all_finished);
    found
}

fn lora(keys: &Value) -> Box<dyn AdapterTable> {
    Box::new(serde_json::from_value::<LoraConfig>(keys.clone()).unwrap())
}

/// A table of each kind of adapter, with keys of a model.
fn tables() -> Vec<(Box<dyn AdapterTable>, Value)> {
    let tied = json!({ "tie_word_embeddings": true });
    let untied = json!({});
    let prompts = json!({ "adapter_len": 3, "adapter_layers": 3 });
    vec![
        (lora(&json!({ "rank": 3, "dropout": 0.2 })), untied.clone()),
        (
            lora(
                &json!({ "rank": 2, "use_dora": true, "targets": ["q_proj", "down_proj"], "bias": "all" }),
            ),
            json!({ "attention_bias": true }),
        ),
        (
            lora(&json!({ "rank": 2, "init_lora_weights": "pissa" })),
            untied.clone(),
        ),
        (
            lora(&json!({ "rank": 2, "targets": ["embed_tokens", "v_proj", "lm_head"] })),
            untied.clone(),
        ),
        (
            lora(&json!({ "rank": 2, "targets": ["o_proj"], "trainable_token_indices": [3, 9] })),
            tied.clone(),
        ),
        (
            lora(
                &json!({ "rank": 2, "targets": ["o_proj"], "modules_to_save": ["embed_tokens", "norm"] }),
            ),
            tied,
        ),
        // nothing below the third layer is trained
        (
            lora(&json!({ "rank": 2, "targets": ["up_proj"], "layers_to_transform": [3] })),
            json!({ "model_type": "qwen3", "head_dim": 4 }),
        ),
        (
            Box::new(serde_json::from_value::<Ia3Config>(json!({})).unwrap()),
            untied.clone(),
        ),
        (
            Box::new(serde_json::from_value::<AdaptionPromptConfig>(prompts).unwrap()),
            untied,
        ),
    ]
}

#[test]
fn places_change_no_bit() {
    for device in processors() {
        for (table, more) in tables() {
            let base = base(&more);
            let dropout = table.dropout() > 0.0;
            let models = COUNTS.map(|counts| {
                let placement = Placement::of(vec![device.clone(); counts.len()], counts);
                tuned(&base, &placement, &*table)
            });
            for recompute in [Recompute::None, Recompute::Mlp, Recompute::Layer] {
                let [one, two, three] = models
                    .each_ref()
                    .map(|model| results(model, recompute, dropout));
                assert_eq!(one.len(), 4);
                assert!(one[0].1.iter().any(|(_, of)| of.iter().any(|x| *x != 0)));
                assert!(one == two, "{table:?} {recompute:?} on two places");
                assert!(one == three, "{table:?} {recompute:?} on three places");
            }
        }
    }
}

#[test]
fn places_change_no_bit_in_bf16() {
    for device in processors() {
        let mut base = base(&json!({}));
        base.set_compute(Some(Compute::Bf16));
        let table = lora(&json!({ "rank": 3 }));
        let models = COUNTS.map(|counts| {
            let placement = Placement::of(vec![device.clone(); counts.len()], counts);
            tuned(&base, &placement, &*table)
        });
        for recompute in [Recompute::None, Recompute::Layer] {
            let [one, two, three] = models
                .each_ref()
                .map(|model| results(model, recompute, false));
            assert!(one == two && one == three, "{recompute:?}");
        }
    }
}

/// Two backends are as strict as two GPUs: an operation with tensors of both is refused.
#[cfg(feature = "libtorch")]
#[test]
fn nothing_is_on_the_wrong_device() {
    let pair = ["cpu", "libtorch"].map(device).to_vec();
    let alone = Placement::one(device("cpu"));
    let shared = Placement::of(pair, &[2, 3]);
    for (table, more) in tables() {
        // the trained rows of a tied head are copied in a recorded operation, which goes between two GPUs alone
        if format!("{table:?}").contains("trainable_token_indices: Some") {
            continue;
        }
        let base = base(&more);
        let dropout = table.dropout() > 0.0;
        for recompute in [Recompute::None, Recompute::Mlp, Recompute::Layer] {
            let [one, two] = [&alone, &shared].map(|at| {
                let model = tuned(&base, at, &*table);
                results(&model, recompute, dropout)
            });
            for ((_, one), (_, two)) in one.iter().zip(&two) {
                assert_eq!(one.len(), two.len());
                for ((name, one), (_, two)) in one.iter().zip(two) {
                    let [one, two] = [one, two].map(|bits| {
                        let bits = bits.iter().copied();
                        bits.map(f32::from_bits).collect::<Vec<f32>>()
                    });
                    let most = one.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                    let mut pairs = one.iter().zip(two);
                    // sums of two backends in f32, over a few hundred terms
                    assert!(
                        pairs.all(|(one, two)| (one - two).abs() <= 1e-4 * most + 1e-6),
                        "{table:?} {recompute:?} {name}"
                    );
                }
            }
        }
    }
}

#[test]
fn texts_do_not_depend_on_places() {
    let base = base(&json!({ "tie_word_embeddings": true }));
    for device in processors() {
        let texts = COUNTS.map(|counts| {
            let placement = Placement::of(vec![device.clone(); counts.len()], counts);
            let model = tuned(&base, &placement, &*lora(&json!({ "rank": 2 }))).valid();
            let mut cache = crate::KvCache::default();
            let mut go_on = |_| std::ops::ControlFlow::Continue(());
            let sampling = crate::Sampling::default();
            model
                .generate(&[1, 5, 9], &mut cache, 12, &[], &sampling, &mut go_on)
                .unwrap()
        });
        assert_eq!(texts[0].tokens.len(), 12);
        assert!(texts.iter().all(|text| text == &texts[0]));
    }
}

#[test]
fn weights_and_optimizer_are_where_they_should_be() {
    let base = base(&json!({}));
    let cpu = || vec![device("cpu"); 6];
    let error = base.placed(cpu()).unwrap_err();
    assert!(matches!(
        error,
        BaseError::Devices {
            devices: 6,
            layers: 5
        }
    ));
    let placement = base.placed(cpu().split_off(4)).unwrap();
    assert_eq!(
        placement.text().unwrap(),
        "layers by free memory: 0 to 2 on cpu, 3 and above on cpu"
    );
    let model = tuned(&base, &placement, &*lora(&json!({ "rank": 2 })));
    let segments = Segments::of(&model);
    let flat = segments.values(&model);
    let gradients = segments.named(&flat);
    let parts = |of: &Parameters| {
        let all = segments.all().iter();
        all.map(|segment| of.get(&segment.name).cloned()).collect()
    };
    // what is joined by place is gathered as it was
    let by_place = segments.joined_by_place(parts(&gradients));
    assert_eq!(by_place.len(), 2);
    let home = flat.device();
    assert_eq!(bits(segments.gathered(by_place, &home)), bits(flat));
}

/// The tasks of a place as text.
fn program(tasks: &[Task], place: usize) -> String {
    let own = tasks.iter().filter(|task| task.place == place);
    let own = own.map(|task| {
        let pass = if task.is_forward { 'F' } else { 'B' };
        format!("{pass}{}", task.micro_batch)
    });
    own.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_place_gets_the_next_forward_pass_before_it_waits() {
    assert_eq!(program(&schedule(1, 3), 0), "F0 B0 F1 B1 F2 B2");
    let two = schedule(2, 4);
    assert_eq!(program(&two, 0), "F0 F1 B0 F2 B1 F3 B2 B3");
    assert_eq!(program(&two, 1), "F0 B0 F1 B1 F2 B2 F3 B3");
    let order: Vec<String> = two
        .iter()
        .map(|task| format!("{}{}", program(&[*task], task.place), task.place))
        .collect();
    insta::assert_snapshot!(order.join(" "), @"F00 F10 F01 B01 F11 B00 F20 B11 F21 B10 F30 B21 F31 B20 B31 B30");
}

#[test]
fn passes_come_after_those_that_they_wait_for() {
    for places in 1..5 {
        for micro_batches in 0..7 {
            let tasks = schedule(places, micro_batches);
            assert_eq!(tasks.len(), 2 * places * micro_batches);
            let at = |place, micro_batch, is_forward| {
                let wanted = Task {
                    place,
                    micro_batch,
                    is_forward,
                };
                tasks.iter().position(|task| *task == wanted).unwrap()
            };
            let mut held = vec![0_usize; places];
            for task in &tasks {
                let Task {
                    place,
                    micro_batch,
                    is_forward,
                } = *task;
                let here = at(place, micro_batch, is_forward);
                if is_forward {
                    assert!(place == 0 || at(place - 1, micro_batch, true) < here);
                    held[place] += 1;
                    assert!(held[place] <= places - place);
                } else {
                    assert!(at(place, micro_batch, true) < here);
                    assert!(place + 1 == places || at(place + 1, micro_batch, false) < here);
                    held[place] -= 1;
                }
            }
        }
    }
}

#[test]
fn an_interrupted_step_ends() {
    let base = base(&json!({}));
    let placement = base.placed(vec![device("cpu"); 2]).unwrap();
    let model = tuned(&base, &placement, &*lora(&json!({ "rank": 2 })));
    let segments = Segments::of(&model);
    let all = micro_batches(false);
    let all: Vec<_> = all
        .iter()
        .map(|(one, targets)| (one, &targets[..]))
        .collect();
    let started = std::cell::Cell::new(0);
    let goes_on = || {
        started.set(started.get() + 1);
        started.get() < 4
    };
    let mut finished = 0;
    let mut count = |_, _| finished += 1;
    let ended =
        model.each_loss_and_gradients(&segments, &all, 1.0, Recompute::Layer, &goes_on, &mut count);
    assert!(!ended);
    assert!(finished < 4);
}
