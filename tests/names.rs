//! Names of bases, adapters, tokenizers and data: what is here, what is part of the program, and what the hub is asked for.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::golden;

/// A folder, and a hub that is asked for nothing.
struct Desk {
    folder: tempfile::TempDir,
    hub: TcpListener,
}

impl Desk {
    fn new() -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        hub.set_nonblocking(true).unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            hub,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("here").join(name)
    }

    fn command(&self, program: &str) -> Command {
        let here = self.path("");
        fs::create_dir_all(&here).unwrap();
        let mut command = Command::new(program);
        command
            .current_dir(here)
            .env("COLUMNS", "100")
            .env("XDG_CACHE_HOME", self.folder.path().join("cache"))
            .env("HF_HOME", self.folder.path().join("hub"))
            .env(
                "HF_ENDPOINT",
                format!("http://{}", self.hub.local_addr().unwrap()),
            );
        command
    }

    fn simmer(&self, args: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_simmer"));
        command.args(args).output().unwrap()
    }

    /// What a command that must fail says.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.simmer(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn done(&self, args: &[&str]) -> Output {
        let output = self.simmer(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        output
    }

    fn is_hub_asked(&self) -> bool {
        self.hub.accept().is_ok()
    }
}

#[test]
fn a_missing_path_is_said_to_be_missing_and_is_not_requested() {
    let desk = Desk::new();
    fs::create_dir_all(desk.path("mine/llama")).unwrap();
    fs::create_dir_all(desk.path("models/smollm2-135m")).unwrap();
    fs::write(desk.path("rows.jsonl"), "{\"text\": \"a\"}\n").unwrap();
    let model = golden::folder("tied-gqa").display().to_string();
    let recipe = |base: &str, tokenizer: &str, data: &str| {
        let text = format!(
            "[base]\npath = '{base}'\n{tokenizer}\n[method.lora]\n[data]\n\
             train = [{{ path = '{data}', template = 'completion' }}]\nmax_tokens = 64\n\
             [train]\nmax_steps = 1\nbatch_size = 1\nlearning_rate = 1e-3\n"
        );
        fs::write(desk.path("r.toml"), text).unwrap();
        desk.refused(&["train", "r.toml"])
    };
    let score = |base: &str| desk.refused(&["score", "--base", base, "--text", "x"]);
    let adapter = |adapter: &str| {
        let args = [
            "score",
            "--base",
            &model,
            "--adapter",
            adapter,
            "--text",
            "x",
        ];
        desk.refused(&args)
    };
    let said = [
        score("/nofolder"),
        score("models/smollm2"),
        score("data/tiny-bse"),
        score("./org/name"),
        score("~/models/llama"),
        score("mine/other"),
        score("model.gguf"),
        score("org/model.gguf"),
        score("org/a--b"),
        adapter("runs/first/adapter"),
        adapter("runs/first"),
        recipe("models/llama", "", "rows.jsonl"),
        recipe(&model, "tokenizer = 'models/tok'", "rows.jsonl"),
        recipe(&model, "", "data/rows"),
        recipe(&model, "", "org/rows.jsonl"),
        desk.refused(&["train", "r.toml", "--set", "method.lora.from=runs/second"]),
        desk.refused(&["show", "models/llama"]),
        desk.refused(&[
            "merge",
            "--base",
            &model,
            "--adapter",
            "out/a",
            "--out",
            "m",
        ]),
        desk.refused(&["eval", "--base", &model, "--file", "nofile.json"]),
        desk.refused(&["score", "--base", "hf://name", "--text", "x"]),
        desk.refused(&["score", "--base", "hf://datasets/org/rows", "--text", "x"]),
    ];
    assert!(!desk.is_hub_asked());
    let root = env!("CARGO_MANIFEST_DIR");
    insta::assert_snapshot!(said.concat().replace(root, "ROOT"));
}

