//! Combined adapters against PEFT's `add_weighted_adapter`, and merges of several adapters.

use std::path::Path;

use simmer_checkpoint::numbers::floats;
use simmer_checkpoint::{Checkpoint, Dtype, SafetensorsFile};
use simmer_model::adapter::combine::{
    CombineOptions, MajoritySign, Method, WeightedAdapter, combine,
};
use simmer_model::merge::{MergeOptions, merge, verify};

use crate::golden::{self, Tensors};

const MODEL: &str = "tied-gqa";

fn weighted(names: &[&str], weights: &[f64]) -> Vec<WeightedAdapter> {
    let pairs = names.iter().zip(weights);
    pairs
        .map(|(name, weight)| WeightedAdapter {
            folder: golden::adapter_folder(MODEL, name),
            weight: *weight,
        })
        .collect()
}

/// B·A of a module of a saved adapter, whose scale is 1.
fn update(folder: &Path, module: &str) -> Vec<f32> {
    let file = SafetensorsFile::open(folder.join("adapter_model.safetensors")).unwrap();
    let read = |end: &str| {
        let tensor = file
            .tensor(&format!("base_model.model.{module}.{end}.weight"))
            .unwrap();
        (floats(&tensor.bytes, Dtype::F32), tensor.shape)
    };
    let ((a, a_shape), (b, b_shape)) = (read("lora_A"), read("lora_B"));
    let ([rank, columns], [rows, _]) = (&a_shape[..], &b_shape[..]) else {
        panic!("{a_shape:?} {b_shape:?}");
    };
    let (rank, columns, rows) = (*rank, *columns, *rows);
    let element = |at: usize| {
        let term = |k: usize| {
            f64::from(b[at / columns * rank + k]) * f64::from(a[k * columns + at % columns])
        };
        (0..rank).map(term).sum::<f64>() as f32
    };
    (0..rows * columns).map(element).collect()
}

#[test]
fn updates_are_combined_as_by_peft() {
    let folder = tempfile::tempdir().unwrap();
    let expected = Tensors::open(golden::folder("combined.safetensors"));
    let mut compared = 0;
    for name in expected.names() {
        let (case, module) = name.split_once(".model.").unwrap();
        let module = format!("model.{module}");
        let (sign, method) = case.split_once('.').unwrap();
        let weights = if sign == "both" {
            [0.7, 0.4]
        } else {
            [1.0, -0.5]
        };
        let (method, majority_sign) = match method.strip_suffix("_frequency") {
            Some(method) => (method, Some(MajoritySign::Frequency)),
            None => (method, None),
        };
        let method = Method::named(method).unwrap();
        let density = match method {
            Method::Ties => Some(0.4),
            Method::MagnitudePrune => Some(0.3),
            _ => None,
        };
        let out = folder.path().join(case);
        if !out.exists() {
            let options = CombineOptions {
                method,
                density,
                majority_sign,
                rank: (method != Method::Cat).then_some(24),
                ..CombineOptions::exact()
            };
            let adapters = weighted(&["qkvo", "rslora"], &weights);
            let combined = combine(&adapters, &options, &|_, _| ()).unwrap();
            combined.save(&out, &[]).unwrap();
        }
        let found = update(&out, &module);
        let expected = expected.f32(&name);
        let largest = expected
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let difference = golden::max_difference(&found, &expected);
        // PEFT's products, sums and its decomposition of 24 values are in f32: each a few units of the largest value
        assert!(
            difference <= 24.0 * f32::EPSILON * largest,
            "{name}: {difference} of {largest}"
        );
        compared += 1;
    }
    assert_eq!(compared, 20);
}

/// The elements of a tensor.
fn tensor(model: &Path, name: &str) -> Vec<f32> {
    let tensor = Checkpoint::open(model).unwrap().tensor(name).unwrap();
    floats(&tensor.bytes, tensor.dtype)
}

/// PEFT merged each of these alone; the weighted changes add up.
#[test]
fn several_adapters_of_any_kinds_are_merged_with_weights() {
    let names = ["dora", "ia3", "token-rows", "rslora", "pissa"];
    let weights = [0.5, -0.25, 1.5, 0.75, 0.3];
    let adapters = weighted(&names, &weights);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("merged");
    let base = golden::folder(MODEL);
    let report = merge(
        &base,
        &adapters,
        &out,
        MergeOptions::default(),
        &mut |_, _| (),
    )
    .unwrap();
    assert!(report.replaced.is_empty());
    let altered = verify(
        &base,
        &adapters,
        &out,
        MergeOptions::default(),
        &mut |_, _| (),
    );
    assert_eq!(altered.unwrap(), []);
    let alone: Vec<Tensors> = names
        .iter()
        .map(|name| Tensors::open(golden::adapter_folder(MODEL, name).join("golden.safetensors")))
        .collect();
    let mut merged: Vec<String> = report.merged.iter().map(|of| of.name.clone()).collect();
    merged.sort();
    let mut changed: Vec<String> = alone
        .iter()
        .flat_map(|of| of.names_after("merged."))
        .collect();
    changed.sort();
    changed.dedup();
    assert_eq!(merged, changed);
    for name in merged {
        let old = tensor(&base, &name);
        let mut expected: Vec<f64> = old.iter().copied().map(f64::from).collect();
        let mut size = 0.0_f64;
        for (of, weight) in alone.iter().zip(weights) {
            let key = format!("merged.{name}");
            if !of.names().contains(&key) {
                continue;
            }
            for ((sum, merged), old) in expected.iter_mut().zip(of.f32(&key)).zip(&old) {
                *sum += weight * (f64::from(merged) - f64::from(*old));
                size = size.max(f64::from(merged.abs()));
            }
        }
        let expected: Vec<f32> = expected.into_iter().map(|value| value as f32).collect();
        let difference = golden::max_difference(&tensor(&out, &name), &expected);
        // PEFT rounded each of five merges to f32 (DoRA's to four units, PiSSA's start to 1.2e-5)
        assert!(
            f64::from(difference) <= 2e-5 * size,
            "{name}: {difference} of {size}"
        );
    }
}

#[test]
fn one_adapter_has_a_weight_too() {
    let folder = tempfile::tempdir().unwrap();
    let base = golden::folder(MODEL);
    let at = |weights: &[f64], names: &[&str], out: &str| {
        let out = folder.path().join(out);
        let adapters = weighted(names, weights);
        merge(
            &base,
            &adapters,
            &out,
            MergeOptions::default(),
            &mut |_, _| (),
        )
        .unwrap();
        tensor(&out, "model.layers.0.self_attn.q_proj.weight")
    };
    let whole = at(&[1.0], &["qkvo"], "whole");
    assert_eq!(at(&[0.5, 0.5], &["qkvo", "qkvo"], "halves"), whole);
    assert_ne!(at(&[0.5], &["qkvo"], "half"), whole);
    let none = at(&[1.0, -1.0], &["qkvo", "qkvo"], "none");
    assert_eq!(
        none,
        tensor(&base, "model.layers.0.self_attn.q_proj.weight")
    );
}
