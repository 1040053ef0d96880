//! What developers run: the check of a change, derived files, comparisons with other programs.
//!
//! It depends on nothing of simmer, so that it builds in seconds; what it needs of simmer it asks the program for.
#![expect(
    clippy::print_stdout,
    reason = "a tool for developers reports on the terminal"
)]

mod build;
mod ci;
mod compare;
mod dist;
mod generate;
mod shell;
mod stage;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use build::Build;

const USAGE: &str = "\
cargo xtask COMMAND

  ci                 the whole check of a change; writes the commit's hash to target/ci/passed if all of it passes
  ci --quick         what to run before each commit: format, words, lints, unit tests of the crates that changed
  generate           write what is derived: recipe reference, command reference, JSON schema, reliability page
  generate --libtorch
                     the same with the build of `ci`, which has libtorch
  generate --check   fail if a derived file is out of date
  compare            list the comparisons with other programs
  compare NAME ...   run one of them; what follows is passed to its script
  dist               make what a release consists of, in target/dist: the wheel, archives, checksums
  dist PART ...      make some of it: wheel, static, torch
  words              check the repository against the glossary in STYLE.md
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["ci"] => ci::full(root()),
        ["ci", "--quick"] => ci::quick(root()),
        ["generate"] => generate::write(root(), &Build::of_users(root())),
        ["generate", "--libtorch"] => {
            Build::with_libtorch(root()).and_then(|build| generate::write(root(), &build))
        }
        ["generate", "--check"] => generate::check(root(), &Build::of_users(root())),
        ["compare"] => {
            compare::list();
            Ok(())
        }
        ["compare", name, rest @ ..] => compare::run_named(root(), name, rest),
        ["dist", parts @ ..] => dist::make(root(), parts),
        ["words"] => words::check(root()),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(anyhow::anyhow!(
            "unknown arguments: {}\n\n{USAGE}",
            words.join(" ")
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root, two folders above this crate.
fn root() -> &'static Path {
    static ROOT: std::sync::LazyLock<PathBuf> = std::sync::LazyLock::new(|| {
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = crate_folder.ancestors().nth(2);
        root.unwrap_or(crate_folder).to_owned()
    });
    &ROOT
}
