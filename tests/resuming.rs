//! Runs that go on with something else than they began with.

use std::fs;
use std::sync::atomic::AtomicBool;

use simmer_hint::Hint;
use simmer_train::{Manifest, Outcome, Resume, TrainError, train};

use crate::golden;
use crate::training::{Kitchen, Notices, StopAfter, quoted};

/// A run that was stopped after five steps.
fn stopped(kitchen: &Kitchen) {
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        step: 5,
        in_validation: false,
        stop: &stop,
    };
    let run = kitchen.path("run");
    train(
        &kitchen.recipe(&[]),
        &run,
        Resume::Never,
        &mut observer,
        &stop,
    )
    .unwrap();
}

fn go_on(kitchen: &Kitchen, sets: &[&str]) -> (Result<Outcome, TrainError>, Vec<String>) {
    let mut notices = Notices::default();
    let go = AtomicBool::new(false);
    let run = kitchen.path("run");
    let done = train(
        &kitchen.recipe(sets),
        &run,
        Resume::Changed,
        &mut notices,
        &go,
    );
    (done, notices.0)
}

#[test]
fn changes_are_accepted_where_somebody_says_so_and_written_down() {
    let kitchen = Kitchen::new();
    let plain = kitchen.whole(&[], "plain");
    stopped(&kitchen);
    let slower = ["train.learning_rate=1e-3"];
    let rows = kitchen.path("rows.jsonl");
    let text = fs::read_to_string(&rows).unwrap();
    fs::write(&rows, text.replace("soup", "soap")).unwrap();
    let refused = kitchen.train(&slower, "run", true).unwrap_err();
    assert!(refused.hint().unwrap().contains("--accept-changes"));

    let (done, notices) = go_on(&kitchen, &slower);
    assert!(matches!(done.unwrap(), Outcome::Finished { step: 12, .. }));
    let said = notices.join("\n");
    assert!(
        said.contains("accepted: train.learning_rate: was 0.005, is 0.001"),
        "{said}"
    );
    assert!(
        said.contains("accepted: data: ") && said.contains("rows.jsonl"),
        "{said}"
    );
    assert!(kitchen.adapter("run") != plain);
    let manifest = fs::read(kitchen.path("run/manifest.json")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.accepted.len(), 1);
    assert_eq!(manifest.accepted[0].step, 5);
    assert_eq!(manifest.accepted[0].changes.len(), 2);
    // From here on it is a run with these.
    kitchen.train(&slower, "run", true).unwrap();
    let back = kitchen.train(&[], "run", true).unwrap_err();
    assert!(matches!(back, TrainError::Changed { .. }), "{back}");
}

