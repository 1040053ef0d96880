//! Several devices that share the layers of a model: the same files as on one.
//!
//! The processor stands for several devices.

use simmer_train::{Outcome, TrainError};

use crate::golden;
use crate::parallel::on_ranks;
use crate::training::Kitchen;

/// Steps of several micro-batches, whose layers run again.
const STEPS: [&str; 4] = [
    "train.batch_size=12",
    "train.micro_batch_tokens=20",
    "train.recompute=\"layer\"",
    "train.max_steps=4",
];

/// `device`: the same processor so many times.
fn device(count: usize) -> String {
    let name = golden::device_name();
    let names: Vec<String> = vec![format!("\"{name}\""); count];
    format!("device=[{}]", names.join(", "))
}

#[test]
fn devices_that_share_the_layers_write_the_bytes_of_one() {
    let kitchen = Kitchen::new();
    let dora = "method.lora.use_dora=true";
    let whole = kitchen.whole(&[&STEPS[..], &[dora]].concat(), "one");
    let losses = kitchen.metrics("one");
    let two = device(2);
    let sets = [&STEPS[..], &[dora, &two]].concat();
    assert!(kitchen.whole(&sets, "two") == whole);
    assert_eq!(kitchen.metrics("two"), losses);

    // two ranks with two devices each, which stop; the run resumes on one device
    let (outcome, _) = on_ranks(&kitchen, 2, &sets, &sets, "ranks", Some(2));
    assert!(
        matches!(outcome, Ok(Outcome::Interrupted { step: 2, .. })),
        "{outcome:?}"
    );
    let one = [&STEPS[..], &[dora]].concat();
    kitchen.train(&one, "ranks", true).unwrap();
    assert!(kitchen.adapter("ranks") == whole);
}

#[test]
fn what_several_devices_cannot_do_is_refused() {
    let kitchen = Kitchen::new();
    let said = |sets: &[&str]| match kitchen.try_recipe(sets) {
        Err(error) => error.to_string(),
        Ok(recipe) => {
            let go = std::sync::atomic::AtomicBool::new(false);
            let out = kitchen.path("refused");
            let never = simmer_train::Resume::Never;
            let mut silent = simmer_train::Silent;
            let outcome: Result<_, TrainError> =
                simmer_train::train(&recipe, &out, never, &mut silent, &go);
            outcome.unwrap_err().to_string()
        }
    };
    let two = "device=[\"cpu\", \"cpu\"]";
    let all = [
        said(&["device=[\"cpu\", \"libtorch\"]"]),
        said(&["device=[\"libtorch-cuda:0\", \"libtorch-cuda:0\"]"]),
        said(&["device=[\"cpu\", \"gpu\"]"]),
        said(&["device=[]"]),
        said(&["device=[\"cpu\", 3]"]),
        said(&[two, "method={full={}}"]),
        said(&[two, "base.offload=\"disk\"", "train.recompute=\"layer\""]),
        said(&["device=[\"cpu\", \"cpu\", \"cpu\", \"cpu\", \"cpu\", \"cpu\", \"cpu\"]"]),
    ];
    insta::assert_snapshot!(all.join("\n"), @"");
}
