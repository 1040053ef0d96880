//! Weights in main memory that are copied to libtorch's device, against weights that are there.

#![cfg(feature = "libtorch")]

use serde_json::{Value, json};
use simmer_checkpoint::Pretrained;
use simmer_checkpoint::convert::to_gguf;
use simmer_checkpoint::gguf::model::FileType;
use simmer_checkpoint::gguf::{GgmlType, Vocabulary};

use super::Offloaded;
use super::tests::{LAYERS, all_bits, bits, rows, saved};
use crate::adapter::{LoraConfig, Starts, attach};
use crate::base::{BaseConfig, BasePrecision, Compute, Offload};
use crate::{LlamaForCausalLM, Recompute};

fn tuned(base: &BaseConfig, offload: Option<Offload>, lora: &Value) -> LlamaForCausalLM {
    let device = crate::device::named("libtorch").unwrap();
    let mut base = base.clone();
    base.offload = offload;
    let model = base.open().unwrap().load(0, &device).unwrap();
    let lora: LoraConfig = serde_json::from_value(lora.clone()).unwrap();
    attach(model, &lora, 3, "base", Starts::OfWeights)
        .unwrap()
        .model
}

/// The layers that are on the device.
fn there(model: &LlamaForCausalLM) -> Vec<usize> {
    match &model.offloaded {
        Some(Offloaded::Host(copies)) => copies.ahead(),
        _ => panic!("not in main memory"),
    }
}

#[test]
fn losses_and_gradients_have_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    saved(&at("base"), false);
    let model = Pretrained::open(&at("base")).unwrap();
    let kind = Some(FileType::Of(GgmlType::Q8_0));
    let vocabulary = Vocabulary::default();
    to_gguf(
        &model,
        &at("q8.gguf"),
        kind,
        "x",
        &vocabulary,
        &mut |_, _| (),
    )
    .unwrap();
    let of = |path: &str, precision, compute| {
        let mut base = BaseConfig::from_path(at(path));
        (base.precision, base.compute) = (precision, compute);
        base
    };
    let bases = [
        of("base", None, None),
        of("base", Some(BasePrecision::Bf16), Some(Compute::Bf16)),
        of("base", Some(BasePrecision::Nf4), Some(Compute::Bf16)),
        of("base", Some(BasePrecision::Int8), None),
        of("base", None, Some(Compute::Fp8)),
        of("q8.gguf", None, None),
    ];
    let adapters = [
        json!({ "rank": 2 }),
        json!({ "rank": 2, "targets": ["q_proj", "down_proj"], "use_dora": true }),
        json!({ "rank": 2, "init_lora_weights": "pissa" }),
    ];
    let (sequence, targets) = rows();
    for (base, lora) in bases
        .iter()
        .flat_map(|base| adapters.iter().map(move |lora| (base, lora)))
    {
        let plain = tuned(base, None, lora);
        let host = tuned(base, Some(Offload::Host), lora);
        assert!(there(&host).is_empty(), "nothing stays after loading");
        for recompute in [Recompute::Layer, Recompute::Mlp, Recompute::None] {
            let run = |model: &LlamaForCausalLM| {
                let (loss, gradients) =
                    model.loss_and_gradients(&sequence, &targets, 0.25, recompute);
                (bits(loss), all_bits(gradients))
            };
            let expected = run(&plain);
            assert!(!expected.1.is_empty());
            for pass in 0..2 {
                assert_eq!(
                    run(&host),
                    expected,
                    "{base:?} {lora} {recompute:?}, pass {pass}"
                );
                assert!(there(&host).len() <= 2);
            }
        }
        let text = [3, 1, 4, 1, 5];
        let scores = |model: &LlamaForCausalLM| model.score(&text).unwrap();
        assert_eq!(scores(&host), scores(&plain));
    }
}

#[test]
fn the_next_layer_is_copied_and_the_others_are_released() {
    use super::Part::{Head, Layer};
    let folder = tempfile::tempdir().unwrap();
    saved(&folder.path().join("base"), true);
    let base = BaseConfig::from_path(folder.path().join("base"));
    let model = tuned(&base, Some(Offload::Host), &json!({ "rank": 2 }));
    let after = |now, next| {
        model.enter(now, next);
        there(&model)
    };
    assert_eq!(after(Layer(0), Some(Layer(1))), [0, 1]);
    assert_eq!(after(Layer(1), Some(Layer(2))), [1, 2]);
    assert_eq!(after(Layer(LAYERS - 1), Some(Head)), [LAYERS - 1]);
    assert_eq!(after(Head, Some(Layer(LAYERS - 1))), [LAYERS - 1]);
    assert_eq!(after(Layer(4), Some(Layer(3))), [3, 4]);
    assert_eq!(after(Layer(0), None), [0]);
    // a model for inference shares the copies
    let (sequence, targets) = rows();
    model.loss(&sequence, &targets);
    assert_eq!(there(&model), [0]);
}
