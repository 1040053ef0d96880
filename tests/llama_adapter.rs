//! Checkpoints of the original LLaMA-Adapter, and its form in PEFT.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::TensorData;
use simmer_checkpoint::pth::{self, PthFile};
use simmer_checkpoint::{ModelConfig, Pretrained, TensorSpec};
use simmer_files::Existing;
use simmer_hint::Hint;
use simmer_model::Sequence;
use simmer_model::adapter::kind::LLAMA_ADAPTER;
use simmer_model::adapter::llama_adapter::{to_original, to_peft};
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::adapter::{self, AdapterConfig, AdapterError, Card};

use crate::commands::simmer;
use crate::golden::{self, Tensors};
use crate::model::load;
use crate::training::{Kitchen, quoted};

fn config(model: &str) -> ModelConfig {
    Pretrained::open(&golden::folder(model)).unwrap().config
}

/// The trained tensors of an adapter, as they are saved.
fn saved(model: &str, path: &Path) -> Vec<u8> {
    let attached = adapter::load(load(model, &golden::device()), path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter");
    let (card, existing) = (Card::default(), Existing::Refuse);
    adapter::save(
        &attached.model,
        &attached.config,
        &out,
        &[],
        &card,
        existing,
    )
    .unwrap();
    fs::read(out.join("adapter_model.safetensors")).unwrap()
}

#[test]
fn a_checkpoint_of_the_original_is_the_adapter_that_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    for model in ["tied-gqa", "untied-mha"] {
        let theirs = golden::adapter_folder(model, "llama-adapter");
        let expected = fs::read(theirs.join("adapter_model.safetensors")).unwrap();
        let file = theirs.join("adapter.pth");
        assert!(saved(model, &file) == expected, "{model}");
        let opened = AdapterFolder::open(&file).unwrap();
        let (read, of_folder) = (opened.config(), AdapterFolder::open(&theirs).unwrap());
        assert_eq!(*read.kind, LLAMA_ADAPTER);
        let prompts = |config: &AdapterConfig| (config.adapter_len, config.adapter_layers);
        assert_eq!(prompts(read), prompts(of_folder.config()));
        assert!(
            opened.warnings()[0].contains("through tanh"),
            "{:?}",
            opened.warnings()
        );

        let out = folder.path().join(format!("{model}.pth"));
        to_original(&of_folder, &config(model), &out).unwrap();
        assert!(saved(model, &out) == expected, "{model}");
        // what torch writes for the same tensors, but for the places in the archive
        let gates = |file: &Path| {
            let bytes = fs::read(file).unwrap();
            let file = PthFile::parse(&bytes).unwrap();
            let all = file.tensors().iter();
            let all = all.map(|of| {
                (
                    of.name.clone(),
                    of.info.clone(),
                    bytes[of.range.clone()].to_vec(),
                )
            });
            all.collect::<Vec<_>>()
        };
        assert!(gates(&out) == gates(&file), "{model}");
    }
}

