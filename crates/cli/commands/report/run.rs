//! A run's folder, read as far as it is there.

use std::fs;
use std::path::Path;

use simmer_train::{
    COUNTS_FILE, Counts, History, MANIFEST_FILE, METRICS_FILE, Manifest, Metrics, RECIPE_FILE,
    SkipMetrics, StepMetrics, TrainError, ValidationMetrics, is_running,
};

use crate::failure::{Context, Failure, bail};
use crate::side_by_side::Comparison;

/// A run, as a page shows it.
pub(super) struct Run {
    /// What it is called.
    pub(super) name: String,
    /// How far it is.
    pub(super) state: State,
    /// The resolved recipe.
    pub(super) recipe: String,
    pub(super) manifest: Option<Manifest>,
    pub(super) counts: Option<Counts>,
    pub(super) comparison: Option<Comparison>,
    pub(super) steps: Vec<StepMetrics>,
    pub(super) skips: Vec<SkipMetrics>,
    pub(super) validations: Vec<ValidationMetrics>,
    /// What could not be read.
    pub(super) warnings: Vec<String>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its weights are written.
    Finished,
    /// A process writes it.
    Running,
    /// Neither.
    Stopped,
}

impl Run {
    /// Reads a run's folder. What is missing or damaged is left out, and said, but for the recipe: without one it is
    /// no run.
    pub(super) fn read(name: String, folder: &Path) -> Result<Self, Failure> {
        let shown = folder.display();
        if !folder.is_dir() {
            bail!("{shown} is a file; expected the folder of a run");
        }
        if !folder.join(RECIPE_FILE).exists() {
            bail!("{shown} holds no run: it has no {RECIPE_FILE}");
        }
        let recipe = fs::read_to_string(folder.join(RECIPE_FILE));
        let recipe = recipe.with_context(|| format!("cannot read {shown}/{RECIPE_FILE}"))?;
        let mut warnings = Vec::new();
        let history = History::read(folder)?;
        if let Some(said) = said_of_broken(&history.broken) {
            warnings.push(format!("{shown}/{METRICS_FILE}: {said}"));
        }
        let mut run = Self {
            name,
            state: State::of(folder),
            recipe,
            manifest: part(&mut warnings, folder, MANIFEST_FILE, Manifest::read),
            counts: part(&mut warnings, folder, COUNTS_FILE, Counts::read),
            comparison: Comparison::read(folder).unwrap_or_else(|error| {
                warnings.push(format!("{error}; it is left out"));
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

/// A file of the folder, if it is there and whole.
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
        .map_err(|error| warnings.push(format!("{error}; it is left out")))
        .ok()
}

fn said_of_broken(broken: &[usize]) -> Option<String> {
    const NAMED: usize = 5;
    let named: Vec<String> = broken.iter().take(NAMED).map(ToString::to_string).collect();
    let named = named.join(", ");
    match broken.len() {
        0 => None,
        1 => Some(format!("line {named} is damaged and left out")),
        2..=NAMED => Some(format!("lines {named} are damaged and left out")),
        count => Some(format!(
            "{count} lines ({named}, ...) are damaged and left out"
        )),
    }
}
