//! Where the page goes, and whether an existing file may be replaced.

use std::path::PathBuf;

use simmer_files::digest::sha256;

use crate::failure::Failure;
use crate::page_file::head;

/// The name of a run's page in its folder.
const PAGE_FILE: &str = "report.html";
/// The page of several runs, in the current folder.
const COMPARED_FILE: &str = "compared.html";
/// How the mark of every page of this command begins.
const GENERATOR: &str = "simmer report";

/// The page to write.
pub(super) struct Page {
    pub(super) path: PathBuf,
    /// The mark in the page, which shows later what it is a page of.
    pub(super) generator: String,
    /// Whether the user named the path.
    is_named: bool,
}

impl Page {
    pub(super) fn of(runs: &[PathBuf], names: &[String], out: Option<PathBuf>) -> Self {
        let generator = match names {
            // its name may change with its folder
            [_] => format!("{GENERATOR}, one run"),
            names => format!(
                "{GENERATOR}, runs {}",
                &sha256(names.join("\n").as_bytes())[..16]
            ),
        };
        let is_named = out.is_some();
        let path = out.unwrap_or_else(|| match runs {
            [run] => run.join(PAGE_FILE),
            _ => COMPARED_FILE.into(),
        });
        Self {
            path,
            generator,
            is_named,
        }
    }

    /// Refuses to replace a file that is not a page of this command, or, unless the user named it, of other runs.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let path = self.path.display();
        if !self.path.exists() {
            return Ok(());
        }
        if self.path.is_dir() {
            return Err(
                Failure::new(format!("{path} is a folder; expected the name of a page")).with_hint(
                    format!("write --out {}", self.path.join(PAGE_FILE).display()),
                ),
            );
        }
        let head = head(&self.path)?;
        let is_a_report = head.contains(&format!("content=\"{GENERATOR}"));
        let is_the_same = head.contains(&format!("content=\"{}\"", self.generator));
        let what = match (is_a_report, is_the_same || self.is_named) {
            (true, true) => return Ok(()),
            (true, false) => "is a page of other runs",
            (false, _) => "is not a page that `simmer report` wrote",
        };
        Err(
            Failure::new(format!("{path} exists and {what}; it is not overwritten"))
                .with_hint("name another page with --out, or remove the file"),
        )
    }
}
