//! The folder `tracking/` in a run's folder: what a tracker needs to continue the run.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use simmer_checkpoint::MAX_TEXT_BYTES;
use simmer_files::write_file;

use super::Ending;
use crate::error::TrainError;

const FOLDER: &str = "tracking";

/// Reads a file of the folder; `None` if there is none, or it is not readable as one.
pub(super) fn read<T: DeserializeOwned>(run: &Path, name: &str) -> Option<T> {
    let text = simmer_files::read(&run.join(FOLDER).join(name), MAX_TEXT_BYTES).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Writes a file of the folder.
pub(super) fn write<T: Serialize>(run: &Path, name: &str, kept: &T) -> Result<(), TrainError> {
    let folder = run.join(FOLDER);
    fs::create_dir_all(&folder).map_err(TrainError::io(&folder, "create"))?;
    let path = folder.join(name);
    let json = serde_json::to_string_pretty(kept)
        .map_err(|error| TrainError::io(&path, "write")(error.into()))?;
    Ok(write_file(&path, |file| writeln!(file, "{json}"))?)
}

/// How a run ended whose process did not say it: only a finished one has its weights.
pub(super) fn ending(run: &Path) -> Ending {
    let finished = ["adapter", "model"]
        .iter()
        .any(|name| run.join(name).exists());
    if finished {
        Ending::Finished
    } else {
        Ending::Interrupted
    }
}
