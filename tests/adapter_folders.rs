//! What belongs to an adapter comes from its folder, and what is wrong with a folder is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use simmer_data::Tokenizer;
use simmer_model::adapter;
use simmer_model::adapter::inspect::inspect;

use crate::adapters::attached;
use crate::commands::simmer;
use crate::golden;
use crate::model::load;
use crate::training::Kitchen;

/// A chat template that no model has.
const TEMPLATE: &str = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let golden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("golden"));
        if path.is_file() && !golden {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Folders of a base model and of an adapter of PEFT, to be changed.
struct Folders {
    folder: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let folders = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        copy(&golden::folder("tied-gqa"), &folders.path("base"));
        // room for the text of every template; the positions are computed, so the weights are the same
        let file = folders.path("base/config.json");
        let mut config: Value = golden::json(file.clone());
        config["max_position_embeddings"] = 512.into();
        fs::write(file, config.to_string()).unwrap();
        let adapter = golden::adapter_folder("tied-gqa", "qkvo");
        copy(&adapter, &folders.path("adapter"));
        folders
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Changes the adapter's tensors and writes them to a file of its folder.
    fn tensors(&self, file: &str, change: impl FnOnce(Tensors) -> Tensors) {
        let original = golden::adapter_folder("tied-gqa", "qkvo");
        let bytes = fs::read(original.join("adapter_model.safetensors")).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = read.tensors().into_iter().map(|(key, view)| {
            let values = view.data().chunks_exact(4);
            let values = values.map(|x| f32::from_le_bytes(x.try_into().unwrap()));
            (key, (view.shape().to_vec(), values.collect()))
        });
        let bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)> = change(tensors.collect())
            .into_iter()
            .map(|(key, (shape, values))| {
                let bytes = values.iter().flat_map(|x: &f32| x.to_le_bytes());
                (key, (shape, bytes.collect()))
            })
            .collect();
        let views = bytes.iter().map(|(key, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
            (key, view)
        });
        fs::remove_file(self.path("adapter/adapter_model.safetensors")).unwrap();
        let out = safetensors::serialize(views, None).unwrap();
        fs::write(self.path("adapter").join(file), out).unwrap();
    }

    fn config(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("adapter/adapter_config.json");
        let mut config: Value = golden::json(path.clone());
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// Exit code, output and messages of a command in the folder.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = simmer(self.folder.path(), args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// The JSON that a command prints, and its messages.
    fn json(&self, args: &[&str]) -> (Value, String) {
        let (code, out, said) = self.run(args);
        assert_eq!(code, 0, "{said}");
        (serde_json::from_str(&out).unwrap(), said)
    }

    /// The messages of a command that fails.
    fn failure(&self, args: &[&str]) -> String {
        let (code, _, said) = self.run(args);
        assert_eq!(code, 1, "{args:?}: {said}");
        said
    }

    fn logits(&self) -> Vec<f32> {
        let base = load("tied-gqa", &golden::device());
        let attached = adapter::load(base, &self.path("adapter")).unwrap();
        logits(&attached.model.valid())
    }
}

fn logits(model: &simmer_model::LlamaForCausalLM) -> Vec<f32> {
    let hidden = model.hidden(
        &simmer_model::Sequence::from_rows(&[&[1, 5, 9, 33, 70]]),
        None,
    );
    model.logits(hidden).into_data().iter::<f32>().collect()
}

const EVAL: [&str; 10] = [
    "eval",
    "--base",
    "base",
    "--adapter",
    "trained",
    "--file",
    "rows.jsonl",
    "--max-new-tokens",
    "0",
    "--json",
];

const GENERATE: [&str; 9] = [
    "generate",
    "--base",
    "base",
    "--greedy",
    "--max-new-tokens",
    "8",
    "--prompt",
    "soup",
    "--json",
];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

#[test]
fn end_of_sequence_and_chat_template_come_from_the_adapter() {
    let folders = Folders::new();
    fs::remove_file(folders.path("base/chat_template.jinja")).unwrap();
    let chat = with(&GENERATE, &["--adapter", "adapter", "--chat"]);
    assert!(folders.failure(&chat).contains("chat template"));

    folders.write("adapter/chat_template.jinja", TEMPLATE);
    let config = r#"{"eos_token": "<unk>", "bos_token": "<s>"}"#;
    folders.write("adapter/tokenizer_config.json", config);
    let (answer, said) = folders.json(&chat);
    assert_eq!(
        said,
        "adapter: using the adapter's end of sequence `<unk>` (the base model's is `</s>`) and chat template\n"
    );
    let tokenizer = Tokenizer::from_folder(folders.path("base")).unwrap();
    let prompt = tokenizer.encode("[user] soup\n").unwrap().ids;
    assert_eq!(answer["prompt_ids"], json!(prompt));

    let merge = [
        "merge",
        "--base",
        "base",
        "--adapter",
        "adapter",
        "--out",
        "merged",
        "--no-check",
    ];
    let (code, _, told) = folders.run(&merge);
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("using the adapter's end of sequence"),
        "{told}"
    );
    for file in ["config.json", "generation_config.json"] {
        let config: Value = golden::json(folders.path("merged").join(file));
        assert_eq!(config["eos_token_id"], json!([0, 2]), "{file}");
        assert_eq!(config["bos_token_id"], 1, "{file}");
    }
    let mut of_merged = GENERATE;
    of_merged[2] = "merged";
    let (merged, said) = folders.json(&with(&of_merged, &["--chat"]));
    assert_eq!(said, "");
    assert_eq!(merged["prompt_ids"], answer["prompt_ids"]);
    assert_eq!(merged["ids"], answer["ids"]);

    let (code, _, said) = folders.run(&["convert", "adapter", "adapter.gguf", "--base", "base"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("merge the adapter, and convert the merged model"),
        "{said}"
    );
}

#[test]
fn a_whole_tokenizer_comes_from_the_adapter() {
    let folders = Folders::new();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(
            folders.path("base").join(file),
            folders.path("adapter").join(file),
        )
        .unwrap();
    }
    // equal to the base model's, whose chat template stays
    let score = [
        "score",
        "--base",
        "base",
        "--adapter",
        "adapter",
        "--text",
        "soup",
        "--json",
    ];
    let (before, said) = folders.json(&score);
    assert_eq!(said, "");
    let chat = with(&GENERATE, &["--adapter", "adapter", "--chat"]);
    assert_eq!(folders.json(&chat).1, "");

    // two tokens change places
    let mut tokenizer: Value = golden::json(folders.path("adapter/tokenizer.json"));
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let of = |letter: &str| {
        before["ids"]
            .as_array()
            .unwrap()
            .iter()
            .any(|id| *id == vocab[letter])
    };
    assert!(of("s") || of("o"), "{before}");
    let (one, other) = (vocab["s"].clone(), vocab["x"].clone());
    vocab.insert("s".to_owned(), other);
    vocab.insert("x".to_owned(), one);
    folders.write("adapter/tokenizer.json", tokenizer.to_string());
    let (after, said) = folders.json(&score);
    assert_eq!(said, "adapter: using the adapter's tokenizer\n");
    assert_ne!(after["ids"], before["ids"]);
    // a merged model keeps it
    let merge = [
        "merge",
        "--base",
        "base",
        "--adapter",
        "adapter",
        "--out",
        "merged",
        "--no-check",
    ];
    assert_eq!(folders.run(&merge).0, 0);
    let merged = Tokenizer::from_folder(folders.path("merged")).unwrap();
    let ids = merged.encode("soup").unwrap().ids;
    assert_eq!(json!([merged.prefix(), &ids].concat()), after["ids"]);
    let base = Tokenizer::from_folder(folders.path("base")).unwrap();
    assert_eq!(
        merged.chat_template("default"),
        base.chat_template("default")
    );

    // a padding token without a row: the base model's tokenizer is used
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    let mut pad = added[0].clone();
    (pad["id"], pad["content"]) = (104.into(), "[PAD]".into());
    added.push(pad);
    folders.write("adapter/tokenizer.json", tokenizer.to_string());
    let (again, said) = folders.json(&score);
    assert_eq!(again["ids"], before["ids"]);
    assert!(
        said.contains("[PAD]") && said.contains("the base model's tokenizer is used"),
        "{said}"
    );
}

