//! A run's folder for `wandb sync`, as W&B's own library writes it without network (`WANDB_MODE=offline`).
//!
//! The file is rewritten from the metrics whenever a run starts or resumes, so no step is in it twice; the run's ID stays.

mod log;
mod records;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simmer_files::digest::sha256;
use simmer_files::write_file;

use self::log::Log;
use self::records::{About, Records};
use super::scalars::{begun, number, scalars, time_and_step};
use super::{Ending, Tracker, kept};
use crate::error::TrainError;
use crate::folder::RECIPE_FILE;
use crate::manifest::Manifest;
use crate::metrics::{History, Metrics, now};
use crate::program;

/// Its name, for people.
pub(super) const NAME: &str = "W&B";

/// The folder for W&B, in a run's folder.
const FOLDER: &str = "wandb";
/// The file with the run's ID.
const KEPT: &str = "wandb.json";
/// The axis of the charts, as in Hugging Face's Trainer.
const STEP: &str = "train/global_step";

/// What stays when a run resumes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    /// Unique in a project.
    run_id: String,
    /// The name of the folder below `wandb/`.
    folder: String,
}

/// An open record file.
#[derive(Debug)]
pub(super) struct RecordFile {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    log: Log,
    records: Records,
    begun: f64,
    /// The place of the next line in the history.
    place: u64,
    notices: Vec<String>,
}

impl RecordFile {
    /// Writes the run and its metrics so far into a file, which replaces that of an earlier start.
    pub(super) fn begin(run: &Path) -> Result<Self, TrainError> {
        let history = History::read(run)?;
        let begun = begun(&history);
        let kept = match kept::read::<Kept>(run, KEPT) {
            Some(kept) => kept,
            None => Kept::new(run, begun)?,
        };
        let folder = run.join(FOLDER).join(&kept.folder);
        let files = folder.join("files");
        fs::create_dir_all(&files).map_err(TrainError::io(&files, "create"))?;
        let path = folder.join(format!("run-{}.wandb", kept.run_id));
        // the mark of a file that has been sent: it is another one now
        let sent = path.with_extension("wandb.synced");
        if sent.exists() {
            fs::remove_file(&sent).map_err(TrainError::io(&sent, "remove"))?;
        }
        let (mut log, mut bytes) = Log::begin();
        let mut records = Records::of(&kept.run_id);
        bytes.extend(log.record(&records.header()));
        bytes.extend(log.record(&records.run(&about(run, &kept.run_id, begun)?)));
        for axis in records.axis(STEP) {
            bytes.extend(log.record(&axis));
        }
        write_file(&path, |file| file.write_all(&bytes))?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(TrainError::io(&path, "open"))?;
        let mut opened = Self {
            folder,
            path,
            file,
            log,
            records,
            begun,
            place: 0,
            notices: Vec::new(),
        };
        let lines = history.lines.iter();
        let bytes: Vec<u8> = lines.flat_map(|line| opened.line(line)).collect();
        opened.append(&bytes)?;
        Ok(opened)
    }

    /// The records of a line of metrics.
    fn line(&mut self, line: &Metrics) -> Vec<u8> {
        let (time, step) = time_and_step(line);
        let mut values: Vec<(&str, Value)> = scalars(line)
            .into_iter()
            .map(|(key, value)| (key, number(value)))
            .collect();
        values.push((STEP, json!(step)));
        values.push(("_timestamp", json!(time)));
        values.push(("_runtime", json!((time - self.begun).max(0.0))));
        values.push(("_step", json!(self.place)));
        let history = self.records.history(&values, self.place);
        let summary = self.records.summary(&values);
        self.place += 1;
        let mut bytes = self.log.record(&history);
        bytes.extend(self.log.record(&summary));
        bytes
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        let written = self.file.write_all(bytes);
        written.map_err(TrainError::io(&self.path, "write"))
    }

    /// Writes how the run ended, and says how to send it.
    pub(super) fn close(&mut self, ending: Ending, time: f64) -> Result<(), TrainError> {
        let code = match ending {
            Ending::Finished => 0,
            Ending::Failed => 1,
            Ending::Interrupted => 130,
        };
        let exit = self.records.exit(code, time - self.begun);
        let bytes = self.log.record(&exit);
        self.append(&bytes)?;
        let folder = self.folder.display();
        self.notices
            .push(format!("{NAME}: send the run with: wandb sync {folder}"));
        Ok(())
    }
}

impl Tracker for RecordFile {
    fn name(&self) -> &'static str {
        NAME
    }

    fn record(&mut self, line: &Metrics) -> Result<(), TrainError> {
        let bytes = self.line(line);
        self.append(&bytes)
    }

    fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    fn end(&mut self, ending: Ending, _notify: &mut dyn FnMut(&str)) {
        if let Err(error) = self.close(ending, now()) {
            self.notices.push(super::without(NAME, &error));
        }
    }
}

