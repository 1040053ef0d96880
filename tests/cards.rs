//! The README of a run's adapter, and the manifest that it is made from.

use std::sync::atomic::AtomicBool;

use simmer_model::adapter::inspect::inspect;
use simmer_train::{Manifest, Resume, train};

use crate::golden;
use crate::training::{Kitchen, StopAfter};

fn card(kitchen: &Kitchen, run: &str) -> String {
    std::fs::read_to_string(kitchen.path(run).join("adapter/README.md")).unwrap()
}

#[test]
fn a_card_says_how_the_adapter_was_made() {
    let kitchen = Kitchen::new();
    kitchen.whole(&["device=cpu"], "whole");
    let manifest: Manifest = golden::json(kitchen.path("whole/manifest.json"));
    let mut text = card(&kitchen, "whole");
    assert!(text.contains(&manifest.recipe) && text.contains(&manifest.examples));
    for (name, file) in manifest.base.iter().chain(&manifest.tokenizer) {
        assert!(text.contains(name) && text.contains(&file.sha256), "{name}");
    }
    let hidden = [
        (kitchen.path("").display().to_string(), "KITCHEN/"),
        (golden::folder("tied-gqa").display().to_string(), "BASE"),
        (manifest.recipe.clone(), "[recipe]"),
        (manifest.commit.clone(), "COMMIT"),
        (manifest.system.clone(), "SYSTEM"),
        (manifest.data[0].fingerprint.sha256.clone(), "[rows]"),
    ];
    for (found, shown) in hidden {
        text = text.replace(&found, shown);
    }
    insta::with_settings!({filters => vec![(r"\d+\.\d{4} (in|at|after)", "LOSS $1")]}, {
        insta::assert_snapshot!(text);
    });
}

#[test]
fn a_card_is_the_same_however_the_run_went() {
    let kitchen = Kitchen::new();
    kitchen.whole(&[], "whole");
    let expected = card(&kitchen, "whole");
    for step in [1, 6, 11] {
        let run = format!("stopped-{step}");
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter {
            step,
            in_validation: false,
            stop: &stop,
        };
        train(
            &kitchen.recipe(&[]),
            &kitchen.path(&run),
            Resume::Never,
            &mut observer,
            &stop,
        )
        .unwrap();
        kitchen.train(&[], &run, true).unwrap();
        assert_eq!(card(&kitchen, &run), expected, "{run}");
    }
    // once more, with nothing left to do
    kitchen.train(&[], "whole", true).unwrap();
    assert_eq!(card(&kitchen, "whole"), expected);
    for threads in ["1", "3"] {
        let mut command = kitchen.command(threads, &[]);
        assert!(
            command
                .env("RAYON_NUM_THREADS", threads)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(card(&kitchen, threads), expected, "{threads} threads");
    }
}

#[test]
fn a_manifest_says_what_the_program_was() {
    let kitchen = Kitchen::new();
    kitchen.whole(&["train.epochs=1"], "run");
    let manifest: Manifest = golden::json(kitchen.path("run/manifest.json"));
    let commit = manifest.commit.trim_end_matches(" (changed)");
    let is_hash = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(commit == "unknown" || is_hash, "{commit}");
    assert!(manifest.threads >= 1);
    assert_eq!(
        manifest.templates.keys().collect::<Vec<_>>(),
        ["completion"]
    );
    assert_eq!(manifest.templates["completion"].len(), 64);
    // what was trained shows
    let found = inspect(&kitchen.path("run/adapter")).unwrap();
    assert!(
        found.norm() > 0.0 && found.warnings.is_empty(),
        "{:?}",
        found.warnings
    );
}
