//! `simmer launch`: job files, and ranks on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::commands::simmer;

/// A recipe whose name a shell and YAML would read otherwise.
const NAME: &str = "it's my: own.toml";

/// A folder with a recipe.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let copied = simmer(folder.path(), &["recipes", "copy", "quickstart", NAME]);
        assert!(copied.status.success(), "{copied:?}");
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// What `simmer launch` refuses.
    fn refused(&self, args: &str, more: &[&str]) -> String {
        let words: Vec<&str> = args
            .split_whitespace()
            .chain(more.iter().copied())
            .collect();
        let output = simmer(self.path(), &[&["launch"], &words[..]].concat());
        assert!(!output.status.success(), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty());
        let lines: Vec<&str> = lines.filter(|line| !line.contains("--help")).collect();
        format!("{}\n", lines.join("\n"))
    }

    /// A job file.
    fn job(&self, args: &str, more: &[&str]) -> PathBuf {
        let words = ["launch", "--output", "job"].into_iter();
        let words: Vec<&str> = words.chain(args.split_whitespace()).chain([NAME]).collect();
        let _ = fs::remove_file(self.path().join("job"));
        let output = simmer(self.path(), &[&words[..], more].concat());
        assert!(output.status.success(), "{words:?}: {output:?}");
        assert_eq!(output.stdout, b"job\n");
        self.path().join("job")
    }
}

/// Arguments of `simmer train` that a shell would read otherwise.
const MORE: [&str; 4] = ["--set", "base.path=\"$HOME's\"", "--log-every", "5"];

#[test]
fn job_files_read_well() {
    let folder = Folder::new();
    let text = |args: &str, more: &[&str]| fs::read_to_string(folder.job(args, more)).unwrap();
    let slurm = "--slurm --ranks 8 --nodes 2 --cores 16 --memory 64G --time 24h --partition a,b --gpus h100:4";
    insta::assert_snapshot!("slurm", text(slurm, &MORE));
    let sky =
        "--skypilot --image me/simmer-mpi:1 --storage s3://my-bucket --memory 1500M --cores 8";
    insta::assert_snapshot!("skypilot", text(&format!("{sky} --ranks 4"), &MORE));
    let nodes = format!("{sky} --ranks 8 --nodes 2 --gpus H100:4");
    insta::assert_snapshot!("skypilot_nodes", text(&nodes, &MORE));
    let kubernetes =
        "--kubernetes --image me/simmer-mpi:1 --storage my-claim --cores 4 --memory 64G --time 2d";
    let one = text(&format!("{kubernetes} --ranks 4"), &["--out", "runs/a b"]);
    insta::assert_snapshot!("kubernetes", one);
    let nodes = text(&format!("{kubernetes} --ranks 8 --nodes 2 --gpus 4"), &MORE);
    // the recipe is that of the other
    insta::assert_snapshot!("kubernetes_nodes", nodes.split("---\n").last().unwrap());
}

