//! Merged models against PEFT's `merge_and_unload`, and against base and adapter apart.

use burn::module::Module;
use safetensors::{Dtype, SafeTensors};
use simmer_checkpoint::Checkpoint;
use simmer_checkpoint::numbers::floats;
use simmer_model::Sequence;
use simmer_model::adapter::combine::WeightedAdapter;
use simmer_model::base::{self, BaseConfig};
use simmer_model::merge::{MergeOptions, merge};

use crate::adapters::attached;
use crate::golden;

/// The stored numbers as integers whose order is that of the numbers: neighbours are one apart.
fn ordered(bytes: &[u8], dtype: Dtype) -> Vec<i64> {
    let width = if dtype == Dtype::F32 { 4 } else { 2 };
    let sign = 1_i64 << (8 * width - 1);
    bytes
        .chunks_exact(width)
        .map(|bytes| {
            let bits = bytes
                .iter()
                .rev()
                .fold(0_i64, |bits, byte| bits << 8 | i64::from(*byte));
            if bits & sign == 0 { bits } else { sign - bits }
        })
        .collect()
}

#[test]
fn merged_weights_equal_pefts_to_the_last_places() {
    for (model, name) in golden::adapters() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("merged");
        let adapter = golden::adapter_folder(model, name);
        let base = golden::folder(model);
        let merging = merge(
            &base,
            &[WeightedAdapter::whole(&adapter)],
            &out,
            MergeOptions::default(),
            &mut |_, _| (),
        );
        if golden::PROMPTS.contains(&name) {
            let refused = merging.unwrap_err().to_string();
            assert!(
                refused.contains("LLaMA-Adapter") && refused.contains("cannot be merged"),
                "{refused}"
            );
            assert!(!out.exists());
            continue;
        }
        merging.unwrap();
        let merged = Checkpoint::open(&out).unwrap();
        let file = std::fs::read(adapter.join("golden.safetensors")).unwrap();
        let golden = SafeTensors::deserialize(&file).unwrap();
        let mut compared = 0;
        for (key, expected) in golden.tensors() {
            let Some(key) = key.strip_prefix("merged.") else {
                continue;
            };
            assert_eq!(
                merged.info(key).unwrap().dtype,
                expected.dtype(),
                "{model}/{name} {key}"
            );
            if matches!(name, "pissa" | "olora" | "olora-head") {
                let found = floats(&merged.tensor(key).unwrap().bytes, expected.dtype());
                let expected = floats(expected.data(), expected.dtype());
                let largest = expected
                    .iter()
                    .fold(0.0_f32, |most, value| most.max(value.abs()));
                // PEFT rounds the weight without its start to the stored dtype, then the sum: two roundings, whose errors are
                // those of the largest weights where both cancel; its singular vectors in f32 are 1.2e-5 off
                let unit = match merged.info(key).unwrap().dtype {
                    Dtype::F32 => 2e-5,
                    _ => 2.0 * 2_f32.powi(-8),
                };
                let difference = golden::max_difference(&found, &expected);
                assert!(
                    difference <= unit * largest.max(1.0),
                    "{model}/{name} {key}: {difference}"
                );
                compared += 1;
                continue;
            }
            let found = ordered(&merged.tensor(key).unwrap().bytes, expected.dtype());
            let expected = ordered(expected.data(), expected.dtype());
            assert_eq!(found.len(), expected.len(), "{model}/{name} {key}");
            let worst = found
                .iter()
                .zip(&expected)
                .map(|(a, b)| (a - b).abs())
                .max();
            // norm, factor and product of a row of DoRA are three roundings, and PEFT sums the norm in f32
            let most = if name == "dora" { 4 } else { 1 };
            assert!(
                worst <= Some(most),
                "{model}/{name} {key}: {worst:?} units in the last place"
            );
            compared += 1;
        }
        // a path that still adds nothing: PEFT's merge changes no tensor
        assert_eq!(compared > 0, name != "init", "{model}/{name}");
        if compared == 0 {
            let base = Checkpoint::open(golden::folder(model)).unwrap();
            for key in base.names() {
                assert_eq!(
                    merged.tensor(key).unwrap(),
                    base.tensor(key).unwrap(),
                    "{key}"
                );
            }
        }
    }
}

#[test]
fn a_merged_model_answers_as_base_and_adapter() {
    for (model, name) in golden::merging_adapters() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("merged");
        let options = MergeOptions {
            dtype: Some(Dtype::F32),
            ..MergeOptions::default()
        };
        let adapter = golden::adapter_folder(model, name);
        merge(
            &golden::folder(model),
            &[WeightedAdapter::whole(&adapter)],
            &out,
            options,
            &mut |_, _| (),
        )
        .unwrap();
        let merged = base::load(&BaseConfig::from_path(&out), 0, &golden::device()).unwrap();
        let apart = attached(model, name).model.valid();
        for row in golden::rows(model, name) {
            let logits = |model: &simmer_model::LlamaForCausalLM| -> Vec<f32> {
                let hidden = model.hidden(&Sequence::from_rows(&[&row.input_ids]), None);
                model.logits(hidden).into_data().iter::<f32>().collect()
            };
            let difference = golden::max_difference(&logits(&merged), &logits(&apart));
            // the same sums in another order, in f32
            assert!(difference <= 1e-4, "{model}/{name}: {difference}");
        }
    }
}