#[test]
fn other_names_are_requested_and_first_said_to_be_missing_here() {
    let desk = Desk::new();
    // the hub of this test never answers
    let said_by = |args: &[&str]| {
        let mut command = desk.command(env!("CARGO_BIN_EXE_simmer"));
        command.env("HF_ENDPOINT", "http://127.0.0.1:1");
        let output = command.args(args).output();
        let cache = desk.folder.path().display().to_string();
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        said.replace(&cache, "DIR")
    };
    let said = |base: &str| said_by(&["score", "--base", base, "--text", "x"]);
    let bare = said("org/name");
    assert!(
        bare.starts_with(
            "error: org/name: no such file or folder here, and it could not be downloaded from the hub\n  \
             because: cannot reach http://127.0.0.1"
        ),
        "{bare}"
    );
    let explicit = said("hf://data/tiny-base");
    assert!(
        explicit.starts_with("error: cannot reach http://127.0.0.1"),
        "{explicit}"
    );
    assert!(explicit.contains("`data/tiny-base`"), "{explicit}");
    // the adapter that a recipe continues to train
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/quickstart.toml");
    let from = "method.lora={ from = 'org/adapter' }";
    let further = said_by(&["train", recipe, "--set", from]);
    assert!(
        further.starts_with("error: org/adapter: no such file or folder here, and it could not"),
        "{further}"
    );
}

#[test]
fn the_quickstart_runs_in_an_empty_folder() {
    let desk = Desk::new();
    let copied = desk.done(&["recipes", "copy", "quickstart", "q.toml"]);
    insta::assert_snapshot!(String::from_utf8_lossy(&copied.stderr), @"
    wrote q.toml
    part of simmer, if the current folder does not have them: data/tiny-base, data/kitchen/instructions.json, data/kitchen/heldout.json
    ");
    let header = fs::read_to_string(desk.path("q.toml")).unwrap();
    assert!(header.contains("#   simmer train q.toml\n"), "{header}");
    let again = desk.refused(&["recipes", "copy", "quickstart", "q.toml"]);
    assert!(
        again.contains("error: q.toml exists already, and is not overwritten"),
        "{again}"
    );

    let short = [
        "--set",
        "train.max_steps=2",
        "--set",
        "train.compare_rows=4",
    ];
    let trained = desk.done(&[&["train"][..], &short].concat());
    let said = String::from_utf8(trained.stderr).unwrap();
    assert!(
        said.starts_with("no recipe given: training the quickstart (`simmer recipes copy"),
        "{said}"
    );
    let copy = desk
        .folder
        .path()
        .join("cache/simmer")
        .join(env!("CARGO_PKG_VERSION"));
    let from = format!(
        "data/tiny-base: not in this folder; using the copy that is part of simmer, {}",
        copy.join("data/tiny-base").display()
    );
    assert!(said.contains(&from), "{said}");
    assert!(!said.contains("warning"), "{said}");
    // nothing is left in the folder but the run
    let mut left: Vec<_> = desk.path("").read_dir().unwrap().collect();
    left.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    let left: Vec<_> = left
        .into_iter()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["q.toml", "runs"]);

    run_next(&desk, &said);
    assert!(desk.path("runs/quickstart/report.html").is_file());
    assert!(
        desk.path("runs/quickstart/merged/model.safetensors")
            .is_file()
    );
    assert!(!desk.is_hub_asked());

    // a file of the cache that was changed is not used
    fs::write(copy.join("data/tiny-base/config.json"), "{}").unwrap();
    desk.done(&["score", "--base", "data/tiny-base", "--text", "The honey"]);
    // and a folder here has precedence
    fs::create_dir_all(desk.path("data/tiny-base")).unwrap();
    let own = desk.refused(&["score", "--base", "data/tiny-base", "--text", "The honey"]);
    assert!(own.contains("data/tiny-base/config.json"), "{own}");
}

/// Runs the commands that a run names at its end, as a user copies them.
fn run_next(desk: &Desk, said: &str) {
    let (_, next) = said.split_once("\nnext:\n").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_simmer")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut count = 0;
    for line in next.lines().take_while(|line| !line.is_empty()) {
        let mut shell = desk.command("sh");
        shell.env("PATH", format!("{}:{path}", program.display()));
        let output = shell.args(["-c", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        count += 1;
    }
    assert_eq!(count, 3, "{next}");
}
