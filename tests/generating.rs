//! `simmer data generate`, as a person meets it. `crates/instruct` compares its rows with those of the original programs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::golden;

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
        .env("TEST_KEY", "secret");
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
}

/// A server that answers with recorded completions, one after another, except that it is down from request `down` on for
/// `times` requests.
fn server(completions: Vec<Value>, down: usize, times: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        let mut next = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut line) = (0, String::new());
            let mut authorized = false;
            while reader.read_line(&mut line).unwrap() > 2 {
                let lower = line.trim().to_ascii_lowercase();
                authorized |= lower == "authorization: bearer secret";
                if let Some(value) = lower.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let request = seen.fetch_add(1, Ordering::SeqCst);
            let (status, answer) = if !authorized {
                (401, json!({"error": {"message": "no key"}}))
            } else if (down..down + times).contains(&request) {
                (503, json!({"error": {"message": "overloaded"}}))
            } else {
                next += 1;
                let usage = json!({"prompt_tokens": 1000, "completion_tokens": 500});
                (
                    200,
                    json!({"choices": [completions[next - 1]], "usage": usage}),
                )
            };
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            let _ = stream.write_all((head + &answer).as_bytes());
        }
    });
    (url, requests)
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
    let (url, requests) = server(completions, 3, 2);
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
    assert_eq!(requests.load(Ordering::SeqCst), count + 2);
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
    assert_eq!(requests.load(Ordering::SeqCst), count + 2);
    let (done, text) = said(&mut generate(
        folder.path(),
        &recipe.replace("batch = 2", "batch = 3"),
        "out",
    ));
    assert!(
        !done && text.contains("the journal of another run: `seed` or `batch` differs"),
        "{text}"
    );
}
