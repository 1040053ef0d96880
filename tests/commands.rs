//! The program as a person meets it: help, wrong usage, wrong input.

#[cfg(unix)]
use std::io::{Read, Write};
use std::path::Path;
#[cfg(unix)]
use std::process::Stdio;
use std::process::{Command, Output};

use crate::golden;

/// Runs simmer in a folder.
pub(crate) fn simmer(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simmer"))
        .args(args)
        .current_dir(folder)
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

/// What it wrote to standard error, and its exit code.
fn failure(args: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = simmer(folder.path(), args);
    assert!(!output.status.success(), "{args:?} succeeded");
    let code = output.status.code().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    format!("exit {code}\n{}", text.replace(root, "ROOT"))
}

fn help(args: &[&str]) -> String {
    let output = simmer(Path::new("."), args);
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn model(name: &str) -> String {
    golden::folder(name).display().to_string()
}

#[test]
fn help_reads_well() {
    insta::assert_snapshot!("help", help(&["--help"]));
    for command in [
        "init",
        "train",
        "launch",
        "merge",
        "convert",
        "generate",
        "chat",
        "score",
        "show",
        "recipes",
        "tokenizer",
        "estimate",
        "data",
        "data preview",
        "data lint",
        "eval",
        "adapter",
        "adapter inspect",
        "adapter diff",
        "report",
        "track",
        "completions",
    ] {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let name = format!("help_{}", command.replace(' ', "_"));
        insta::assert_snapshot!(name, help(&words));
    }
}

/// What is built and where it runs differs from machine to machine; the lines do not.
#[test]
fn the_version_says_what_was_built() {
    let commit = simmer_train::program::COMMIT;
    let short = help(&["-V"]);
    assert_eq!(short.lines().count(), 1);
    let version = simmer_train::program::VERSION;
    assert!(short.starts_with(&format!("simmer {version}")), "{short}");
    let long = help(&["--version"]);
    assert!(long.contains(&format!("commit: {commit}\n")), "{long}");
    let keys = long
        .lines()
        .map(|line| line.split_once(": ").unwrap_or((line, "")));
    let keys: Vec<&str> = keys
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, _)| key)
        .collect();
    assert_eq!(
        keys,
        ["commit", "date", "target", "features", "instructions"]
    );
    assert!(long.contains(std::env::consts::ARCH), "{long}");
}

#[test]
fn wrong_usage_is_exit_code_two() {
    insta::assert_snapshot!(failure(&["train", "--resum", "x.toml"]));
    insta::assert_snapshot!(failure(&["generate", "--base", "x"]));
}

#[test]
fn a_base_that_is_not_there_is_named() {
    insta::assert_snapshot!(failure(&["score", "--base", "llama-9b", "--text", "x"]));
}

#[test]
fn an_adapter_for_another_base_lists_what_differs() {
    let adapter = golden::adapter_folder("llama3-rope", "qkvo")
        .display()
        .to_string();
    let base = model("tied-gqa");
    insta::assert_snapshot!(failure(&[
        "score",
        "--base",
        &base,
        "--adapter",
        &adapter,
        "--text",
        "abc"
    ]));
    insta::assert_snapshot!(failure(&[
        "merge",
        "--base",
        &base,
        "--adapter",
        &adapter,
        "--out",
        "merged"
    ]));
}

#[test]
fn a_merge_does_not_overwrite() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("merged");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("mine.txt"), "kept").unwrap();
    let adapter = golden::adapter_folder("tied-gqa", "qkvo")
        .display()
        .to_string();
    let output = simmer(
        folder.path(),
        &[
            "merge",
            "--base",
            &model("tied-gqa"),
            "--adapter",
            &adapter,
            "--out",
            "merged",
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        std::fs::read_to_string(out.join("mine.txt")).unwrap(),
        "kept"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left behind"
    );
}

#[test]
fn settings_out_of_range_are_named() {
    let base = model("tied-gqa");
    insta::assert_snapshot!(failure(&[
        "generate", "--base", &base, "--prompt", "a", "--top-p", "1.5"
    ]));
    insta::assert_snapshot!(failure(&[
        "generate",
        "--base",
        &base,
        "--prompt",
        "a",
        "--template",
        "alpacca"
    ]));
    insta::assert_snapshot!(failure(&["generate", "--base", &base, "--prompt", ""]));
}

#[test]
fn damaged_weights_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let to = folder.path().join(name);
        std::fs::copy(golden::folder("tied-gqa").join(name), to).unwrap();
    };
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        copy(name);
    }
    let whole = std::fs::read(golden::folder("tied-gqa").join("model.safetensors")).unwrap();
    let weights = folder.path().join("model.safetensors");
    let message = |bytes: &[u8]| {
        std::fs::write(&weights, bytes).unwrap();
        let output = simmer(folder.path(), &["score", "--base", ".", "--text", "abc"]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    insta::assert_snapshot!("truncated", message(&whole[..whole.len() - 100]));
    let mut long_header = whole.clone();
    long_header[..8].copy_from_slice(&50_000_000_u64.to_le_bytes());
    insta::assert_snapshot!("header_larger_than_the_file", message(&long_header));
}

#[test]
fn scores_are_json_for_programs() {
    let base = model("tied-gqa");
    let output = simmer(
        Path::new("."),
        &["score", "--base", &base, "--text", "the rain", "--json"],
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids = json["ids"].as_array().unwrap().len();
    assert_eq!(json["logprobs"].as_array().unwrap().len(), ids - 1);
}

/// Whether it is in the middle of an answer or waits for the next message.
#[cfg(unix)]
#[test]
fn sigterm_ends_a_chat() {
    let mut chat = Command::new(env!("CARGO_BIN_EXE_simmer"))
        .args(["chat", "--base", "data/tiny-base", "--greedy"])
        .args(["--max-new-tokens", "900"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // held open: `wait` closes what the process still has, and at its end the chat would end by itself
    let mut typed = chat.stdin.take().unwrap();
    typed.write_all(b"Hello\n").unwrap();
    let answer = chat.stdout.as_mut().unwrap();
    answer.read_exact(&mut [0]).unwrap();
    let pid = chat.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.unwrap().success());
    assert_eq!(chat.wait().unwrap().code(), Some(143));
}
