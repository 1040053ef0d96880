//! `simmer tokenizer encode` and `decode`, with tokenizers in every form.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use simmer_checkpoint::gguf::{Gguf, GgufWriter};
use simmer_data::Tokenizer;

use crate::commands::simmer;

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/tiny-base");
const TEXT: &str = "<|im_start|>user\nHoney tastes sweet, crème brûlée 🍮 too.";

/// What a command printed.
fn printed(folder: &Path, args: &[&str]) -> String {
    let output = simmer(folder, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let output = simmer(folder, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A `.gguf` file with the vocabulary of the base model and no weights.
fn vocabulary_only(folder: &Path) -> String {
    printed(folder, &["convert", BASE, "model.gguf"]);
    let bytes = fs::read(folder.join("model.gguf")).unwrap();
    let gguf = Gguf::parse(bytes.into()).unwrap();
    let writer = GgufWriter::new(Vec::new(), gguf.metadata(), Vec::new()).unwrap();
    fs::write(folder.join("vocab.gguf"), writer.finish().unwrap()).unwrap();
    "vocab.gguf".to_owned()
}

#[test]
fn a_text_becomes_tokens_and_text_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let vocabulary = vocabulary_only(folder);
    let file = format!("{BASE}/tokenizer.json");
    let expected = Tokenizer::from_folder(BASE).unwrap().encode(TEXT).unwrap();
    for tokenizer in [BASE, &file, "model.gguf", &vocabulary] {
        let which = ["--tokenizer", tokenizer, "--json"];
        let encoded = printed(
            folder,
            &[&["tokenizer", "encode", TEXT], &which[..]].concat(),
        );
        let encoded: Value = serde_json::from_str(&encoded).unwrap();
        assert_eq!(encoded["ids"], json!(expected.ids), "{tokenizer}");
        assert_eq!(encoded["tokens"][0], "<|im_start|>");
        assert_eq!(encoded["special"][0], true);
        assert_eq!(encoded["special"][1], false);
        let ids: Vec<String> = expected.ids.iter().map(u32::to_string).collect();
        let list = ids.join(",");
        let decoded = printed(
            folder,
            &[&["tokenizer", "decode", &list], &which[..]].concat(),
        );
        let decoded: Value = serde_json::from_str(&decoded).unwrap();
        assert_eq!(decoded["text"], TEXT, "{tokenizer}");
        assert_eq!(decoded["ids"], encoded["ids"]);
    }
}

#[test]
fn tokens_are_a_table_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let encode = ["tokenizer", "encode", "--tokenizer", BASE];
    insta::assert_snapshot!(printed(
        folder,
        &[&encode[..], &["<|im_start|>user\nHi é"]].concat()
    ));
    let plain = printed(
        folder,
        &[&encode[..], &["--plain", "<|im_start|>"]].concat(),
    );
    assert!(plain.contains("0 of them special"), "{plain}");
    let decode = ["tokenizer", "decode", "--tokenizer", BASE];
    let text = printed(folder, &[&decode[..], &["1", "2"]].concat());
    assert_eq!(text, "<|im_start|><|im_end|>\n");
    assert_eq!(
        printed(folder, &[&decode[..], &["--skip-special", "1 2"]].concat()),
        "\n"
    );
}

#[test]
fn texts_come_from_files_and_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let encode = ["tokenizer", "encode", "--tokenizer", BASE, "--json"];
    fs::write(folder.join("text.txt"), "Honey.\n").unwrap();
    let whole = printed(folder, &[&encode[..], &["Honey.\n"]].concat());
    let file = printed(folder, &[&encode[..], &["--file", "text.txt"]].concat());
    assert_eq!(file, whole);
    let input = |args: &[&str], text: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_simmer"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let line = printed(folder, &[&encode[..], &["Honey."]].concat());
    assert_eq!(input(&encode, "Honey.\n"), line);
    assert_ne!(line, whole);
    let decode = ["tokenizer", "decode", "--tokenizer", BASE];
    assert_eq!(input(&decode, "[1, 2]\n"), "<|im_start|><|im_end|>\n");
}

#[test]
fn wrong_tokens_and_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let decode = ["tokenizer", "decode", "--tokenizer", BASE];
    let word = refused(folder, &[&decode[..], &["1,x"]].concat());
    assert_eq!(word, "error: expected a token ID, found `x`\n");
    let beyond = refused(folder, &[&decode[..], &["999999"]].concat());
    assert!(beyond.contains("expected a token ID up to"), "{beyond}");
    assert!(beyond.contains("found 999999"), "{beyond}");
    let encode = [
        "tokenizer",
        "encode",
        "--tokenizer",
        BASE,
        "--file",
        "none.txt",
    ];
    assert!(refused(folder, &encode).contains("none.txt"));
}

#[test]
fn a_vocabulary_is_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let vocabulary = vocabulary_only(folder);
    for args in [
        &["score", "--base", &vocabulary, "--text", "x"][..],
        &["show", &vocabulary],
        &["convert", &vocabulary, "out"],
    ] {
        let said = refused(folder, args);
        assert!(said.contains("vocab.gguf"), "{said}");
        assert!(said.contains("holds a vocabulary and no weights"), "{said}");
        assert!(said.contains("hint: "), "{said}");
    }
}
