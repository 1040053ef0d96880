//! Processes with the variables that `torchrun` sets, on c10d.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::STEPS;
use super::generating::Generated;
use crate::training::Kitchen;

/// All ranks of a command, in their order.
fn ranks<A: AsRef<OsStr>>(count: usize, arguments: &[A], folder: &Path) -> Vec<Child> {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let start = |rank: usize| {
        Command::new(env!("CARGO_BIN_EXE_simmer"))
            .args(arguments)
            .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)])
            .env("WORLD_SIZE", count.to_string())
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    (0..count).map(start).collect()
}

/// All ranks of a run.
fn start(kitchen: &Kitchen, count: usize, run: &str, more: &[&str]) -> Vec<Child> {
    let sets = STEPS.iter().chain(more).flat_map(|set| ["--set", *set]);
    let train = ["train", "recipe.toml", "--device", "cpu", "--out", run];
    let arguments: Vec<&str> = train.into_iter().chain(sets).collect();
    ranks(count, &arguments, &kitchen.path(""))
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

/// One process writes, all generate.
#[test]
fn generated_rows_have_the_bytes_of_one_process() {
    let data = Generated::new();
    for (count, out) in [(1, "one"), (2, "two")] {
        let running = ranks(count, &data.arguments(out), data.folder());
        let ends: Vec<(bool, String)> = running.into_iter().map(said).collect();
        assert!(ends.iter().all(|(done, _)| *done), "{ends:?}");
        let wrote = |(_, text): &(bool, String)| text.matches("wrote ").count();
        assert_eq!(ends.iter().map(wrote).sum::<usize>(), 1, "{ends:?}");
    }
    assert!(data.files("two") == data.files("one"));
}
