//! `simmer train`: trains a model from a recipe.

mod next;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use clap::Args;
use simmer_files::size::counted;
use simmer_model::device::Devices;
use simmer_train::ranks::{Ranks, RanksError};
use simmer_train::{Manifest, Outcome, Recipe, Resume, TrainError, ranks, train_on_ranks};

use super::{launch, recipes};
use crate::failure::Failure;
use crate::live::Live;
use crate::output::{self, note};
use crate::profile::Profile;
use crate::{hub, interrupt, side_by_side};

/// Train a model from a recipe
///
/// Writes a run folder: the resolved recipe, metrics, checkpoints and, at the end, the adapter in
/// PEFT's layout. Ctrl-C writes a checkpoint and stops; a second Ctrl-C stops at once.
///
/// Without a recipe, trains the quickstart: a tiny base model and data that are part of the program.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer train my.toml
  simmer train my.toml --set train.learning_rate=1e-4 --out runs/slower
  simmer train my.toml --resume")]
pub(crate) struct Train {
    /// Recipe, a TOML file. Default: the quickstart
    #[arg(value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    /// Override a key of the recipe, such as train.learning_rate=1e-4; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Device to compute on: auto, cpu, libtorch, libtorch-cuda:N; several GPUs, with commas between them, share the layers.
    /// Default: the recipe's `device`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Folder of the run. Default: runs/RECIPE
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Resume from the run's last checkpoint
    #[arg(long)]
    resume: bool,
    /// Resume even though the recipe, data or base model changed; changes are recorded in manifest.json
    #[arg(long, requires = "resume")]
    accept_changes: bool,
    /// Log every N steps. Default: a progress line on a terminal; otherwise about 20 lines per run, at least one per minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    log_every: Option<u64>,
    /// Print the time per operation at the end and write trace.json, for ui.perfetto.dev, to the run folder
    #[arg(long)]
    profile: bool,
}

