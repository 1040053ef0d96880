//! Runs on several ranks: the same files as on one.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::thread;

use burn::tensor::Tensor;
use simmer_train::ranks::{Gpus, Ranks, RanksError, Threads, work};
use simmer_train::{Outcome, Resume, Silent, TrainError, train_on_ranks};

#[cfg(any(feature = "mpi", feature = "libtorch"))]
mod generating;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "libtorch")]
mod torchrun;

use crate::golden;
use crate::training::{Kitchen, StopAfter, quoted};

/// Steps of at least eight micro-batches.
const STEPS: [&str; 2] = ["train.batch_size=12", "train.micro_batch_tokens=20"];

/// A run on ranks that are threads; the result of rank 0, and those of the others.
pub(crate) fn on_ranks(
    kitchen: &Kitchen,
    ranks: usize,
    sets: &[&str],
    others: &[&str],
    run: &str,
    stop_after: Option<u64>,
) -> (Result<Outcome, TrainError>, Vec<Result<(), TrainError>>) {
    on(Threads::of(ranks), kitchen, sets, others, run, stop_after)
}

/// The same on ranks of any form.
fn on<R: Ranks + Send + 'static>(
    ranks: Vec<R>,
    kitchen: &Kitchen,
    sets: &[&str],
    others: &[&str],
    run: &str,
    stop_after: Option<u64>,
) -> (Result<Outcome, TrainError>, Vec<Result<(), TrainError>>) {
    let mut all = ranks.into_iter();
    let first: Rc<dyn Ranks> = Rc::new(all.next().unwrap());
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
                    let rank: Rc<dyn Ranks> = Rc::new(rank);
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

/// Ranks that add up tensors as GPUs do: each all of its own first.
#[derive(Debug)]
struct Adding(Threads);

impl Ranks for Adding {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn send(&self, to: usize, bytes: Vec<u8>) -> Result<(), RanksError> {
        self.0.send(to, bytes)
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RanksError> {
        self.0.receive(from)
    }

    fn gpus(&self) -> Option<&dyn Gpus> {
        Some(self)
    }
}

impl Adding {
    fn give(&self, to: usize, values: &Tensor<1>) -> Result<(), RanksError> {
        let values = values.clone().into_data();
        let bytes = values.iter::<f32>().flat_map(f32::to_le_bytes);
        self.send(to, bytes.collect())
    }

    fn take(&self, from: usize, like: &Tensor<1>) -> Result<Tensor<1>, RanksError> {
        let bytes = self.receive(from)?;
        let (values, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = values.iter().copied().map(f32::from_le_bytes).collect();
        assert_eq!(values.len(), like.dims()[0]);
        Ok(Tensor::from_data(&values[..], &like.device()))
    }
}

impl Gpus for Adding {
    fn sum(&self, values: Tensor<1>) -> Result<Tensor<1>, RanksError> {
        if self.rank() > 0 {
            self.give(0, &values)?;
            return Ok(values);
        }
        let mut others = (1..self.size()).map(|rank| self.take(rank, &values));
        others.try_fold(values.clone(), |sum, other| Ok(sum + other?))
    }

    fn copy_of_first(&self, values: Tensor<1>) -> Result<Tensor<1>, RanksError> {
        if self.rank() > 0 {
            return self.take(0, &values);
        }
        for rank in 1..self.size() {
            self.give(rank, &values)?;
        }
        Ok(values)
    }
}

/// The order of the sum is another one.
#[test]
fn gpus_that_add_up_have_the_losses_of_one() {
    let kitchen = Kitchen::new();
    let more = ["method.lora.dropout=0.1"];
    let sets = [&STEPS[..], &more].concat();
    kitchen.whole(&sets, "alone");
    let ranks = Threads::of(3).into_iter().map(Adding).collect();
    let (outcome, others) = on(ranks, &kitchen, &sets, &sets, "gpus", None);
    assert!(
        matches!(outcome, Ok(Outcome::Finished { .. })),
        "{outcome:?}"
    );
    for other in others {
        other.unwrap();
    }
    let numbers = |run: &str| -> Vec<f64> {
        let lines = kitchen.metrics(run).into_iter();
        let lines =
            lines.flat_map(|line| [line.get("loss").cloned(), line.get("grad_norm").cloned()]);
        lines.flatten().filter_map(|value| value.as_f64()).collect()
    };
    let (alone, gpus) = (numbers("alone"), numbers("gpus"));
    assert!(alone.len() >= 8, "{alone:?}");
    assert_eq!(alone.len(), gpus.len());
    for (alone, gpus) in alone.iter().zip(&gpus) {
        assert!((gpus / alone - 1.0).abs() < 1e-4, "{gpus}, alone {alone}");
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
    let packed = ["train.batch_size=4", "train.micro_batch_tokens=1000"];
    let missing = format!("base.path={}", quoted(&kitchen.path("nothing")));
    let llama3 = format!("base.path={}", quoted(&golden::folder("llama3-rope")));
    let full = ["method={full={}}", "train.max_steps=1"];
    let all = [
        said(2, &few, &few, "few"),
        said(2, &packed, &packed, "packed"),
        said(2, &STEPS, &[], "recipe"),
        said(2, &STEPS, &[&missing], "missing"),
        said(3, &[&STEPS[..], &[&llama3]].concat(), &STEPS, "base"),
        said(2, &full, &full, "full"),
    ];
    let all = all
        .join("\n")
        .replace(&kitchen.path("").display().to_string(), "DIR/");
    insta::with_settings!({filters => vec![("[0-9a-f]{64}", "HASH")]}, {
        insta::assert_snapshot!(all);
    });
}
