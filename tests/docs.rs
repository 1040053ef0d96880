//! The documentation, checked against the program: its commands run as they are written, in a folder where small files
//! have the names that the pages use; links, paths, diffs, keys and options exist.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use simmer_checkpoint::{Dtype, TensorSpec, pth};
use simmer_data::{Format, Template};
use simmer_eval::Task;

use crate::commands::simmer;
use crate::golden;

/// A recipe of two steps on the embedded base.
const RECIPE: &str = r#"
[base]
path = "data/tiny-base"
[method.lora]
rank = 2
[data]
train = [{ path = "rows.jsonl", template = "alpaca" }]
validation = { rows = 2 }
max_tokens = 256
[train]
max_steps = 2
batch_size = 4
learning_rate = 1e-3
[samples]
prompts = ["What goes into fish stew?"]
max_new_tokens = 4
"#;

/// Models, under the names that the pages give them.
const MODELS: [&str; 4] = ["BASE", "folder", "SmolLM2-135M-Instruct", "models/llama"];

/// Adapters, under the names that the pages give them.
const ADAPTERS: [&str; 8] = [
    "runs/NAME/adapter",
    "runs/a/adapter",
    "runs/b/adapter",
    "runs/alpaca/adapter",
    "runs/support/adapter",
    "runs/quickstart/adapter",
    "runs/alpaca-smollm2-135m/adapter",
    "runs/first/adapter",
];

/// The pages in the root folder.
const ROOT_PAGES: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "RELEASING.md",
    "STYLE.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with everything that the commands of a page read.
struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Self {
        let workshop = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let base = workshop.model();
        for name in MODELS {
            copy(&base, &workshop.path(name));
        }
        copy(&base, &workshop.path("data/tiny-base"));
        copy(&root().join("data/kitchen"), &workshop.path("data/kitchen"));
        workshop.write("recipe.toml", RECIPE);
        workshop.recipes();
        workshop.rows();
        workshop.hub("models--HuggingFaceTB--SmolLM2-135M-Instruct", &base);
        copy(&golden::folder("eval/data"), &workshop.path("eval-data"));
        for name in ["HumanEval.jsonl", "mbpp.jsonl"] {
            let rows = golden::folder("eval/rows").join(name);
            fs::copy(rows, workshop.path("eval-data").join(name)).unwrap();
        }
        for args in [
            &["train", "recipe.toml", "--out", "made"][..],
            &["convert", "folder", "model.gguf"][..],
        ] {
            let done = simmer(workshop.folder.path(), args);
            assert!(done.status.success(), "{args:?}: {done:?}");
        }
        for name in ADAPTERS {
            copy(&workshop.path("made/adapter"), &workshop.path(name));
        }
        workshop.llama_adapter();
        workshop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The embedded base, with a chat template as the models of the pages have.
    fn model(&self) -> PathBuf {
        let base = self.path("base");
        copy(&root().join("data/tiny-base"), &base);
        let template = "{% for message in messages %}{{ message.role }}:\n{{ message.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}assistant:\n{% endif %}";
        self.write("base/chat_template.jinja", template);
        base
    }

    /// The shipped recipes, with few steps.
    fn recipes(&self) {
        copy(&root().join("recipes"), &self.path("recipes"));
        for (name, changes) in [
            (
                "quickstart",
                &[
                    ("epochs = 2", "max_steps = 2"),
                    ("batch_size = 8", "batch_size = 2"),
                    (
                        r#"{ files = [{ path = "data/kitchen/heldout.json", template = "alpaca" }] }"#,
                        "{ rows = 4 }",
                    ),
                    ("max_new_tokens = 32", "max_new_tokens = 4"),
                ][..],
            ),
            (
                "alpaca-smollm2-135m",
                &[
                    ("epochs = 3", "max_steps = 2"),
                    ("batch_size = 128", "batch_size = 2"),
                ],
            ),
        ] {
            let name = format!("recipes/{name}.toml");
            let mut text = fs::read_to_string(self.path(&name)).unwrap();
            for (from, to) in changes {
                assert!(text.contains(from), "{name}: {from}");
                text = text.replace(from, to);
            }
            self.write(&name, &text);
        }
    }

    fn rows(&self) {
        let row = |i: usize| {
            format!(
                "{{\"instruction\": \"What is {i}?\", \"input\": \"\", \"output\": \"A number, {i}.\"}}"
            )
        };
        let rows: Vec<String> = (0..12).map(row).collect();
        self.write("rows.jsonl", &rows.join("\n"));
        let list = format!("[{}]", rows.join(","));
        self.write("rows.json", &list);
        self.write("heldout.json", &list);
        self.write("questions.txt", "What is a spoon?\n");
        self.write("texts.jsonl", "{\"text\": \"The soup is hot.\"}\n");
        fs::copy(
            root().join("data/kitchen/text.jsonl"),
            self.path("text.jsonl"),
        )
        .unwrap();
        let data = self.path("alpaca");
        fs::create_dir_all(data.join("data")).unwrap();
        fs::write(data.join("data/train.json"), list).unwrap();
        self.hub("datasets--tatsu-lab--alpaca", &data);
    }

    /// A checkpoint of the original LLaMA-Adapter: ten prompts in each of two layers, and gates as they start.
    fn llama_adapter(&self) {
        let tensor = |name: &str, shape: Vec<usize>| {
            let values = 0..shape.iter().product::<usize>();
            let is_gate = name.ends_with("gate");
            let value = |i: usize| {
                if is_gate {
                    0.0
                } else {
                    (i * 37 % 19) as f32 / 9.0 - 1.0
                }
            };
            let bytes = values.map(value).flat_map(f32::to_le_bytes).collect();
            let (name, dtype) = (name.to_owned(), Dtype::F32);
            (TensorSpec { name, dtype, shape }, bytes)
        };
        let gates =
            (0..4).map(|layer| tensor(&format!("layers.{layer}.attention.gate"), vec![1, 6, 1, 1]));
        let prompts = tensor("adapter_query.weight", vec![20, 192]);
        let tensors: Vec<_> = gates.chain([prompts]).collect();
        let file = pth::encode("adapter", &tensors).unwrap();
        fs::write(self.path("llama_adapter.pth"), file).unwrap();
    }

    /// A folder as the hub's cache has it.
    fn hub(&self, name: &str, folder: &Path) {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let repository = self.path("hub/hub").join(name);
        copy(folder, &repository.join("snapshots").join(commit));
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), commit).unwrap();
    }

    /// Runs one command of a page.
    fn run(&self, page: &str, command: &str) {
        if let Some(made) = self.made(command) {
            let _ = fs::remove_dir_all(&made);
            let _ = fs::remove_file(&made);
        }
        let program = Path::new(env!("CARGO_BIN_EXE_simmer")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let serves = command.contains("simmer serve ");
        // the shell becomes the server, so that it can be ended; any free port
        let command = &if serves {
            let command = command.replace(" --port 8000", "");
            command.replacen("simmer serve", "exec simmer serve --port 0", 1)
        } else {
            command.to_owned()
        };
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("HF_HOME", self.path("hub"))
            .env("HF_HUB_OFFLINE", "1");
        if serves {
            return serves_at_once(page, command, &mut shell);
        }
        let done = shell.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        // whether the run fits depends on the machine
        let unfit = command.contains("estimate") && said.contains("the run does not fit");
        assert!(done.status.success() || unfit, "{page}: {command}\n{said}");
    }

    /// The output of a command, which it refuses to overwrite.
    fn made(&self, command: &str) -> Option<PathBuf> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let out = words.iter().position(|word| *word == "--out");
        let out = out.map(|at| words[at + 1].to_owned());
        let made = match words[1] {
            "train" if words.contains(&"--resume") => None,
            "train" => out.or_else(|| {
                let stem = Path::new(words[2]).file_stem()?.to_str()?;
                Some(format!("runs/{stem}"))
            }),
            "convert" => Some(words[3].to_owned()),
            "launch" => out.or_else(|| {
                let output = words.iter().position(|word| *word == "--output");
                output.map(|at| words[at + 1].to_owned())
            }),
            "recipes" => words.get(4).map(|file| (*file).to_owned()),
            _ => out,
        };
        made.map(|name| self.path(&name))
    }
}

