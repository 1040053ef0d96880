//! Runs that an error ends: the last finished step is kept, and the run goes on from it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use simmer_hint::Hint;
use simmer_train::{
    Observer, Outcome, Recipe, Resume, StepMetrics, TrainError, ValidationMetrics, train,
};

use crate::commands::simmer;
use crate::golden;
use crate::training::{Kitchen, Notices, quoted};

/// A stream over the kitchen's rows, in file order, which is opened again for every pass.
fn streamed(kitchen: &Kitchen) -> [String; 2] {
    let rows = quoted(&kitchen.path("rows.jsonl"));
    [
        format!(
            "data={{ train = [{{ path = {rows}, template = \"completion\" }}], stream = true, shuffle = false }}"
        ),
        "train={ max_steps = 14, batch_size = 4, learning_rate = 5e-3, micro_batch_tokens = 40, \
         checkpoint_every = { steps = 5 }, seed = 5 }"
            .to_owned(),
    ]
}

/// Takes a file away after a step.
struct TakeAway<'a> {
    file: &'a Path,
    after: u64,
    notices: Vec<String>,
}

impl Observer for TakeAway<'_> {
    fn on_step(&mut self, step: &StepMetrics) {
        if step.step == self.after {
            fs::rename(self.file, self.file.with_extension("away")).unwrap();
        }
    }

    fn on_notice(&mut self, text: &str) {
        self.notices.push(text.to_owned());
    }
}

#[test]
fn a_data_file_that_goes_away_costs_no_step() {
    let kitchen = Kitchen::new();
    let sets = streamed(&kitchen);
    // more steps than the rows that are read ahead, 256
    let more = ["train.max_steps=80", "train.checkpoint_every.steps=30"];
    let sets: Vec<&str> = sets.iter().map(String::as_str).chain(more).collect();
    let expected = kitchen.whole(&sets, "whole");

    let file = kitchen.path("rows.jsonl");
    let mut observer = TakeAway {
        file: &file,
        after: 2,
        notices: Vec::new(),
    };
    let go = AtomicBool::new(false);
    let run = kitchen.path("run");
    let error = train(
        &kitchen.recipe(&sets),
        &run,
        Resume::Never,
        &mut observer,
        &go,
    )
    .unwrap_err();
    let TrainError::Ended {
        error: cause,
        step,
        checkpoint,
        not_kept,
    } = &error
    else {
        panic!("{error}");
    };
    assert!(matches!(**cause, TrainError::Data(_)), "{cause}");
    // 4 rows per step: the next are read, and the file is opened again, before step 65
    assert_eq!(*step, 64, "{error}");
    assert_eq!(
        checkpoint.as_ref().map(|(saved, _)| *saved),
        Some(*step),
        "{error}"
    );
    assert_eq!(*not_kept, None);
    let last = kitchen.checkpoints("run").pop().unwrap();
    assert_eq!(last, format!("step-{step:06}"));
    let text = error.to_string();
    assert!(
        text.contains("rows.jsonl")
            && text.contains(&format!("ended after step {step}; checkpoint: ")),
        "{text}"
    );
    let hint = error.hint().unwrap();
    assert!(hint.contains("--resume"), "{hint}");

    fs::rename(file.with_extension("away"), &file).unwrap();
    kitchen.train(&sets, "run", true).unwrap();
    assert!(kitchen.adapter("run") == expected);
    assert_eq!(kitchen.metrics("run"), kitchen.metrics("whole"));
}

/// More rows than are checked before the first step, one of them without an answer.
fn long_stream(folder: &Path, bad: usize) {
    let mut rows = String::new();
    for row in 1..=10_600 {
        let answer = if row == bad {
            ""
        } else {
            ", \"completion\": \"heat\""
        };
        let _ = writeln!(rows, "{{\"prompt\": \"{row}? \"{answer}}}");
    }
    fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let base = quoted(&golden::folder("tied-gqa"));
    let recipe = format!(
        "[base]\npath = {base}\n[method.lora]\nrank = 2\n[data]\nstream = true\nshuffle = false\n\
         train = [{{ path = \"rows.jsonl\", template = \"completion\" }}]\n\
         lint = {{ allow = [\"near_duplicates\", \"duplicates\"] }}\n\
         [train]\nmax_steps = 15\nbatch_size = 700\nlearning_rate = 1e-3\ncheckpoint_every = {{ steps = 4 }}\n"
    );
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
}

