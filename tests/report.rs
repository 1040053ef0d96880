//! What is kept of a run for those who look at it: events for TensorBoard, counts, and the page of `simmer report`.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::AtomicBool;

use simmer_train::{Counts, History, Metrics, Observer, Outcome, Resume, StepMetrics, train};

use crate::commands::simmer;
use crate::golden;
use crate::training::{Kitchen, Notices, StopAfter};

/// One step whose learning rate is not 0.
const ONE_STEP: [&str; 2] = ["train.max_steps=1", "train.schedule=constant"];

/// The records of an event file, each with its length and checksums.
fn records(run: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(run.join("tensorboard")).unwrap();
    let files = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap());
    // that of an earlier start is there and empty
    let files: Vec<Vec<u8>> = files.filter(|bytes| !bytes.is_empty()).collect();
    let [bytes] = &files[..] else {
        panic!("{} files", files.len());
    };
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let (record, after) = rest.split_at(length + 16);
        records.push(record.to_vec());
        rest = after;
    }
    records
}

/// The page of runs in a folder, and what the command said.
fn report(folder: &Path, args: &[&str]) -> (String, Output) {
    let page = folder.join("page.html");
    let args = [&["report", "--out", "page.html"], args].concat();
    let output = simmer(folder, &args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(output.stdout, b"page.html\n");
    (fs::read_to_string(page).unwrap(), output)
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let output = simmer(folder, &[&["report"], args].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    said.replace(&folder.display().to_string(), "FOLDER")
}

#[test]
fn a_resumed_run_has_every_event_once() {
    let kitchen = Kitchen::new();
    let run = kitchen.path("run");
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        step: 5,
        in_validation: false,
        stop: &stop,
    };
    let recipe = kitchen.recipe(&[]);
    let stopped = train(&recipe, &run, Resume::Never, &mut observer, &stop).unwrap();
    assert!(matches!(stopped, Outcome::Interrupted { step: 5, .. }));
    let before = records(&run);
    // without its last checkpoint the run goes on before its last step
    let checkpoint = run.join("checkpoints/step-000005");
    fs::remove_dir_all(checkpoint).unwrap();
    kitchen.train(&[], "run", true).unwrap();
    let lines = History::read(&run).unwrap().lines;
    let after = records(&run);
    // the version and the mark of a start come first
    assert_eq!(after.len(), lines.len() + 2);
    assert_eq!(
        lines
            .iter()
            .filter(|line| matches!(line, Metrics::Step(_)))
            .count(),
        12
    );
    // steps that were kept have kept their times
    assert_eq!(before[2..6], after[2..6]);
}

#[test]
fn events_that_cannot_be_written_end_no_run() {
    let kitchen = Kitchen::new();
    kitchen.whole(&[], "with");
    let run = kitchen.path("without");
    fs::create_dir(&run).unwrap();
    let stop = AtomicBool::new(false);
    let recipe = kitchen.recipe(&ONE_STEP);
    train(&recipe, &run, Resume::Never, &mut Notices::default(), &stop).unwrap();
    // from here on a file is in the folder's way
    fs::remove_dir_all(run.join("tensorboard")).unwrap();
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    fs::write(run.join("tensorboard"), "").unwrap();
    let mut notices = Notices::default();
    let recipe = kitchen.recipe(&[]);
    train(&recipe, &run, Resume::AsBegun, &mut notices, &stop).unwrap();
    let said: Vec<&String> = notices
        .0
        .iter()
        .filter(|text| text.contains("TensorBoard"))
        .collect();
    assert_eq!(said.len(), 1, "{:?}", notices.0);
    assert!(said[0].contains("without/tensorboard"), "{}", said[0]);
    assert_eq!(kitchen.adapter("without"), kitchen.adapter("with"));
}

#[test]
fn counts_are_those_of_the_data() {
    let kitchen = Kitchen::new();
    kitchen.whole(&[], "run");
    let counts = Counts::read(&kitchen.path("run")).unwrap();
    let file = &counts.train[0];
    assert_eq!((file.rows, file.examples, file.left_out), (29, 29, 0));
    assert_eq!((counts.examples, counts.validation_examples), (Some(24), 5));
    assert_eq!((counts.steps, counts.steps_per_epoch), (12, 6));
    assert!(file.targets < file.tokens && counts.trained < counts.weights);
}

#[test]
fn a_page_needs_nothing_beside_it() {
    let kitchen = Kitchen::new();
    let parent = kitchen.path("");
    let samples = "samples.prompts=[\"<b>tea</b>? \"]";
    let trained = simmer(
        &parent,
        &["train", "recipe.toml", "--out", "first", "--set", samples],
    );
    assert!(
        trained.status.success(),
        "{}",
        String::from_utf8_lossy(&trained.stderr)
    );
    kitchen.whole(&["train.learning_rate=1e-3"], "second");
    let (page, output) = report(&parent, &["first", "second"]);
    assert_eq!(
        output.stderr,
        b"",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for title in [
        "Loss",
        "Learning rate",
        "Gradient norm",
        "Throughput",
        "Peak memory",
    ] {
        assert!(page.contains(&format!("<b>{title}</b>")), "{title}");
    }
    for text in [
        "train.learning_rate",
        "<code>0.001</code>",
        "&lt;b&gt;tea&lt;/b&gt;?",
        "before",
        "Base and trained model on held-out rows",
        "rows.jsonl",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let outside = ["http", "src=", "<link", "@import", "url("];
    for part in outside {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn a_page_is_made_of_what_there_is() {
    let kitchen = Kitchen::new();
    kitchen.whole(&ONE_STEP, "run");
    let parent = kitchen.path("");
    let run = kitchen.path("run");
    let (page, _) = report(&parent, &["run"]);
    assert!(page.contains("finished") && page.contains("<b>Loss</b>"));

    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    fs::write(run.join("metrics.jsonl"), format!("{{\n{metrics}{{\"st")).unwrap();
    fs::write(run.join("counts.json"), "{").unwrap();
    fs::write(run.join("comparison.json"), "[]").unwrap();
    let (page, output) = report(&parent, &["run"]);
    let said = String::from_utf8(output.stderr).unwrap();
    insta::assert_snapshot!(said, @"
    run/metrics.jsonl: skipped line 1, which is damaged
    run/counts.json: cannot read: EOF while parsing an object at line 1 column 1; skipped
    cannot read run/comparison.json: invalid length 0, expected struct Comparison with 3 elements at line 1 column 2; skipped
    ");
    assert!(page.contains("metrics.jsonl: skipped line 1") && page.contains("<b>Loss</b>"));

    fs::remove_dir_all(run.join("adapter")).unwrap();
    for name in [
        "metrics.jsonl",
        "manifest.json",
        "counts.json",
        "comparison.json",
    ] {
        fs::remove_file(run.join(name)).unwrap();
    }
    let (page, _) = report(&parent, &["run"]);
    assert!(page.contains("stopped before its first step"));
    assert!(page.contains("No charts"));
}

#[test]
fn what_is_no_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "").unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    fs::create_dir(folder.path().join("run")).unwrap();
    fs::write(folder.path().join("run/recipe.toml"), "").unwrap();
    let of = |args: &[&str]| refused(folder.path(), args);
    let said = [
        of(&["missing"]),
        of(&["thesis.tex"]),
        of(&["empty"]),
        of(&["run", "./run/"]),
    ];
    insta::assert_snapshot!(said.concat(), @"
    error: missing: no such run
      because: No such file or directory (os error 2)
    error: thesis.tex is a file; expected the folder of a run
    error: empty is not a run: it has no recipe.toml
    error: ./run/: duplicate run
    ");
}

#[test]
fn a_page_is_in_the_folder_of_its_run_and_overwrites_nothing() {
    let kitchen = Kitchen::new();
    let parent = kitchen.path("");
    let at = |name: &str| parent.join(name);
    for run in ["first", "second"] {
        kitchen.whole(&ONE_STEP, run);
    }
    let written = |args: &[&str]| {
        let output = simmer(&parent, &[&["report"], args].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // the page of the same runs is replaced
    for _ in 0..2 {
        assert_eq!(written(&["first"]), "first/report.html\n");
        assert_eq!(written(&["first", "second"]), "compared.html\n");
        assert_eq!(written(&["second", "--out", "mine.html"]), "mine.html\n");
    }
    // a run that has another name now
    fs::rename(at("first"), at("third")).unwrap();
    assert_eq!(written(&["third"]), "third/report.html\n");

    fs::copy(at("compared.html"), at("second/report.html")).unwrap();
    fs::write(at("notes.md"), "mine").unwrap();
    let before = fs::read(at("compared.html")).unwrap();
    let said = [
        refused(&parent, &["second"]),
        refused(&parent, &["third", "second"]),
        refused(&parent, &["third", "--out", "notes.md"]),
        refused(&parent, &["third", "--out", "second"]),
    ];
    insta::assert_snapshot!(said.concat(), @"
    error: second/report.html exists and is a page of other runs; it is not overwritten
    hint: name another page with --out, or remove the file
    error: compared.html exists and is a page of other runs; it is not overwritten
    hint: name another page with --out, or remove the file
    error: notes.md exists and is not a page that `simmer report` wrote; it is not overwritten
    hint: name another page with --out, or remove the file
    error: second is a folder; expected the name of a page
    hint: write --out second/report.html
    ");
    assert_eq!(fs::read(at("notes.md")).unwrap(), b"mine");
    assert_eq!(fs::read(at("compared.html")).unwrap(), before);
}

/// Makes the page after the third step.
struct Looking<'a>(&'a Path, String);

impl Observer for Looking<'_> {
    fn on_step(&mut self, step: &StepMetrics) {
        if step.step == 3 {
            self.1 = report(self.0, &["run"]).0;
        }
    }
}

#[test]
fn a_run_is_shown_while_it_goes() {
    let kitchen = Kitchen::new();
    let parent = kitchen.path("");
    let mut looking = Looking(&parent, String::new());
    let recipe = kitchen.recipe(&[]);
    let go = AtomicBool::new(false);
    train(
        &recipe,
        &kitchen.path("run"),
        Resume::Never,
        &mut looking,
        &go,
    )
    .unwrap();
    assert!(
        looking.1.contains("running, at step 3 of 12"),
        "{}",
        looking.1
    );
}

#[test]
fn a_profile_says_where_the_steps_went() {
    let kitchen = Kitchen::new();
    let device = golden::device_name();
    let args = ["train", "recipe.toml", "--out", "run", "--profile"];
    let output = simmer(
        &kitchen.path(""),
        &[&args[..], &["--device", &device]].concat(),
    );
    let said = String::from_utf8(output.stderr).unwrap();
    // a line is a name, how often, milliseconds and the share; the rest has no count
    let mut shares = Vec::new();
    for name in [
        "linear",
        "low_rank",
        "dropout",
        "attention",
        "linear_cross_entropy",
        "rms_norm",
        "rope",
        "gated",
        "everything else",
    ] {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in\n{said}"));
        let share = line
            .split_whitespace()
            .find_map(|word| word.strip_suffix('%'));
        shares.push(share.unwrap().parse::<f64>().unwrap());
    }
    // each share is rounded to a tenth, and no time is in two of them
    let total: f64 = shares.iter().sum();
    assert!((total - 100.0).abs() < 0.5, "{total}% in\n{said}");
    let trace = fs::read_to_string(kitchen.path("run/trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&trace).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let steps = events.iter().filter(|event| event["name"] == "step");
    assert_eq!(steps.count(), 12);
}

#[test]
fn a_run_that_fails_has_no_profile() {
    let kitchen = Kitchen::new();
    let device = "libtorch-cuda:200";
    let args = [
        "train",
        "recipe.toml",
        "--out",
        "run",
        "--profile",
        "--device",
    ];
    let output = simmer(&kitchen.path(""), &[&args[..], &[device]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(device) && !said.contains("trace.json"),
        "{said}"
    );
}

#[test]
fn lines_come_every_so_many_steps() {
    let kitchen = Kitchen::new();
    let args = ["train", "recipe.toml", "--out", "run", "--log-every", "5"];
    let output = simmer(&kitchen.path(""), &args);
    let said = String::from_utf8(output.stderr).unwrap();
    let steps = said.lines().filter(|line| line.contains("tokens/s"));
    let steps: Vec<&str> = steps.filter_map(|line| line.split(':').next()).collect();
    assert_eq!(steps, ["step 5/12", "step 10/12", "step 12/12"], "{said}");
    let refused = simmer(
        &kitchen.path(""),
        &["train", "recipe.toml", "--log-every", "0"],
    );
    assert_eq!(refused.status.code(), Some(2));
}
