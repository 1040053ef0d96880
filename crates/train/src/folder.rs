//! The folder of a run, and its lock.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use simmer_files::{Existing, StagedFolder, write_file};

use crate::counts::COUNTS_FILE;
use crate::error::TrainError;
use crate::manifest::MANIFEST_FILE;
use crate::metrics::METRICS_FILE;
use crate::tracking::EVENTS_FOLDER;

/// The resolved recipe, in a run's folder; a folder with this file is a run.
pub const RECIPE_FILE: &str = "recipe.toml";
/// The folder of the training checkpoints, in a run's folder.
pub(crate) const CHECKPOINTS_FOLDER: &str = "checkpoints";
const LOCK_FILE: &str = ".lock";

/// A run's folder, locked against other processes until this is dropped.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    /// Whether there was nothing in it.
    is_new: bool,
    _lock: File,
}

impl RunFolder {
    /// Creates the folder, or opens that of an earlier run.
    ///
    /// # Errors
    /// The folder holds a run and `resume` is false, it holds other files, or another process is writing it.
    pub(crate) fn open(path: &Path, resume: bool) -> Result<Self, TrainError> {
        if path.is_file() {
            let path = path.to_owned();
            return Err(TrainError::NotAFolder { path });
        }
        let used = is_used(path)?;
        if used && !path.join(RECIPE_FILE).exists() {
            let folder = path.to_owned();
            return Err(TrainError::NotARun { folder });
        }
        fs::create_dir_all(path).map_err(TrainError::io(path, "create"))?;
        let lock = lock(path)?;
        if used && !resume {
            let folder = path.to_owned();
            return Err(TrainError::RunExists { folder });
        }
        let folder = Self {
            path: path.to_owned(),
            is_new: !used,
            _lock: lock,
        };
        folder.clean()?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there was no run in it before.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The resolved recipe with which the run started, or last resumed with accepted changes.
    pub(crate) fn recipe(&self) -> Result<String, TrainError> {
        let path = self.path.join(RECIPE_FILE);
        fs::read_to_string(&path).map_err(TrainError::io(&path, "read"))
    }

    pub(crate) fn write_recipe(&self, resolved: &str) -> Result<(), TrainError> {
        let path = self.path.join(RECIPE_FILE);
        let text = resolved.as_bytes();
        Ok(write_file(&path, |file| file.write_all(text))?)
    }

    /// Writes a folder below this one, replacing an earlier one.
    pub(crate) fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        let out = self.path.join(name);
        let staged = StagedFolder::new(&out, Existing::Replace)?;
        write(staged.path())?;
        staged.commit()?;
        Ok(out)
    }

    /// Removes the temporary files of a killed process.
    fn clean(&self) -> Result<(), TrainError> {
        for folder in [self.path.clone(), self.path.join(CHECKPOINTS_FOLDER)] {
            if !folder.exists() {
                continue;
            }
            for entry in fs::read_dir(&folder).map_err(TrainError::io(&folder, "read"))? {
                let path = entry.map_err(TrainError::io(&folder, "read"))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if !is_unfinished(&name) {
                    continue;
                }
                if path.is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                }
                .map_err(TrainError::io(&path, "remove"))?;
            }
        }
        Ok(())
    }
}

/// Removes a new run that has no step: the files that it begins with, and the folder if nothing else is in it.
pub(crate) fn remove_begun(path: &Path) {
    let files = [
        RECIPE_FILE,
        MANIFEST_FILE,
        COUNTS_FILE,
        METRICS_FILE,
        LOCK_FILE,
    ];
    // what cannot be removed stays
    for file in files {
        let _ = fs::remove_file(path.join(file));
    }
    let _ = fs::remove_dir_all(path.join(EVENTS_FOLDER));
    let _ = fs::remove_dir(path.join(CHECKPOINTS_FOLDER));
    let _ = fs::remove_dir(path);
}

/// Whether a name is that of a temporary file or folder: `.NAME.tmp-...`.
fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.contains(".tmp-")
}

/// Whether the folder holds anything but the lock and temporary files, which a process killed at its start leaves.
fn is_used(path: &Path) -> Result<bool, TrainError> {
    if !path.exists() {
        return Ok(false);
    }
    for entry in fs::read_dir(path).map_err(TrainError::io(path, "read"))? {
        let name = entry.map_err(TrainError::io(path, "read"))?.file_name();
        let name = name.to_string_lossy();
        if name != LOCK_FILE && !is_unfinished(&name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a process is writing the run.
pub fn is_running(folder: &Path) -> bool {
    let lock = File::open(folder.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn lock(folder: &Path) -> Result<File, TrainError> {
    let path = folder.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(TrainError::io(&path, "open"))?;
    // A child process that this one is just starting holds all open files, this lock too, for a moment after the fork.
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(error)) => return Err(TrainError::io(&path, "lock")(error)),
        }
    }
    Err(TrainError::Locked {
        folder: folder.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_one_processs_and_is_not_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let run = RunFolder::open(&path, false).unwrap();
        run.write_recipe("seed = 1\n").unwrap();
        let second = RunFolder::open(&path, true).unwrap_err();
        assert!(matches!(second, TrainError::Locked { .. }), "{second}");
        assert!(is_running(&path));
        drop(run);
        assert!(!is_running(&path));
        let again = RunFolder::open(&path, false).unwrap_err();
        assert!(matches!(again, TrainError::RunExists { .. }), "{again}");
        assert_eq!(
            RunFolder::open(&path, true).unwrap().recipe().unwrap(),
            "seed = 1\n"
        );
    }

    #[test]
    fn other_peoples_folders_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "").unwrap();
        let refused = RunFolder::open(folder.path(), true).unwrap_err();
        assert!(matches!(refused, TrainError::NotARun { .. }), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_no_folder_of_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "").unwrap();
        let refused = RunFolder::open(&file, false).unwrap_err();
        assert!(
            matches!(refused, TrainError::NotAFolder { .. }),
            "{refused}"
        );
    }

    #[test]
    fn what_was_not_finished_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let aside = path.join("checkpoints/.step-000002.tmp-abc");
        RunFolder::open(&path, false)
            .unwrap()
            .write_recipe("")
            .unwrap();
        fs::create_dir_all(&aside).unwrap();
        drop(RunFolder::open(&path, true).unwrap());
        assert!(!aside.exists());
    }
}
