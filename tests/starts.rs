//! PiSSA and OLoRA: the start changes nothing, and the saved adapter is that of the untouched base model.

use burn::module::Module;
use simmer_files::Existing;
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::adapter::{Card, Init, LoraConfig, Starts, attach, load, save};
use simmer_model::base::{self, BaseConfig};
use simmer_model::{LlamaForCausalLM, Sequence};

use crate::golden;
use crate::training::Kitchen;

fn logits(model: &LlamaForCausalLM, ids: &[u32]) -> Vec<f32> {
    let hidden = model.hidden(&Sequence::from_rows(&[ids]), None);
    model.logits(hidden).into_data().iter::<f32>().collect()
}

fn lora(init: Init, convert_to_lora: bool) -> LoraConfig {
    let mut lora = LoraConfig::default();
    lora.rank = 4;
    lora.alpha = 6.0;
    lora.use_rslora = init == Init::Olora;
    lora.init_lora_weights = init;
    lora.convert_to_lora = convert_to_lora;
    lora
}

/// Each start on a base model as stored and on a quantised one.
#[test]
fn a_saved_adapter_is_the_change_since_the_start() {
    let device = golden::device().autodiff();
    let row = &golden::rows("tied-gqa", "pissa")[0].input_ids;
    for quantised in [false, true] {
        let mut config = BaseConfig::from_path(golden::folder("tied-gqa"));
        if quantised {
            config = serde_json::from_value(serde_json::json!({
                "path": golden::folder("tied-gqa"), "precision": "nf4"
            }))
            .unwrap();
        }
        let open = || base::load(&config, 0, &device).unwrap();
        let untouched = logits(&open().valid(), row);
        for (init, converts) in [
            (Init::Pissa, true),
            (Init::Pissa, false),
            (Init::PissaNiter(2), true),
            (Init::Olora, true),
            (Init::Olora, false),
        ] {
            let attached = attach(
                open(),
                &lora(init, converts),
                7,
                "tied-gqa",
                Starts::OfWeights,
            )
            .unwrap();
            let started = logits(&attached.model.valid(), row);
            // B·A - B₀·A₀ is zero but for the order of its sums
            let difference = golden::max_difference(&started, &untouched);
            assert!(difference < 1e-4, "{init}: {difference}");

            let moved = attached.model.trainable();
            let moved = moved.into_iter().map(|(name, value)| {
                let change = value.clone() * 0.1 + 0.01;
                (name, value + change)
            });
            let model = attached.model.with_trainable(&moved.collect());
            let expected = logits(&model.valid(), row);
            assert!(
                golden::max_difference(&expected, &untouched) > 1e-2,
                "{init}"
            );
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("adapter");
            let card = Card::default();
            save(&model, &attached.config, &out, &[], &card, Existing::Refuse).unwrap();
            let saved = AdapterFolder::open(&out).unwrap();
            let (rank, kind) = if converts {
                (8, "LoRA")
            } else {
                (4, attached.config.kind.name)
            };
            assert_eq!((saved.config().r, saved.config().kind.name), (rank, kind));
            let again = logits(&load(open(), &out).unwrap().model.valid(), row);
            let difference = golden::max_difference(&again, &expected);
            assert!(difference < 1e-4, "{init} {converts}: {difference}");
        }
    }
}

/// What an adapter starts at decides where it ends, and nothing else: it is saved as plain LoRA, and resumed from its checkpoint.
#[test]
fn an_adapter_that_started_at_an_error_is_plain_lora() {
    let kitchen = Kitchen::new();
    let nf4 = "base.precision=nf4";
    let plain = kitchen.whole(&[nf4], "plain");
    let mut before = vec![plain];
    for init in ["loftq", "qera"] {
        let set = format!("method.lora.init_lora_weights={init}");
        let adapter = kitchen.whole(&[nf4, &set], init);
        assert!(!before.contains(&adapter), "{init}");
        assert_eq!(
            kitchen.whole(&[nf4, &set], &format!("{init} again")),
            adapter
        );
        let folder = AdapterFolder::open(kitchen.path(init).join("adapter")).unwrap();
        let config = folder.config();
        assert_eq!((config.r, config.kind.name), (4, "LoRA"));
        assert_eq!(config.init_lora_weights, true);
        before.push(adapter);
    }
}
