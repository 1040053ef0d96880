//! Runs on several ranks: the same files as on one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use simmer_train::ranks::{Ranks, Threads, work};
use simmer_train::{Outcome, Resume, Silent, TrainError, train_on_ranks};

use crate::golden;
use crate::training::{Kitchen, StopAfter, quoted};

/// Steps of at least eight micro-batches.
const STEPS: [&str; 2] = ["train.batch_size=12", "train.micro_batch_tokens=20"];

/// A run on ranks that are threads; the result of rank 0, and those of the others.
fn on_ranks(
    kitchen: &Kitchen,
    ranks: usize,
    sets: &[&str],
    others: &[&str],
    run: &str,
    stop_after: Option<u64>,
) -> (Result<Outcome, TrainError>, Vec<Result<(), TrainError>>) {
    let mut all = Threads::of(ranks).into_iter();
    let first: Arc<dyn Ranks> = Arc::new(all.next().unwrap());
    let (recipe, other) = (kitchen.recipe(sets), kitchen.recipe(others));
    let out = kitchen.path(run);
    let resume = if out.exists() {
        Resume::AsBegun
    } else {
        Resume::Never
    };
    thread::scope(|scope| {
        let working: Vec<_> = all
            .map(|rank| {
                let other = &other;
                scope.spawn(move || {
                    let rank: Arc<dyn Ranks> = Arc::new(rank);
                    work(other, &rank)
                })
            })
            .collect();
        let stop = AtomicBool::new(false);
        let outcome = match stop_after {
            None => train_on_ranks(&recipe, &out, resume, &mut Silent, &stop, &first),
            Some(step) => {
                let mut observer = StopAfter {
                    step,
                    in_validation: false,
                    stop: &stop,
                };
                train_on_ranks(&recipe, &out, resume, &mut observer, &stop, &first)
            }
        };
        // a rank that waits for this one then ends
        drop(first);
        let others = working.into_iter().map(|rank| rank.join().unwrap());
        (outcome, others.collect())
    })
}

fn finished(kitchen: &Kitchen, ranks: usize, sets: &[&str], run: &str) {
    let (outcome, others) = on_ranks(kitchen, ranks, sets, sets, run, None);
    assert!(
        matches!(outcome, Ok(Outcome::Finished { .. })),
        "{outcome:?}"
    );
    for other in others {
        other.unwrap();
    }
}

#[test]
fn any_number_of_ranks_writes_the_same_bytes() {
    for more in ["method.lora.dropout=0.1", "method.lora.use_dora=true"] {
        let kitchen = Kitchen::new();
        let sets = [&STEPS[..], &[more, "train.max_steps=4"]].concat();
        let whole = kitchen.whole(&sets, "alone");
        let metrics: Vec<BTreeMap<_, _>> = kitchen.metrics("alone");
        for ranks in [2, 3, 4, 8] {
            let run = ranks.to_string();
            finished(&kitchen, ranks, &sets, &run);
            assert!(kitchen.adapter(&run) == whole, "{more}: {ranks} ranks");
            assert_eq!(kitchen.metrics(&run), metrics, "{more}: {ranks} ranks");
        }
    }
}

#[test]
fn a_run_resumes_on_another_number_of_ranks() {
    let kitchen = Kitchen::new();
    let whole = kitchen.whole(&STEPS, "alone");
    let (outcome, _) = on_ranks(&kitchen, 4, &STEPS, &STEPS, "run", Some(2));
    assert!(
        matches!(outcome, Ok(Outcome::Interrupted { step: 2, .. })),
        "{outcome:?}"
    );
    let (outcome, _) = on_ranks(&kitchen, 3, &STEPS, &STEPS, "run", Some(3));
    assert!(
        matches!(outcome, Ok(Outcome::Interrupted { step: 3, .. })),
        "{outcome:?}"
    );
    kitchen.train(&STEPS, "run", true).unwrap();
    assert!(kitchen.adapter("run") == whole);
}

#[test]
fn ranks_that_cannot_work_together_are_refused() {
    let kitchen = Kitchen::new();
    let said = |ranks, sets: &[&str], others: &[&str], run: &str| {
        let (outcome, _) = on_ranks(&kitchen, ranks, sets, others, run, None);
        outcome.unwrap_err().to_string()
    };
    let few = ["train.batch_size=1"];
    let missing = format!("base.path={}", quoted(&kitchen.path("nothing")));
    let llama3 = format!("base.path={}", quoted(&golden::folder("llama3-rope")));
    let full = ["method={full={}}", "train.max_steps=1"];
    let all = [
        said(2, &few, &few, "few"),
        said(2, &STEPS, &[], "recipe"),
        said(2, &STEPS, &[&missing], "missing"),
        said(3, &[&llama3], &STEPS, "base"),
        said(2, &full, &full, "full"),
    ];
    let all = all
        .join("\n")
        .replace(&kitchen.path("").display().to_string(), "DIR/");
    let all = without_hashes(&all);
    insta::assert_snapshot!(all);
}

/// A text without hashes.
fn without_hashes(text: &str) -> String {
    let is_hash = |word: &str| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit());
    let lines = text.lines().map(|line| {
        let words = line.split(' ').map(|word| {
            let plain = word.trim_end_matches(',');
            if is_hash(plain) {
                word.replace(plain, "HASH")
            } else {
                word.to_owned()
            }
        });
        words.collect::<Vec<_>>().join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}
