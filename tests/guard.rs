//! Steps that would spoil a run: left out or the end of it, with their rows set aside.

use std::fs;
use std::sync::atomic::AtomicBool;

use serde_json::Value;
use simmer_train::{Outcome, Resume, TrainError, train};

use crate::training::{Kitchen, Notices, StopAfter};

/// A loss above the middle of the two before is a spike, and nothing is learnt: some of the steps are.
const SPIKES: [&str; 2] = [
    "train.guard={ spike = { times = 1.001, over = 2 } }",
    "train.learning_rate=1e-5",
];

fn rows(kitchen: &Kitchen, run: &str, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(kitchen.path(run).join(name)).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn spikes_are_left_out_and_their_rows_set_aside() {
    let kitchen = Kitchen::new();
    let plain = kitchen.whole(&SPIKES[1..], "plain");
    let guarded = kitchen.whole(&SPIKES, "guarded");
    assert!(plain != guarded);
    let (skipped, made): (Vec<_>, Vec<_>) = kitchen
        .metrics("guarded")
        .into_iter()
        .filter(|line| !line.contains_key("validation_loss"))
        .partition(|line| line.contains_key("skipped"));
    assert_eq!(skipped.len() + made.len(), 12);
    assert!(!skipped.is_empty());
    let mut recent: Vec<f64> = Vec::new();
    for line in kitchen.metrics("guarded") {
        if let Some(loss) = line.get("loss").and_then(Value::as_f64) {
            if let [.., a, b] = recent[..] {
                assert!(loss <= 1.001 * f64::midpoint(a, b) + 1e-12, "{line:?}");
            }
            recent.push(loss);
        }
    }
    for line in skipped {
        let why = line["skipped"].as_str().unwrap();
        assert!(
            why.starts_with("the loss is ") && why.contains("a spike above"),
            "{why}"
        );
        let rows = rows(&kitchen, "guarded", line["rows"].as_str().unwrap());
        assert_eq!(rows.len(), 4);
        for row in rows {
            assert!(
                row["file"].as_str().unwrap().ends_with("rows.jsonl"),
                "{row}"
            );
            assert!((1..=29).contains(&row["row"].as_u64().unwrap()), "{row}");
            assert!(row["loss"].as_f64().unwrap() > 0.0, "{row}");
            assert!(row["text"].as_str().unwrap().contains("heat "), "{row}");
        }
    }
}

#[test]
fn a_run_that_left_steps_out_goes_on_as_if_it_had_not_stopped() {
    let kitchen = Kitchen::new();
    let expected = kitchen.whole(&SPIKES, "whole");
    let updates = kitchen.metrics("whole");
    let updates = updates.iter().filter(|line| line.contains_key("loss"));
    for step in updates.map(|line| line["step"].as_u64().unwrap()) {
        let run = format!("stopped-{step}");
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter {
            step,
            in_validation: false,
            stop: &stop,
        };
        let recipe = kitchen.recipe(&SPIKES);
        train(
            &recipe,
            &kitchen.path(&run),
            Resume::Never,
            &mut observer,
            &stop,
        )
        .unwrap();
        kitchen.train(&SPIKES, &run, true).unwrap();
        assert!(kitchen.adapter(&run) == expected, "{run}");
        assert_eq!(kitchen.metrics(&run), kitchen.metrics("whole"), "{run}");
    }
}

#[test]
fn a_spike_may_end_the_run() {
    let kitchen = Kitchen::new();
    let stop = "train.guard={ spike = { times = 1.001, over = 2, then = \"stop\" } }";
    let error = kitchen.train(&[stop, SPIKES[1]], "run", false);
    let error = error.unwrap_err();
    let TrainError::Diverged { step, .. } = error else {
        panic!("{error}");
    };
    let aside = format!("aside/step-{step:06}.jsonl");
    assert!(error.to_string().contains(&aside), "{error}");
    assert_eq!(rows(&kitchen, "run", &aside).len(), 4);
}

#[test]
fn weights_that_broke_are_not_skipped_for_ever() {
    let kitchen = Kitchen::new();
    let sets = [
        "train.learning_rate=1e38",
        "train.schedule={ constant = { warmup_steps = 1 } }",
        "train.clip=none",
        "train.validate_every=never",
        "train.checkpoint_every={ steps = 6 }",
        "train.guard={ not_finite = \"skip\", most_skips = 3 }",
    ];
    let mut notices = Notices::default();
    let go = AtomicBool::new(false);
    let run = kitchen.path("run");
    let error = train(
        &kitchen.recipe(&sets),
        &run,
        Resume::Never,
        &mut notices,
        &go,
    );
    let error = error.unwrap_err();
    let TrainError::Diverged {
        checkpoint: None, ..
    } = &error
    else {
        panic!("{error}");
    };
    let said = error.to_string();
    assert!(
        said.contains("3 skipped updates in a row end the run"),
        "{said}"
    );
    let skipped = notices
        .0
        .iter()
        .filter(|text| text.contains("the update was skipped"));
    assert_eq!(skipped.count(), 2, "{:?}", notices.0);
    assert!(!matches!(
        kitchen.train(&sets, "run", true),
        Ok(Outcome::Finished { .. })
    ));
}
