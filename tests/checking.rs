//! What `simmer merge` says about what it wrote: a wrong merge does not pass.

use std::path::{Path, PathBuf};

use burn::module::Module;
use simmer_checkpoint::{Dtype, SafetensorsFile};
use simmer_model::adapter::combine::WeightedAdapter;
use simmer_model::base::{self, BaseConfig};
use simmer_model::merge::agreement::{Agreement, Heard};
use simmer_model::merge::{MergeOptions, merge, verify};

use crate::adapters::attached;
use crate::commands::simmer;
use crate::golden;

struct Merged {
    folder: tempfile::TempDir,
    model: &'static str,
    adapter: &'static str,
    options: MergeOptions<'static>,
    rounding: f64,
}

impl Merged {
    fn new(model: &'static str, adapter: &'static str, dtype: Dtype) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = MergeOptions {
            dtype: Some(dtype),
            ..MergeOptions::default()
        };
        let (base, path) = (
            golden::folder(model),
            golden::adapter_folder(model, adapter),
        );
        let out = folder.path().join("merged");
        let report = merge(
            &base,
            &[WeightedAdapter::whole(&path)],
            &out,
            options,
            &mut |_, _| (),
        )
        .unwrap();
        Self {
            folder,
            model,
            adapter,
            options,
            rounding: report.rounding(),
        }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("merged")
    }

    fn altered(&self) -> Vec<String> {
        let (base, adapter) = (
            golden::folder(self.model),
            golden::adapter_folder(self.model, self.adapter),
        );
        let altered = verify(
            &base,
            &[WeightedAdapter::whole(&adapter)],
            &self.out(),
            self.options,
            &mut |_, _| (),
        )
        .unwrap();
        altered.into_iter().map(|tensor| tensor.name).collect()
    }

    /// Base and adapter beside the model in a folder.
    fn agreement_with(&self, merged: &Path) -> Agreement {
        let rows = golden::rows(self.model, self.adapter);
        let prompts = rows.into_iter().map(|row| row.input_ids).collect();
        let apart = attached(self.model, self.adapter).model.valid();
        let heard = Heard::from(&apart, prompts).unwrap();
        let merged = base::load(&BaseConfig::from_path(merged), 0, &golden::device()).unwrap();
        heard.compare(&merged, self.rounding).unwrap().0
    }

    fn agreement(&self) -> Agreement {
        self.agreement_with(&self.out())
    }

    /// Changes the bytes of a tensor.
    fn alter(&self, tensor: &str, change: impl Fn(&mut [u8])) {
        let entries = std::fs::read_dir(self.out()).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        for path in files.filter(|path| path.extension().is_some_and(|ext| ext == "safetensors")) {
            let mut bytes = std::fs::read(&path).unwrap();
            let file = SafetensorsFile::open(&path).unwrap();
            if let Ok(found) = file.bytes(tensor) {
                let (at, len) = (position(&bytes, &file, tensor), found.len());
                change(&mut bytes[at..at + len]);
                drop(file);
                std::fs::write(&path, bytes).unwrap();
                return;
            }
        }
        panic!("no tensor {tensor}");
    }
}

/// Where a tensor's bytes begin in its file.
fn position(bytes: &[u8], file: &SafetensorsFile, tensor: &str) -> usize {
    let first = file.names().next().unwrap();
    let offset =
        file.bytes(tensor).unwrap().as_ptr().addr() - file.bytes(first).unwrap().as_ptr().addr();
    8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + offset
}

#[test]
fn right_merges_agree_in_every_precision() {
    for (model, adapter) in golden::merging_adapters() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let merged = Merged::new(model, adapter, dtype);
            assert_eq!(merged.altered(), [""; 0], "{model}/{adapter}");
            let agreement = merged.agreement();
            println!("{model}/{adapter} {dtype} {agreement:?}");
            assert!(agreement.agrees, "{model}/{adapter} {dtype}: {agreement:?}");
            assert!(agreement.positions > 20);
        }
    }
}

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

#[test]
fn one_bit_of_one_tensor_is_found() {
    let merged = Merged::new("tied-gqa", "qkvo", Dtype::BF16);
    merged.alter(Q, |bytes| bytes[100] ^= 1);
    assert_eq!(merged.altered(), [Q]);
    // of a tensor that was only copied, too, and of an index that says nothing
    let merged = Merged::new("untied-mha", "all-linear", Dtype::F32);
    merged.alter("model.norm.weight", |bytes| bytes[3] ^= 0x40);
    assert_eq!(merged.altered(), ["model.norm.weight"]);
}

