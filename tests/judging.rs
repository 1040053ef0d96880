//! `simmer judge`, as a person meets it. `crates/judge` compares verdicts, prompts and numbers with those of FastChat.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

/// The program with a recipe, which is written into the folder.
fn judge(folder: &Path, recipe: &str) -> Command {
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_simmer"));
    command.arg("judge").arg(folder.join("recipe.toml"));
    command.args(["--out"]).arg(folder.join("out"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("TEST_KEY", "secret");
    command
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

/// A server that prefers the longer of two answers, except that it is down from request `down` on for `times` requests.
fn server(down: usize, times: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let begin = head.len();
                if reader.read_line(&mut head).unwrap() <= 2 {
                    break;
                }
                let line = head[begin..].trim().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let request = seen.fetch_add(1, Ordering::SeqCst);
            let is_chat = head.starts_with("POST /v1/chat/completions ");
            let (status, answer) = if !is_chat || !head.contains("Bearer secret") {
                (401, json!({"error": {"message": "no key"}}))
            } else if (down..down + times).contains(&request) {
                (503, json!({"error": {"message": "overloaded"}}))
            } else {
                let body: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(body["messages"][0]["role"], "system");
                let text = verdict(body["messages"][1]["content"].as_str().unwrap());
                let usage = json!({"prompt_tokens": 10, "completion_tokens": 1});
                let choice = json!({"message": {"content": text}, "finish_reason": "stop"});
                (200, json!({"choices": [choice], "usage": usage}))
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

/// The verdict of the server. About tea it says nothing.
fn verdict(prompt: &str) -> String {
    let answer = |name: &str| {
        let begin = format!("[The Start of Assistant {name}'s Answer]\n");
        let end = format!("\n[The End of Assistant {name}'s Answer]");
        let (_, text) = prompt.split_once(&begin).unwrap();
        text.split_once(&end).unwrap().0.len()
    };
    if prompt.contains("What is tea?") {
        return "Tea is <i>tea</i>.".to_owned();
    }
    let better = if answer("A") > answer("B") { "A" } else { "B" };
    format!("The longer one: [[{better}]]")
}

#[test]
fn a_local_model_is_judged_by_a_server_also_if_it_was_down() {
    let folder = tempfile::tempdir().unwrap();
    let (url, requests) = server(2, 2);
    let recipe = fs::read_to_string("recipes/judge/kitchen.toml").unwrap();
    let (recipe, _) = recipe.split_once("\n[judge]\n").unwrap();
    let recipe = recipe.replace(
        "local = { base = \"data/tiny-base\" }",
        "local = { base = \"data/tiny-base\", device = \"cpu\" }",
    );
    let recipe = format!(
        "{recipe}\n[judge]\nretries = 1\n[judge.endpoint]\nurl = \"{url}\"\nmodel = \"recorded\"\nkey_env = \"TEST_KEY\"\n\
         concurrency = 1\nretries = 1\nbackoff_s = 0.01\n"
    );
    let (done, text) = said(&mut judge(folder.path(), &recipe));
    assert!(!done);
    let expected = format!(
        "error: {url}/chat/completions: status 503: overloaded, in 2 attempts\nhint: what was answered is kept;"
    );
    assert!(text.contains(&expected), "{text}");
    let out = folder.path().join("out");
    assert!(!out.join("report.json").exists());
    let (done, text) = said(judge(folder.path(), &recipe).arg("--json"));
    assert!(
        done && text.contains("resuming with 2 completions"),
        "{text}"
    );
    // six verdicts, the two about tea asked for again; nothing that was answered is asked for twice
    assert_eq!(requests.load(Ordering::SeqCst), 6 + 2 + 2);
    let line = text.lines().find(|line| line.starts_with('{')).unwrap();
    let report: Value = serde_json::from_str(line).unwrap();
    let file = fs::read_to_string(out.join("report.json")).unwrap();
    assert_eq!(report, serde_json::from_str::<Value>(&file).unwrap());
    assert_eq!(
        (&report["verdicts"], &report["no_verdict"]),
        (&json!(6), &json!(2))
    );
    let versus = &report["pairwise"];
    assert_eq!(
        (&versus["no_verdict"], &versus["position"]["changed"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(versus["length"]["longer_wins"], json!(1.0));
    let page = fs::read_to_string(out.join("page.html")).unwrap();
    assert!(page.contains("Tea is &lt;i&gt;tea&lt;/i&gt;.") && !page.contains("<i>tea"));
    assert!(page.contains("Tea is a drink") && page.contains("no verdict"));
    for entry in fs::read_dir(&out).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("secret"));
    }

    // a finished run is written again without a request; another setting needs another folder
    let (done, text) = said(&mut judge(folder.path(), &recipe));
    assert!(done && text.contains("no verdict: 2 of 6"), "{text}");
    assert_eq!(requests.load(Ordering::SeqCst), 10);
    let other = recipe.replace("max_tokens = 24", "max_tokens = 25");
    let (done, text) = said(&mut judge(folder.path(), &other));
    assert!(
        !done && text.contains("the journal of another run: "),
        "{text}"
    );
    let error = said(judge(folder.path(), &recipe).env_remove("TEST_KEY")).1;
    assert!(
        error.contains("error: [judge]: `endpoint`: `key_env`: the environment has no TEST_KEY\nhint: set that variable"),
        "{error}"
    );
}