/// The sum of the labels of all steps in `metrics.jsonl`, and the epochs in thousandths after the last one.
fn counted(kitchen: &Kitchen, run: &str) -> (u64, u64) {
    let text = fs::read_to_string(kitchen.path(run).join("metrics.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| -> serde_json::Value { serde_json::from_str(line).unwrap() });
    let steps: Vec<serde_json::Value> = lines.filter(|line| line["loss"].is_number()).collect();
    let targets = steps.iter().map(|step| step["targets"].as_u64().unwrap());
    let epochs = steps[steps.len() - 1]["epoch"].as_f64().unwrap();
    (targets.sum(), (1000.0 * epochs).round() as u64)
}

#[test]
fn another_batch_size_reads_the_rest_of_the_epochs() {
    let kitchen = Kitchen::new();
    kitchen.whole(&[], "plain");
    let whole = counted(&kitchen, "plain");
    assert_eq!(whole.1, 2000);
    // after five steps, 20 of 24 rows are read, and 28 of two epochs are left
    for (size, last) in [(8, 9), (3, 15), (1, 33)] {
        fs::remove_dir_all(kitchen.path("run")).ok();
        stopped(&kitchen);
        let set = format!("train.batch_size={size}");
        let (done, notices) = go_on(&kitchen, &[&set]);
        assert!(
            matches!(done.unwrap(), Outcome::Finished { step, .. } if step == last),
            "{size}"
        );
        let said = notices.join("\n");
        let expected = format!(
            "the rest of the run takes {} more, to step {last}",
            last - 5
        );
        assert!(said.contains(&expected), "{said}");
        assert_eq!(counted(&kitchen, "run"), whole, "{size}");
    }
}

#[test]
fn fewer_rows_than_were_read_are_an_epoch() {
    let kitchen = Kitchen::new();
    stopped(&kitchen);
    let rows = kitchen.path("rows.jsonl");
    let text = fs::read_to_string(&rows).unwrap();
    let first: Vec<&str> = text.lines().take(13).collect();
    fs::write(&rows, first.join("\n")).unwrap();
    // 8 rows to train on: the second epoch has two steps
    let (done, notices) = go_on(&kitchen, &[]);
    assert!(matches!(done.unwrap(), Outcome::Finished { step: 7, .. }));
    let said = notices.join("\n");
    assert!(said.contains("takes 2 more, to step 7"), "{said}");
    assert_eq!(counted(&kitchen, "run").1, 2000);
}

#[test]
fn losses_that_mean_something_else_are_not_compared() {
    let kitchen = Kitchen::new();
    let best = |run: &str| {
        let state = |step| {
            kitchen
                .path(run)
                .join(format!("checkpoints/step-{step:06}/state.json"))
        };
        let (_, state) = (1..=12)
            .map(|step| (step, state(step)))
            .rfind(|(_, path)| path.exists())
            .unwrap();
        let state: serde_json::Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
        state["state"]["best"]["step"].as_u64()
    };
    for (set, forgets) in [
        ("method.lora.alpha=2", true),
        ("data.validation={ rows = 4 }", true),
        ("train.learning_rate=1e-9", false),
    ] {
        fs::remove_dir_all(kitchen.path("run")).ok();
        stopped(&kitchen);
        assert_eq!(best("run"), Some(3));
        // with so low a rate nothing becomes better
        let sets = [set, "train.weights=best", "train.learning_rate=1e-9"];
        let (done, notices) = go_on(&kitchen, &sets);
        let Outcome::Finished { best: found, .. } = done.unwrap() else {
            panic!("{set}");
        };
        let step = found.unwrap().step;
        assert!(step > 5 || !forgets, "{set}: {step}");
        assert_eq!(best("run"), Some(step));
        let said = notices.join("\n");
        assert_eq!(said.contains("are not compared"), forgets, "{said}");
        // and so it is when the run resumes once more
        let Outcome::Finished { best: again, .. } = kitchen.train(&sets, "run", true).unwrap()
        else {
            panic!("{set}");
        };
        assert_eq!(again.unwrap().step, step, "{set}");
    }
}

#[test]
fn a_run_killed_after_changes_goes_on_with_them() {
    let kitchen = Kitchen::new();
    stopped(&kitchen);
    let slower = ["train.learning_rate=1e-3", "train.checkpoint_every=never"];
    let stop = AtomicBool::new(true);
    let run = kitchen.path("run");
    // stopped at once: the checkpoint is that of the recipe before
    train(
        &kitchen.recipe(&slower),
        &run,
        Resume::Changed,
        &mut Notices::default(),
        &stop,
    )
    .unwrap();
    let done = kitchen.train(&slower, "run", true).unwrap();
    assert!(
        matches!(done, Outcome::Finished { step: 12, .. }),
        "{done:?}"
    );
}

#[test]
fn another_adapter_does_not_take_a_checkpoint() {
    let kitchen = Kitchen::new();
    stopped(&kitchen);
    let (done, _) = go_on(&kitchen, &["method.lora.rank=2"]);
    let error = done.unwrap_err();
    let TrainError::NoCheckpoint { folder, problems } = &error else {
        panic!("{error}");
    };
    assert!(folder.ends_with("step-000005"), "{error}");
    assert!(
        problems[0].contains("lora_A") && problems[0].contains("elements in the checkpoint"),
        "{error}"
    );
    // and the run is what it was
    kitchen.train(&[], "run", true).unwrap();
}

#[test]
fn a_resumed_run_of_every_kind_has_the_same_bits() {
    for kind in [
        "method.lora.use_dora=true",
        "method.lora.use_rslora=true",
        "method.adaption_prompt={adapter_len=3,adapter_layers=2}",
        "method.adaption_prompt={adapter_len=3,adapter_layers=2,gate='head'}",
        "method.ia3.targets=[\"q_proj\", \"k_proj\", \"down_proj\"]",
        "train.loraplus_lr_ratio=16",
        "method.lora.trainable_token_indices=[5, 100, 7]",
        "train.learning_rates={ 'layers.0.*lora_B' = 1e-2 }",
        "method.lora.init_lora_weights=pissa",
        "method.lora.init_lora_weights=pissa_niter_2",
        "method.lora.init_lora_weights=olora",
        "method.lora.init_lora_weights=qera",
    ] {
        let kitchen = Kitchen::new();
        // whose heads have as many features as its hidden states, as adaption prompts need
        let base = format!("base.path={}", quoted(&golden::folder("llama3-rope")));
        let mut sets = vec![kind, &base, "train.checkpoint_every={steps=2}"];
        if kind.ends_with("qera") {
            sets.push("base.precision=nf4");
        }
        let whole = kitchen.whole(&sets, "whole");
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter {
            step: 5,
            in_validation: false,
            stop: &stop,
        };
        let (recipe, run) = (kitchen.recipe(&sets), kitchen.path("run"));
        train(&recipe, &run, Resume::Never, &mut observer, &stop).unwrap();
        kitchen.train(&sets, "run", true).unwrap();
        assert!(kitchen.adapter("run") == whole, "{kind}");
    }
}

#[test]
fn a_checkpoint_without_the_start_is_refused() {
    let kitchen = Kitchen::new();
    let pissa = "method.lora.init_lora_weights=pissa";
    stopped(&kitchen);
    // trained from another start: the checkpoint has none
    let error = go_on(&kitchen, &[pissa]).0.unwrap_err();
    let TrainError::NoCheckpoint { problems, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        problems[0].contains("start_A: missing in start.safetensors"),
        "{error}"
    );
    // and the run is what it was
    kitchen.train(&[], "run", true).unwrap();
}

#[test]
fn nothing_to_accept_changes_nothing() {
    let kitchen = Kitchen::new();
    let expected = kitchen.whole(&[], "whole");
    stopped(&kitchen);
    let before = fs::read(kitchen.path("run/manifest.json")).unwrap();
    go_on(&kitchen, &[]).0.unwrap();
    assert!(kitchen.adapter("run") == expected);
    assert_eq!(fs::read(kitchen.path("run/manifest.json")).unwrap(), before);
}