/// Jobs that cannot run are refused when they are written.
#[test]
fn jobs_that_cannot_run_are_refused() {
    let folder = Folder::new();
    fs::write(folder.path().join("bad.toml"), "[train]\nbatch_size = 0\n").unwrap();
    fs::write(folder.path().join("there"), "").unwrap();
    let with = |args: &str| folder.refused(args, &[NAME]);
    let all = [
        folder.refused("--local 2 nothing.toml", &[]),
        folder.refused("--slurm --ranks 2 bad.toml", &[]),
        folder.refused("my.toml", &[]),
        folder.refused("--slurm --ranks 2", &[NAME, "--resum"]),
        folder.refused("--slurm", &[NAME, "--resume", "--ranks", "2"]),
        with("--local 0"),
        with("--local 2 --ranks 2"),
        with("--local 2 --gpus 1"),
        with("--slurm --ranks 1000"),
        with("--slurm"),
        with("--slurm --ranks 0"),
        with("--slurm --ranks 3 --nodes 2"),
        with("--slurm --ranks 4 --gpus 2"),
        with("--slurm --ranks 2 --memory 64"),
        with("--slurm --ranks 2 --time 90"),
        with("--slurm --ranks 2 --time 1m"),
        with("--slurm --ranks 2 --image a"),
        with("--slurm --ranks 2 --partition a;b"),
        with("--slurm --ranks 2 --output there"),
        with("--skypilot --ranks 2 --image a"),
        with("--skypilot --ranks 2 --image a --storage s3://b --gpus 2"),
        with("--kubernetes --ranks 2 --image a --storage b"),
        folder.refused(
            "--skypilot --ranks 2 --image a --storage s3://b",
            &[NAME, "--out", "c"],
        ),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

/// A script of Slurm is bash, and queues the job again if and only if a signal has stopped the ranks. Here is no Slurm:
/// `srun`, `scancel` and `scontrol` are scripts that stand for its commands. `tests/machines` runs a job on a real one.
#[cfg(unix)]
#[test]
fn a_job_that_a_signal_stops_is_queued_again() {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    let folder = Folder::new();
    let script = folder.job("--slurm --ranks 2", &MORE);
    let program = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("simmer", "");
    program("scontrol", "echo \"$@\" > queued");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let start = || {
        let mut bash = Command::new("bash");
        bash.arg(&script).current_dir(folder.path());
        bash.env("PATH", &path).env("SLURM_JOB_ID", "17");
        bash.spawn().unwrap()
    };
    program("srun", "printf '%s\\n' \"$@\" > words\nexit $(cat code)");
    for code in ["0", "1"] {
        fs::write(folder.path().join("code"), code).unwrap();
        let status = start().wait().unwrap();
        assert_eq!(status.code().unwrap().to_string(), code);
        assert!(!folder.path().join("queued").exists());
    }
    // every word arrives as it was given
    let words = fs::read_to_string(folder.path().join("words")).unwrap();
    let words: Vec<&str> = words.lines().collect();
    let train = [&["simmer", "train", NAME], &MORE[..], &["--resume"]].concat();
    assert_eq!(words[2..], train);

    program(
        "srun",
        "trap 'sleep 0.2; exit 130' TERM\necho $$ > pid\ntouch started\nwhile :; do sleep 0.02; done",
    );
    program(
        "scancel",
        "[ \"$*\" = '--signal=TERM 17' ] && kill -TERM $(cat pid)",
    );
    let mut bash = start();
    let begin = Instant::now();
    while !folder.path().join("started").exists() {
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = Command::new("kill")
        .args(["-USR1", &bash.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(bash.wait().unwrap().code(), Some(130));
    let queued = fs::read_to_string(folder.path().join("queued")).unwrap();
    assert_eq!(queued, "requeue 17\n");
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_build_without_mpi_says_what_is_missing() {
    insta::assert_snapshot!(Folder::new().refused("--local 2", &[NAME]), @r#"
    error: cannot start 2 ranks: this build of simmer has no MPI, which connects them
    hint: build it with MPI: eval "$(tools/mpi)", then cargo build --release --features mpi
    "#);
}

#[cfg(feature = "mpi")]
mod mpi {
    use std::fs;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use crate::training::Kitchen;

    fn launch(kitchen: &Kitchen, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_simmer"))
            .args(["launch", "--local", "2", "recipe.toml", "--device", "cpu"])
            .args(args)
            .current_dir(kitchen.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn said(child: Child) -> (Option<i32>, String) {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    }

    fn kitchen(sets: &[&str]) -> Kitchen {
        let kitchen = Kitchen::new();
        let recipe = kitchen.recipe(sets).resolved();
        fs::write(kitchen.path("recipe.toml"), recipe).unwrap();
        kitchen
    }

    /// No checkpoint is due before the signal.
    #[test]
    fn a_signal_leaves_the_time_for_a_checkpoint() {
        let steps = [
            "train.batch_size=12",
            "train.micro_batch_tokens=20",
            "train.epochs=100",
        ];
        let kitchen = kitchen(&steps);
        let sets =
            ["checkpoint_every", "validate_every"].map(|key| format!("train.{key}=\"never\""));
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let args: Vec<&str> = sets.chain(["--out", "run"]).collect();
        let ranks = launch(&kitchen, &args);
        let steps = || {
            let metrics = fs::read_to_string(kitchen.path("run/metrics.jsonl"));
            metrics.unwrap_or_default().lines().count()
        };
        let begin = Instant::now();
        while steps() < 3 {
            assert!(begin.elapsed() < Duration::from_mins(1));
            thread::sleep(Duration::from_millis(5));
        }
        let kill = Command::new("kill").arg(ranks.id().to_string()).status();
        assert!(kill.unwrap().success());
        let (code, text) = said(ranks);
        assert_eq!(code, Some(130), "{text}");
        assert!(text.contains("stopped after step "), "{text}");
        let again = "resume with: simmer launch --local 2 recipe.toml --out run --resume";
        assert!(text.contains(again), "{text}");
        let last = format!("run/checkpoints/step-{:06}", steps());
        assert!(kitchen.path(&last).exists(), "{last}: {text}");
    }

    /// An error before the first step is reported once, by the launcher if it can tell, and leaves no run.
    #[test]
    fn ranks_report_an_error_once() {
        let kitchen = kitchen(&["train.batch_size=4", "train.micro_batch_tokens=1000"]);
        let (code, text) = said(launch(&kitchen, &["--out", "few"]));
        assert_eq!(code, Some(1), "{text}");
        let few = "the first step has 1 micro-batch for 2 ranks";
        assert_eq!(text.matches(few).count(), 1, "{text}");
        // no rank was started
        assert!(!text.contains("starting"), "{text}");
        assert!(!kitchen.path("few").exists());
        let only = ["--set", "train.batch_size=1", "--out", "few"];
        let (_, text) = said(launch(&kitchen, &only));
        assert!(
            text.contains("a step has 1 row (train.batch_size)"),
            "{text}"
        );
        // what only the ranks find
        let none = ["--set", "base.path=nothing", "--out", "none", "--resume"];
        let (code, text) = said(launch(&kitchen, &none));
        assert_eq!(code, Some(1), "{text}");
        assert_eq!(text.matches("error:").count(), 1, "{text}");
    }

    /// A program that starts no rank is no success.
    #[test]
    fn a_launcher_that_starts_nothing_is_noticed() {
        let kitchen = kitchen(&["train.batch_size=12", "train.micro_batch_tokens=20"]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_simmer"));
        command
            .args(["launch", "--local", "2", "recipe.toml", "--out", "run"])
            .current_dir(kitchen.path(""))
            .env("MPIRUN", "/bin/true");
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let error = "error: /bin/true has ended, and has started no rank";
        assert!(text.contains(error), "{text}");
    }
}
