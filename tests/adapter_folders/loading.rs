//! Adapters of other programs, and folders that cannot be used.

use std::fs;
use std::path::Path;

use burn::module::Module;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use simmer_model::adapter::inspect::inspect;

use super::{Folders, GENERATE, SCORE, logits, with};
use crate::adapters::attached;
use crate::golden;
use crate::training::Kitchen;

#[test]
fn weights_that_are_not_finite_are_refused_where_they_are_loaded() {
    let folders = Folders::new();
    let key = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight";
    folders.tensors("adapter_model.safetensors", |mut tensors| {
        let values = &mut tensors.get_mut(key).unwrap().1;
        (values[3], values[5]) = (f32::NAN, f32::INFINITY);
        tensors
    });
    folders.write(
        "rows.jsonl",
        r#"{"prompt": "soup?", "completion": "heat."}"#,
    );
    let adapter = ["--base", "base", "--adapter", "adapter"];
    for command in [
        with(&["score", "--text", "soup"], &adapter),
        with(&["generate", "--prompt", "soup"], &adapter),
        with(&["eval", "--file", "rows.jsonl"], &adapter),
        with(&["merge", "--out", "merged"], &adapter),
        vec!["convert", "adapter", "adapter.gguf", "--base", "base"],
    ] {
        let said = folders.failure(&command);
        let expected = format!(
            "adapter/adapter_model.safetensors: tensor `{key}`: 2 of 96 values are NaN or infinite"
        );
        assert!(said.contains(&expected), "{command:?}: {said}");
        assert!(said.contains("hint: "), "{command:?}: {said}");
    }
    assert!(!folders.path("merged").exists() && !folders.path("adapter.gguf").exists());
    let (_, out, _) = folders.run(&["adapter", "inspect", "adapter"]);
    assert!(
        out.contains(&format!(
            "2 values NaN or infinite, in 1 tensor; first {key}"
        )),
        "{out}"
    );

    let kitchen = Kitchen::new();
    let from = format!(
        "method.lora={{from=\"{}\"}}",
        folders.path("adapter").display()
    );
    let error = kitchen.train(&[&from], "run", false).unwrap_err();
    assert!(error.to_string().contains("2 of 96 values"), "{error}");
}

