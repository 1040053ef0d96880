//! The folder that a run writes, and who may write it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use simmer_checkpoint::{Existing, StagedFolder, write_file};

use crate::checkpoint::Checkpoints;
use crate::error::TrainError;

/// The resolved recipe, in a run's folder: what tells that it is one.
pub const RECIPE_FILE: &str = "recipe.toml";
const LOCK_FILE: &str = ".lock";

/// A run's folder, locked against other processes for as long as this lives.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder, or opens it again.
    ///
    /// # Errors
    /// Where it holds a run and `resume` is false, where it holds something else, and where
    /// another process writes it.
    pub(crate) fn open(path: &Path, resume: bool) -> Result<Self, TrainError> {
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
            _lock: lock,
        };
        folder.clean()?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.path.join("checkpoints"))
    }

    /// The resolved recipe that the run began with.
    pub(crate) fn recipe(&self) -> Result<String, TrainError> {
        let path = self.path.join(RECIPE_FILE);
        fs::read_to_string(&path).map_err(TrainError::io(&path, "read"))
    }

    pub(crate) fn write_recipe(&self, resolved: &str) -> Result<(), TrainError> {
        let path = self.path.join(RECIPE_FILE);
        let text = resolved.as_bytes();
        Ok(write_file(&path, |file| file.write_all(text))?)
    }

    /// Writes a folder below, in place of the one that is there.
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

    /// Removes what a killed process had not finished.
    fn clean(&self) -> Result<(), TrainError> {
        for folder in [self.path.clone(), self.path.join("checkpoints")] {
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

/// `.NAME.tmp-...`: what is written aside.
fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.contains(".tmp-")
}

/// Whether the folder holds anything that a killed process would not leave behind at its start.
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

/// Whether a process writes the run.
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
    // A child that this process is just starting holds all that was open when it was forked, for a moment.
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
