//! Merges into dequantised and original weights, compared with PEFT's and with bitsandbytes' widened weights; see
//! `tests/reference/quantised_merges.py`.

use std::fs;
use std::path::{Path, PathBuf};

use simmer_checkpoint::{Checkpoint, Dtype, Pretrained, SINGLE_FILE, SafetensorsFile};
use simmer_hint::Hint;

use super::*;
use crate::adapter::combine::WeightedAdapter;
use crate::base::BasePrecision;
use crate::merge::tests::ulps_apart;
use crate::merge::{MergeOptions, MergeReport, merge, verify};
use crate::tensor_file::ReadData;

fn golden(name: &str) -> PathBuf {
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens");
    Path::new(goldens).join(name)
}

/// A quantised model, the model that it was quantised from, and an adapter of that.
struct Case {
    quantised: PathBuf,
    original: PathBuf,
    adapter: PathBuf,
    /// How the original is quantised while it is loaded, to get the same weights.
    on_load: Option<QuantisedOnLoad>,
    dtype: Dtype,
}

fn cases() -> Vec<Case> {
    let on_load = |precision| {
        Some(QuantisedOnLoad {
            precision,
            double_quant: true,
        })
    };
    [
        (
            "nf4",
            "tied-gqa",
            "qkvo",
            on_load(BasePrecision::Nf4),
            Dtype::F32,
        ),
        (
            "nf4-bf16",
            "untied-mha",
            "all-linear",
            on_load(BasePrecision::Nf4),
            Dtype::BF16,
        ),
        // quantised in f16, and the original is in f32
        ("fp4", "qwen2", "all-linear", None, Dtype::F32),
        (
            "int8",
            "mistral",
            "all-linear",
            on_load(BasePrecision::Int8),
            Dtype::F32,
        ),
    ]
    .map(|(quantised, original, adapter, on_load, dtype)| Case {
        quantised: golden("quantised").join(quantised),
        original: golden(original),
        adapter: golden(original).join("adapters").join(adapter),
        on_load,
        dtype,
    })
    .into()
}

impl Case {
    fn merge(&self, base: &Path, options: MergeOptions<'_>) -> (tempfile::TempDir, MergeReport) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let report = merge(
            base,
            &[WeightedAdapter::whole(&self.adapter)],
            &out,
            options,
            &mut |_, _| (),
        )
        .unwrap();
        let altered = verify(
            base,
            &[WeightedAdapter::whole(&self.adapter)],
            &out,
            options,
            &mut |_, _| (),
        )
        .unwrap();
        assert_eq!(altered, []);
        (dir, report)
    }

    fn dequantised(&self) -> SafetensorsFile {
        SafetensorsFile::open(self.quantised.join("expected.safetensors")).unwrap()
    }

    /// The merged tensors are PEFT's, and the other quantised weights bitsandbytes' widened ones.
    fn assert_pefts(&self, merged: &Checkpoint) {
        let theirs = SafetensorsFile::open(self.quantised.join("merged.safetensors")).unwrap();
        assert!(theirs.names().count() >= 4);
        for name in theirs.names() {
            let (theirs, ours) = (theirs.data(name).unwrap(), merged.data(name).unwrap());
            assert_eq!(theirs.dtype(), ours.dtype(), "{name}");
            let apart = ulps_apart(&theirs, &ours);
            assert!(
                apart <= 1,
                "{}: {name}: {apart} ulps apart",
                self.quantised.display()
            );
        }
    }

    /// The error of each tensor, in f64 from bitsandbytes' widened weights.
    fn assert_errors(&self, found: &[QuantisedTensor]) {
        let (dequantised, original) = (
            self.dequantised(),
            Checkpoint::open(&self.original).unwrap(),
        );
        assert_eq!(found.len(), dequantised.names().count());
        for tensor in found {
            let values =
                |data: burn::tensor::TensorData| -> Vec<f64> { data.iter::<f64>().collect() };
            let before = values(original.data(&tensor.name).unwrap());
            let after = values(dequantised.data(&tensor.name).unwrap());
            let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
            let norm = square(&mut before.iter().copied()).sqrt();
            let error = square(&mut before.iter().zip(&after).map(|(a, b)| a - b)).sqrt();
            assert!((tensor.norm - norm).abs() <= 1e-9 * norm, "{}", tensor.name);
            assert!(
                (tensor.error - error).abs() <= 1e-9 * norm,
                "{}",
                tensor.name
            );
            assert!((tensor.relative - error / norm).abs() <= 1e-9 && error > 0.0);
        }
    }
}