#[test]
fn a_base_model_that_is_not_finite_is_refused() {
    let folders = Folders::new();
    let path = folders.path("base/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let said = folders.failure(&GENERATE);
    assert!(
        said.contains("error: base: tensor `") && said.contains("NaN or infinite"),
        "{said}"
    );
}

#[test]
fn adapters_of_other_programs_compute_the_same() {
    let expected = logits(&attached("tied-gqa", "qkvo").model.valid());
    let peft = "adapter_model.safetensors";
    let renamed = |change: &dyn Fn(&str) -> String| {
        let folders = Folders::new();
        folders.tensors(peft, |tensors| {
            let tensors = tensors.into_iter();
            tensors
                .map(|(key, tensor)| (change(&key), tensor))
                .collect()
        });
        assert_eq!(folders.logits(), expected);
        let (_, said) = folders.json(&with(&GENERATE, &["--adapter", "adapter"]));
        assert!(said.contains("adapter_model.safetensors: "), "{said}");
    };
    renamed(&|key| format!("_orig_mod.{key}"));
    renamed(&|key| key.replace("base_model.model.", "base_model.model._orig_mod."));
    renamed(&|key| format!("module.{key}"));
    renamed(&|key| key.replace("base_model.model.", ""));

    let folders = Folders::new();
    fs::remove_file(folders.path("adapter").join(peft)).unwrap();
    // tests/reference/pickled_adapter.py
    let pickled = golden::folder("adapter_model.bin");
    fs::copy(pickled, folders.path("adapter/adapter_model.bin")).unwrap();
    assert_eq!(folders.logits(), expected);

    let folders = Folders::new();
    let config = golden::adapter_folder("tied-gqa", "qkvo").join("adapter_config.json");
    let config: Value = golden::json(config);
    folders.tensors("adapters.safetensors", |tensors| {
        tensors
            .into_iter()
            .map(|(key, tensor)| mlx(&key, &tensor))
            .collect()
    });
    let [rank, alpha] = ["r", "lora_alpha"].map(|key| config[key].as_f64().unwrap());
    let parameters = json!({"rank": rank as u64, "scale": alpha / rank, "dropout": 0.0, "keys": ["self_attn.q_proj"]});
    let config = json!({"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters, "model": "x"});
    folders.write("adapter/adapter_config.json", config.to_string());
    assert_eq!(folders.logits(), expected);
    let found = inspect(&folders.path("adapter")).unwrap();
    let original = inspect(&golden::adapter_folder("tied-gqa", "qkvo")).unwrap();
    assert_eq!(found.modules, original.modules);
}

/// The key and the tensor as mlx-lm writes them.
fn mlx(key: &str, (shape, values): &(Vec<usize>, Vec<f32>)) -> (String, (Vec<usize>, Vec<f32>)) {
    let key = key.trim_start_matches("base_model.model.");
    let key = format!("model.{}", key.trim_start_matches("model."));
    let key = key
        .replace("lora_A.weight", "lora_a")
        .replace("lora_B.weight", "lora_b");
    let [rows, columns] = shape[..] else {
        panic!("{key}: {shape:?}")
    };
    let transposed =
        (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    let values = transposed.map(|at| values[at]).collect();
    (key, (vec![columns, rows], values))
}

#[test]
fn tied_adapters_are_read_with_both_tensors() {
    let folders = Folders::new();
    let base = safetensors_of(
        &folders.path("base/model.safetensors"),
        "model.embed_tokens.weight",
    );
    let twice: Vec<f32> = base.1.iter().map(|x| 2.0 * x).collect();
    folders.tensors("adapter_model.safetensors", |mut tensors| {
        for module in ["model.embed_tokens", "lm_head"] {
            tensors.insert(
                format!("base_model.model.{module}.weight"),
                (base.0.clone(), twice.clone()),
            );
        }
        tensors
    });
    folders.config(|config| {
        config["ensure_weight_tying"] = true.into();
        config["modules_to_save"] = json!(["embed_tokens", "model.embed_tokens"]);
    });
    let tied = folders.logits();
    // the same, said in another way: both are saved
    folders.config(|config| {
        config["ensure_weight_tying"] = false.into();
        config["modules_to_save"] = json!(["embed_tokens", "lm_head"]);
    });
    assert_eq!(folders.logits(), tied);
    assert_ne!(tied, logits(&attached("tied-gqa", "qkvo").model.valid()));

    folders.config(|config| {
        config["ensure_weight_tying"] = true.into();
        config["modules_to_save"] = json!(["embed_tokens"]);
    });
    let kitchen = Kitchen::new();
    let from = format!(
        "method.lora={{from=\"{}\"}}",
        folders.path("adapter").display()
    );
    let error = kitchen.train(&[&from], "run", false).unwrap_err();
    assert!(error.to_string().contains("not trained further"), "{error}");
}

fn safetensors_of(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::F32);
    let values = view.data().chunks_exact(4);
    let values = values.map(|x| f32::from_le_bytes(x.try_into().unwrap()));
    (view.shape().to_vec(), values.collect())
}

/// A pointer of git-lfs.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 133\n";

#[test]
fn what_is_no_adapter_of_a_language_model_is_named() {
    let mut said = Vec::new();
    for file in [
        "adapter/adapter_model.safetensors",
        "adapter/tokenizer.json",
        "base/tokenizer.json",
        "base/model.safetensors",
    ] {
        let folders = Folders::new();
        folders.write(file, POINTER);
        said.push(folders.failure(&SCORE));
    }
    let folders = Folders::new();
    fs::remove_file(folders.path("adapter/adapter_model.safetensors")).unwrap();
    folders.write("adapter/adapter_model.bin", POINTER);
    said.push(folders.failure(&SCORE));
    folders.write("base.gguf", POINTER);
    said.push(folders.failure(&["score", "--base", "base.gguf", "--text", "soup"]));

    let folders = Folders::new();
    folders.config(|config| config["task_type"] = "SEQ_CLS".into());
    folders.tensors("adapter_model.safetensors", |mut tensors| {
        tensors.insert(
            "base_model.model.score.weight".to_owned(),
            (vec![2, 32], vec![0.5; 64]),
        );
        tensors
    });
    said.push(folders.failure(&SCORE));
    let (code, out, told) = folders.run(&["adapter", "inspect", "adapter"]);
    assert_eq!(code, 0);
    assert!(
        out.contains("base_model.model.score.weight [2, 32]: the head of a classifier"),
        "{out}"
    );
    assert!(!told.contains("score.weight"), "{told}");

    let folders = Folders::new();
    assert_eq!(
        folders
            .run(&["convert", "adapter", "lora.gguf", "--base", "base"])
            .0,
        0
    );
    said.push(folders.failure(&[
        "score",
        "--base",
        "base",
        "--adapter",
        "lora.gguf",
        "--text",
        "soup",
    ]));
    said.push(folders.failure(&["adapter", "inspect", "lora.gguf"]));
    said.push(folders.failure(&["score", "--base", "lora.gguf", "--text", "soup"]));
    said.push(folders.failure(&["score", "--base", "adapter", "--text", "soup"]));

    // enable_lora of early versions of PEFT
    let folders = Folders::new();
    folders.config(|config| config["enable_lora"] = json!([true, false, true]));
    folders.tensors("adapter_model.safetensors", |tensors| {
        let tensors = tensors.into_iter().map(|(key, (mut shape, values))| {
            if key.contains("lora_B") {
                shape.push(1);
            }
            (key, (shape, values))
        });
        tensors.collect()
    });
    said.push(folders.failure(&["adapter", "inspect", "adapter"]));
    insta::assert_snapshot!(said.join("\n"));
}