#[test]
fn an_adapter_keeps_the_template_of_its_training() {
    let kitchen = Kitchen::new();
    let set = r#"data.train=[{path="rows.jsonl", template="alpaca"}]"#;
    let set = set.replace(
        "rows.jsonl",
        &kitchen.path("rows.jsonl").display().to_string(),
    );
    kitchen.whole(&[&set, "train.max_steps=2"], "run");
    let folders = Folders::new();
    copy(&kitchen.path("run/adapter"), &folders.path("trained"));
    let kept: Value = golden::json(folders.path("trained/simmer.json"));
    assert_eq!(kept["version"], 1);
    assert_eq!(kept["templates"][0]["name"], "alpaca");
    let alpaca = include_str!("../data/templates/alpaca.toml");
    assert_eq!(kept["templates"][0]["text"], alpaca);

    let trained = with(&GENERATE, &["--adapter", "trained"]);
    let (default, said) = folders.json(&trained);
    assert_eq!(
        said,
        "prompt template `alpaca`, with which the adapter was trained\n"
    );
    let (given, said) = folders.json(&with(&trained, &["--template", "alpaca"]));
    assert_eq!(said, "");
    assert_eq!(given["prompt_ids"], default["prompt_ids"]);
    let (other, said) = folders.json(&with(&trained, &["--template", "koala"]));
    assert_eq!(
        said,
        "warning: the adapter was trained with the prompt template `alpaca`, and gets prompts of `koala`\n"
    );
    assert_ne!(other["prompt_ids"], default["prompt_ids"]);
    let (raw, said) = folders.json(&with(&trained, &["--raw"]));
    assert_eq!(said, "");
    assert_eq!(raw["prompt_ids"], folders.json(&GENERATE).0["prompt_ids"]);
    let (input, _) = folders.json(&with(&trained, &["--input", "rice"]));
    assert_ne!(input["prompt_ids"], default["prompt_ids"]);

    // a row's own prompt is no prompt to build: texts are scored as they are
    let score = [
        "score",
        "--base",
        "base",
        "--adapter",
        "trained",
        "--text",
        "soup",
        "--json",
    ];
    assert_eq!(folders.json(&score).1, "");

    let rows = r#"{"prompt": "soup?", "completion": "heat."}"#;
    folders.write("rows.jsonl", rows);
    let (_, said) = folders.json(&EVAL);
    assert!(
        said.contains("prompt template `alpaca`, with which trained was trained"),
        "{said}"
    );
    let (_, said) = folders.json(&with(&EVAL, &["--template", "koala", "--out", "other"]));
    assert!(
        said.contains("warning: trained: the adapter was trained with"),
        "{said}"
    );
}

