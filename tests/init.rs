//! `simmer init` as a program: from rows to an adapter.

use std::fs;

use crate::commands::simmer;
use crate::golden;

#[test]
fn a_recipe_is_written_once_and_trains() {
    let folder = tempfile::tempdir().unwrap();
    let rows = golden::folder("rows/alpaca.jsonl");
    fs::copy(rows, folder.path().join("rows.jsonl")).unwrap();
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/data/tiny-base");
    let args = [
        "init",
        "--base",
        base,
        "--data",
        "rows.jsonl",
        "--device",
        "cpu",
        "--memory",
        "24GiB",
    ];
    let done = simmer(folder.path(), &args);
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
    assert!(
        folder
            .path()
            .join("runs/rows/adapter/adapter_config.json")
            .is_file()
    );

    let done = simmer(folder.path(), &args);
    assert_eq!(done.status.code(), Some(1));
    insta::assert_snapshot!(String::from_utf8(done.stderr).unwrap(), @r"
    error: rows.toml exists already, and is not overwritten
    hint: name another file: --out FILE
    ");
    let kept = fs::read_to_string(folder.path().join("rows.toml")).unwrap();
    assert_eq!(kept, written);
}
