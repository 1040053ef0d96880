//! Training against PEFT, and runs that are interrupted, killed, damaged and taken up again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use simmer_data::{Batch, Cursor, Example};
use simmer_hint::Hint;
use simmer_kernels::{Capabilities, Operations, with_reference};
use simmer_train::{
    Interval, Method, Observer, Outcome, Recipe, RecipeError, Resume, Silent, StepMetrics,
    TrainConfig, TrainError, Trainer, train,
};

use crate::adapters::{attached, of_start};
use crate::golden::{self, AdapterGolden, Tensors};

/// An f32 loss against PEFT's: conditioning.py found 5.5e-6 between f32 and f64.
const LOSS: f64 = 1e-4;

fn examples(rows: &[golden::Row]) -> Vec<Example> {
    let example = |row: &golden::Row| {
        let mut trained: Vec<bool> = row.labels.iter().map(|label| *label >= 0).collect();
        trained[0] = false;
        Example {
            tokens: row.input_ids.clone(),
            trained,
            ..Example::default()
        }
    };
    rows.iter().map(example).collect()
}

/// The golden's settings as a recipe has them.
fn config(settings: &golden::Settings, micro_batch_tokens: usize) -> TrainConfig {
    let golden::Settings {
        learning_rate,
        schedule,
        warmup_steps,
        steps,
        batch_size,
        beta1,
        beta2,
        epsilon,
        weight_decay,
        max_grad_norm,
        loraplus_lr_ratio,
        loraplus_lr_embedding,
    } = settings;
    let clip = max_grad_norm.map_or("\"none\"".to_owned(), |norm| format!("{{ norm = {norm} }}"));
    let optional = [
        ("loraplus_lr_ratio", loraplus_lr_ratio),
        ("loraplus_lr_embedding", loraplus_lr_embedding),
    ];
    let given = |(key, value): (&str, &Option<f64>)| Some(format!("{key} = {}\n", (*value)?));
    let loraplus: String = optional.into_iter().filter_map(given).collect();
    // torch's AdamW decays all weights, PEFT's LoRA+ no biases
    let decay = if loraplus.is_empty() {
        "all"
    } else {
        "matrices"
    };
    let text = format!(
        "max_steps = {steps}\nbatch_size = {batch_size}\nlearning_rate = {learning_rate}\n\
         micro_batch_tokens = {micro_batch_tokens}\nclip = {clip}\n\
         schedule = {{ {schedule} = {{ warmup_steps = {warmup_steps} }} }}\n{loraplus}\
         [optimizer.adamw]\nbeta1 = {beta1}\nbeta2 = {beta2}\neps = {epsilon}\n\
         weight_decay = {weight_decay}\ndecay = \"{decay}\"\n"
    );
    toml::from_str(&text).unwrap()
}

