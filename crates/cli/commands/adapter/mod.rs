//! `simmer adapter`: inspects, compares and combines adapters, without a base model.

mod alone;
mod combine;
mod diff;
mod grid;
mod inspect;
mod page;
mod summary;

use std::path::Path;

use clap::{Args, Subcommand};
use simmer_eval::report::aligned;
use simmer_files::digest::sha256_of_file;

use crate::failure::{Context, Failure};

/// Inspect, compare or combine adapters
#[derive(Debug, Args)]
pub(crate) struct Adapter {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::Inspect),
    Diff(diff::Diff),
    Combine(combine::Combine),
}

impl Adapter {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Inspect(inspect) => inspect.run(),
            Command::Diff(diff) => diff.run(),
            Command::Combine(combine) => combine.run(),
        }
    }
}

/// SHA-256 of a file.
fn sha256(path: &Path) -> Result<String, Failure> {
    sha256_of_file(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A number with three significant digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e4).contains(&size) {
        format!("{value:.1e}")
    } else {
        let before = size.log10().floor().max(-1.0) as usize;
        let after = if size < 1.0 {
            3
        } else {
            2_usize.saturating_sub(before)
        };
        format!("{value:.after$}")
    }
}

/// A table; the first row is its head, and the first column is aligned left.
fn table(rows: &[Vec<String>]) -> String {
    aligned(rows, 1).join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let found = [
            0.0, 123.456, 12.3456, 1.23456, 0.123_456, 0.012_345, 1234.5, 1e-5, -2.5, 1e6,
        ];
        let found = found.map(short).join(" ");
        insta::assert_snapshot!(found, @"0 123 12.3 1.23 0.123 0.012 1234 1.0e-5 -2.50 1.0e6");
    }
}
