//! Wrong commands and wrong recipes, as people who know other programs type them, and what they are told.

use std::fs;
use std::path::Path;

use crate::commands::simmer;
use crate::golden;
use crate::training::quoted;

/// A folder with rows, a recipe and a base model.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let row = |i| format!("{{\"prompt\": \"{i}: soup? \", \"completion\": \"heat {i}.\"}}\n");
    let rows: Vec<String> = (0..12).map(row).collect();
    fs::write(folder.path().join("rows.jsonl"), rows.concat()).unwrap();
    fs::write(folder.path().join("my.toml"), recipe()).unwrap();
    folder
}

fn recipe() -> String {
    let base = quoted(&golden::folder("tied-gqa"));
    format!(
        "device = \"cpu\"\n\n[base]\npath = {base}\n\n[method.lora]\nrank = 2\n\n[data]\n\
         train = [{{ path = \"rows.jsonl\", template = \"completion\" }}]\n\n\
         [train]\nmax_steps = 1\nbatch_size = 4\nlearning_rate = 1e-3\n"
    )
}

/// The exit code and the messages of a command that must fail, without what precedes its error.
fn said_in(folder: &Path, args: &[&str]) -> String {
    let output = simmer(folder, args);
    assert!(!output.status.success(), "{args:?} succeeded");
    let text = String::from_utf8(output.stderr).unwrap();
    let error = text.find("error: ").unwrap_or_default();
    let text = text[error..].replace(&golden::folder("tied-gqa").display().to_string(), "BASE");
    format!("{}: {}", output.status.code().unwrap(), text.trim_end())
}

fn said(args: &[&str]) -> String {
    said_in(folder().path(), args)
}

/// What a recipe with a line replaced is told.
fn said_of(find: &str, replacement: &str) -> String {
    let folder = folder();
    let text = recipe();
    assert!(text.contains(find), "{find}");
    fs::write(
        folder.path().join("my.toml"),
        text.replacen(find, replacement, 1),
    )
    .unwrap();
    let trained = said_in(folder.path(), &["train", "my.toml"]);
    assert!(!folder.path().join("runs/my/recipe.toml").exists());
    // the recipe is checked where it is parsed: every command says the same
    for command in [
        &["show", "my.toml"][..],
        &["estimate", "my.toml"],
        &["data", "lint", "my.toml"],
    ] {
        assert_eq!(said_in(folder.path(), command), trained, "{command:?}");
    }
    trained
}

#[test]
fn options_of_other_programs() {
    insta::assert_snapshot!(said(&["train", "my.toml", "--learning-rate", "1e-4"]));
    insta::assert_snapshot!(said(&["train", "my.toml", "--epochs=3"]));
    insta::assert_snapshot!(said(&["train", "my.toml", "--output_dir", "x"]));
    insta::assert_snapshot!(said(&["train", "my.toml", "--bf16"]));
    insta::assert_snapshot!(said(&[
        "train",
        "my.toml",
        "--gradient_accumulation_steps",
        "4"
    ]));
    insta::assert_snapshot!(said(&["estimate", "my.toml", "--load_in_4bit"]));
    insta::assert_snapshot!(said(&["train", "my.toml", "--outt", "x"]));
}

#[test]
fn devices_of_other_programs() {
    let text = |device: &str| {
        let text = said(&["train", "my.toml", "--device", device]);
        // this build may have libtorch
        text.split(", but ").next().unwrap_or_default().to_owned()
    };
    insta::assert_snapshot!(text("cuda"));
    insta::assert_snapshot!(text("cuda:1"));
    insta::assert_snapshot!(text("mps"));
    insta::assert_snapshot!(text("cpuu"));
}

#[test]
fn numbers_out_of_range() {
    let base = golden::folder("tied-gqa").display().to_string();
    let generate = |option: &str, value: &str| {
        said(&["generate", "--base", &base, "--prompt", "a", option, value])
    };
    insta::assert_snapshot!(generate("--temperature", "-1"));
    insta::assert_snapshot!(generate("--repetition-penalty", "-2.5"));
    insta::assert_snapshot!(said(&["estimate", "my.toml", "--memory", "24"]));
    insta::assert_snapshot!(said(&["estimate", "my.toml", "--memory", "24 parsecs"]));
    insta::assert_snapshot!(said(&["estimate", "my.toml", "--rate", "-3"]));
    insta::assert_snapshot!(said(&["show", "llama-7b", "--rank", "0"]));
    insta::assert_snapshot!(said(&["data", "preview", "my.toml", "--row", "9999"]));
    insta::assert_snapshot!(said(&["data", "preview", "my.toml", "--row", "0"]));
}

#[test]
fn files_that_are_no_recipes() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(
        at("train.json"),
        "[\n  {\"prompt\": \"a\", \"completion\": \"b\"}\n]\n",
    )
    .unwrap();
    fs::write(at("config.yaml"), "base_model: x\nlora_r: 8\n").unwrap();
    fs::write(at("weights.toml"), [0xff, 0xfe, 0x00]).unwrap();
    let train = |name: &str| said_in(folder.path(), &["train", name]);
    insta::assert_snapshot!(train("train.json"));
    insta::assert_snapshot!(train("config.yaml"));
    insta::assert_snapshot!(train("weights.toml"));
    insta::assert_snapshot!(train("my"));
    insta::assert_snapshot!(train("."));
    insta::assert_snapshot!(said_in(
        folder.path(),
        &["train", "my.toml", "--out", "rows.jsonl"]
    ));
}

#[test]
fn shipped_recipes_that_cannot_be_copied() {
    insta::assert_snapshot!(said(&["recipes", "copy", "quikstart"]));
    insta::assert_snapshot!(said(&["recipes", "copy", "nothing-like-it"]));
    insta::assert_snapshot!(said(&["recipes", "copy", "quickstart", "my.toml"]));
    insta::assert_snapshot!(said(&["recipes", "copy", "quickstart", "nodir/my.toml"]));
    insta::assert_snapshot!(said(&["recipes", "copy", "quickstart", "."]));
}

#[test]
fn values_that_no_run_can_have() {
    insta::assert_snapshot!(said_of("rank = 2", "rank = 0"));
    insta::assert_snapshot!(said_of("rank = 2", "rank = -1"));
    insta::assert_snapshot!(said_of("rank = 2", "rank = 100000"));
    insta::assert_snapshot!(said_of("rank = 2", "alpha = 0"));
    insta::assert_snapshot!(said_of("rank = 2", "dropout = 5"));
    insta::assert_snapshot!(said_of("rank = 2", "targets = \"q_proj\""));
    insta::assert_snapshot!(said_of("rank = 2", "targets = [\"query_key_value\"]"));
    insta::assert_snapshot!(said_of("\"completion\"", "\"alpcaa\""));
    insta::assert_snapshot!(said_of("1e-3", "\"3e-4\""));
    insta::assert_snapshot!(said_of(
        "1e-3\n",
        "1e-3\n[samples]\nprompts = [\"a\"]\ntemplate = \"alpcaa\"\n"
    ));
    insta::assert_snapshot!(said_of(
        "[data]\n",
        "[data]\nvalidation = { fraction = 5 }\n"
    ));
    insta::assert_snapshot!(said_of("[data]\n", "[data]\ndate = \"yesterday\"\n"));
    insta::assert_snapshot!(said_of("[data]\n", "[data]\nmax_tokens = 1\n"));
}

#[test]
fn too_few_tokens() {
    insta::assert_snapshot!(said(&["train", "my.toml", "--set", "data.max_tokens=4"]));
}
