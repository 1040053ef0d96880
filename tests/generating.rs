//! `simmer data generate`, as a person meets it. `crates/instruct` compares its rows with those of the original programs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::golden;
use crate::loopback::{KEY, Loopback};

/// The program with a recipe, which is written into the folder.
fn generate(folder: &Path, recipe: &str, out: &str) -> Command {
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_simmer"));
    command
        .args(["data", "generate"])
        .arg(folder.join("recipe.toml"))
        .arg("--out")
        .arg(folder.join(out));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env(KEY.0, KEY.1);
    command
}

/// Everything that a run writes, but the copy of its recipe, which names the folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name != "recipe.toml" {
            files.push((name, fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

#[test]
fn a_killed_run_of_a_local_model_is_resumed_with_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = fs::read_to_string("recipes/generate/kitchen.toml").unwrap();
    let recipe = recipe.replace("[model.local]", "[model.local]\ndevice = \"cpu\"");
    let (done, text) = said(&mut generate(folder.path(), &recipe, "whole"));
    assert!(done, "{text}");
    assert!(text.starts_with("kept "), "{text}");
    let whole = files(&folder.path().join("whole"));
    let rows = whole.iter().find(|(name, _)| name == "data.jsonl").unwrap();
    let rows = String::from_utf8(rows.1.clone()).unwrap();
    assert!(rows.lines().count() >= 2, "{rows}");

    let journal = folder.path().join("killed/journal.jsonl");
    let mut child = generate(folder.path(), &recipe, "killed")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while fs::read_to_string(&journal).map_or(0, |text| text.lines().count()) < 2 {
        assert!(begin.elapsed() < Duration::from_mins(1));
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it had finished");
    assert!(!folder.path().join("killed/data.jsonl").exists());
    let (done, text) = said(&mut generate(folder.path(), &recipe, "killed"));
    assert!(done && text.contains("resuming with "), "{text}");
    let resumed = files(&folder.path().join("killed"));
    // a batch that was cut off is in the journal twice; all that counts is equal
    let counts = |files: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
        files
            .iter()
            .filter(|(name, _)| name != "journal.jsonl")
            .cloned()
            .collect()
    };
    assert!(counts(&resumed) == counts(&whole));

    // in another dtype it would have other texts
    let half = recipe.replace("[model.local]", "[model.local]\ncompute = \"bf16\"");
    let (done, text) = said(&mut generate(folder.path(), &half, "killed"));
    assert!(!done && text.contains("another run"), "{text}");
}

#[test]
fn rows_of_a_server_are_those_of_the_original_also_if_it_was_down() {
    let folder = tempfile::tempdir().unwrap();
    let golden = fs::read_to_string(golden::folder("instruct").join("alpaca.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let seeds = golden["seeds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seed| format!("{seed}\n"));
    let path = folder.path().join("seeds.jsonl");
    fs::write(&path, seeds.collect::<String>()).unwrap();
    let completions = golden["completions"].as_array().unwrap().clone();
    let count = completions.len();
    let mut recorded = completions.into_iter();
    let server = Loopback::start("completions", 3, 2, move |_| {
        (recorded.next().unwrap(), [1000, 500])
    });
    let url = &server.url;
    let recipe = format!(
        "method = \"alpaca\"\nseeds = {path:?}\nout = \"unused\"\ntarget = {}\nbatch = {}\n[model.endpoint]\nurl = \"{url}\"\n\
         model = \"recorded\"\nkey_env = \"TEST_KEY\"\nconcurrency = 1\nretries = 1\nbackoff_s = 0.01\nprice_prompt = 2.0\n\
         price_completion = 4.0\n",
        golden["target"], golden["batch"]
    );
    let (done, text) = said(&mut generate(folder.path(), &recipe, "out"));
    assert!(!done);
    let expected = format!(
        "error: {url}/completions: status 503: overloaded, in 2 attempts\nhint: what was answered is kept;"
    );
    assert!(text.contains(&expected), "{text}");
    let (done, text) = said(&mut generate(folder.path(), &recipe, "out"));
    assert!(
        done && text.contains("resuming with 3 completions"),
        "{text}"
    );
    // nothing that was answered is asked for again
    assert_eq!(server.requests(), count + 2);
    let rows = fs::read_to_string(folder.path().join("out/data.json")).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&rows).unwrap(),
        golden["rows"]
    );
    // the price of 8 times 1000 and 500 tokens
    assert!(
        text.contains(
            "8,000 tokens of prompts, 4,000 of completions; 1 reached max_tokens; cost 0.03"
        ),
        "{text}"
    );
    let journal = fs::read_to_string(folder.path().join("out/journal.jsonl")).unwrap();
    assert!(!journal.contains("secret") && !text.contains("secret"));

    // the finished run is written again without a request, and refused for other seeds
    let report = said(generate(folder.path(), &recipe, "out").arg("--json")).1;
    let report: Value =
        serde_json::from_str(report.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    assert_eq!(
        (&report["rows"], &report["ended"]),
        (&json!(11), &json!("target"))
    );
    assert_eq!(server.requests(), count + 2);
    let (done, text) = said(&mut generate(
        folder.path(),
        &recipe.replace("batch = 2", "batch = 3"),
        "out",
    ));
    assert!(
        !done && text.contains("the journal of another run: `seed` or `batch` differs"),
        "{text}"
    );
    // a smaller target shortens no file, and other keys are overridden in words that name them
    let before = files(&folder.path().join("out"));
    let fewer = &["--set", "target=1"];
    let (done, text) = said(generate(folder.path(), &recipe, "out").args(fewer));
    assert!(
        !done && text.contains("data.json: has 11 rows, and with this recipe it would have "),
        "{text}"
    );
    assert!(before == files(&folder.path().join("out")));
    let kept = fs::read_to_string(folder.path().join("out/recipe.toml")).unwrap();
    assert!(
        kept.contains(&format!("target = {}\n", golden["target"])),
        "{kept}"
    );
    let wrong = &["--set", "targt=1"];
    let (done, text) = said(generate(folder.path(), &recipe, "out").args(wrong));
    assert!(
        !done
            && text.contains(
                "--set targt=1: unknown key `targt` in the recipe; did you mean `target`?\nhint: "
            ),
        "{text}"
    );
}
