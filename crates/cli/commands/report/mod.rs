//! `simmer report`: writes runs as an HTML page.

mod answers;
mod axis;
mod chart;
mod charts;
mod files;
mod out;
mod page;
mod recipes;
mod run;
mod series;
mod summary;

use std::path::{Path, PathBuf};

use clap::Args;
use simmer_files::write_file;

use crate::failure::{Context, Failure, bail};
use crate::output::{self, note};
use out::Page;
use run::Run;

/// Write one or more runs as an HTML page
///
/// The page is one file that loads nothing else: charts of loss, learning rate, gradient norm, throughput and memory, the
/// data, answers before and after training, scores and the recipe. Several runs share the charts, and the page lists the
/// differences between their recipes. A run may still be in progress. A page of the same runs is replaced; no other file
/// is overwritten.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer report runs/quickstart
  simmer report runs/quickstart runs/rank-2 --out compared.html")]
pub(crate) struct Report {
    /// Folders of the runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Page to write; replaced if `simmer report` wrote it. Default: RUN/report.html; for several runs compared.html in
    /// the current folder
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

impl Report {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let names = names(&self.runs)?;
        let page = Page::of(&self.runs, &names, self.out);
        page.check()?;
        let runs = names.into_iter().zip(&self.runs);
        let runs = runs.map(|(name, folder)| Run::read(name, folder));
        let runs = runs.collect::<Result<Vec<Run>, Failure>>()?;
        for warning in runs.iter().flat_map(|run| &run.warnings) {
            note(warning);
        }
        let html = page::html(&runs, page.generator)?;
        write_file(&page.path, |file| file.write_all(html.as_bytes()))?;
        output::line(&page.path.display().to_string())
    }
}

/// The names of the runs: those of their folders, or whole paths if two names are the same.
fn names(runs: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let real = |run: &PathBuf| {
        let found = run.canonicalize();
        found.with_context(|| format!("{}: no such run", run.display()))
    };
    let real = runs.iter().map(real).collect::<Result<Vec<_>, Failure>>()?;
    if let Some(place) = (1..real.len()).find(|place| real[..*place].contains(&real[*place])) {
        bail!("{}: duplicate run", runs[place].display());
    }
    let short = |run: &Path| {
        let name = run.file_name().unwrap_or(run.as_os_str());
        name.to_string_lossy().into_owned()
    };
    let names: Vec<String> = real.iter().map(|run| short(run)).collect();
    let is_unique = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let named = names.iter().zip(runs).map(|(name, run)| {
        if is_unique(name) {
            name.clone()
        } else {
            run.display().to_string()
        }
    });
    Ok(named.collect())
}
