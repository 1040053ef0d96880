//! The stages of a check: what ran, how long it took, and what was not checked.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::shell::{command, output};

/// How a stage that did not fail ended.
pub(crate) enum Outcome {
    /// All of it was checked.
    Passed,
    /// Part of it could not be checked on this machine, for this reason. It does not count as passed.
    NotChecked(String),
}

/// The stages of one check so far.
pub(crate) struct Stages {
    start: Instant,
    done: Vec<(&'static str, Duration, Outcome)>,
}

impl Stages {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            done: Vec::new(),
        }
    }

    /// Runs one stage, between lines that say its name and its time.
    ///
    /// # Errors
    /// The stage's own error, after the times of the stages so far.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        stage: impl FnOnce() -> Result<Outcome>,
    ) -> Result<()> {
        println!("== {name}");
        let start = Instant::now();
        let result = stage();
        let time = start.elapsed();
        match result {
            Ok(outcome) => {
                if let Outcome::NotChecked(why) = &outcome {
                    println!("{name}: NOT CHECKED: {why}");
                }
                println!("== {name}: {} s", time.as_secs());
                self.done.push((name, time, outcome));
                Ok(())
            }
            Err(error) => {
                println!("== {name}: FAILED after {} s", time.as_secs());
                self.summary();
                Err(error.context(format!("the stage `{name}` failed")))
            }
        }
    }

    /// Whether every stage was checked as a whole.
    pub(crate) fn all_passed(&self) -> bool {
        let mut outcomes = self.done.iter().map(|(_, _, outcome)| outcome);
        outcomes.all(|outcome| matches!(outcome, Outcome::Passed))
    }

    /// Prints each stage with its seconds, and the whole time.
    pub(crate) fn summary(&self) {
        println!("== summary");
        for (name, time, outcome) in &self.done {
            let note = match outcome {
                Outcome::Passed => "",
                Outcome::NotChecked(_) => "  NOT CHECKED",
            };
            println!("{:>6} s  {name}{note}", time.as_secs());
        }
        println!("{:>6} s  in all", self.start.elapsed().as_secs());
    }
}

/// The commit that is checked out, if the working tree has no changes.
pub(crate) fn clean_commit(root: &Path) -> Result<Option<String>> {
    let changes = output(&mut command(root, "git", &["status", "--porcelain"]))?;
    if !changes.trim().is_empty() {
        return Ok(None);
    }
    let commit = output(&mut command(root, "git", &["rev-parse", "HEAD"]))?;
    Ok(Some(commit.trim().to_owned()))
}

/// Gigabytes (10⁹ bytes) that are free on the disk of a folder.
pub(crate) fn free_gigabytes(folder: &Path) -> Result<u64> {
    let arguments = ["--output=avail", "-B1000000000", "."];
    let printed = output(&mut command(folder, "df", &arguments))?;
    let last = printed.lines().last().unwrap_or_default().trim();
    last.parse()
        .with_context(|| format!("`df` printed `{last}`, expected a number"))
}
