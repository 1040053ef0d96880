//! Adapters against PEFT: forward, gradients, files.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use simmer_model::checkpoint::Existing;
use simmer_model::{KvCache, LlamaForCausalLM, Run, Sampling, Target, adapter};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::golden::{self, AdapterGolden, ModelGolden, Tensors};
use crate::model::load;

/// f32 against f32 in another order of summation: conditioning.py found 2e-5 between f32 and f64.
const LOGITS: f32 = 1e-4;

pub(crate) fn attached(model: &str, name: &str) -> adapter::Attached {
    let base = load(model, &Device::flex());
    adapter::load(base, &golden::adapter_folder(model, name)).unwrap()
}

fn goldens(model: &str, name: &str) -> (ModelGolden, AdapterGolden, Tensors) {
    let folder = golden::adapter_folder(model, name);
    (
        golden::json(golden::folder(model).join("golden.json")),
        golden::json(folder.join("golden.json")),
        Tensors::open(folder.join("golden.safetensors")),
    )
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Loss over all rows, as the mean over their targets.
fn mean_loss(model: &LlamaForCausalLM, rows: &[golden::Row]) -> Tensor<1> {
    let ids: Vec<&[u32]> = rows.iter().map(|row| &row.input_ids[..]).collect();
    let targets: Vec<_> = rows.iter().flat_map(golden::Row::targets).collect();
    let count = targets.iter().flatten().count() as f64;
    model.loss(&Run::from_rows(&ids), &Target::from_slots(&targets)) / count
}

#[test]
fn logits_equal_peft() {
    for (model, name) in golden::ADAPTERS {
        let tuned = attached(model, name).model.valid();
        let (base, _, expected) = goldens(model, name);
        for (index, row) in base.rows.iter().enumerate() {
            let hidden = tuned.hidden(&Run::from_rows(&[&row.input_ids]), None);
            let logits = values(tuned.logits(hidden));
            let expected = expected.f32(&format!("logits.{index}"));
            let difference = golden::max_difference(&logits, &expected);
            assert!(
                difference <= LOGITS,
                "{model}/{name} row {index}: {difference}"
            );
        }
    }
}

#[test]
fn every_gradient_equals_peft() {
    for (model, name) in golden::ADAPTERS {
        let tuned = attached(model, name).model;
        let (base, golden, expected) = goldens(model, name);
        let loss = mean_loss(&tuned, &base.rows);
        let mut gradients = loss.backward();
        let found: f64 = loss.into_scalar();
        assert!(
            (found - golden.loss).abs() <= 1e-4,
            "{model}/{name}: loss {found}"
        );
        let keys: BTreeMap<String, String> = adapter::peft_keys(&tuned);
        let gradients = tuned.gradients(&mut gradients);
        assert_eq!(
            gradients
                .keys()
                .map(|name| keys[name].clone())
                .collect::<std::collections::BTreeSet<_>>(),
            expected.names_after("grad.").into_iter().collect(),
            "{model}/{name}"
        );
        for (key, gradient) in gradients {
            let gradient = values(gradient);
            let expected = expected.f32(&format!("grad.{}", keys[&key]));
            let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let difference: Vec<f32> = gradient.iter().zip(&expected).map(|(a, b)| a - b).collect();
            // conditioning.py: 2.4e-6 between f32 and f64
            let relative = norm(&difference) / norm(&expected).max(1e-6);
            assert!(relative <= 2e-5, "{model}/{name} {key}: {relative}");
        }
    }
}

#[test]
fn greedy_answers_equal_peft() {
    for (model, name) in golden::ADAPTERS {
        let tuned = attached(model, name).model.valid();
        let (_, golden, _) = goldens(model, name);
        let prompt = &golden.greedy.prompt;
        let mut cache = KvCache::default();
        let mut on_token = |_| ControlFlow::Continue(());
        let answer = tuned
            .generate(
                prompt,
                &mut cache,
                32,
                &[],
                &Sampling::default(),
                &mut on_token,
            )
            .unwrap();
        assert_eq!(answer.tokens, golden.greedy.ids, "{model}/{name}");
    }
}

#[test]
fn a_saved_adapter_has_the_bytes_of_pefts() {
    for (model, name) in golden::ADAPTERS {
        let attached = attached(model, name);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("adapter");
        adapter::save(&attached.model, &attached.config, &out, Existing::Refuse).unwrap();
        let read = |folder: &std::path::Path, file: &str| std::fs::read(folder.join(file)).unwrap();
        let theirs = golden::adapter_folder(model, name);
        assert!(
            read(&out, "adapter_model.safetensors") == read(&theirs, "adapter_model.safetensors"),
            "{model}/{name}: adapter_model.safetensors"
        );
        let again = adapter::load(load(model, &Device::flex()), &out).unwrap();
        assert_eq!(again.config.r, attached.config.r);
    }
}