#[test]
fn merges_into_dequantised_weights_are_pefts() {
    for case in cases() {
        let options = MergeOptions {
            dtype: Some(case.dtype),
            other: Some(OtherForm::Original(&case.original)),
            ..MergeOptions::default()
        };
        let (dir, report) = case.merge(&case.quantised, options);
        let merged = Pretrained::open(&dir.path().join("out")).unwrap();
        assert!(merged.checkpoint.most_quantised().is_none());
        case.assert_pefts(&merged.checkpoint);
        case.assert_errors(&report.quantised);
    }
}

/// An ordinary model that training quantises while it loads it.
#[test]
fn weights_are_quantised_as_in_training() {
    for case in cases().iter().filter(|case| case.on_load.is_some()) {
        let options = MergeOptions {
            quantised: case.on_load,
            other: Some(OtherForm::Original(&case.original)),
            ..MergeOptions::default()
        };
        let (dir, report) = case.merge(&case.original, options);
        let merged = Checkpoint::open(dir.path().join("out")).unwrap();
        case.assert_pefts(&merged);
        case.assert_errors(&report.quantised);
        // the other tensors are those of the model
        let (dequantised, original) = (
            case.dequantised(),
            Checkpoint::open(&case.original).unwrap(),
        );
        for name in original
            .all_names()
            .filter(|name| !dequantised.contains(name))
        {
            assert_eq!(
                merged.tensor(name).unwrap(),
                original.tensor(name).unwrap(),
                "{name}"
            );
        }
        // and the quantised ones without a low-rank branch are widened, not the original
        let mut changed = report.merged.iter().map(|tensor| tensor.name.clone());
        for name in dequantised.names() {
            if !changed.any(|other| other == name) {
                continue;
            }
            assert_ne!(
                merged.tensor(name).unwrap(),
                original.tensor(name).unwrap(),
                "{name}"
            );
        }
    }
}

#[test]
fn merges_into_the_original_measure_the_quantisation() {
    for case in cases() {
        let (plain, _) = case.merge(&case.original, MergeOptions::default());
        let quantised = MergeOptions {
            other: Some(OtherForm::Quantised {
                path: &case.quantised,
                on_load: None,
            }),
            ..MergeOptions::default()
        };
        let (dir, report) = case.merge(&case.original, quantised);
        case.assert_errors(&report.quantised);
        // nothing else is different from a merge that knows of no quantisation, which is PEFT's
        let [one, other] =
            [plain, dir].map(|dir| fs::read(dir.path().join("out").join(SINGLE_FILE)).ok());
        assert!(one == other);
        let Some(on_load) = case.on_load else {
            continue;
        };
        let form = OtherForm::Quantised {
            path: &case.original,
            on_load: Some(on_load),
        };
        let options = MergeOptions {
            other: Some(form),
            ..MergeOptions::default()
        };
        case.assert_errors(&case.merge(&case.original, options).1.quantised);
    }
}

#[test]
fn another_model_is_not_the_original() {
    let case = &cases()[0];
    let dir = tempfile::tempdir().unwrap();
    let said = |original: &Path| {
        let options = MergeOptions {
            other: Some(OtherForm::Original(original)),
            ..MergeOptions::default()
        };
        let out = dir.path().join("out");
        let error = merge(
            &case.quantised,
            &[WeightedAdapter::whole(&case.adapter)],
            &out,
            options,
            &mut |_, _| (),
        );
        let error = error.unwrap_err();
        assert!(error.hint().unwrap().contains("quantised from"));
        assert!(!out.exists());
        let text = error
            .to_string()
            .replace(&golden("").display().to_string(), "");
        text.replace(&dir.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(said(&case.quantised), @"quantised/nf4: `model.layers.0.mlp.down_proj.weight` is stored in nf4: expected the original model, with weights in F32, BF16 or F16");
    let shapes = said(&golden("qwen3"));
    let first: Vec<&str> = shapes.lines().take(2).collect();
    insta::assert_snapshot!(first.join("\n"), @r"
    qwen3: not the model that quantised/nf4 was quantised from:
      model.embed_tokens.weight: expected [104, 32], found [104, 24]
    ");
    // the same shapes, other weights
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for file in ["config.json", SINGLE_FILE] {
        fs::copy(case.original.join(file), other.join(file)).unwrap();
    }
    let path = other.join(SINGLE_FILE);
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    // the signs of f32
    for sign in bytes[half..].iter_mut().skip(3 + half % 4).step_by(4) {
        *sign ^= 0x80;
    }
    fs::write(&path, bytes).unwrap();
    insta::assert_snapshot!(said(&other), @"DIR/other: not the model that quantised/nf4 was quantised from: `model.layers.0.self_attn.q_proj.weight` differs by 173% of its norm, and the error of nf4 is below 50%");
}