/// Starts a server, which says where it is, and ends it.
fn serves_at_once(page: &str, command: &str, shell: &mut Command) {
    let mut child = shell
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let _ = BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    let said = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(
        line.starts_with("serving "),
        "{page}: {command}\n{line}{said}"
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// All pages, by their paths from the root.
fn pages() -> Vec<String> {
    let mut found: Vec<String> = ROOT_PAGES.map(str::to_owned).into();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let path = path.strip_prefix(root()).unwrap();
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The commands in a page's `sh` blocks; lines that end in a backslash are joined.
fn commands(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut commands = Vec::new();
    let mut in_block = false;
    let mut part = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("```") {
            in_block = line == "```sh";
            continue;
        }
        if !in_block || line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.split("   #").next().unwrap_or(line).trim();
        if let Some(begun) = line.strip_suffix('\\') {
            part.push_str(begun);
        } else {
            commands.push(format!("{}{line}", std::mem::take(&mut part)));
        }
    }
    commands
}

/// A command as the test runs it: with the program built for the tests, which supports the processor only.
fn as_run(command: &str) -> Option<String> {
    let command = command
        .replace("cargo run --release -- ", "simmer ")
        .replace("target/release/simmer ", "simmer ")
        .replace("max_steps=20", "max_steps=2")
        .replace("--device libtorch-cuda:0", "--device cpu")
        .replace("device=libtorch-cuda:0", "device=libtorch");
    let mut words = command.split_whitespace().skip_while(|word| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    });
    let is_simmer = words.next() == Some("simmer");
    // ranks need MPI
    let has_ranks = cfg!(feature = "mpi") || !command.contains("launch --local");
    let has_device = cfg!(feature = "libtorch") || !command.contains("device=libtorch");
    (is_simmer && has_ranks && has_device).then_some(command)
}

#[test]
fn every_command_runs() {
    let mut run = 0;
    let mut workshop = None;
    for page in pages() {
        for command in commands(&page).iter().filter_map(|command| as_run(command)) {
            let workshop = workshop.get_or_insert_with(Workshop::new);
            workshop.run(&page, &command);
            run += 1;
        }
    }
    assert!(run > 50, "{run} commands");
}

/// Commands of other programs: scripts in the checkout exist, the rest is in a list.
#[test]
fn every_other_command_is_known() {
    let known = [
        "cargo",
        "export",
        "curl",
        "docker",
        "eval",
        "git",
        "hf",
        "jq",
        "lm_eval",
        "mpirun",
        "pip",
        "pre-commit",
        "python",
        "python3",
        "srun",
        "tail",
        "tensorboard",
        "torchrun",
        "vllm",
    ];
    for page in pages() {
        for command in commands(&page) {
            let Some(program) = command.split_whitespace().next() else {
                continue;
            };
            let is_ours = as_run(&command).is_some() || command.contains("simmer launch ");
            if is_ours || known.contains(&program) || program.contains('=') {
                continue;
            }
            let there = root().join(program).exists() || program.starts_with("llama-");
            assert!(there, "{page}: {command}");
        }
    }
}

/// Every link between pages has a target; with `#`, a heading of it.
#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let path = root().join(&page);
        let text = fs::read_to_string(&path).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{page}: {link}");
            if !heading.is_empty() && target.extension().is_some_and(|end| end == "md") {
                let there = headings(&fs::read_to_string(&target).unwrap());
                assert!(there.contains(heading), "{page}: {link}, of {there:?}");
            }
        }
    }
}

/// The headings of a page, as links spell them.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    let name = |title: &str| {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        });
        kept.collect()
    };
    titles.map(name).collect()
}

/// Paths in backticks, and in the `text` blocks of ARCHITECTURE.md the first word of each line.
#[test]
fn every_named_path_exists() {
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md", "RELEASING.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let mut block = None;
        let mut named = Vec::new();
        for line in text.lines() {
            match (line.strip_prefix("```"), block) {
                (Some(language), None) => block = Some(language),
                (Some(_), Some(_)) => block = None,
                (None, None) => named.extend(line.split('`').skip(1).step_by(2)),
                (None, Some("text")) if page == "ARCHITECTURE.md" => {
                    named.extend(line.split_whitespace().next());
                }
                (None, Some(_)) => {}
            }
        }
        for module in named.iter().filter_map(|name| module(name)) {
            let file = module.with_extension("rs");
            assert!(
                module.is_dir() || file.exists(),
                "{page}: {}",
                module.display()
            );
        }
        let paths: Vec<&str> = named.into_iter().filter(|name| is_path(name)).collect();
        assert!(paths.len() > 5, "{page}: {paths:?}");
        for path in paths {
            assert!(root().join(path).exists(), "{page}: `{path}`");
        }
    }
}

/// The folder of a module named as `crate::module` or `crate::module::module`, where its file may be instead.
fn module(name: &str) -> Option<PathBuf> {
    let (krate, modules) = name.split_once("::")?;
    let mut folder = root().join("crates").join(krate);
    if !folder.is_dir()
        || !modules
            .chars()
            .all(|c| c.is_ascii_lowercase() || "_:".contains(c))
    {
        return None;
    }
    if krate != "cli" {
        folder.push("src");
    }
    folder.extend(modules.split("::"));
    Some(folder)
}

