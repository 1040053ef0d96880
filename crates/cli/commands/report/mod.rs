//! `simmer report`: runs as a page.

mod answers;
mod axis;
mod chart;
mod page;
mod recipes;
mod run;
mod series;
mod summary;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use simmer_checkpoint::write_file;

use crate::output::{self, note};
use run::Run;

/// Show runs as a page for a browser
///
/// One file that needs nothing beside it: loss, learning rate, gradient norm, throughput and memory, the data, answers
/// before and after, scores and recipe. Several runs are laid over each other, with what differs between their recipes.
/// A run that is still going is shown as far as it is.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// The runs' folders
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The page; one that is there is written anew
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    out: PathBuf,
}

impl Report {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let names = names(&self.runs)?;
        let runs = names.into_iter().zip(&self.runs);
        let runs = runs.map(|(name, folder)| Run::read(name, folder));
        let runs = runs.collect::<anyhow::Result<Vec<Run>>>()?;
        for warning in runs.iter().flat_map(|run| &run.warnings) {
            note(warning);
        }
        let html = page::html(&runs);
        write_file(&self.out, |file| file.write_all(html.as_bytes()))?;
        output::line(&self.out.display().to_string())
    }
}

/// What the runs are called: their folders' names, or whole paths where names are the same.
fn names(runs: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let real = |run: &PathBuf| {
        let found = run.canonicalize();
        found.with_context(|| format!("{}: no such run", run.display()))
    };
    let real = runs.iter().map(real).collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(place) = (1..real.len()).find(|place| real[..*place].contains(&real[*place])) {
        bail!("{}: this run is named twice", runs[place].display());
    }
    let short = |run: &Path| {
        let name = run.file_name().unwrap_or(run.as_os_str());
        name.to_string_lossy().into_owned()
    };
    let names: Vec<String> = real.iter().map(|run| short(run)).collect();
    let is_one_of_a_kind = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let named = names.iter().zip(runs).map(|(name, run)| {
        if is_one_of_a_kind(name) {
            name.clone()
        } else {
            run.display().to_string()
        }
    });
    Ok(named.collect())
}