#[test]
fn a_wrong_merge_does_not_agree() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let merged = Merged::new("tied-gqa", "qkvo", dtype);
        // the base, as if the adapter had been forgotten
        let base = merged.agreement_with(&golden::folder("tied-gqa"));
        println!("{dtype} forgotten: {base:?}");
        assert!(!base.agrees, "{dtype}: {base:?}");
        // another adapter's merge
        let other = Merged::new("tied-gqa", "rslora", dtype);
        let other = merged.agreement_with(&other.out());
        assert!(!other.agrees, "{dtype}: {other:?}");
        // one tensor of zeros
        merged.alter(Q, |bytes| bytes.fill(0));
        let zeros = merged.agreement();
        println!("{dtype} zeros: {zeros:?}");
        assert!(!zeros.agrees, "{dtype}: {zeros:?}");
    }
}

#[test]
fn a_model_of_other_tensors_is_not_this_merge() {
    let merged = Merged::new("tied-gqa", "qkvo", Dtype::F32);
    let other = golden::folder("untied-mha");
    let base = golden::folder("tied-gqa");
    let adapter = golden::adapter_folder("tied-gqa", "qkvo");
    let error = verify(
        &base,
        &[WeightedAdapter::whole(&adapter)],
        &other,
        merged.options,
        &mut |_, _| (),
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not match the merge of this base model and adapter"),
        "{error}"
    );
}

fn run(args: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let base = golden::folder("untied-mha").display().to_string();
    let adapter = golden::adapter_folder("untied-mha", "all-linear")
        .display()
        .to_string();
    let all = [
        &[
            "merge",
            "--base",
            &base,
            "--adapter",
            &adapter,
            "--out",
            "merged",
        ],
        args,
    ]
    .concat();
    let output = simmer(folder.path(), &all);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{err}");
    (out, err)
}

#[test]
fn the_command_checks_and_says_what_it_found() {
    let (out, err) = run(&[]);
    assert_eq!(out, "merged\n");
    assert!(
        err.contains("check: base + adapter and the merged model predict"),
        "{err}"
    );
    assert!(
        err.contains("equal the merged weights, bit for bit") && err.contains("rounding: "),
        "{err}"
    );
    let (_, err) = run(&["--no-check"]);
    assert!(!err.contains("check:"), "{err}");
    let (out, _) = run(&["--json", "--prompt", "the rain", "--prompt", "2 + 2"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["check"]["agreement"]["prompts"], 2);
    assert_eq!(json["check"]["agreement"]["agrees"], true);
    assert_eq!(json["check"]["altered"].as_array().unwrap().len(), 0);
    assert_eq!(json["merged"].as_array().unwrap().len(), 14);
    assert_eq!(json["merged"][0]["dtype"], "BF16");
}

#[test]
fn differences_of_tokens_are_those_of_their_scores() {
    let merged = Merged::new("tied-gqa", "qkvo", Dtype::BF16);
    let agreement = merged.agreement();
    let apart = attached("tied-gqa", "qkvo").model.valid();
    let whole = base::load(&BaseConfig::from_path(merged.out()), 0, &golden::device()).unwrap();
    let mut changes = Vec::new();
    for row in golden::rows("tied-gqa", "qkvo") {
        let [before, after] = [&apart, &whole].map(|model| model.score(&row.input_ids).unwrap());
        let pairs = before.into_iter().zip(after);
        changes.extend(pairs.map(|(before, after)| f64::from(after) - f64::from(before)));
    }
    let count = changes.len() as f64;
    let mean = changes.iter().map(|change| change.abs()).sum::<f64>() / count;
    let largest = changes
        .iter()
        .fold(0.0_f64, |most, change| most.max(change.abs()));
    let found = agreement.tokens;
    assert_eq!(found.tokens, changes.len());
    // sums of f32 in another order: one row at a time
    let close = |a: f64, b: f64| (a - b).abs() < 1e-5;
    assert!(close(found.mean, mean) && mean > 1e-4, "{found:?} {mean}");
    assert!(close(found.largest, largest), "{found:?} {largest}");
    assert!(close(
        found.loss_change,
        -changes.iter().sum::<f64>() / count
    ));
}

#[test]
fn a_quantised_model_is_not_quantised_again_while_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["convert", "data/tiny-base", "q8.gguf", "--dtype", "q8_0"];
    assert!(simmer(dir.path(), &args).status.success());
    let args = [
        "score",
        "--base",
        "q8.gguf",
        "--precision",
        "nf4",
        "--text",
        "Soup.",
    ];
    let output = simmer(dir.path(), &args);
    assert!(!output.status.success());
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r#"
    error: `base.precision` = "nf4" quantises an ordinary model, and q8.gguf is stored in Q8_0
    hint: remove the precision: the weights stay as they are stored (with f32 or bf16 they are widened)
    "#);
}

