//! Tokenizer, end of sequence, chat template and prompt template come from the adapter's folder.

use std::fs;

use serde_json::{Value, json};
use simmer_data::Tokenizer;

use super::{Folders, GENERATE, MERGE, SCORE, copy, with};
use crate::golden;
use crate::training::Kitchen;

/// A chat template that no model has.
const TEMPLATE: &str = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";

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

    let (code, _, told) = folders.run(&MERGE);
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
    let score = with(&SCORE, &["--json"]);
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
    assert_eq!(folders.run(&MERGE).0, 0);
    let merged = Tokenizer::from_folder(folders.path("merged")).unwrap();
    let ids = merged.encode("soup").unwrap().ids;
    assert_eq!(json!([merged.prefix(), &ids].concat()), after["ids"]);
    let base = Tokenizer::from_folder(folders.path("base")).unwrap();
    assert_eq!(
        merged.chat_template("default"),
        base.chat_template("default")
    );

    // a token without a row that texts may need: the base model's tokenizer is used
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    let mut pad = added[0].clone();
    (pad["id"], pad["content"]) = (104.into(), "[PAD]".into());
    pad["special"] = false.into();
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
    let alpaca = include_str!("../../data/templates/alpaca.toml");
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
