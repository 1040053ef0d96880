//! Sets `SIMMER_COMMIT` to the commit that the program is built from, for the manifest of a run; "unknown" outside its
//! own repository.

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
    let commit = commit(root).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=SIMMER_COMMIT={commit}");
}

/// The commit, followed by " (changed)" if the sources differ from it.
fn commit(root: &Path) -> Option<String> {
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
    let status = [&["status", "--porcelain", "--"], &SOURCES[..]].concat();
    let changed = git(root, &status).is_none_or(|lines| !lines.is_empty());
    Some(commit + if changed { " (changed)" } else { "" })
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