/// Trains ten steps of each golden in packed sequences of these sizes, and compares them with PEFT's.
fn ten_steps(budgets: &[usize]) {
    for (model, name) in golden::adapters() {
        let folder = golden::adapter_folder(model, name);
        let golden: AdapterGolden = golden::json(folder.join("golden.json"));
        let expected = Tensors::open(folder.join("golden.safetensors"));
        let examples = examples(&golden::rows(model, name));
        for budget in budgets {
            let config = config(&golden.training.settings, *budget);
            let mut trainer = Trainer::new(attached(model, name).model, &config).unwrap();
            let go = AtomicBool::new(false);
            for (index, step) in golden.training.steps.iter().enumerate() {
                let steps = config.max_steps.unwrap();
                let rate = config.learning_rate * config.schedule.factor(index as u64, steps);
                assert!((rate - step.learning_rate).abs() < 1e-12);
                let batch = Batch {
                    epoch: 0,
                    rows: step.rows.clone(),
                    next: Cursor::default(),
                };
                let chosen: Vec<_> = step.rows.iter().map(|row| examples[*row].clone()).collect();
                let packed = trainer.pack(&batch, &chosen);
                let done = trainer.step(&packed, rate, f64::INFINITY, &go).unwrap();
                let what = format!("{model}/{name}, step {index}, budget {budget}");
                assert!(
                    (done.loss - step.loss).abs() <= LOSS,
                    "{what}: loss {}",
                    done.loss
                );
                assert_eq!(done.targets, step.trained_tokens as u64, "{what}");
                let relative = done.grad_norm / step.grad_norm - 1.0;
                assert!(relative.abs() <= 1e-4, "{what}: norm {}", done.grad_norm);
            }
            let after = trainer.evaluate(&examples, &go, &mut |_, _| {}).unwrap();
            let difference = (after.loss - golden.training.final_loss).abs();
            assert!(
                difference <= LOSS,
                "{model}/{name}: final loss off by {difference}"
            );
            let keys = simmer_model::adapter::peft_keys(trainer.model());
            let stored = expected.names_after("trained.");
            let mut compared = 0;
            for (parameter, value) in trainer.model().trainable() {
                if !stored.contains(&keys[&parameter]) {
                    continue; // the file of another family's adapter has a part of the tensors
                }
                compared += 1;
                let value: Vec<f32> = value.into_data().iter::<f32>().collect();
                let expected = expected.f32(&format!("trained.{}", keys[&parameter]));
                let difference = golden::max_difference(&value, &expected);
                // conditioning.py: 2e-6 between f32 and f64
                assert!(
                    difference <= 2e-5 * of_start(name),
                    "{model}/{name} {parameter}: {difference}"
                );
            }
            assert_eq!(compared, stored.len(), "{model}/{name}");
        }
    }
}

#[test]
fn ten_steps_equal_peft() {
    // All rows of a step at once, and each alone.
    ten_steps(&[4096, 1]);
}

#[test]
fn ten_steps_without_fused_forms_equal_peft() {
    with_reference(Operations::ALL, || {
        let device = Capabilities::of(&golden::device());
        assert_eq!(device.fused, Operations::NONE);
        ten_steps(&[4096]);
    });
}

/// A path as TOML has it.
pub(crate) fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

/// A folder with rows for the tiny model's tokenizer, and a recipe for them.
pub(crate) struct Kitchen {
    folder: tempfile::TempDir,
}

