//! `simmer train`: a recipe into a run.

use std::path::{Path, PathBuf};
use std::process;

use clap::Args;
use indicatif::ProgressBar;
use simmer_model::base::Base;
use simmer_train::estimate::{Estimate, readable};
use simmer_train::{
    Observer, Outcome, Recipe, Resume, Start, StepMetrics, TrainError, ValidationMetrics, train,
};

use crate::loaded::read_ahead;
use crate::output::{self, note};
use crate::profile::Profile;
use crate::{hub, interrupt};
use crate::{progress, side_by_side};

/// Train what a recipe says
///
/// Writes a run folder: the resolved recipe, metrics, checkpoints, and at the end the adapter in
/// PEFT's layout. Ctrl-C writes a checkpoint and stops; a second one stops at once.
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// The recipe
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Change a key: train.learning_rate=1e-4
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to compute, instead of the recipe's `device`: auto, cpu, libtorch, libtorch-cuda:N
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// The run's folder; runs/RECIPE without it
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on from the run's last checkpoint
    #[arg(long)]
    resume: bool,
    /// Go on although recipe, data or base are not what the run began with; the manifest keeps what has changed
    #[arg(long, requires = "resume")]
    accept_changes: bool,
    /// Show the time by operation at the end, and write trace.json into the run's folder, which
    /// ui.perfetto.dev opens
    #[arg(long)]
    profile: bool,
}

impl Train {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut recipe = Recipe::from_file(&self.recipe, &sets(&self.set, self.device.as_deref()))?;
        hub::locate_base(&mut recipe.base)?;
        hub::locate_data(&mut recipe.data)?;
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| default_folder(&self.recipe));
        let stop = interrupt::flag("stopping after this micro-batch; once more to stop at once")?;
        let resume = match (self.resume, self.accept_changes) {
            (false, _) => Resume::Never,
            (true, false) => Resume::AsBegun,
            (true, true) => Resume::Changed,
        };
        let mut watcher = Terminal::new();
        let profile = self.profile.then(Profile::start);
        let outcome = train(&recipe, &out, resume, &mut watcher, &stop);
        watcher.finish();
        if let Some(profile) = profile {
            let trace = out.join("trace.json");
            note(&profile.finish(&trace)?);
            note(&format!("{}", trace.display()));
        }
        report(&self, &recipe, &out, outcome)
    }
}

/// What is changed of a recipe; a device that is named by itself comes last.
pub(super) fn sets(sets: &[String], device: Option<&str>) -> Vec<String> {
    let device = device.map(|device| format!("device=\"{device}\""));
    sets.iter().cloned().chain(device).collect()
}

/// `runs/` and the recipe's name.
fn default_folder(recipe: &Path) -> PathBuf {
    let name = recipe.file_stem().unwrap_or(recipe.as_os_str());
    Path::new("runs").join(name)
}

fn report(
    args: &Train,
    recipe: &Recipe,
    out: &Path,
    outcome: Result<Outcome, TrainError>,
) -> anyhow::Result<()> {
    match outcome? {
        Outcome::Finished {
            weights,
            step,
            stopped_early,
            best,
            held_out,
        } => {
            let early = if stopped_early { ", stopped early" } else { "" };
            note(&format!("done: {step} steps{early}"));
            if let Some(best) = best {
                note(&format!(
                    "best validation loss {:.4} at step {}",
                    best.loss, best.step
                ));
            }
            side_by_side::show(recipe, &weights, &held_out)?;
            output::line(&weights.display().to_string())
        }
        Outcome::Interrupted { checkpoint, step } => {
            match checkpoint {
                Some(folder) => note(&format!(
                    "stopped after step {step}; {} is its checkpoint",
                    folder.display()
                )),
                None => note("stopped before the first step"),
            }
            let mut command = vec![args.recipe.display().to_string()];
            command.extend([
                "--out".to_owned(),
                out.display().to_string(),
                "--resume".to_owned(),
            ]);
            for set in &args.set {
                command.extend(["--set".to_owned(), set.clone()]);
            }
            let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
            note(&format!("go on with: simmer train {}", command.join(" ")));
            process::exit(130)
        }
    }
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Shows a run as it goes: a bar on a terminal, a line now and then elsewhere.
struct Terminal {
    bar: Option<ProgressBar>,
    steps: u64,
}

impl Terminal {
    fn new() -> Self {
        Self {
            bar: None,
            steps: 0,
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// A line above the bar.
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }
}

impl Observer for Terminal {
    fn on_load(&mut self, base: &Base) {
        read_ahead(base);
    }

    fn on_notice(&mut self, text: &str) {
        self.say(text);
    }

    fn on_estimate(&mut self, estimate: &Estimate) {
        self.say(&format!(
            "about {} of memory at most (simmer estimate)",
            readable(estimate.peak)
        ));
    }

    fn on_start(&mut self, start: &Start<'_>) {
        self.say(&start.data.to_string());
        if start.lint.warnings().next().is_some() {
            self.say(&start.lint.to_string());
        }
        let examples = match start.examples {
            None => format!("a stream: {} steps", start.steps),
            Some(examples) => format!(
                "{examples} examples: {} steps, {} an epoch",
                start.steps, start.steps_per_epoch
            ),
        };
        self.say(&format!(
            "training {} of {} weights ({:.3}%) on {examples}",
            start.trained,
            start.weights,
            100.0 * start.trained as f64 / start.weights as f64,
        ));
        if let Some(step) = start.resumed_at {
            self.say(&format!("going on after step {step}"));
        }
        self.steps = start.steps;
        if output::is_terminal() {
            let bar = progress::steps(start.steps);
            bar.set_position(start.resumed_at.unwrap_or(0));
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    fn on_step(&mut self, step: &StepMetrics) {
        let text = format!(
            "loss {:.4}, {:.0} tokens/s,",
            step.loss, step.tokens_per_second
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(step.step);
                bar.set_message(text);
            }
            None if is_line_due(step.step, self.steps) => {
                note(&format!(
                    "step {}/{}: {text} lr {:.3e}",
                    step.step, self.steps, step.learning_rate
                ));
            }
            None => {}
        }
    }

    fn on_validation(&mut self, validation: &ValidationMetrics) {
        let best = if validation.best { " (best)" } else { "" };
        self.say(&format!(
            "step {}: validation loss {:.4}{best}",
            validation.step, validation.validation_loss
        ));
    }
}

/// About twenty lines a run, and the first steps.
fn is_line_due(step: u64, steps: u64) -> bool {
    step <= 3 || step == steps || step.is_multiple_of((steps / 20).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("train.seed=7"), "train.seed=7");
        assert_eq!(quoted("a={steps = 3}"), "'a={steps = 3}'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
