//! `simmer judge`, as a person meets it. `crates/judge` compares verdicts, prompts and numbers with those of FastChat.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::loopback::{KEY, Loopback};

/// The program with a recipe, which is written into the folder.
fn judge(folder: &Path, recipe: &str) -> Command {
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_simmer"));
    command.arg("judge").arg(folder.join("recipe.toml"));
    command.args(["--out"]).arg(folder.join("out"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env(KEY.0, KEY.1);
    command
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

/// A server that prefers the longer of two answers.
fn server(down: usize, times: usize) -> Loopback {
    Loopback::start("chat/completions", down, times, |body| {
        assert_eq!(body["messages"][0]["role"], "system");
        let text = verdict(body["messages"][1]["content"].as_str().unwrap());
        let choice = json!({"message": {"content": text}, "finish_reason": "stop"});
        (choice, [10, 1])
    })
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
    let server = server(2, 2);
    let url = &server.url;
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
    assert_eq!(server.requests(), 6 + 2 + 2);
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
    assert_eq!(server.requests(), 10);
    let other = &["--set", "model.0.max_tokens=25"];
    let (done, text) = said(judge(folder.path(), &recipe).args(other));
    assert!(
        !done
            && text
                .contains("the journal of another run: a setting of the samples (`temperature`, "),
        "{text}"
    );
    let ignored = &["--set", "model.1.temperature=0.5"];
    let (done, text) = said(judge(folder.path(), &recipe).args(ignored));
    assert!(
        !done
            && text
                .contains("--set model.1.temperature=0.5: expected no such key beside `answers`"),
        "{text}"
    );
    let error = said(judge(folder.path(), &recipe).env_remove(KEY.0)).1;
    assert!(
        error.contains("error: [judge]: `endpoint`: `key_env`: the environment has no TEST_KEY\nhint: set that variable"),
        "{error}"
    );
}