impl Kitchen {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dishes = [
            "soup",
            "bread",
            "rice",
            "fish stew",
            "salad",
            "an omelette",
            "tea",
        ];
        let row = |i: usize| {
            let dish = dishes[i % dishes.len()];
            let more = "salt, ".repeat(i % 5);
            format!("{{\"prompt\": \"{i}: {dish}? \", \"completion\": \"{more}heat {i}.\"}}")
        };
        let rows = (0..29).map(row).collect::<Vec<_>>().join("\n");
        fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
        let kitchen = Self { folder };
        fs::write(kitchen.path("recipe.toml"), kitchen.text()).unwrap();
        kitchen
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self) -> String {
        let base = quoted(&golden::folder("tied-gqa"));
        let rows = quoted(&self.path("rows.jsonl"));
        let device = golden::device_name();
        format!(
            r#"
device = "{device}"

[base]
path = {base}

[method.lora]
rank = 4
alpha = 8
dropout = 0.1
targets = ["q_proj", "v_proj", "down_proj"]

[data]
train = [{{ path = {rows}, template = "completion" }}]
validation = {{ rows = 5 }}

[train]
epochs = 2
batch_size = 4
micro_batch_tokens = 40
learning_rate = 5e-3
schedule = {{ cosine = {{ warmup_ratio = 0.2 }} }}
checkpoint_every = {{ steps = 2 }}
validate_every = {{ steps = 3 }}
seed = 5
"#
        )
    }

    pub(crate) fn recipe(&self, sets: &[&str]) -> Recipe {
        self.try_recipe(sets).unwrap()
    }

    pub(crate) fn try_recipe(&self, sets: &[&str]) -> Result<Recipe, RecipeError> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Recipe::parse(Path::new("recipe.toml"), &self.text(), &sets)
    }

    pub(crate) fn train(
        &self,
        sets: &[&str],
        run: &str,
        resume: bool,
    ) -> Result<Outcome, TrainError> {
        let resume = if resume {
            Resume::AsBegun
        } else {
            Resume::Never
        };
        let go = AtomicBool::new(false);
        train(
            &self.recipe(sets),
            &self.path(run),
            resume,
            &mut Silent,
            &go,
        )
    }

    /// An uninterrupted run.
    pub(crate) fn whole(&self, sets: &[&str], run: &str) -> Vec<u8> {
        let outcome = self.train(sets, run, false).unwrap();
        assert!(matches!(outcome, Outcome::Finished { .. }), "{outcome:?}");
        self.adapter(run)
    }

    pub(crate) fn adapter(&self, run: &str) -> Vec<u8> {
        fs::read(self.path(run).join("adapter/adapter_model.safetensors")).unwrap()
    }

    pub(crate) fn checkpoints(&self, run: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(run).join("checkpoints")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The lines of `metrics.jsonl` without what a clock says.
    pub(crate) fn metrics(&self, run: &str) -> Vec<BTreeMap<String, serde_json::Value>> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let parse = |line: &str| {
            let mut line: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            for key in ["seconds", "tokens_per_second", "peak_memory", "time"] {
                line.remove(key);
            }
            line
        };
        text.lines().map(parse).collect()
    }

    pub(crate) fn losses(&self, run: &str) -> Vec<f64> {
        let lines = self.metrics(run);
        lines
            .iter()
            .filter_map(|line| line.get("loss")?.as_f64())
            .collect()
    }

    /// The program, told to train.
    pub(crate) fn command(&self, run: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simmer"));
        command
            .args(["train", "recipe.toml", "--out", run])
            .args(more)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

/// Raises the flag after a step, or in the middle of a validation.
pub(crate) struct StopAfter<'a> {
    pub(crate) step: u64,
    pub(crate) in_validation: bool,
    pub(crate) stop: &'a AtomicBool,
}

