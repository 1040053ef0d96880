//! What a person writes, or passes on: recipes, tasks, and answers that are kept.

use std::path::Path;

use simmer_eval::{Answers, Asking, Task};
use simmer_train::Recipe;

use super::{Folder, deep, shown};

const RECIPE: &str = "[base]\npath = \"base\"\n[data]\ntrain = [{ path = \"x.jsonl\", template = \"alpaca\" }]\n\
    [method.lora]\nrank = 4\n[train]\nbatch_size = 4\nlearning_rate = 1e-4\nmax_steps = 1\n";

#[test]
fn recipes() {
    let said = |text: &str, sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Folder::empty().said(Recipe::parse(Path::new("x.toml"), text, &sets))
    };
    let set = |set: &str| said(RECIPE, &[set]);
    let with_init = |keys: &str| {
        let sizes =
            "vocab_size=9,hidden_size=8,intermediate_size=8,num_key_value_heads=2,head_dim=8";
        let base = format!("tokenizer = \"x\"\ninit = {{{sizes},{keys}}}\n");
        RECIPE.replace("path = \"base\"\n", &base)
    };
    let init = |keys: &str| said(&with_init(keys), &[]);
    let file = |content: &[u8]| {
        let folder = Folder::empty().with("x.toml", content);
        folder.said(Recipe::from_file(&folder.at("x.toml"), &[]))
    };
    Recipe::parse(Path::new("x.toml"), RECIPE, &[]).unwrap();
    shown(
        "recipe::recipes",
        &[
            (
                "a hundred thousand `[` in a value",
                said(&format!("x = {}", "[".repeat(100_000)), &[]),
            ),
            (
                "tables in tables",
                said(&format!("[a{}]", ".a".repeat(100_000)), &[]),
            ),
            ("invalid UTF-8", file(b"seed = \"\xFF\"\n")),
            ("a NUL byte", said("seed\0 = 1\n", &[])),
            ("a file of 5 GB", {
                let folder = Folder::empty().with_long("x.toml", 5_000_000_000);
                folder.said(Recipe::from_file(&folder.at("x.toml"), &[]))
            }),
            ("a key twice", said("a = 1\na = 2\n", &[])),
            ("a key that is not there", set("train.batchsize=4")),
            (
                "`batch_size` 10^18",
                set("train.batch_size=1000000000000000000"),
            ),
            ("`batch_size` -1", set("train.batch_size=-1")),
            (
                "`micro_batch_tokens` 10^18",
                set("train.micro_batch_tokens=1000000000000000000"),
            ),
            ("`learning_rate` nan", set("train.learning_rate=nan")),
            ("`learning_rate` inf", set("train.learning_rate=inf")),
            ("`epochs` -1", set("train.epochs=-1.0")),
            ("a `--set` of a hundred thousand `[`", {
                let value = format!("train.seed={}", "[".repeat(100_000));
                let message = set(&value);
                message.replace(&"[".repeat(100_000), "[[[…")
            }),
            (
                "`base.init` with 10^9 layers",
                init("num_hidden_layers=1000000000,num_attention_heads=1"),
            ),
            (
                "`base.init` with `rope_theta` nan",
                init("num_hidden_layers=1,num_attention_heads=1,rope_theta=nan"),
            ),
            (
                "`base.init` with 3 heads for 2 key and value heads",
                init("num_hidden_layers=1,num_attention_heads=3"),
            ),
            ("`base.init` without a tokenizer", {
                let text = with_init("num_hidden_layers=1,num_attention_heads=2");
                said(&text.replace("tokenizer = \"x\"\n", ""), &[])
            }),
        ],
    );
}

#[test]
fn tasks() {
    let said = |text: &str| {
        let folder = Folder::empty().with("t.toml", text);
        let rows = folder.at("x.jsonl");
        std::fs::write(&rows, "{\"question\": \"q\", \"n\": 1}\n").unwrap();
        let task = match Task::named(folder.at("t.toml").to_str().unwrap()) {
            Ok(task) => task,
            wrong => return folder.said(wrong),
        };
        folder.said(task.questions(folder.path(), 9))
    };
    let task = |file: &str, prompt: &str, more: &str| {
        said(&format!(
            "about = \"x\"\nfiles = [\"{file}\"]\n[generation]\nprompt = \"{prompt}\"\nmax_new_tokens = 1\nmetrics = []\n{more}"
        ))
    };
    shown(
        "recipe::tasks",
        &[
            (
                "rows outside of the data folder",
                task("../x.jsonl", "", ""),
            ),
            ("rows under an absolute name", task("/etc/passwd", "", "")),
            (
                "a prompt without an end",
                task(
                    "x.jsonl",
                    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
                    "",
                ),
            ),
            (
                "a prompt that reads another file",
                task("x.jsonl", "{% include '/etc/passwd' %}", ""),
            ),
            (
                "answers of 10^12 characters",
                task(
                    "x.jsonl",
                    "{{ question }}",
                    "answers = \"'x' * 1000000000000\"\n",
                ),
            ),
            (
                "a key that is not there",
                task("x.jsonl", "", "prompts = 1\n"),
            ),
            (
                "a hundred thousand `[`",
                said(&format!("x = {}", "[".repeat(100_000))),
            ),
        ],
    );
}

#[test]
fn kept_answers() {
    let asking = Asking {
        model: "m".to_owned(),
        task: "t".to_owned(),
        sha256: std::collections::BTreeMap::new(),
    };
    let first = serde_json::to_string(&asking).unwrap();
    let said = |rest: &[u8]| {
        let folder = Folder::empty().with("a.jsonl", [first.as_bytes(), b"\n", rest].concat());
        folder.said(Answers::open(&folder.at("a.jsonl"), &asking))
    };
    shown(
        "recipe::kept_answers",
        &[
            ("no JSON", said(b"x\n")),
            ("a million `[`", said(format!("{}\n", deep()).as_bytes())),
            ("a row of -1", said(b"{\"row\": -1, \"asked\": \"\"}\n")),
            (
                "a key that is not there",
                said(b"{\"row\": 1, \"asked\": \"\", \"score\": 1}\n"),
            ),
            (
                "a line of more than 64 MiB",
                said(&vec![b'x'; (64 << 20) + 9]),
            ),
            (
                "invalid UTF-8",
                said(b"{\"row\": 1, \"asked\": \"\xFF\"}\n"),
            ),
            ("a folder in its place", {
                let folder = Folder::empty();
                std::fs::create_dir(folder.at("a.jsonl")).unwrap();
                folder.said(Answers::open(&folder.at("a.jsonl"), &asking))
            }),
        ],
    );
}
