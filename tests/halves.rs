//! Activations in bf16 (`base.compute`) on the processor, beside the goldens and the runs in f32.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use simmer_files::digest::sha256;
use simmer_kernels::Capabilities;
use simmer_model::base::{self, BaseConfig, Compute};
use simmer_model::{KvCache, LlamaForCausalLM, Recompute, Sampling, Sequence, Target, adapter};
use simmer_train::{Manifest, Outcome, Resume, train};

use crate::golden::{self, AdapterGolden, Tensors};
use crate::model::model_golden;
use crate::training::{Kitchen, StopAfter, quoted};

const BF16: &str = "base.compute=bf16";
const F32: &str = "base.compute=f32";
const CPU: &str = "device=cpu";

fn attached(model: &str, name: &str) -> LlamaForCausalLM {
    let mut config = BaseConfig::from_path(golden::folder(model));
    config.compute = Some(Compute::Bf16);
    let base = base::load(&config, 0, &Device::flex()).unwrap();
    adapter::load(base, &golden::adapter_folder(model, name))
        .unwrap()
        .model
}

fn values(tensor: burn::tensor::Tensor<1>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// By how much transformers and PEFT in bf16 differ from the goldens: `tests/reference/halves.py`. These random models are
/// badly conditioned.
#[derive(serde::Deserialize)]
struct Halves {
    /// The root mean square of a model's log-probabilities.
    log_probs: BTreeMap<String, f64>,
    /// The norm of the differences of an adapter's gradients, of their norm, by `model/adapter`; adapters that PEFT does not
    /// load are missing.
    gradients: BTreeMap<String, f64>,
}

/// Roundings are as good as random, and there are few rows. Most are 0.5 to 1.3 times as far off as PEFT; the largest is 1.7
/// (OLoRA, whose start is subtracted by products that are rounded too).
const AS_LARGE: f64 = 2.0;

impl Halves {
    fn open() -> Self {
        golden::json(golden::folder("halves.json"))
    }

    /// The largest relative difference that an adapter's gradients may have: PEFT's, or that of the model's other adapters.
    fn most(&self, model: &str, adapter: &str) -> f64 {
        let of_model = self
            .gradients
            .iter()
            .filter(|(name, _)| name.starts_with(model));
        let largest = of_model.map(|(_, of)| *of).fold(0.0, f64::max);
        AS_LARGE
            * self
                .gradients
                .get(&format!("{model}/{adapter}"))
                .copied()
                .unwrap_or(largest)
    }
}

/// Loss and gradients of each golden, against those of PEFT in f32.
#[test]
fn losses_and_gradients_are_near_those_in_f32() {
    let halves = Halves::open();
    for (model, name) in golden::adapters() {
        let tuned = attached(model, name);
        let keys = adapter::peft_keys(&tuned);
        let rows = golden::rows(model, name);
        let folder = golden::adapter_folder(model, name);
        let golden: AdapterGolden = golden::json(folder.join("golden.json"));
        let expected = Tensors::open(folder.join("golden.safetensors"));
        let ids: Vec<&[u32]> = rows.iter().map(|row| &row.input_ids[..]).collect();
        let sequence = Sequence::from_rows(&ids);
        let slots: Vec<_> = rows.iter().flat_map(golden::Row::targets).collect();
        let targets = Target::from_slots(&slots);
        let factor = 1.0 / targets.len() as f64;
        for recompute in [Recompute::None, Recompute::Mlp, Recompute::Layer] {
            let (loss, gradients) =
                tuned.loss_and_gradients(&sequence, &targets, factor, recompute);
            let what = format!("{model}/{name} {recompute:?}");
            let loss = f64::from(values(loss)[0]) * factor;
            // a rounding of each activation, 2^-9 of it; 0.032 is the largest
            assert!((loss - golden.loss).abs() <= 0.05, "{what}: loss {loss}");
            assert_eq!(gradients.len(), keys.len(), "{what}");
            let [mut differences, mut all] = [0.0, 0.0];
            for (key, gradient) in gradients {
                let gradient = values(gradient);
                let expected = expected.f32(&format!("grad.{}", keys[&key]));
                for (found, expected) in gradient.iter().zip(&expected) {
                    differences += f64::from(found - expected).powi(2);
                    all += f64::from(*expected).powi(2);
                }
            }
            let relative = (differences / all).sqrt();
            let most = halves.most(model, name);
            assert!(relative <= most, "{what}: {relative}, at most {most}");
        }
    }
}

/// Log-probabilities of texts, beside transformers in f32; and those of generated tokens, whose keys and values are cached in
/// bf16, beside those of the same text at once.
#[test]
fn scores_and_answers_are_near_those_in_f32() {
    let halves = Halves::open();
    for name in golden::models() {
        let (mut squares, mut count) = (0.0, 0.0);
        let mut config = BaseConfig::from_path(golden::folder(name));
        config.compute = Some(Compute::Bf16);
        let model = base::load(&config, 0, &Device::flex()).unwrap();
        for score in model_golden(name).score {
            let found = model.score(&score.ids).unwrap();
            for (found, expected) in found.iter().zip(&score.log_probs) {
                squares += f64::from(found - expected).powi(2);
                count += 1.0;
            }
            let prompt = &score.ids[..score.ids.len().min(4)];
            let mut cache = KvCache::default();
            let mut on_token = |_| ControlFlow::Continue(());
            let answer = model
                .generate(
                    prompt,
                    &mut cache,
                    8,
                    &[],
                    &Sampling::default(),
                    &mut on_token,
                )
                .unwrap();
            let text = [prompt, &answer.tokens].concat();
            let at_once = &model.score(&text).unwrap()[prompt.len() - 1..];
            let difference = golden::max_difference(&answer.log_probs, at_once);
            // sums in another order make other roundings to bf16 here and there; 0.07 is the largest
            assert!(difference <= 0.2, "{name}: {difference}");
        }
        let rms = f64::sqrt(squares / count);
        let most = AS_LARGE * halves.log_probs[name];
        assert!(rms <= most, "{name}: {rms}, at most {most}");
    }
}

#[test]
fn the_same_bytes_on_any_number_of_threads_and_with_a_resume() {
    let kitchen = Kitchen::new();
    let expected = kitchen.whole(&[CPU, BF16], "here");
    for threads in ["1", "2", "4"] {
        let mut command = kitchen.command(threads, &["--set", CPU, "--set", BF16]);
        let status = command.env("RAYON_NUM_THREADS", threads).status().unwrap();
        assert!(status.success());
        assert!(kitchen.adapter(threads) == expected, "{threads} threads");
    }
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        step: 5,
        in_validation: false,
        stop: &stop,
    };
    let run = kitchen.path("stopped");
    let recipe = kitchen.recipe(&[CPU, BF16]);
    let outcome = train(&recipe, &run, Resume::Never, &mut observer, &stop).unwrap();
    assert!(matches!(outcome, Outcome::Interrupted { step: 5, .. }));
    // without the key it keeps its own
    kitchen.train(&[CPU], "stopped", true).unwrap();
    assert!(kitchen.adapter("stopped") == expected, "resumed");
    let other = kitchen.train(&[CPU, F32], "here", true).unwrap_err();
    assert!(other.to_string().contains("base.compute"), "{other}");
}