/// `simmer.json` of the run says how its base model was quantised.
#[test]
fn an_adapter_of_a_quantised_base_is_merged_into_either_form() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let rows = r#"{"text": "The rain falls on the kitchen."}
{"text": "Soup and bread."}"#;
    std::fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let recipe = "[base]\npath = 'data/tiny-base'\nprecision = 'nf4'\n[method.lora]\nrank = 2\n\
         [data]\ntrain = [{ path = 'rows.jsonl', template = 'completion' }]\n\
         [train]\nmax_steps = 4\nbatch_size = 2\nlearning_rate = 1e-2\n";
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
    let trained = simmer(folder, &["train", "recipe.toml", "--out", "run"]);
    assert!(trained.status.success(), "{trained:?}");
    let settings: serde_json::Value = golden::json(folder.join("run/adapter/simmer.json"));
    assert_eq!(
        settings["base"],
        serde_json::json!({"kind": "nf4", "on_load": true, "double_quant": true})
    );
    let card = std::fs::read_to_string(folder.join("run/adapter/README.md")).unwrap();
    assert!(
        card.contains("quantised to nf4 with double quantisation"),
        "{card}"
    );
    // the base model is quantised as in training, unless --precision is given
    let score = |more: &[&str]| {
        let args = [
            "score",
            "--base",
            "data/tiny-base",
            "--adapter",
            "run/adapter",
            "--text",
            "Soup.",
        ];
        let scored = simmer(folder, &[&args, &["--json"][..], more].concat());
        assert!(scored.status.success(), "{scored:?}");
        let json: serde_json::Value = serde_json::from_slice(&scored.stdout).unwrap();
        json.to_string()
    };
    assert_eq!(score(&[]), score(&["--precision", "nf4"]));
    assert_ne!(score(&[]), score(&["--precision", "f32"]));
    let [dequantised, original] = [&[][..], &["--into", "original"]].map(|more| {
        let out = ["dequantised", "original"][usize::from(!more.is_empty())];
        let args = [
            "merge",
            "--base",
            "data/tiny-base",
            "--adapter",
            "run/adapter",
        ];
        let all = [
            &args,
            &["--prompts", "rows.jsonl", "--out", out, "--json"],
            more,
        ]
        .concat();
        let merged = simmer(folder, &all);
        let said = String::from_utf8(merged.stderr).unwrap();
        assert!(merged.status.success(), "{said}");
        assert!(
            said.contains(&format!("merged into the {out} base model")),
            "{said}"
        );
        assert!(said.contains("quantisation: "), "{said}");
        let json: serde_json::Value = serde_json::from_slice(&merged.stdout).unwrap();
        assert_eq!(json["into"], out);
        json
    });
    // the error of the quantisation is the same from both sides
    assert_eq!(dequantised["quantised"], original["quantised"]);
    let errors = dequantised["quantised"].as_array().unwrap();
    assert!(errors.len() >= dequantised["merged"].as_array().unwrap().len());
    let nf4 = |tensor: &serde_json::Value| {
        let relative = tensor["relative"].as_f64().unwrap();
        tensor["kind"] == "nf4" && (0.05..0.15).contains(&relative)
    };
    assert!(errors.iter().all(nf4), "{errors:?}");
    let mean = |json: &serde_json::Value, of: &str| json["check"][of]["mean"].as_f64().unwrap();
    for json in [&dequantised, &original] {
        let agreement = &json["check"]["agreement"];
        assert_eq!(agreement["prompts"], 2);
        assert_eq!(agreement["agrees"], true);
        // the merge itself is exact but for rounding; the quantisation moves the trained model
        let rounding = agreement["tokens"]["mean"].as_f64().unwrap();
        assert!(10.0 * rounding < mean(json, "original"), "{json}");
    }
    let [one, other] = [&dequantised, &original].map(|json| mean(json, "original"));
    assert!((one - other).abs() < 0.1 * one, "{one} {other}");
}