#[test]
fn a_bad_row_late_in_a_stream_costs_no_step() {
    let folder = tempfile::tempdir().unwrap();
    long_stream(folder.path(), 10_301);
    let output = simmer(
        folder.path(),
        &["train", "recipe.toml", "--log-every", "100"],
    );
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let (_, error) = text.split_once("error: ").unwrap();
    insta::assert_snapshot!(error);
    // the row is mended, and the run goes on
    long_stream(folder.path(), 0);
    let go_on = ["train", "recipe.toml", "--resume", "--accept-changes"];
    let output = simmer(folder.path(), &go_on);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("resuming after step 14"), "{text}");
}

/// Makes the weights that a validation sees useless: nothing may be written then.
struct Count(u64);

impl Observer for Count {
    fn on_validation(&mut self, _: &ValidationMetrics) {
        self.0 += 1;
    }
}

#[test]
fn weights_that_are_not_finite_replace_no_checkpoint() {
    let kitchen = Kitchen::new();
    let sets = [
        "train.learning_rate=1e38",
        "train.schedule={ constant = { warmup_steps = 1 } }",
        "train.clip=none",
        "train.checkpoint_every={ steps = 1 }",
    ];
    let error = train(
        &kitchen.recipe(&sets),
        &kitchen.path("run"),
        Resume::Never,
        &mut Count(0),
        &AtomicBool::new(false),
    )
    .unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    assert_eq!(kitchen.checkpoints("run"), ["step-000001"]);
}

/// The error and the notices of a run that is refused before its first step.
fn refused(kitchen: &Kitchen, sets: &[&str]) -> String {
    let error = kitchen.train(sets, "refused", false).unwrap_err();
    assert!(!kitchen.path("refused/metrics.jsonl").exists());
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

#[test]
fn what_would_end_a_run_is_said_before_its_first_step() {
    let kitchen = Kitchen::new();
    let long = format!("samples={{ prompts = [\"a\", \"{}\"] }}", "x ".repeat(900));
    insta::assert_snapshot!(refused(&kitchen, &[&long]));
    let chat = "samples={ prompts = [\"a\"], template = \"chat:no\" }";
    let text = refused(&kitchen, &[chat])
        .replace(&golden::folder("tied-gqa").display().to_string(), "BASE");
    insta::assert_snapshot!(text);
    let missing = "samples={ prompts = [\"a\"], template = \"mine.toml\" }";
    insta::assert_snapshot!(refused(&kitchen, &[missing]));
    let zero = [
        "train.max_steps=1",
        "train.schedule={ linear = { warmup_steps = 5 } }",
    ];
    insta::assert_snapshot!(refused(&kitchen, &zero));
    insta::assert_snapshot!(refused(&kitchen, &["train.learning_rate=1e-60"]));
    let layers = ["method.lora.layers_to_transform=[7]"];
    insta::assert_snapshot!(refused(&kitchen, &layers));
}

#[test]
fn odd_rates_and_ranks_are_warned_of() {
    let kitchen = Kitchen::new();
    let sets = [
        "train.learning_rate=0.3",
        "train.max_steps=2",
        "train.schedule={ linear = { warmup_steps = 4 } }",
        "method.lora.rank=100",
    ];
    let mut notices = Notices::default();
    let recipe: Recipe = kitchen.recipe(&sets);
    let outcome = train(
        &recipe,
        &kitchen.path("run"),
        Resume::Never,
        &mut notices,
        &AtomicBool::new(false),
    )
    .unwrap();
    assert!(matches!(outcome, Outcome::Finished { .. }), "{outcome:?}");
    let warnings = notices
        .0
        .iter()
        .filter(|text| text.starts_with("warning: "));
    let warnings: Vec<&str> = warnings.map(String::as_str).collect();
    insta::assert_snapshot!(warnings.join("\n"));
}
