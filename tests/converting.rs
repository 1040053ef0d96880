//! A model in every layout is the same model, for whoever uses it by the command line.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::commands::simmer;
use crate::golden;

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/tiny-base");
const TEXT: &str = "The kettle is on the stove. What is the opposite of hot?";

fn run(folder: &Path, args: &[&str]) -> String {
    let output = simmer(folder, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn said(folder: &Path, output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.replace(&folder.display().to_string(), "DIR")
}

/// Ids and log-probabilities, to the last digit.
fn score(folder: &Path, base: &str, adapter: Option<&str>) -> String {
    let mut args = vec!["score", "--base", base, "--text", TEXT, "--json"];
    args.extend(adapter.iter().flat_map(|adapter| ["--adapter", adapter]));
    run(folder, &args)
}

#[test]
fn every_layout_is_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let expected = score(folder, BASE, None);
    for (input, output, more) in [
        (BASE, "model.gguf", &[][..]),
        ("model.gguf", "from-gguf", &["--dtype", "bf16"]),
        (BASE, "meta", &["--to", "meta", "--shards", "2"]),
        ("meta", "from-meta", &[]),
        ("meta", "again.gguf", &[]),
    ] {
        run(folder, &[&["convert", input, output], more].concat());
        assert_eq!(score(folder, output, None), expected, "{output}");
    }
    let weights = |model: &str| fs::read(folder.join(model).join("model.safetensors")).unwrap();
    assert!(weights("from-meta") == weights(BASE));
    assert!(weights("from-gguf") == weights(BASE));
}

#[test]
fn a_quantised_file_is_the_folder_it_converts_to() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    run(folder, &["convert", BASE, "q8.gguf", "--dtype", "q8_0"]);
    run(folder, &["convert", "q8.gguf", "wide"]);
    assert_eq!(score(folder, "q8.gguf", None), score(folder, "wide", None));
    assert_ne!(score(folder, "q8.gguf", None), score(folder, BASE, None));
    let shown = run(folder, &["show", "q8.gguf"]);
    assert!(shown.contains("1 GGUF file, F32, Q8_0"), "{shown}");
}

#[test]
fn a_quantised_model_has_its_error_and_its_types_shown() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let output = simmer(folder, &["convert", BASE, "nf4", "--quantize", "nf4"]);
    assert!(output.status.success());
    let mut text = String::from_utf8(output.stderr).unwrap();
    text.push_str(&run(folder, &["show", "nf4"]));
    insta::assert_snapshot!(text);
}

#[test]
fn a_base_of_another_layout_is_trained_and_merged() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    run(folder, &["convert", BASE, "model.gguf"]);
    let rows = r#"[{"instruction": "Say hello.", "input": "", "output": "Hello!"}]"#;
    fs::write(folder.join("rows.json"), rows).unwrap();
    let recipe = "[base]\npath = 'model.gguf'\n[method.lora]\nrank = 2\n\
         [data]\ntrain = [{ path = 'rows.json', template = 'alpaca' }]\n\
         [train]\nmax_steps = 2\nbatch_size = 1\nlearning_rate = 1e-2\n";
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
    run(folder, &["train", "recipe.toml", "--out", "run"]);
    let tuned = score(folder, "model.gguf", Some("run/adapter"));
    assert_ne!(tuned, score(folder, "model.gguf", None));
    assert_eq!(tuned, score(folder, BASE, Some("run/adapter")));
    let merge = ["merge", "--base", "model.gguf", "--adapter", "run/adapter"];
    run(
        folder,
        &[&merge[..], &["--out", "merged", "--dtype", "f32"]].concat(),
    );
    score(folder, "merged", None);
    // a base of the same shape is enough for the adapter
    run(
        folder,
        &[
            "convert",
            "run/adapter",
            "adapter.gguf",
            "--base",
            "model.gguf",
        ],
    );
    let refused = simmer(folder, &["score", "--base", "adapter.gguf", "--text", "x"]);
    insta::assert_snapshot!(said(folder, &refused));
}

#[test]
fn bad_files_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    run(folder, &["convert", BASE, "model.gguf"]);
    run(
        folder,
        &["convert", BASE, "meta", "--to", "meta", "--shards", "2"],
    );
    let whole = fs::read(folder.join("model.gguf")).unwrap();
    fs::write(folder.join("cut.gguf"), &whole[..whole.len() - 1000]).unwrap();
    fs::remove_file(folder.join("meta/consolidated.01.pth")).unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    let adapter = golden::adapter_folder("untied-mha", "saved-head");
    let adapter = adapter.display().to_string();
    let base = golden::folder("untied-mha").display().to_string();
    let biased = golden::folder("untied-mha").display().to_string();
    for (name, args) in [
        ("cut_gguf", &["show", "cut.gguf"][..]),
        ("missing_shard", &["show", "meta"]),
        ("empty_folder", &["show", "empty"]),
        ("no_such_model", &["show", "lama-7b"]),
        (
            "whole_modules",
            &["convert", &adapter, "a.gguf", "--base", &base],
        ),
        ("biases_in_meta", &["convert", &biased, "m", "--to", "meta"]),
        (
            "q8_in_a_folder",
            &["convert", BASE, "out", "--dtype", "q8_0"],
        ),
        ("output_exists", &["convert", BASE, "model.gguf"]),
        (
            "nf4_in_a_file",
            &["convert", BASE, "m.gguf", "--quantize", "nf4"],
        ),
        (
            "tied_head",
            &[
                "convert",
                BASE,
                "m",
                "--quantize",
                "int8",
                "--quantize-head",
            ],
        ),
    ] {
        let output = simmer(folder, args);
        let root = env!("CARGO_MANIFEST_DIR");
        let text = said(folder, &output).replace(root, "ROOT");
        insta::assert_snapshot!(format!("bad_{name}"), text);
    }
    assert_eq!(fs::read(folder.join("model.gguf")).unwrap(), whole);
    assert!(!folder.join("out").exists() && !folder.join("m").exists());
}

#[test]
fn options_that_nothing_uses_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let adapter = golden::adapter_folder("tied-gqa", "qkvo");
    let adapter = adapter.to_str().unwrap();
    let cases: [&[&str]; 6] = [
        &[BASE, "m.gguf", "--shards", "2"],
        &[BASE, "m", "--to", "meta", "--max-shard-size", "1MB"],
        &[BASE, "m", "--base", BASE],
        &[BASE, "m", "--quantize", "int8", "--double-quant", "false"],
        &[adapter, "a.gguf", "--base", BASE, "--shards", "1"],
        &[adapter, "a.gguf", "--max-shard-size", "1MB"],
    ];
    let said: Vec<String> = cases
        .iter()
        .map(|case| {
            let output = simmer(folder, &[&["convert"], *case].concat());
            assert_eq!(output.status.code(), Some(1));
            said(folder, &output)
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"), @"
    error: --shards would not be used: only a Meta checkpoint (--to meta) has a number of weights files
    hint: remove --shards

    error: --max-shard-size would not be used: only the weights of a Hugging Face folder are divided by size
    hint: remove --max-shard-size

    error: --base would not be used: IN is a model, not an adapter
    hint: remove --base

    error: --double-quant would not be used: only nf4 and fp4 have scales that are quantised
    hint: remove --double-quant

    error: --shards would not be used: only a Meta checkpoint (--to meta) has a number of weights files
    hint: remove --shards

    error: --max-shard-size would not be used: only the weights of a Hugging Face folder are divided by size
    hint: remove --max-shard-size
    ");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}
