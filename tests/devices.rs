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
    let seven = format!("device=[{}]", ["\"cpu\""; 7].join(", "));
    let offloaded = [two, "base.offload=\"disk\"", "train.recompute=\"layer\""];
    let cases: [(&[&str], &str); 7] = [
        (
            &["device=[\"cpu\", \"libtorch\"]"],
            "devices cpu and libtorch: expected devices of one kind to share a model",
        ),
        (
            &["device=[\"libtorch-cuda:0\", \"libtorch-cuda:0\"]"],
            "device libtorch-cuda:0: named twice in a list of devices that share a model",
        ),
        (&["device=[\"cpu\", \"gpu\"]"], "unknown device `gpu`"),
        (
            &["device=[]"],
            "expected a device or a list of devices, found an empty list",
        ),
        (
            &[two, "method={full={}}"],
            "expected one device for `method.full`, which trains every weight there, found 2",
        ),
        (
            &offloaded,
            "expected one device in `device`, found 2 that share the layers",
        ),
        (&[&seven], "one for each layer of the base model, found 7"),
    ];
    for (sets, expected) in cases {
        let said = said(sets);
        assert!(said.contains(expected), "{sets:?}: {said}");
    }
}