/// Whether text in backticks is a path of the checkout, and not a command, a module or a placeholder.
fn is_path(name: &str) -> bool {
    let built = ["target/", "runs/", "eval-data/"];
    let letters = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let file = [".rs", ".md", ".toml", ".lock", ".yaml"];
    let is_file = file.iter().any(|end| name.ends_with(end));
    (name.contains('/') || is_file)
        && !name.starts_with('/')
        && name.chars().all(letters)
        && !built.iter().any(|start| name.starts_with(start))
        // `flex.rs` and `tests.rs` stand for the file of that name in each module
        && (name.contains('/') || Path::new(name).extension().is_none_or(|end| end != "rs"))
}

/// Every diff of CONTRIBUTING.md applies: a new file does not exist yet, and the lines that a hunk keeps or removes are in
/// the file, in this order.
#[test]
fn every_diff_applies() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let diffs: Vec<&str> = page
        .split("```diff\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(diffs.len() > 10, "{}", diffs.len());
    for diff in diffs {
        let (from, rest) = diff.split_once('\n').unwrap();
        let (to, hunks) = rest.split_once('\n').unwrap();
        let to = to.strip_prefix("+++ ").unwrap();
        if from == "--- /dev/null" {
            assert!(!root().join(to).exists(), "{to} exists");
            assert!(hunks.lines().all(|line| line.starts_with('+')), "{to}");
            continue;
        }
        assert_eq!(from, format!("--- {to}"));
        let text = fs::read_to_string(root().join(to)).unwrap();
        let mut rest = text.as_str();
        for hunk in hunks.split("@@\n") {
            let old: String = hunk
                .lines()
                .filter(|line| !line.starts_with('+'))
                .flat_map(|line| [line.get(1..).unwrap_or_default(), "\n"])
                .collect();
            let at = rest.find(&old);
            let at = at.unwrap_or_else(|| panic!("CONTRIBUTING.md: {to} does not have\n{old}"));
            rest = &rest[at + old.len()..];
        }
    }
}

/// A TOML block with all four tables is a complete recipe, and `simmer show` accepts it.
#[test]
fn every_complete_recipe_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut complete = 0;
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        let blocks = text.split("```toml\n").skip(1);
        for block in blocks.filter_map(|rest| rest.split("```").next()) {
            let tables = ["[base]", "[method.", "[data]", "[train]"];
            if !tables.iter().all(|table| block.contains(table)) {
                continue;
            }
            fs::write(folder.path().join("recipe.toml"), block).unwrap();
            let done = simmer(folder.path(), &["show", "recipe.toml"]);
            assert!(done.status.success(), "{page}: {done:?}\n{block}");
            complete += 1;
        }
    }
    assert!(complete >= 3, "{complete} recipes");
}

/// Fails unless the page has each name in backticks.
fn documented<'a>(page: &str, names: impl IntoIterator<Item = &'a str>) {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut count = 0;
    for name in names {
        assert!(text.contains(&format!("`{name}`")), "{page}: `{name}`");
        count += 1;
    }
    assert!(count > 3, "{page}: {count} names");
}

#[test]
fn every_template_is_documented() {
    documented("docs/reference/templates.md", Template::names());
    documented("docs/reference/recipe.md", Template::names());
}

#[test]
fn every_data_format_is_documented() {
    let names = || Format::ALL.into_iter().map(Format::name);
    documented("docs/guide/your-own-data.md", names());
    let recipe = fs::read_to_string(root().join("docs/reference/recipe.md")).unwrap();
    for name in names() {
        assert!(
            recipe.contains(&format!("`\"{name}\"`")),
            "docs/reference/recipe.md: {name}"
        );
    }
}

#[test]
fn every_task_is_documented() {
    documented("docs/guide/evaluating.md", Task::names());
}

#[test]
fn every_lint_kind_is_documented() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
    let args = ["show", "recipe.toml", "--set", "data.lint.allow=[\"zzz\"]"];
    let said = String::from_utf8(simmer(folder.path(), &args).stderr).unwrap();
    let list = said.lines().find(|line| line.contains("end_token"));
    let kinds = list.unwrap_or_default().rsplit(": ").next();
    documented("docs/guide/lint.md", kinds.unwrap_or_default().split(", "));
}