/// Of a base model in bf16, runs compute in what the device is fastest in; others, and `method.full`, in f32.
#[test]
fn the_dtype_is_chosen_by_base_model_and_device() {
    let kitchen = Kitchen::new();
    let fastest = Capabilities::of(&Device::flex()).fastest.name();
    let halves = "base.precision=bf16";
    let full = "method={ full = {} }";
    for (run, sets, expected) in [
        ("f32", &[][..], "f32"),
        ("bf16", &[halves], fastest),
        ("chosen", &[halves, F32], "f32"),
        ("full", &[halves, full], "f32"),
    ] {
        let few = [CPU, "train.max_steps=2"];
        let sets = [&few, sets].concat();
        kitchen.train(&sets, run, false).unwrap();
        let text = fs::read_to_string(kitchen.path(run).join("recipe.toml")).unwrap();
        let recipe: toml::Table = text.parse().unwrap();
        assert_eq!(recipe["base"]["compute"].as_str(), Some(expected), "{run}");
        let manifest: Manifest = golden::json(kitchen.path(run).join("manifest.json"));
        assert_eq!(manifest.compute, expected, "{run}");
        if run == "chosen" {
            // as earlier versions wrote it
            let older = text.replace("compute = \"f32\"\n", "");
            assert_ne!(older, text);
            let path = kitchen.path(run).join("manifest.json");
            let mut manifest: BTreeMap<String, serde_json::Value> = golden::json(path.clone());
            manifest.remove("compute").unwrap();
            // the checkpoint names the recipe that it was written with
            let with = serde_json::json!([{ "step": 0, "recipe": sha256(text.as_bytes()), "changes": [] }]);
            manifest.insert("accepted".to_owned(), with);
            fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
            fs::write(kitchen.path(run).join("recipe.toml"), older).unwrap();
            let open = [CPU, "train.max_steps=2", halves];
            kitchen.train(&open, run, true).unwrap();
        }
    }
}

