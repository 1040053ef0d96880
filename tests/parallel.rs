//! Runs on several ranks: the same files as on one.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::thread;

use burn::tensor::Tensor;
use simmer_train::ranks::{Gpus, Ranks, RanksError, Threads, work};
use simmer_train::{Outcome, Resume, Silent, TrainError, train_on_ranks};

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

/// Processes on MPI; a rank that is killed ends the run, which resumes on another number of ranks.
#[cfg(feature = "mpi")]
mod mpi {
    use std::fs;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::STEPS;
    use crate::training::Kitchen;

    /// `mpirun -n RANKS simmer`.
    fn mpirun(ranks: usize) -> Command {
        let mut command =
            Command::new(std::env::var("MPIRUN").unwrap_or_else(|_| "mpirun".to_owned()));
        command
            .args(["--oversubscribe", "-n", &ranks.to_string()])
            .arg(env!("CARGO_BIN_EXE_simmer"))
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command
    }

    fn start(kitchen: &Kitchen, ranks: usize, run: &str, more: &[&str]) -> Child {
        let sets = STEPS.iter().flat_map(|set| ["--set", *set]);
        mpirun(ranks)
            .args(["train", "recipe.toml", "--device", "cpu", "--out", run])
            .args(sets)
            .args(more)
            .current_dir(kitchen.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn said(child: Child) -> (bool, String) {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), said)
    }

    /// Kills the last of the processes of a folder.
    fn kill_one(folder: &Path) {
        let victim = processes(folder).into_iter().max().unwrap();
        let kill = Command::new("kill")
            .args(["-KILL", &victim.to_string()])
            .status();
        assert!(kill.unwrap().success());
    }

    /// The processes of a run, by what the system says of them.
    fn processes(run: &Path) -> Vec<u32> {
        let is_ours = |pid: &u32| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
            let folder = fs::read_link(format!("/proc/{pid}/cwd"));
            read("comm").is_ok_and(|name| name.trim() == "simmer")
                && folder.is_ok_and(|folder| run.starts_with(folder))
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(is_ours).collect()
    }

    /// Scores of texts and generated answers, by all ranks; on one rank a second time nothing is left to ask.
    #[test]
    fn an_evaluation_has_the_scores_of_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let evaluate = |ranks: usize, out: &str| {
            let output = mpirun(ranks)
                .args(["eval", "--device", "cpu", "--json", "--base"])
                .arg(root.join("data/tiny-base"))
                .arg("--file")
                .arg(root.join("data/kitchen/heldout.json"))
                .args(["--template", "alpaca", "--max-new-tokens", "6", "--out"])
                .arg(folder.path().join(out))
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{said}");
            (String::from_utf8(output.stdout).unwrap(), said)
        };
        let (one, _) = evaluate(1, "one");
        let (two, said) = evaluate(2, "two");
        assert_eq!(one, two);
        assert_eq!(said.matches("110 rows in").count(), 1, "{said}");
        let (again, said) = evaluate(1, "two");
        assert_eq!(one, again);
        assert!(said.contains("0 rows in"), "{said}");
    }

    /// Rank 0 alone writes. A run that is killed resumes on another number of ranks, and no byte of its rows depends on them.
    #[test]
    fn generated_rows_have_the_bytes_of_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let recipe = fs::read_to_string(root.join("recipes/generate/kitchen.toml")).unwrap();
        let root = root.display();
        let recipe = recipe.replace("\"recipes/", &format!("\"{root}/recipes/"));
        let recipe = recipe.replace("\"data/", &format!("\"{root}/data/"));
        // several batches, each in two groups
        let recipe = recipe.replace("target = 5", "target = 12");
        let recipe = recipe.replace("batch = 8", "batch = 4");
        let table = "[model.local]\ndevice = \"cpu\"\ntogether = 2";
        let recipe = recipe.replace("[model.local]", table);
        let recipe_file = folder.path().join("recipe.toml");
        fs::write(&recipe_file, &recipe).unwrap();
        let generate = |ranks: usize, out: &str| {
            let mut command = mpirun(ranks);
            command
                .args(["data", "generate"])
                .arg(&recipe_file)
                .arg("--out")
                .arg(folder.path().join(out))
                .current_dir(folder.path())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let files = |out: &str| {
            [
                "data.jsonl",
                "provenance.jsonl",
                "dropped.jsonl",
                "report.json",
            ]
            .map(|file| fs::read(folder.path().join(out).join(file)).unwrap())
        };
        let (done, text) = said(generate(1, "one"));
        assert!(done, "{text}");
        let running = generate(3, "killed");
        let journal = folder.path().join("killed/journal.jsonl");
        let begin = Instant::now();
        while fs::read_to_string(&journal).map_or(0, |text| text.lines().count()) < 4 {
            assert!(begin.elapsed() < Duration::from_mins(1));
            thread::sleep(Duration::from_millis(1));
        }
        let here = folder.path().canonicalize().unwrap();
        kill_one(&here);
        let (done, text) = said(running);
        assert!(!done, "{text}");
        assert!(!folder.path().join("killed/data.jsonl").exists());
        let (done, text) = said(generate(2, "killed"));
        assert!(done && text.contains("resuming with "), "{text}");
        assert_eq!(text.matches("wrote ").count(), 1, "{text}");
        assert!(files("killed") == files("one"));

        let endpoint = "[model.endpoint]\nurl = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"\n";
        let table = recipe.find("[model.local]").unwrap();
        fs::write(&recipe_file, [&recipe[..table], endpoint].concat()).unwrap();
        let (done, text) = said(generate(2, "endpoint"));
        assert!(!done);
        let error = "error: [model.endpoint]: 2 ranks were started, and one process asks a server";
        assert_eq!(text.matches(error).count(), 1, "{text}");
        assert_eq!(text.matches("error: ").count(), 1, "{text}");
    }

    #[test]
    fn processes_write_the_bytes_of_one() {
        let kitchen = Kitchen::new();
        let recipe = kitchen.recipe(&STEPS).resolved();
        fs::write(kitchen.path("recipe.toml"), recipe).unwrap();
        for (ranks, run) in [(1, "one"), (2, "two")] {
            let (done, text) = said(start(&kitchen, ranks, run, &[]));
            assert!(done, "{text}");
            // to publish the adapter
            let again = match ranks {
                1 => "  simmer train recipe.toml",
                _ => "  mpirun -n 2 simmer train recipe.toml",
            };
            assert!(text.contains(again), "{text}");
        }
        assert!(kitchen.adapter("one") == kitchen.adapter("two"));

        let long = ["--set", "train.epochs=60"];
        let whole = start(&kitchen, 1, "whole", &long);
        let running = start(&kitchen, 3, "killed", &long);
        // after its first checkpoint
        let begin = Instant::now();
        while !kitchen.path("killed/checkpoints").exists() {
            assert!(begin.elapsed() < Duration::from_mins(1));
            thread::sleep(Duration::from_millis(5));
        }
        let run = kitchen.path("killed").canonicalize().unwrap();
        kill_one(&run);
        let (done, text) = said(running);
        assert!(!done, "{text}");
        let (done, text) = said(start(
            &kitchen,
            2,
            "killed",
            &[&long[..], &["--resume"]].concat(),
        ));
        assert!(done, "{text}");
        let (done, text) = said(whole);
        assert!(done, "{text}");
        assert!(kitchen.adapter("killed") == kitchen.adapter("whole"));
    }
}

