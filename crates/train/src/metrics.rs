//! `metrics.jsonl`: one line per step and one per validation.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use simmer_files::write_file;
use simmer_kernels::Memory;

use crate::error::TrainError;

/// The file's name.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// The metrics of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Steps finished, including this one.
    pub step: u64,
    /// Passes over the training rows so far, with a fraction for the current one.
    pub epoch: f64,
    /// Mean loss over the step's labels, before the update (nats per token).
    pub loss: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// The lowest and the highest learning rate of the update, if tensors differ in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub learning_rates: Option<[f64; 2]>,
    /// Euclidean norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens that the model read in this step.
    pub tokens: u64,
    /// Labels: tokens that the loss was computed on.
    pub targets: u64,
    /// Duration of the step, in seconds.
    pub seconds: f64,
    /// Tokens read per second.
    pub tokens_per_second: f64,
    /// Peak memory of the process so far, in bytes; `None` if the system does not report it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak_memory: Option<u64>,
    /// When the step finished, in seconds since 1970.
    #[serde(default)]
    pub time: f64,
}

/// The metrics of a step without an update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkipMetrics {
    /// As [`StepMetrics::step`].
    pub step: u64,
    /// As [`StepMetrics::epoch`].
    pub epoch: f64,
    /// Why the update was skipped.
    pub skipped: String,
    /// The file with the step's rows, below the run's folder.
    pub rows: String,
    /// As [`StepMetrics::time`].
    #[serde(default)]
    pub time: f64,
}

/// The metrics of a validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationMetrics {
    /// Steps finished before the validation.
    pub step: u64,
    /// As [`StepMetrics::epoch`].
    pub epoch: f64,
    /// Mean loss over the labels of the validation examples, without dropout (nats per token).
    pub validation_loss: f64,
    /// Whether it is the lowest so far.
    pub best: bool,
    /// Labels: tokens that the loss was computed on.
    pub targets: u64,
    /// Duration, in seconds.
    pub seconds: f64,
    /// As [`StepMetrics::time`].
    #[serde(default)]
    pub time: f64,
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Metrics {
    /// A step.
    Step(StepMetrics),
    /// A step without an update.
    Skip(SkipMetrics),
    /// A validation.
    Validation(ValidationMetrics),
}

/// The metrics of a run so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The lines, in the file's order.
    pub lines: Vec<Metrics>,
    /// The numbers of lines that cannot be read, counted from 1.
    pub broken: Vec<usize>,
}

impl Metrics {
    /// Reads a line; its keys show of which kind it is.
    pub(crate) fn parse(line: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct LineKind {
            validation_loss: Option<IgnoredAny>,
            skipped: Option<IgnoredAny>,
        }
        match serde_json::from_str(line)? {
            LineKind {
                validation_loss: Some(_),
                ..
            } => serde_json::from_str(line).map(Self::Validation),
            LineKind {
                skipped: Some(_), ..
            } => serde_json::from_str(line).map(Self::Skip),
            LineKind { .. } => serde_json::from_str(line).map(Self::Step),
        }
    }
}

impl History {
    /// Reads the metrics in a run's folder, empty before its first step. The run may still be writing them, so a last line
    /// without a line break is ignored.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(METRICS_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(TrainError::io(&path, "read")(error)),
        };
        let mut history = Self::default();
        let lines = text.split_inclusive(|byte| *byte == b'\n').enumerate();
        for (index, line) in lines.filter(|(_, line)| line.ends_with(b"\n")) {
            let parsed = std::str::from_utf8(line).ok().map(Metrics::parse);
            match parsed {
                Some(Ok(metrics)) => history.lines.push(metrics),
                _ => history.broken.push(index + 1),
            }
        }
        Ok(history)
    }
}

/// The time in seconds since 1970, to a millisecond.
pub(crate) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_millis() as f64 / 1e3)
}

/// The losses of a run's last step and last validation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Losses {
    pub(crate) training: Option<f64>,
    pub(crate) validation: Option<f64>,
}

/// The open `metrics.jsonl`.
#[derive(Debug)]
pub(crate) struct MetricsFile {
    path: PathBuf,
    file: File,
    /// Steps that it has lines of, when it was opened.
    steps: u64,
}

/// The fields of a line that decide whether it is kept, and its losses.
#[derive(Deserialize)]
struct Line {
    step: u64,
    loss: Option<f64>,
    validation_loss: Option<f64>,
}

impl MetricsFile {
    /// Opens the file for lines after `step`. Lines that a killed run wrote after its last checkpoint are removed, and so
    /// is the validation after `step` unless `validated`: the checkpoint includes it. Damaged lines are removed, too.
    pub(crate) fn open(folder: &Path, step: u64, validated: bool) -> Result<Self, TrainError> {
        let path = folder.join(METRICS_FILE);
        let mut steps = 0;
        if path.exists() {
            let (kept, count) =
                kept_lines(&path, step, validated).map_err(TrainError::io(&path, "read"))?;
            steps = count;
            write_file(&path, |file| file.write_all(kept.as_bytes()))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(TrainError::io(&path, "open"))?;
        Ok(Self { path, file, steps })
    }

    /// What people should know if steps of a run that has made `step` steps are not in the file.
    pub(crate) fn notice(&self, step: u64) -> Option<String> {
        let missing = step
            .checked_sub(self.steps)
            .filter(|missing| *missing > 0)?;
        Some(format!(
            "{}: the lines of {missing} of {step} steps are missing or damaged; they are not in reports and trackers. The weights do not \
             depend on them",
            self.path.display()
        ))
    }

    /// Adds one line.
    pub(crate) fn write(&mut self, line: &Metrics) -> Result<(), TrainError> {
        let json = serde_json::to_string(line).map_err(io::Error::from);
        json.and_then(|json| self.file.write_all(format!("{json}\n").as_bytes()))
            .map_err(TrainError::io(&self.path, "write"))
    }

    /// The last losses up to `step`.
    pub(crate) fn losses(&self, step: u64) -> Result<Losses, TrainError> {
        let text =
            std::fs::read_to_string(&self.path).map_err(TrainError::io(&self.path, "read"))?;
        let mut losses = Losses::default();
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Line>(line) else {
                continue;
            };
            if line.step <= step {
                losses.training = line.loss.or(losses.training);
                losses.validation = line.validation_loss.or(losses.validation);
            }
        }
        Ok(losses)
    }

