//! Reads a run's folder, as far as it is complete.

use std::fs;
use std::path::Path;

use simmer_train::{
    COUNTS_FILE, Counts, History, MANIFEST_FILE, METRICS_FILE, Manifest, Metrics, RECIPE_FILE,
    SkipMetrics, StepMetrics, TrainError, ValidationMetrics, is_running,
};

use crate::failure::{Context, Failure, bail};
use crate::side_by_side::Comparison;

/// A run, as shown in a page.
pub(super) struct Run {
    /// Its name.
    pub(super) name: String,
    /// Its state.
    pub(super) state: State,
    /// The resolved recipe.
    pub(super) recipe: String,
    pub(super) manifest: Option<Manifest>,
    pub(super) counts: Option<Counts>,
    pub(super) comparison: Option<Comparison>,
    pub(super) steps: Vec<StepMetrics>,
    pub(super) skips: Vec<SkipMetrics>,
    pub(super) validations: Vec<ValidationMetrics>,
    /// The files that could not be read.
    pub(super) warnings: Vec<String>,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It has written its weights.
    Finished,
    /// A process is writing it.
    Running,
    /// Neither of them.
    Stopped,
}

impl Run {
    /// Reads a run's folder. Missing files are skipped, damaged ones with a warning; a folder without a recipe is not a
    /// run.
    pub(super) fn read(name: String, folder: &Path) -> Result<Self, Failure> {
        let shown = folder.display();
        if !folder.is_dir() {
            bail!("{shown} is a file; expected the folder of a run");
        }
        if !folder.join(RECIPE_FILE).exists() {
            bail!("{shown} is not a run: it has no {RECIPE_FILE}");
        }
        let recipe = fs::read_to_string(folder.join(RECIPE_FILE));
        let recipe = recipe.with_context(|| format!("cannot read {shown}/{RECIPE_FILE}"))?;
        let mut warnings = Vec::new();
        let history = History::read(folder)?;
        if let Some(damaged) = damaged(&history.broken) {
            warnings.push(format!("{shown}/{METRICS_FILE}: {damaged}"));
        }
        let mut run = Self {
            name,
            state: State::of(folder),
            recipe,
            manifest: part(&mut warnings, folder, MANIFEST_FILE, Manifest::read),
            counts: part(&mut warnings, folder, COUNTS_FILE, Counts::read),
            comparison: Comparison::read(folder).unwrap_or_else(|error| {
                warnings.push(format!("{error}; skipped"));
                None
            }),
            steps: Vec::new(),
            skips: Vec::new(),
            validations: Vec::new(),
            warnings,
        };
        for line in history.lines {
            match line {
                Metrics::Step(step) => run.steps.push(step),
                Metrics::Skip(skip) => run.skips.push(skip),
                Metrics::Validation(validation) => run.validations.push(validation),
            }
        }
        Ok(run)
    }

    /// Steps finished.
    pub(super) fn done(&self) -> u64 {
        let step = self.steps.last().map_or(0, |step| step.step);
        step.max(self.skips.last().map_or(0, |skip| skip.step))
    }
}

impl State {
    fn of(folder: &Path) -> Self {
        if ["adapter", "model"]
            .iter()
            .any(|name| folder.join(name).is_dir())
        {
            Self::Finished
        } else if is_running(folder) {
            Self::Running
        } else {
            Self::Stopped
        }
    }
}

/// A file of the folder, if it exists and is intact.
fn part<T>(
    warnings: &mut Vec<String>,
    folder: &Path,
    name: &str,
    read: fn(&Path) -> Result<T, TrainError>,
) -> Option<T> {
    if !folder.join(name).exists() {
        return None;
    }
    let found = read(folder);
    found
        .map_err(|error| warnings.push(format!("{error}; skipped")))
        .ok()
}

fn damaged(broken: &[usize]) -> Option<String> {
    const NAMED: usize = 5;
    let named: Vec<String> = broken.iter().take(NAMED).map(ToString::to_string).collect();
    let named = named.join(", ");
    match broken.len() {
        0 => None,
        1 => Some(format!("skipped line {named}, which is damaged")),
        2..=NAMED => Some(format!("skipped lines {named}, which are damaged")),
        count => Some(format!("skipped {count} damaged lines ({named}, ...)")),
    }
}
