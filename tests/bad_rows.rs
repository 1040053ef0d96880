//! Rows that cannot be used: listed by `simmer data lint`, refused or left out by everything that reads the data.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::commands::simmer;
use crate::training::quoted;

/// A folder with a recipe for 40 rows, three of which cannot be used.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (1..=40)
        .map(|row| match row {
            7 => r#"{"messages": [{"role": "user", "content": "And then?"}]}"#.to_owned(),
            20 => r#"{"messages": [{"role": "user", "con"#.to_owned(),
            33 => r#"{"messages": [{"role": "user", "content": "Why?"}]}"#.to_owned(),
            _ => serde_json::json!({"messages": [
                {"role": "user", "content": format!("What comes after {row}?")},
                {"role": "assistant", "content": format!("It is {}.", row + 1)},
            ]})
            .to_string(),
        })
        .collect();
    fs::create_dir(folder.path().join("rows")).unwrap();
    fs::write(folder.path().join("rows/train.jsonl"), rows.join("\r\n")).unwrap();
    fs::write(folder.path().join("rows/test.jsonl"), &rows[0]).unwrap();
    let base = quoted(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tiny-base"));
    let recipe = format!(
        "[base]\npath = {base}\n[method.lora]\nrank = 2\n[data]\n\
         train = [{{ path = \"rows\", template = \"chatml\" }}]\n\
         [data.lint]\nallow = [\"near_duplicates\"]\n\
         [train]\nmax_steps = 1\nbatch_size = 4\nlearning_rate = 1e-4\n"
    );
    fs::write(folder.path().join("r.toml"), recipe).unwrap();
    folder
}

/// Exit code, standard output and standard error.
fn run(folder: &tempfile::TempDir, args: &[&str]) -> (Option<i32>, String, String) {
    let output = simmer(folder.path(), args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

const DROP: [&str; 4] = [
    "--set",
    "data.bad_rows=drop",
    "--set",
    "data.max_bad_share=0.1",
];

#[test]
fn lint_lists_all_of_them() {
    let folder = folder();
    let (code, found, told) = run(&folder, &["data", "lint", "r.toml"]);
    assert_eq!(code, Some(1));
    for part in [
        "error: cannot use 2 rows: no message is from the assistant",
        "rows/train.jsonl: row 33 (line 33)",
        "error: cannot use 1 row: invalid JSON\n  rows/train.jsonl: row 20 (line 20): invalid JSON at line 20",
        "37 rows checked, 3 rows cannot be used: 2 errors, 0 warnings",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    assert!(told.contains("not read: test.jsonl (test)"), "{told}");
    let (code, found, _) = run(&folder, &["data", "lint", "r.toml", "--rows", "1"]);
    assert_eq!(code, Some(1));
    assert!(found.contains("row 7 (line 7)\n  and 1 more"), "{found}");
    let (_, json, _) = run(&folder, &["data", "lint", "r.toml", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["unusable"][0]["rows"], 2);
    assert_eq!(json["unusable"][1]["first"][0]["origin"]["row"], 20);
    let (code, found, _) = run(&folder, &[&["data", "lint", "r.toml"], &DROP[..]].concat());
    assert_eq!(code, Some(0), "{found}");
    assert!(found.contains("warning: cannot use 2 rows"), "{found}");
    // too many of them
    let few = ["data", "lint", "r.toml", "--set", "data.bad_rows=drop"];
    assert_eq!(run(&folder, &few).0, Some(1));
}

#[test]
fn every_command_leaves_them_out() {
    let folder = folder();
    let preview = ["data", "preview", "r.toml", "-n", "1"];
    let (code, _, told) = run(&folder, &preview);
    assert_eq!(code, Some(1));
    assert!(
        told.contains("row 7 (line 7)") && told.contains("data.bad_rows = \"drop\""),
        "{told}"
    );
    let (code, shown, told) = run(&folder, &[&preview, &DROP[..]].concat());
    assert_eq!(code, Some(0), "{told}");
    for part in [
        "40 rows",
        "37 examples",
        "cannot be used: 3 rows",
        "files: train.jsonl (40 rows)",
        "not read: test.jsonl (test)",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (code, _, told) = run(&folder, &[&["estimate", "r.toml"], &DROP[..]].concat());
    assert_eq!(code, Some(0), "{told}");
    let (code, _, told) = run(
        &folder,
        &["estimate", "r.toml", "--set", "data.bad_rows=drop"],
    );
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("rows: 3 of 40 rows cannot be used, more than `data.max_bad_share` = 0.05"),
        "{told}"
    );
    let train = [&["train", "r.toml", "--out", "run"], &DROP[..]].concat();
    let (code, _, told) = run(&folder, &train);
    assert_eq!(code, Some(0), "{told}");
    let counts = fs::read_to_string(folder.path().join("run/counts.json")).unwrap();
    let counts: Value = serde_json::from_str(&counts).unwrap();
    let source = &counts["train"][0];
    assert_eq!(
        (&source["rows"], &source["left_out"]),
        (&40.into(), &3.into())
    );
    assert_eq!(source["unusable"][0]["rows"], 2);
    let report = run(&folder, &["report", "run", "--out", "page.html"]);
    assert_eq!(report.0, Some(0), "{}", report.2);
    let page = fs::read_to_string(folder.path().join("page.html")).unwrap();
    for part in [
        "rows that could not be used",
        "row 33 (line 33)",
        "not read: test",
    ] {
        assert!(page.contains(part), "{part}");
    }
}