/// Processes with the variables that `torchrun` sets, on c10d.
#[cfg(feature = "libtorch")]
mod torchrun {
    use std::fs;
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::STEPS;
    use crate::training::Kitchen;

    /// All ranks of a run, in their order.
    fn start(kitchen: &Kitchen, ranks: usize, run: &str, more: &[&str]) -> Vec<Child> {
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let start = |rank: usize| {
            let sets = STEPS.iter().chain(more).flat_map(|set| ["--set", *set]);
            Command::new(env!("CARGO_BIN_EXE_simmer"))
                .args(["train", "recipe.toml", "--device", "cpu", "--out", run])
                .args(sets)
                .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)])
                .env("WORLD_SIZE", ranks.to_string())
                .env("RANK", rank.to_string())
                .env("LOCAL_RANK", rank.to_string())
                .current_dir(kitchen.path(""))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        (0..ranks).map(start).collect()
    }

    fn said(child: Child) -> (bool, String) {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), said)
    }

    #[test]
    fn processes_write_the_bytes_of_one() {
        let kitchen = Kitchen::new();
        let recipe = kitchen.recipe(&STEPS).resolved();
        fs::write(kitchen.path("recipe.toml"), recipe).unwrap();
        let running = start(&kitchen, 2, "two", &[]);
        let whole = kitchen.whole(&[&STEPS[..], &["device=\"cpu\""]].concat(), "one");
        for rank in running {
            let (done, text) = said(rank);
            assert!(done, "{text}");
        }
        assert!(kitchen.adapter("two") == whole);
    }

    #[test]
    fn a_killed_rank_ends_the_others_with_one_error() {
        let kitchen = Kitchen::new();
        let recipe = kitchen.recipe(&STEPS).resolved();
        fs::write(kitchen.path("recipe.toml"), recipe).unwrap();
        let mut running = start(&kitchen, 3, "killed", &["train.epochs=400"]);
        let begin = Instant::now();
        while !kitchen.path("killed/checkpoints").exists() {
            assert!(begin.elapsed() < Duration::from_mins(1));
            thread::sleep(Duration::from_millis(5));
        }
        running[2].kill().unwrap();
        let ends: Vec<(bool, String)> = running.into_iter().map(said).collect();
        assert!(ends.iter().all(|(done, _)| !done), "{ends:?}");
        let error = "error: rank 2 has ended\n";
        assert!(ends[0].1.contains(error), "{ends:?}");
        assert_eq!(ends[1].1, "");
    }
}