#[test]
fn the_program_takes_a_checkpoint_of_the_original() {
    let theirs = golden::adapter_folder("untied-mha", "llama-adapter");
    let (base, file) = (golden::folder("untied-mha"), theirs.join("adapter.pth"));
    let [base, path] = [&base, &file].map(|path| path.to_str().unwrap());
    let kitchen = Kitchen::new();
    let sets = [
        format!("base.path={}", quoted(&golden::folder("untied-mha"))),
        format!("method.adaption_prompt={{from={path:?}}}"),
        "train.learning_rate=1e-30".to_owned(),
        "train.max_steps=1".to_owned(),
        "train.schedule=constant".to_owned(),
    ];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    kitchen.whole(&sets, "run");
    let continued = kitchen.path("run/adapter");
    let weights = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert!(weights(&continued) == weights(&theirs));
    let card = fs::read_to_string(continued.join("README.md")).unwrap();
    assert!(card.contains("PEFT does not take this adapter"), "{card}");

    let args = ["--base", base, "--adapter", path];
    let here = Path::new(".");
    let run = |args: &[&str]| {
        let output = simmer(here, args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let score = ["score", "--text", "soup", "--json"];
    let (code, of_file, said) = run(&[&score[..], &args].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("a checkpoint of the original LLaMA-Adapter: 5 prompts"),
        "{said}"
    );
    let args = ["--base", base, "--adapter", continued.to_str().unwrap()];
    assert_eq!(run(&[&score[..], &args].concat()).1, of_file);

    let out = kitchen.path("merged");
    let merge = [
        "merge",
        "--base",
        base,
        "--adapter",
        path,
        "--out",
        out.to_str().unwrap(),
    ];
    let (code, _, said) = run(&merge);
    assert!(
        code != Some(0) && said.contains("LLaMA-Adapter V1 cannot be merged"),
        "{said}"
    );
    let (_, shown, _) = run(&["adapter", "inspect", path]);
    assert!(shown.contains("LLaMA-Adapter V1"), "{shown}");

    let peft = kitchen.path("peft");
    let (code, _, said) = run(&["convert", path, peft.to_str().unwrap(), "--base", base]);
    assert!(
        code != Some(0) && said.contains("has a bias, which PEFT adds once more"),
        "{said}"
    );
    let original = kitchen.path("original.pth");
    let original = original.to_str().unwrap();
    let continued = continued.to_str().unwrap();
    assert_eq!(run(&["convert", continued, original]).0, Some(0));
    let (_, shown, said) = run(&["adapter", "diff", original, path]);
    assert!(shown.contains("same"), "{shown}{said}");
}

/// An adapter of `llama3-rope` with these gates in its upper layer.
fn with_gates(folder: &Path, gates: [f32; 2]) -> AdapterFolder {
    let mut tensors = BTreeMap::new();
    let key = |end| format!("base_model.model.model.layers.1.self_attn.{end}");
    let prompts = (0..3 * 32).map(|i| ((i * 37) % 19) as f32 / 9.0 - 1.0);
    let prompts = TensorData::new(prompts.collect::<Vec<f32>>(), [1, 3, 32]);
    tensors.insert(key("adaption_prompt"), prompts);
    tensors.insert(key("adaption_gate"), TensorData::new(gates.to_vec(), [2]));
    let config = AdapterConfig {
        kind: &LLAMA_ADAPTER,
        adapter_len: 3,
        adapter_layers: 1,
        ..AdapterConfig::default()
    };
    let existing = Existing::Replace;
    AdapterFolder::save(folder, &config, &tensors, &[], &Card::default(), existing).unwrap();
    AdapterFolder::open(folder).unwrap()
}

#[test]
fn pefts_form_is_written_only_if_it_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, peft) = (folder.path().join("ours"), folder.path().join("peft"));
    let base = config("llama3-rope");
    let equal = with_gates(&ours, [0.75, 0.75]);
    to_peft(&equal, &base, &peft).unwrap();
    let logits = |path: &Path| -> Vec<f32> {
        let attached = adapter::load(load("llama3-rope", &golden::device()), path).unwrap();
        let model = attached.model.valid();
        let hidden = model.hidden(&Sequence::from_rows(&[&[5, 17, 80, 33, 9]]), None);
        model.logits(hidden).into_data().iter::<f32>().collect()
    };
    let difference = golden::max_difference(&logits(&ours), &logits(&peft));
    // tanh of two libraries
    assert!(difference <= 2e-6, "{difference}");

    let said = |result: Result<(), AdapterError>| {
        let error = result.unwrap_err();
        let text = error
            .to_string()
            .replace(&folder.path().display().to_string(), "DIR");
        match error.hint() {
            Some(hint) => format!("{text}\nhint: {hint}"),
            None => text,
        }
    };
    let out = folder.path().join("out");
    let differ = with_gates(&ours, [0.75, -0.5]);
    insta::assert_snapshot!(said(to_peft(&differ, &base, &out)), @"DIR/ours: cannot be converted to PEFT's form: PEFT has one gate for all heads of a layer, and those of `model.layers.1.self_attn` differ: they scale by -0.4621 to 0.6351");
    let wide = AdapterFolder::open(golden::adapter_folder("tied-gqa", "llama-adapter")).unwrap();
    let refused = said(to_peft(&wide, &config("tied-gqa"), &out));
    assert!(refused.contains("have 48 features"), "{refused}");
    let of_peft = AdapterFolder::open(&peft).unwrap();
    insta::assert_snapshot!(said(to_peft(&of_peft, &base, &out)), @"DIR/peft: cannot be converted to PEFT's form: it is in PEFT's form already");
    insta::assert_snapshot!(said(to_original(&of_peft, &base, &out)), @"DIR/peft: cannot be converted to the original LLaMA-Adapter's form: its code loads prompts with a gate for each head, and this adapter is of the type ADAPTION_PROMPT");
    assert!(!out.exists());
}

#[test]
fn gates_without_tanh_are_taken_as_they_are() {
    let theirs = golden::adapter_folder("untied-mha", "llama-adapter");
    let bytes = fs::read(theirs.join("adapter.pth")).unwrap();
    let file = PthFile::parse(&bytes).unwrap();
    // what tanh makes of the gates, in their place
    let tensors = file.tensors().iter().map(|tensor| {
        let spec = TensorSpec {
            name: tensor.name.clone(),
            dtype: tensor.info.dtype,
            shape: tensor.info.shape.clone(),
        };
        let values = bytes[tensor.range.clone()].chunks_exact(4);
        let values = values.map(|value| f32::from_le_bytes(value.try_into().unwrap()));
        let is_gate = tensor.name.ends_with("gate");
        let values = values.map(|value| if is_gate { value.tanh() } else { value });
        (spec, values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
    });
    let folder = tempfile::tempdir().unwrap();
    let tensors: Vec<_> = tensors.collect();
    let weights = pth::encode("adapter", &tensors).unwrap();
    fs::write(folder.path().join("adapter_model.bin"), weights).unwrap();
    let config = r#"{"peft_type": "LLAMA_ADAPTER", "adapter_len": 5, "adapter_layers": 1, "gate_activation": "none"}"#;
    fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    let base = load("untied-mha", &golden::device());
    let model = adapter::load(base, folder.path()).unwrap().model.valid();
    let row = &golden::rows("untied-mha", "llama-adapter")[1];
    let hidden = model.hidden(&Sequence::from_rows(&[&row.input_ids]), None);
    let logits: Vec<f32> = model.logits(hidden).into_data().iter::<f32>().collect();
    let expected = Tensors::open(theirs.join("golden.safetensors")).f32("logits.1");
    // as for every adapter: f32 in another order of summation
    assert!(golden::max_difference(&logits, &expected) <= 1e-4);
}