/// Losses of whole runs: low-rank branches with dropout, a quantised base, the whole model.
#[test]
fn runs_are_near_those_in_f32() {
    let kitchen = Kitchen::new();
    // an output head of its own
    let untied = format!("base.path={}", quoted(&golden::folder("untied-mha")));
    let untied = untied.as_str();
    let head = "method.lora.targets=['q_proj', 'lm_head']";
    let all: [&[&str]; 8] = [
        &[],
        &["train.recompute=layer"],
        &["base.precision=nf4"],
        &["method={ full = {} }", "train.learning_rate=1e-3"],
        &[untied, head],
        &[untied, head, "method.lora.dropout=0"],
        &[untied, head, "method.lora.use_dora=true"],
        &[untied, head, "method.lora.init_lora_weights='pissa'"],
    ];
    for (index, sets) in all.into_iter().enumerate() {
        let [wide, half] = ["f32", "bf16"].map(|compute| {
            let run = format!("{index}-{compute}");
            let compute = format!("base.compute={compute}");
            let sets: Vec<&str> = sets
                .iter()
                .copied()
                .chain([CPU, compute.as_str()])
                .collect();
            kitchen.train(&sets, &run, false).unwrap();
            kitchen.losses(&run)
        });
        assert_eq!(wide.len(), 12);
        for (step, (wide, half)) in wide.iter().zip(&half).enumerate() {
            // the loss of a rounding of each activation, and of steps that differ a little
            assert!(
                (wide - half).abs() <= 0.03,
                "{sets:?} step {step}: {wide} {half}"
            );
        }
    }
}

/// Whole runs with products of frozen weights in fp8: a GPU's, which libtorch computes on a processor as well.
#[cfg(feature = "libtorch")]
#[test]
fn runs_in_fp8_are_near_those_in_bf16() {
    let device = std::env::var("SIMMER_TEST_DEVICE").ok();
    let device = device.filter(|device| device.starts_with("libtorch-cuda"));
    let device = format!("device={}", device.as_deref().unwrap_or("libtorch"));
    let kitchen = Kitchen::new();
    let [bf16, fp8] = ["bf16", "fp8"].map(|compute| {
        let compute_in = format!("base.compute={compute}");
        let sets = [device.as_str(), &compute_in, "train.max_steps=6"];
        kitchen.train(&sets, compute, false).unwrap();
        kitchen.losses(compute)
    });
    assert_eq!(bf16.len(), 6);
    for (step, (bf16, fp8)) in bf16.iter().zip(&fp8).enumerate() {
        // each product is rounded by about 4%, in four layers with a residual around each
        assert!((bf16 - fp8).abs() <= 0.1, "step {step}: {bf16} {fp8}");
    }
    assert_ne!(bf16, fp8);
}