impl Observer for StopAfter<'_> {
    fn on_step(&mut self, step: &StepMetrics) {
        if step.step == self.step && !self.in_validation {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn on_validation_progress(&mut self, done: usize, all: usize) {
        if self.in_validation && done < all {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Hears the notices.
#[derive(Default)]
pub(crate) struct Notices(pub(crate) Vec<String>);

impl Observer for Notices {
    fn on_notice(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

#[test]
fn micro_batches_change_no_result() {
    let kitchen = Kitchen::new();
    let mut runs = Vec::new();
    for budget in ["16", "64", "100000"] {
        let set = format!("train.micro_batch_tokens={budget}");
        kitchen.whole(&[&set], budget);
        let adapter = Tensors::open(
            kitchen
                .path(budget)
                .join("adapter/adapter_model.safetensors"),
        );
        runs.push((kitchen.losses(budget), adapter));
    }
    let (losses, adapter) = &runs[0];
    assert_eq!(losses.len(), 12);
    for (other_losses, other) in &runs[1..] {
        for (a, b) in losses.iter().zip(other_losses) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        for name in adapter.names() {
            let difference = golden::max_difference(&adapter.f32(&name), &other.f32(&name));
            // AdamW divides by the size of a gradient, so a rounding of a tiny one shows.
            assert!(difference < 1e-4, "{name}: {difference}");
        }
    }
}

#[test]
fn the_same_recipe_gives_the_same_bytes_on_any_number_of_threads() {
    let kitchen = Kitchen::new();
    let expected = kitchen.whole(&[], "here");
    for threads in ["1", "2", "4"] {
        let status = kitchen
            .command(threads, &[])
            .env("RAYON_NUM_THREADS", threads)
            .status()
            .unwrap();
        assert!(status.success());
        assert!(kitchen.adapter(threads) == expected, "{threads} threads");
    }
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_not_stopped() {
    let kitchen = Kitchen::new();
    let expected = kitchen.whole(&[], "whole");
    // 3: a validation is due, 4: a checkpoint, 6: the last step of an epoch and both
    for (step, in_validation) in [
        (1, false),
        (3, false),
        (4, false),
        (6, false),
        (11, false),
        (0, true),
    ] {
        let run = format!("stopped-{step}-{in_validation}");
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter {
            step,
            in_validation,
            stop: &stop,
        };
        let recipe = kitchen.recipe(&[]);
        let outcome = train(
            &recipe,
            &kitchen.path(&run),
            Resume::Never,
            &mut observer,
            &stop,
        )
        .unwrap();
        let Outcome::Interrupted {
            checkpoint,
            step: at,
        } = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_eq!(at, if in_validation { 3 } else { step });
        assert!(checkpoint.unwrap().ends_with(format!("step-{at:06}")));
        kitchen.train(&[], &run, true).unwrap();
        assert!(kitchen.adapter(&run) == expected, "{run}");
        assert_eq!(kitchen.metrics(&run), kitchen.metrics("whole"), "{run}");
    }
}

#[test]
fn a_finished_run_taken_up_again_is_as_it_was() {
    let kitchen = Kitchen::new();
    let expected = kitchen.whole(&[], "run");
    let again = kitchen.train(&[], "run", true).unwrap();
    assert!(
        matches!(again, Outcome::Finished { step: 12, .. }),
        "{again:?}"
    );
    assert!(kitchen.adapter("run") == expected);
    assert_eq!(kitchen.metrics("run").len(), 16);
}

/// Ends the process as kill -9 does; false where it had already ended.
fn kill(child: &mut Child) -> bool {
    let ended = child.try_wait().unwrap().is_some();
    child.kill().unwrap();
    child.wait().unwrap();
    !ended
}

fn wait_for(what: &mut dyn FnMut() -> bool, child: &mut Child) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_mins(1) {
        if what() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
    }
    panic!("nothing happened for a minute");
}

/// Whether a checkpoint is being written aside.
fn is_saving(run: &Path) -> bool {
    let entries = fs::read_dir(run.join("checkpoints"));
    entries.is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains(".tmp-"))
    })
}

fn steps_done(run: &Path) -> usize {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains("\"loss\""))
        .count()
}

#[test]
fn a_killed_run_goes_on_as_if_it_had_not_been() {
    let kitchen = Kitchen::new();
    let expected = kitchen.whole(&[], "whole");
    let mut kills = 0;
    // Before the first step, in the middle of steps, and while a checkpoint is written.
    for (name, steps, saving) in [
        ("start", 0, false),
        ("first", 1, false),
        ("saving", 2, true),
        ("middle", 5, false),
        ("saving-late", 9, true),
        ("end", 12, false),
    ] {
        let run = kitchen.path(name);
        let mut child = kitchen.command(name, &[]).spawn().unwrap();
        let mut reached = || steps_done(&run) >= steps && (!saving || is_saving(&run));
        wait_for(&mut reached, &mut child);
        // Somewhere within the next micro-batches.
        std::thread::sleep(Duration::from_micros(700 * (steps as u64 % 3)));
        kills += usize::from(kill(&mut child));
        // A second kill on the way.
        let mut child = kitchen.command(name, &["--resume"]).spawn().unwrap();
        wait_for(&mut || steps_done(&run) >= steps + 2, &mut child);
        kills += usize::from(kill(&mut child));
        let output = kitchen.command(name, &["--resume"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {}: {said}", output.status);
        assert!(kitchen.adapter(name) == expected, "{name}");
        assert_eq!(kitchen.metrics(name), kitchen.metrics("whole"), "{name}");
    }
    assert!(kills >= 6, "only {kills} kills met a running process");
}

type Damage = fn(&Path);

#[test]
fn a_damaged_checkpoint_is_said_and_the_one_before_is_used() {
    let kitchen = Kitchen::new();
    let expected = kitchen.whole(&["train.keep=3"], "whole");
    let damages: [(&str, Damage); 4] = [
        ("trainable.safetensors", |file| {
            let mut bytes = fs::read(file).unwrap();
            let last = bytes.len() - 3;
            bytes[last] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("optimizer.safetensors", |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("state.json", |file| {
            let text = fs::read_to_string(file).unwrap();
            fs::write(file, text.replace("\"tokens\": ", "\"tokens\": 1")).unwrap();
        }),
        ("state.json", |file| fs::remove_file(file).unwrap()),
    ];
    for (name, damage) in damages {
        let run = "damaged";
        let _ = fs::remove_dir_all(kitchen.path(run));
        kitchen.whole(&["train.keep=3"], run);
        damage(&kitchen.path(run).join("checkpoints/step-000012").join(name));
        let mut notices = Notices::default();
        let recipe = kitchen.recipe(&["train.keep=3"]);
        train(
            &recipe,
            &kitchen.path(run),
            Resume::AsBegun,
            &mut notices,
            &AtomicBool::new(false),
        )
        .unwrap();
        let said = notices.0.join("\n");
        assert!(
            said.contains("step-000012") && said.contains(name),
            "{said}"
        );
        assert!(kitchen.adapter(run) == expected);
        assert!(
            kitchen
                .path("damaged/checkpoints/damaged-step-000012")
                .exists()
        );
        fs::remove_dir_all(kitchen.path("damaged/checkpoints/damaged-step-000012")).unwrap();
    }
    for checkpoint in kitchen.checkpoints("damaged") {
        let state = kitchen
            .path("damaged/checkpoints")
            .join(checkpoint)
            .join("state.json");
        fs::write(state, "{").unwrap();
    }
    let refused = kitchen
        .train(&["train.keep=3"], "damaged", true)
        .unwrap_err();
    assert!(
        matches!(refused, TrainError::NoCheckpoint { .. }),
        "{refused}"
    );
}

#[test]
fn the_last_checkpoints_and_the_best_stay() {
    let kitchen = Kitchen::new();
    // A text of letters that the training rows lack: its loss falls at first, and soon rises.
    let odd = kitchen.path("odd.jsonl");
    fs::write(&odd, "{\"prompt\": \"^^\", \"completion\": \"QQQQ\"}").unwrap();
    let odd = quoted(&odd);
    let files =
        format!("data.validation={{ files = [{{ path = {odd}, template = \"completion\" }}] }}");
    let sets = [
        "train.learning_rate=0.1",
        "train.schedule=constant",
        "train.keep=1",
        &files,
    ];
    let outcome = kitchen.train(&sets, "run", false).unwrap();
    let Outcome::Finished {
        best: Some(best),
        step: 16,
        ..
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert!(best.step < 12, "{best:?}");
    let kept = [format!("step-{:06}", best.step), "step-000016".to_owned()];
    assert_eq!(kitchen.checkpoints("run"), kept);
    let of_best = kitchen
        .path("run/checkpoints")
        .join(&kept[0])
        .join("adapter");
    let of_best = fs::read(of_best.join("adapter_model.safetensors")).unwrap();
    assert!(kitchen.adapter("run") != of_best);
    let mut with_best = sets.to_vec();
    with_best.push("train.weights=best");
    assert!(kitchen.whole(&with_best, "best") == of_best);

    with_best.push("train.early_stop={ patience = 1 }");
    let outcome = kitchen.train(&with_best, "early", false).unwrap();
    let Outcome::Finished {
        stopped_early,
        step,
        ..
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert!(stopped_early && step == best.step + 3, "{step}");
    assert!(kitchen.adapter("early") == of_best);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint() {
    let kitchen = Kitchen::new();
    // The first update has a rate of 0, the second breaks everything: at some rates activations
    // overflow to infinity, at others they are normalised to nothing.
    for rate in ["1e38", "1e30", "1e20", "1e300"] {
        let rate_set = format!("train.learning_rate={rate}");
        let sets = [
            rate_set.as_str(),
            "train.schedule={ constant = { warmup_steps = 1 } }",
            "train.clip=none",
        ];
        let mut with_checkpoints = sets.to_vec();
        with_checkpoints.extend(["train.checkpoint_every={ steps = 1 }", "train.keep=1"]);
        let error = kitchen.train(&with_checkpoints, rate, false).unwrap_err();
        let TrainError::Diverged {
            step, checkpoint, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert!((2..=4).contains(step), "{error}");
        let checkpoint = checkpoint.as_ref().unwrap();
        assert!(checkpoint.ends_with("step-000001"), "{error}");
        assert!(
            error.to_string().starts_with(&format!("step {step}: ")),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("learning_rate"));
        let weights = Tensors::open(checkpoint.join("trainable.safetensors"));
        for name in weights.names() {
            assert!(
                weights.f32(&name).iter().all(|value| value.abs() < 1.0),
                "{name}"
            );
        }
        assert!(!kitchen.path(rate).join("adapter").exists());
        // Nothing is worse for trying again.
        kitchen.train(&with_checkpoints, rate, true).unwrap_err();

        let mut without = sets.to_vec();
        without.extend(["train.checkpoint_every=never", "train.validate_every=never"]);
        let error = kitchen
            .train(&without, &format!("none-{rate}"), false)
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no checkpoint had been written"), "{text}");
    }
}

#[test]
fn a_run_goes_on_with_what_it_began_with_alone() {
    let kitchen = Kitchen::new();
    kitchen.whole(&[], "run");
    let refused = kitchen.train(&[], "run", false).unwrap_err();
    assert!(matches!(refused, TrainError::RunExists { .. }), "{refused}");
    let said = |sets: &[&str]| kitchen.train(sets, "run", true).unwrap_err().to_string();
    let text = said(&["train.learning_rate=1e-3", "method.lora.rank=2"]);
    assert!(
        text.contains("train.learning_rate: was 0.005, is 0.001"),
        "{text}"
    );
    assert!(text.contains("method.lora.rank: was 4, is 2"), "{text}");
    let mut notices = Notices::default();
    let recipe = kitchen.recipe(&["train.micro_batch_tokens=77", "train.keep=9"]);
    train(
        &recipe,
        &kitchen.path("run"),
        Resume::AsBegun,
        &mut notices,
        &AtomicBool::new(false),
    )
    .unwrap();
    assert!(
        notices.0.join("\n").contains("micro_batch_tokens"),
        "{:?}",
        notices.0
    );

    let edited = kitchen.path("run/recipe.toml");
    let begun = fs::read_to_string(&edited).unwrap();
    fs::write(&edited, begun.replace("0.005", "0.001")).unwrap();
    let text = said(&["train.learning_rate=1e-3"]);
    assert!(text.contains("recipe.toml in this folder"), "{text}");
    fs::write(&edited, begun).unwrap();

    let rows = kitchen.path("rows.jsonl");
    let text = fs::read_to_string(&rows).unwrap();
    fs::write(&rows, text.replace("soup", "soap")).unwrap();
    let text = said(&[]);
    assert!(
        text.contains("data: ") && text.contains("rows.jsonl"),
        "{text}"
    );
}

/// Writes fail from a size on, as they do on a disk that is full.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_loses_nothing() {
    let kitchen = Kitchen::new();
    let expected = kitchen.whole(&["train.checkpoint_every={ steps = 1 }"], "whole");
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        step: 3,
        in_validation: false,
        stop: &stop,
    };
    let recipe = kitchen.recipe(&["train.checkpoint_every={ steps = 1 }"]);
    train(
        &recipe,
        &kitchen.path("run"),
        Resume::Never,
        &mut observer,
        &stop,
    )
    .unwrap();
    let simmer = env!("CARGO_BIN_EXE_simmer");
    // Blocks of 512 bytes: room for the small files, not for the optimizer's.
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec {simmer} train recipe.toml --out run --resume \
         --set 'train.checkpoint_every={{ steps = 1 }}'"
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(kitchen.folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("step-000004") && text.contains("cannot write"),
        "{text}"
    );
    assert_eq!(kitchen.checkpoints("run"), ["step-000002", "step-000003"]);
    kitchen
        .train(&["train.checkpoint_every={ steps = 1 }"], "run", true)
        .unwrap();
    assert!(kitchen.adapter("run") == expected);
}

#[test]
fn every_weight_can_be_trained_from_chance() {
    let kitchen = Kitchen::new();
    let config = "{ vocab_size = 104, hidden_size = 16, intermediate_size = 24, num_hidden_layers = 2, \
                  num_attention_heads = 2, num_key_value_heads = 1, head_dim = 8, tie_word_embeddings = true }";
    let tokenizer = quoted(&golden::folder("tied-gqa"));
    let base = format!("base={{ init = {config}, tokenizer = {tokenizer} }}");
    let sets = [
        base.as_str(),
        "method={ full = { precision = \"bf16\" } }",
        "train.epochs=6",
        "train.learning_rate=1e-2",
    ];
    let outcome = kitchen.train(&sets, "run", false).unwrap();
    let Outcome::Finished { weights, .. } = outcome else {
        panic!("{outcome:?}");
    };
    let losses = kitchen.losses("run");
    assert!(losses.last().unwrap() < &(0.8 * losses[0]), "{losses:?}");
    let device = golden::device();
    let saved = simmer_model::base::BaseConfig::from_path(&weights);
    let saved = simmer_model::base::load(&saved, 0, &device).unwrap();
    assert_eq!(saved.config().hidden_size, 16);
    simmer_data::Tokenizer::from_folder(&weights).unwrap();
    // Taken up again, the model is written in place of the one before.
    let files = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    let before = files(&weights);
    kitchen.train(&sets, "run", true).unwrap();
    assert!(files(&weights) == before);
}

#[test]
fn a_tokenizer_with_tokens_that_the_model_lacks_is_refused() {
    let kitchen = Kitchen::new();
    let config = "{ vocab_size = 50, hidden_size = 16, intermediate_size = 24, num_hidden_layers = 1, \
                  num_attention_heads = 2, num_key_value_heads = 1, head_dim = 8 }";
    let tokenizer = quoted(&golden::folder("tied-gqa"));
    let base = format!("base={{ init = {config}, tokenizer = {tokenizer} }}");
    let error = kitchen.train(&[&base], "run", false).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("50 `") && text.contains("50 rows"), "{text}");
}

#[test]
fn shipped_recipes_are_recipes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        let recipe = Recipe::from_file(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        let again = Recipe::parse(&path, &recipe.resolved(), &[]).unwrap();
        assert_eq!(again, recipe, "{}", path.display());
        count += 1;
    }
    assert!(count >= 4);
    let lora = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/alpaca-lora-7b.toml");
    let recipe = Recipe::from_file(&lora, &[]).unwrap();
    let Method::Lora(lora) = &recipe.method else {
        panic!("no LoRA")
    };
    assert_eq!((lora.rank, lora.alpha, lora.dropout), (8, 16.0, 0.05));
    assert_eq!(
        (recipe.train.batch_size, recipe.data.max_tokens),
        (128, 256)
    );
    assert_eq!(recipe.train.validate_every, Interval::Steps(200));
    // 51,760 rows without 2,000, in steps of 128
    let steps = recipe.train.total_steps(389);
    assert_eq!(steps, 1167);
    for (step, factor) in [(0, 0.0), (50, 0.5), (100, 1.0), (1167, 0.0)] {
        let found = recipe.train.schedule.factor(step, steps);
        assert!((found - factor).abs() < 1e-12, "step {step}: {found}");
    }
}
