//! `simmer init` as a program: from rows to an adapter, and names on the hub.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::commands::simmer;
use crate::golden;

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/tiny-base");

/// A folder with a few rows.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rows = golden::folder("rows/alpaca.jsonl");
    fs::copy(rows, folder.path().join("rows.jsonl")).unwrap();
    folder
}

fn init(base: &str) -> Vec<&str> {
    let device = ["--device", "cpu", "--memory", "24GiB"];
    [
        &["init", "--base", base, "--data", "rows.jsonl"][..],
        &device,
    ]
    .concat()
}

#[test]
fn a_recipe_is_written_once_and_trains() {
    let folder = folder();
    let done = simmer(folder.path(), &init(BASE));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "rows.toml\n");
    let next = said.split("\nnext:\n").nth(1).unwrap();
    assert_eq!(
        next,
        "  simmer data preview rows.toml\n  simmer estimate rows.toml\n  simmer train rows.toml\n"
    );
    let written = fs::read_to_string(folder.path().join("rows.toml")).unwrap();

    let done = simmer(folder.path(), &["train", "rows.toml"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    let adapter = folder.path().join("runs/rows/adapter");
    assert!(adapter.join("adapter_config.json").is_file());

    let done = simmer(folder.path(), &init(BASE));
    assert_eq!(done.status.code(), Some(1));
    insta::assert_snapshot!(String::from_utf8(done.stderr).unwrap(), @r"
    error: rows.toml exists already, and is not overwritten
    hint: name another file: --out FILE
    ");
    let kept = fs::read_to_string(folder.path().join("rows.toml")).unwrap();
    assert_eq!(kept, written);
}

/// Runs it without a network, with a hub's cache of its own.
fn offline(folder: &Path, base: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simmer"))
        .args(init(base))
        .current_dir(folder)
        .env("HF_HOME", folder.join("hub"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap()
}

#[test]
fn of_a_name_on_the_hub_no_weights_are_needed() {
    let folder = folder();
    let missing = offline(folder.path(), "org/tiny");
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(
        said.contains("org/tiny: no such file or folder here"),
        "{said}"
    );
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");

    let commit = "0123456789abcdef0123456789abcdef01234567";
    let repository = folder.path().join("hub/hub/models--org--tiny");
    let snapshot = repository.join("snapshots").join(commit);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), commit).unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(Path::new(BASE).join(name), snapshot.join(name)).unwrap();
    }
    let done = offline(folder.path(), "org/tiny");
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    // in bf16, as its configuration says
    assert!(
        said.contains("`simmer train` downloads its weights (3.6 MiB)"),
        "{said}"
    );
    let written = fs::read_to_string(folder.path().join("rows.toml")).unwrap();
    assert!(written.contains("path = \"org/tiny\""), "{written}");
}
