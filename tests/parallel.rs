//! Runs on several ranks: the same files as on one.

use std::collections::BTreeMap;
use std::rc::Rc;
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

    #[test]
    fn processes_write_the_bytes_of_one() {
        let kitchen = Kitchen::new();
        let recipe = kitchen.recipe(&STEPS).resolved();
        fs::write(kitchen.path("recipe.toml"), recipe).unwrap();
        for (ranks, run) in [(1, "one"), (2, "two")] {
            let (done, text) = said(start(&kitchen, ranks, run, &[]));
            assert!(done, "{text}");
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
        let victim = processes(&run).into_iter().max().unwrap();
        let kill = Command::new("kill")
            .args(["-KILL", &victim.to_string()])
            .status();
        assert!(kill.unwrap().success());
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