    /// Waits until all lines are on disk.
    pub(crate) fn sync(&self) -> Result<(), TrainError> {
        self.file
            .sync_data()
            .map_err(TrainError::io(&self.path, "write"))
    }
}

/// The lines up to `step`, and how many steps they are of.
fn kept_lines(path: &Path, step: u64, validated: bool) -> io::Result<(String, u64)> {
    let mut kept = String::new();
    let mut steps = 0;
    for line in std::fs::read(path)?.split(|byte| *byte == b'\n') {
        // A kill in the middle of a write leaves the last line incomplete.
        let (Ok(text), Ok(parsed)) = (str::from_utf8(line), serde_json::from_slice::<Line>(line))
        else {
            continue;
        };
        let is_kept = match parsed.validation_loss {
            None => parsed.step <= step,
            Some(_) => parsed.step < step || (parsed.step == step && validated),
        };
        if is_kept {
            steps += u64::from(parsed.validation_loss.is_none());
            kept.push_str(text);
            kept.push('\n');
        }
    }
    Ok((kept, steps))
}

/// Peak memory of this process, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    Memory::Main.peak()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_checkpoint_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS_FILE);
        let text = "{\"step\":1,\"loss\":2.0}\n{\"step\":2,\"loss\":1.5}\n\
                    {\"step\":2,\"validation_loss\":1.7}\n{\"step\":3,\"loss\":1.0}\n{\"step\":4,\"lo";
        let cut = |step, validated| {
            std::fs::write(&path, text).unwrap();
            drop(MetricsFile::open(folder.path(), step, validated).unwrap());
            std::fs::read_to_string(&path).unwrap().lines().count()
        };
        assert_eq!(cut(9, true), 4);
        assert_eq!(cut(2, true), 3);
        assert_eq!(cut(2, false), 2);
        assert_eq!(cut(0, false), 0);
    }

    #[test]
    fn damaged_lines_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS_FILE);
        let open = |text: &str| {
            std::fs::write(&path, text).unwrap();
            MetricsFile::open(folder.path(), 3, true).unwrap().notice(3)
        };
        let whole = "{\"step\":1,\"loss\":2.0}\n{\"step\":2,\"skipped\":\"NaN\"}\n\
                     {\"step\":2,\"validation_loss\":1.7}\n{\"step\":3,\"loss\":1.0}\n";
        assert_eq!(open(whole), None);
        assert_eq!(open(&format!("{whole}{{\"step\":4,\"lo")), None);
        let damaged = whole.replace("\"skipped\":", "\"skip");
        assert!(
            open(&damaged)
                .unwrap()
                .contains("the lines of 1 of 3 steps")
        );
        // those after it are kept
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .contains("\"step\":3")
        );
        assert!(open("").unwrap().contains("of 3 of 3 steps"));
    }

    #[test]
    fn the_last_losses_are_those_of_the_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS_FILE);
        let text = "{\"step\":1,\"loss\":2.0}\n{\"step\":1,\"validation_loss\":1.7}\n{\"step\":2,\"loss\":1.5}\n";
        std::fs::write(&path, text).unwrap();
        let file = MetricsFile::open(folder.path(), 2, false).unwrap();
        let losses = |step| {
            let found = file.losses(step).unwrap();
            (found.training, found.validation)
        };
        assert_eq!(losses(0), (None, None));
        assert_eq!(losses(1), (Some(2.0), Some(1.7)));
        assert_eq!(losses(2), (Some(1.5), Some(1.7)));
    }

    #[test]
    fn lines_read_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(History::read(folder.path()).unwrap(), History::default());
        let lines = [
            Metrics::Step(StepMetrics {
                step: 1,
                epoch: 0.5,
                loss: 2.25,
                learning_rate: 1e-4,
                learning_rates: None,
                grad_norm: 0.75,
                tokens: 40,
                targets: 12,
                seconds: 0.5,
                tokens_per_second: 80.0,
                peak_memory: None,
                time: 1_700_000_000.125,
            }),
            Metrics::Skip(SkipMetrics {
                step: 2,
                epoch: 1.0,
                skipped: "the loss is NaN".to_owned(),
                rows: "aside/step-000002.jsonl".to_owned(),
                time: 1_700_000_001.0,
            }),
            Metrics::Validation(ValidationMetrics {
                step: 2,
                epoch: 1.0,
                validation_loss: 2.5,
                best: true,
                targets: 9,
                seconds: 0.25,
                time: 1_700_000_002.5,
            }),
        ];
        let mut file = MetricsFile::open(folder.path(), 0, false).unwrap();
        for line in &lines {
            file.write(line).unwrap();
        }
        let history = History::read(folder.path()).unwrap();
        assert_eq!(
            (history.lines.as_slice(), history.broken),
            (&lines[..], vec![])
        );

        let path = folder.path().join(METRICS_FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"step\":3}\n\n\xff\n{\"step\":4,\"loss\":2");
        std::fs::write(&path, bytes).unwrap();
        let history = History::read(folder.path()).unwrap();
        assert_eq!((history.lines.len(), history.broken), (3, vec![4, 5, 6]));
    }
}