#[test]
fn a_template_of_ones_own_is_kept_with_its_text() {
    let kitchen = Kitchen::new();
    let text = "accepts = [\"completion\"]\n[[variants]]\ntext = \"<{prompt}>[[{completion}]]\"\n";
    fs::write(kitchen.path("own.toml"), text).unwrap();
    let path = kitchen.path("").display().to_string();
    let set = format!("data.train=[{{path=\"{path}rows.jsonl\", template=\"{path}own.toml\"}}]");
    kitchen.whole(&[&set, "train.max_steps=2"], "run");
    let folders = Folders::new();
    copy(&kitchen.path("run/adapter"), &folders.path("trained"));
    drop(kitchen);
    let (answer, _) = folders.json(&with(&GENERATE, &["--adapter", "trained"]));
    let (raw, _) = folders.json(&with(
        &[
            "generate",
            "--base",
            "base",
            "--greedy",
            "--max-new-tokens",
            "8",
            "--json",
            "--prompt",
            "<soup>",
        ],
        &["--adapter", "trained", "--raw"],
    ));
    assert_eq!(answer["prompt_ids"], raw["prompt_ids"]);
    folders.write(
        "rows.jsonl",
        r#"{"prompt": "soup?", "completion": "heat."}"#,
    );
    folders.json(&EVAL);
}

#[test]
fn a_system_message_is_used_or_refused() {
    let folders = Folders::new();
    let prompt = |more: &[&str]| folders.json(&with(&GENERATE, more)).0["prompt_ids"].clone();
    let system = ["--system", "Be brief."];
    for template in ["vicuna-v1.1", "llama-2-chat", "chatml"] {
        let template = ["--template", template];
        assert_ne!(
            prompt(&template),
            prompt(&with(&template, &system)),
            "{template:?}"
        );
    }
    for template in ["alpaca", "completion"] {
        let args = with(&GENERATE, &["--template", template]);
        let said = folders.failure(&with(&args, &system));
        assert!(said.contains(template), "{said}");
        let input = with(&args, &["--input", "rice"]);
        folders.failure(&with(&input, &system));
    }
    let said = folders.failure(&with(&GENERATE, &system));
    insta::assert_snapshot!(said, @"error: --system needs a prompt template; use --chat or --template NAME");
    let said = folders.failure(&[
        "chat",
        "--base",
        "base",
        "--template",
        "alpaca",
        "--system",
        "x",
    ]);
    assert!(said.contains("alpaca"), "{said}");
}

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
    let score = [
        "score",
        "--base",
        "base",
        "--adapter",
        "adapter",
        "--text",
        "soup",
    ];
    let mut said = Vec::new();
    for file in [
        "adapter/adapter_model.safetensors",
        "adapter/tokenizer.json",
        "base/tokenizer.json",
        "base/model.safetensors",
    ] {
        let folders = Folders::new();
        folders.write(file, POINTER);
        said.push(folders.failure(&score));
    }
    let folders = Folders::new();
    fs::remove_file(folders.path("adapter/adapter_model.safetensors")).unwrap();
    folders.write("adapter/adapter_model.bin", POINTER);
    said.push(folders.failure(&score));
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
    said.push(folders.failure(&score));
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
