//! `simmer track`: sends a run to the programs that show runs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use simmer_train::tracking::{self, Track};
use simmer_train::{RECIPE_FILE, Recipe, is_running};

use crate::failure::{Failure, bail};
use crate::output::note;

/// Send a run to an experiment tracker, or what it does not have yet
///
/// A run sends its metrics itself while it goes on (`train.track` in the recipe). This command sends the rest if the tracker
/// could not be reached then, or the whole of a run that was trained without it. What the tracker has is not sent twice.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer track runs/quickstart
  simmer track runs/quickstart --to mlflow")]
pub(crate) struct TrackRun {
    /// Folder of the run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Tracker; repeatable. Default: the recipe's `train.track`
    #[arg(long, value_name = "TRACKER")]
    to: Vec<To>,
}

/// A tracker, as in the recipe.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum To {
    Tensorboard,
    Mlflow,
    Wandb,
}

impl TrackRun {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let path = self.run.join(RECIPE_FILE);
        if !path.exists() {
            let text = format!("{}: not a run: it has no {RECIPE_FILE}", self.run.display());
            return Err(Failure::new(text).and_hint("name the folder of a run, such as runs/NAME"));
        }
        if is_running(&self.run) {
            bail!(
                "{}: another process is writing this run, and sends it itself",
                self.run.display()
            );
        }
        let mut wanted: Vec<Track> = self.to.iter().map(|to| to.track()).collect();
        if wanted.is_empty() {
            wanted = Recipe::from_file(&path, &[])?.train.track;
        }
        if wanted.is_empty() {
            let text = format!("{}: `train.track` lists no tracker", path.display());
            return Err(Failure::new(text).and_hint("name one with --to"));
        }
        for track in wanted {
            tracking::send(track, &self.run, &mut |text| note(text))?;
            note(&match track {
                // its own program sends what is there now
                Track::Wandb => format!("{}: all of the run is in its files", track.title()),
                _ => format!("{} has the whole run", track.title()),
            });
        }
        Ok(())
    }
}

impl To {
    fn track(self) -> Track {
        match self {
            Self::Tensorboard => Track::Tensorboard,
            Self::Mlflow => Track::Mlflow,
            Self::Wandb => Track::Wandb,
        }
    }
}