/// Every test that the page of complaints or a table of CONTRIBUTING.md names exists.
#[test]
fn every_test_that_is_named_exists() {
    let mut sources = String::new();
    let mut folders = vec![root().join("crates"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let page = fs::read_to_string(root().join("docs/pains.md")).unwrap();
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.ends_with('|'));
    let mut named = 0;
    for row in rows.skip(1) {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
        for name in last.split('`').skip(1).step_by(2) {
            assert!(sources.contains(&format!("fn {name}(")), "{name}: {row}");
            named += 1;
        }
    }
    assert!(named > 30, "{named}");
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let name = row.split('`').nth(1).unwrap();
        if name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            assert!(sources.contains(&format!("fn {name}(")), "{name}: {row}");
        }
    }
}

/// Options that a help text lists.
fn options(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start);
    let listed = lines.filter(|line| line.starts_with('-'));
    let long = listed.filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")));
    let long = long.map(|word| word.trim_end_matches("...").to_owned());
    long.filter(|word| word != "--help").collect()
}

#[test]
fn the_reference_has_every_command_with_its_options() {
    let text = fs::read_to_string(root().join("docs/reference/commands.md")).unwrap();
    let (_, shared) = text.split_once("\n## Which model").unwrap();
    let help = |words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain(["--help"]).collect();
        String::from_utf8(simmer(Path::new("."), &words).stdout).unwrap()
    };
    let mut sections: Vec<&str> = text.split("\n## simmer ").skip(1).collect();
    sections.retain(|section| !section.is_empty());
    let subcommands = |help: &str| -> Vec<String> {
        let list = help.split("Commands:\n").nth(1).unwrap_or_default();
        let lines = list.lines().take_while(|line| !line.trim().is_empty());
        let names = lines.filter_map(|line| line.split_whitespace().next());
        names
            .filter(|name| *name != "help")
            .map(str::to_owned)
            .collect()
    };
    let mut all: Vec<Vec<String>> = Vec::new();
    for command in subcommands(&help(&[])) {
        let below = subcommands(&help(&[&command]));
        if below.is_empty() {
            all.push(vec![command]);
        } else {
            all.extend(below.into_iter().map(|name| vec![command.clone(), name]));
        }
    }
    for command in all {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let title = words.join(" ");
        let section = sections.iter().find(|section| {
            let line = section.lines().next().unwrap_or_default();
            line == title || line.starts_with(&format!("{title} "))
        });
        // `recipes copy` is described with `recipes`
        let section = section.or_else(|| {
            sections
                .iter()
                .find(|section| section.starts_with(words[0]))
        });
        let section = section.unwrap_or_else(|| panic!("`simmer {title}` has no section"));
        let section = section.split("\n## ").next().unwrap();
        for option in options(&help(&words)) {
            assert!(
                section.contains(&option) || shared.contains(&option),
                "`simmer {title}`: {option} is not described"
            );
        }
    }
}

/// The keys that a recipe's table may have, as the program lists them.
fn keys(table: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
    let set = if table.is_empty() {
        "zzz=1".to_owned()
    } else {
        format!("{table}.zzz=1")
    };
    let said = simmer(folder.path(), &["show", "recipe.toml", "--set", &set]).stderr;
    let said = String::from_utf8(said).unwrap();
    let list = said.split("]: ").last().unwrap_or_default();
    let list = list.split("keys: ").last().unwrap_or_default();
    list.lines()
        .next()
        .unwrap_or_default()
        .split(", ")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_reference_has_every_key_of_a_recipe() {
    let text = fs::read_to_string(root().join("docs/reference/recipe.md")).unwrap();
    let lint = fs::read_to_string(root().join("docs/guide/lint.md")).unwrap();
    for table in [
        "base",
        "base.init",
        "method.lora",
        "method.full",
        "data",
        "data.lint",
        "data.train.0",
        "train",
        "train.guard",
        "train.guard.spike",
        "train.early_stop",
        "samples",
    ] {
        let keys = keys(table);
        assert!(
            !keys.is_empty() && keys.iter().all(|key| !key.contains(' ')),
            "{table}: {keys:?}"
        );
        let page = if table == "data.lint" { &lint } else { &text };
        for key in keys {
            assert!(
                page.contains(&format!("`{key}`")) || page.contains(&format!("\n{key} = ")),
                "[{table}]: `{key}` is not described"
            );
        }
    }
}
