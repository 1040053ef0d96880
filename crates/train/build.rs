//! Sets what a program says of itself: `SIMMER_COMMIT` and `SIMMER_COMMIT_DATE`, the commit that it is built from, and
//! `SIMMER_TARGET`, the platform that it is built for.
//!
//! Outside of its own repository, as in an archive of the sources, the first two are taken from environment variables of
//! the same names; without them they are "unknown".

use std::path::{Path, PathBuf};
use std::process::Command;

/// The sources that a run's results depend on, relative to the repository's root.
const SOURCES: [&str; 7] = [
    "Cargo.lock",
    "Cargo.toml",
    "crates/checkpoint",
    "crates/data",
    "crates/kernels",
    "crates/model",
    "crates/train",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = here.ancestors().nth(2).unwrap_or(&here);
    let [commit, date] = commit(root).unwrap_or_else(given);
    println!("cargo:rustc-env=SIMMER_COMMIT={commit}");
    println!("cargo:rustc-env=SIMMER_COMMIT_DATE={date}");
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo:rustc-env=SIMMER_TARGET={target}");
}

/// Commit and date from the environment.
fn given() -> [String; 2] {
    ["SIMMER_COMMIT", "SIMMER_COMMIT_DATE"].map(|name| {
        println!("cargo:rerun-if-env-changed={name}");
        let given = std::env::var(name).unwrap_or_default();
        let word = given.split_whitespace().collect::<Vec<_>>().join(" ");
        if word.is_empty() {
            "unknown".to_owned()
        } else {
            word
        }
    })
}

/// The commit, followed by " (changed)" if the sources differ from it, and its date.
fn commit(root: &Path) -> Option<[String; 2]> {
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    // a copy of the sources without its own history may lie inside another repository
    if Path::new(&top).canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(root, &["rev-parse", "--git-path", file])?;
        let path = root.join(path);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    let commit = git(root, &["rev-parse", "HEAD"])?;
    let date = git(root, &["log", "-1", "--format=%cs", "HEAD"])?;
    let status = [&["status", "--porcelain", "--"], &SOURCES[..]].concat();
    let changed = git(root, &status).is_none_or(|lines| !lines.is_empty());
    let changed = if changed { " (changed)" } else { "" };
    Some([commit + changed, date])
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(args)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