impl Train {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let mut watcher = Live::new(self.log_every);
        let stop = interrupt::flag(
            "stopping after this micro-batch; press Ctrl-C again to stop at once",
            watcher.is_training(),
        );
        let ranks = match ranks::join(&stop) {
            Err(_) if ranks::is_another() => return Ok(not_joined()),
            ranks => ranks?,
        };
        if ranks.rank() > 0 {
            return self.work(&ranks);
        }
        launch::tell_process()?;
        let mut recipe = self.located()?;
        if ranks.size() > 1 {
            recipe.device = ranks::devices(&recipe.device)?;
        }
        let out = self.folder();
        let resume = match (self.resume, self.accept_changes) {
            (false, _) => Resume::Never,
            (true, false) => Resume::AsBegun,
            (true, true) => Resume::Changed,
        };
        let profile = self.profile.then(|| profile(&recipe.device)).transpose()?;
        let outcome = train_on_ranks(&recipe, &out, resume, &mut watcher, &stop, &ranks);
        watcher.finish();
        if let (Some(profile), Ok(_)) = (profile, &outcome) {
            let trace = out.join("trace.json");
            note(&profile.finish(&trace, Manifest::read(&out)?.dtype())?);
            note(&format!("{}", trace.display()));
        }
        let resume = self.resume_command(&out, ranks.size());
        report(&recipe, &out, &resume, outcome)
    }

    /// Computes what rank 0 asks for. Rank 0 prints the messages of the run, and ends it at a signal; it also reports the
    /// error of this rank, unless it has ended before.
    fn work(&self, ranks: &Rc<dyn Ranks>) -> Result<ExitCode, Failure> {
        let _stop = interrupt::flag("", Arc::new(AtomicBool::new(true)));
        let located = self.located().and_then(|mut recipe| {
            recipe.device = ranks::devices(&recipe.device)?;
            Ok(recipe)
        });
        if let Err(failure) = &located {
            ranks::refuse(&**ranks, failure.to_string());
        }
        match located.map(|recipe| ranks::work(&recipe, ranks)) {
            Ok(Err(TrainError::Ranks(RanksError::Reported))) => return Ok(ExitCode::FAILURE),
            Ok(worked) => worked.map_err(Failure::from),
            Err(failure) => Err(failure),
        }
        .map_err(|failure| failure.of_rank(ranks.rank()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// The recipe, with its base model and data found.
    fn located(&self) -> Result<Recipe, Failure> {
        if self.recipe.is_none() && !ranks::is_another() {
            note(
                "no recipe given: training the quickstart (`simmer recipes copy quickstart my.toml` writes its recipe to a file)",
            );
        }
        let mut recipe = self.recipe()?;
        hub::locate_recipe(&mut recipe)?;
        Ok(recipe)
    }

    /// The recipe that the command line names, or the quickstart's.
    pub(super) fn recipe(&self) -> Result<Recipe, Failure> {
        let sets = sets(&self.set, self.device.as_deref())?;
        if let Some(path) = &self.recipe {
            return Ok(Recipe::from_file(path, &sets)?);
        }
        let named = Path::new("the quickstart's recipe");
        Ok(Recipe::parse(named, recipes::quickstart(), &sets)?)
    }

    /// The folder of the run.
    pub(super) fn folder(&self) -> PathBuf {
        let out = self.out.clone();
        out.unwrap_or_else(|| default_folder(self.recipe.as_deref()))
    }

    /// Whether the run resumes.
    pub(super) fn resumes(&self) -> bool {
        self.resume
    }

    /// Whether the command line names the folder of the run.
    pub(super) fn names_folder(&self) -> bool {
        self.out.is_some()
    }

    /// The command that resumes the run in `out` on so many ranks.
    fn resume_command(&self, out: &Path, ranks: usize) -> String {
        let recipe = self.recipe.iter();
        let mut command: Vec<String> = recipe.map(|path| path.display().to_string()).collect();
        command.extend([
            "--out".to_owned(),
            out.display().to_string(),
            "--resume".to_owned(),
        ]);
        for set in &self.set {
            command.extend(["--set".to_owned(), set.clone()]);
        }
        if let Some(device) = &self.device {
            command.extend(["--device".to_owned(), device.clone()]);
        }
        let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        format!("{} {}", launch::started_by(ranks), command.join(" "))
    }
}

/// The end of a rank that cannot be connected. Rank 0, which has the same error, reports it; it needs a moment, since the
/// launcher ends it with this one.
pub(super) fn not_joined() -> ExitCode {
    thread::sleep(Duration::from_secs(1));
    ExitCode::FAILURE
}

/// Starts the profile of a run on devices, which must exist; those that share a model are alike.
fn profile(devices: &Devices) -> Result<Profile, Failure> {
    devices.open()?;
    Profile::start(devices.capabilities()?)
}

/// The overrides of a recipe; `--device` comes last and wins.
pub(super) fn sets(sets: &[String], device: Option<&str>) -> Result<Vec<String>, Failure> {
    let device = device.map(str::parse::<Devices>).transpose()?;
    let device = device.map(|devices| format!("device={}", devices.toml()));
    Ok(sets.iter().cloned().chain(device).collect())
}

/// `runs/` with the recipe's name.
fn default_folder(recipe: Option<&Path>) -> PathBuf {
    let recipe = recipe.unwrap_or(Path::new(recipes::QUICKSTART));
    let name = recipe.file_stem().unwrap_or(recipe.as_os_str());
    Path::new("runs").join(name)
}

/// The failure of a run, with the command that resumes it if it has finished steps.
fn failed(error: TrainError, resume: &str) -> Failure {
    let is_saved = matches!(
        error,
        TrainError::Ended {
            checkpoint: Some(_),
            ..
        }
    );
    let failure = Failure::from(error);
    if is_saved {
        failure.and_hint(&format!("the command: {resume}"))
    } else {
        failure
    }
}

fn report(
    recipe: &Recipe,
    out: &Path,
    resume: &str,
    outcome: Result<Outcome, TrainError>,
) -> Result<ExitCode, Failure> {
    match outcome.map_err(|error| failed(error, resume))? {
        Outcome::Finished {
            weights,
            step,
            stopped_early,
            best,
            held_out,
        } => {
            let early = if stopped_early { ", stopped early" } else { "" };
            note(&format!("done: {}{early}", counted(step as usize, "step")));
            if let Some(best) = best {
                note(&format!(
                    "best validation loss {:.4} at step {}",
                    best.loss, best.step
                ));
            }
            let compared = side_by_side::show(recipe, out, &weights, &held_out);
            output::line(&weights.display().to_string())?;
            compared.map_err(|failure| {
                failure
                    .within(format!(
                        "the run is finished and {} is written, but base model and trained model cannot be compared",
                        weights.display()
                    ))
                    .and_hint(&format!("to compare them later: {resume}"))
            })?;
            note(&next::next(recipe, out, &weights));
            if let Some(publish) = next::publish(recipe, &weights, resume) {
                note(&format!("\n{publish}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Interrupted { checkpoint, step } => {
            match checkpoint {
                Some(folder) => note(&format!(
                    "stopped after step {step}; checkpoint: {}",
                    folder.display()
                )),
                None => note("stopped before the first step"),
            }
            note(&format!("resume with: {resume}"));
            Ok(interrupt::exit_code())
        }
    }
}

/// A word quoted for a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
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