/// Writes the whole folder of a run that has ended.
pub(super) fn write(run: &Path, notify: &mut dyn FnMut(&str)) -> Result<(), TrainError> {
    let last = History::read(run)?.lines.last().map(time_and_step);
    let mut file = RecordFile::begin(run)?;
    file.close(kept::ending(run), last.map_or_else(now, |(time, _)| time))?;
    for notice in file.notices() {
        notify(&notice);
    }
    Ok(())
}

impl Kept {
    /// A new ID, and a folder named as W&B names them.
    fn new(run: &Path, begun: f64) -> Result<Self, TrainError> {
        const DIGITS: usize = 8;
        let path = run.canonicalize().unwrap_or_else(|_| run.to_owned());
        let seed = format!("{} {} {}", path.display(), now(), std::process::id());
        let run_id = sha256(seed.as_bytes())[..DIGITS].to_owned();
        let time = DateTime::from_timestamp(begun as i64, 0).unwrap_or_default();
        let time = time.format("%Y%m%d_%H%M%S");
        let folder = format!("offline-run-{time}-{run_id}");
        let kept = Self { run_id, folder };
        kept::write(run, KEPT, &kept)?;
        Ok(kept)
    }
}

/// The run and its recipe.
fn about(run: &Path, id: &str, begun: f64) -> Result<About, TrainError> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let path = run.join(RECIPE_FILE);
    let recipe = fs::read_to_string(&path).map_err(TrainError::io(&path, "read"))?;
    let recipe: toml::Table = recipe.parse().unwrap_or_default();
    let mut config = vec![("_wandb".to_owned(), json!({}))];
    for (key, value) in recipe {
        config.push((key, serde_json::to_value(value).unwrap_or_default()));
    }
    if let Ok(manifest) = Manifest::read(run) {
        let version = program::version_and_commit(&manifest.simmer, &manifest.commit, "");
        let simmer = json!({"version": version, "system": manifest.system});
        config.push(("simmer".to_owned(), simmer));
    }
    let folder = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    let folder = folder.file_name().unwrap_or_default().to_string_lossy();
    let given = Some(variable("WANDB_NAME")).filter(|name| !name.is_empty());
    Ok(About {
        id: id.to_owned(),
        name: given.unwrap_or_else(|| folder.into_owned()),
        entity: variable("WANDB_ENTITY"),
        project: variable("WANDB_PROJECT"),
        begun,
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{METRICS_FILE, ValidationMetrics};

    fn validation(step: u64) -> Metrics {
        Metrics::Validation(ValidationMetrics {
            step,
            epoch: 0.5,
            validation_loss: 2.5,
            best: true,
            targets: 9,
            seconds: 0.25,
            time: 1_700_000_000.5 + step as f64,
        })
    }

    /// `tests/reference/check_wandb.py` reads such folders with W&B's own program.
    #[test]
    fn a_resumed_run_keeps_its_id_and_has_every_line_once() {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join(RECIPE_FILE), "[train]\nseed = 1\n").unwrap();
        let mut first = RecordFile::begin(run.path()).unwrap();
        first.record(&validation(1)).unwrap();
        first.record(&validation(2)).unwrap();
        first.end(Ending::Interrupted, &mut |_| {});
        assert!(first.notices()[0].contains(": wandb sync "));
        let before = fs::read(&first.path).unwrap();
        let sent = first.path.with_extension("wandb.synced");
        fs::write(&sent, "").unwrap();
        // the checkpoint is of step 1
        let line = serde_json::to_string(&validation(1)).unwrap();
        fs::write(run.path().join(METRICS_FILE), line + "\n").unwrap();
        let mut second = RecordFile::begin(run.path()).unwrap();
        second.record(&validation(2)).unwrap();
        assert_eq!(second.path, first.path);
        assert!(!sent.exists(), "the file is to be sent again");
        let after = fs::read(&first.path).unwrap();
        let count = |bytes: &[u8], text: &str| {
            let windows = bytes.windows(text.len());
            windows.filter(|window| *window == text.as_bytes()).count()
        };
        // in the history and in the summary
        for (text, times) in [("eval/loss", 4), ("1700000002.5", 2), ("1700000001.5", 2)] {
            assert_eq!(count(&after, text), times, "{text}");
        }
        assert!(before.starts_with(b":W&B") && after.starts_with(b":W&B"));
        assert_eq!(count(&after, "{\"seed\":1}"), 1);
    }
}
