//! Processes on MPI; a rank that is killed ends the run, which resumes on another number of ranks.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::STEPS;
use super::generating::Generated;
use crate::training::Kitchen;

/// `mpirun -n RANKS simmer`.
fn mpirun(ranks: usize) -> Command {
    let mut command = Command::new(std::env::var("MPIRUN").unwrap_or_else(|_| "mpirun".to_owned()));
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

/// Kills the last rank of a folder's processes. Other runs of the folder have fewer ranks. (The largest number of a process may be
/// another run's: the system starts them again at small ones.)
fn kill_one(folder: &Path) {
    let rank = |pid: &u32| {
        let about = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut words = about.split('\0');
        let rank = words.find_map(|word| word.strip_prefix("OMPI_COMM_WORLD_RANK="));
        rank.and_then(|rank| rank.parse::<u32>().ok())
    };
    let victim = processes(folder).into_iter().max_by_key(rank).unwrap();
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
    let data = Generated::new();
    let generate = |ranks: usize, out: &str| {
        let mut command = mpirun(ranks);
        command
            .args(data.arguments(out))
            .current_dir(data.folder())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let (done, text) = said(generate(1, "one"));
    assert!(done, "{text}");
    let running = generate(3, "killed");
    let journal = data.folder().join("killed/journal.jsonl");
    let begin = Instant::now();
    while fs::read_to_string(&journal).map_or(0, |text| text.lines().count()) < 4 {
        assert!(begin.elapsed() < Duration::from_mins(1));
        thread::sleep(Duration::from_millis(1));
    }
    let here = data.folder().canonicalize().unwrap();
    kill_one(&here);
    let (done, text) = said(running);
    assert!(!done, "{text}");
    assert!(!data.folder().join("killed/data.jsonl").exists());
    let (done, text) = said(generate(2, "killed"));
    assert!(done && text.contains("resuming with "), "{text}");
    assert_eq!(text.matches("wrote ").count(), 1, "{text}");
    assert!(data.files("killed") == data.files("one"));

    let endpoint = "[model.endpoint]\nurl = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"\n";
    data.of_model(endpoint);
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
