//! Event files for TensorBoard, with the scalars of `metrics.jsonl`.
//!
//! A file is a sequence of records (`length, crc(length), data, crc(data)`); the data of each is a protocol buffers message
//! `Event`. The file is rewritten from the metrics whenever a run starts or resumes, so no step is in it twice.
//!
//! Source: TensorFlow, `core/lib/io/record_writer.h`, `core/util/event.proto`, `core/framework/summary.proto`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use simmer_files::write_file;

use super::Tracker;
use super::protobuf::{bytes, double, float, whole};
use super::scalars::{scalars, time_and_step};
use crate::error::TrainError;
use crate::metrics::{History, Metrics, now};

/// Its name, for people.
pub(super) const NAME: &str = "TensorBoard";
/// The folder of the events, in a run's folder.
pub(crate) const FOLDER: &str = "tensorboard";
/// The prefix of the names of event files.
const PREFIX: &str = "events.out.tfevents.";
/// The suffix of the names of simmer's event files; those of other programs end with the machine's name.
const SUFFIX: &str = ".simmer";

/// An open event file.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Writes the metrics so far into a new file, which replaces those of the run's earlier starts. The last of those
    /// stays as an empty file: a TensorBoard that is watching it then moves on to the new one, but not if it is gone.
    pub(super) fn begin(run: &Path) -> Result<Self, TrainError> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(TrainError::io(&folder, "create"))?;
        let time = now();
        let earlier = earlier(&folder)?;
        // Readers take files in the order of their names.
        let number = earlier.last().map_or(0, |last| last + 1).max(time as u64);
        let path = folder.join(name(number));
        let history = History::read(run)?;
        let records = history.lines.iter().flat_map(|line| record(&event(line)));
        let bytes: Vec<u8> = preamble(time).into_iter().chain(records).collect();
        write_file(&path, |file| file.write_all(&bytes))?;
        for (place, number) in earlier.iter().rev().enumerate() {
            let old = folder.join(name(*number));
            if place == 0 {
                File::create(&old).map_err(TrainError::io(&old, "empty"))?;
            } else {
                fs::remove_file(&old).map_err(TrainError::io(&old, "remove"))?;
            }
        }
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(TrainError::io(&path, "open"))?;
        Ok(Self { path, file })
    }
}

impl Tracker for EventFile {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Adds a line of the metrics.
    fn record(&mut self, line: &Metrics) -> Result<(), TrainError> {
        let written = self.file.write_all(&record(&event(line)));
        written.map_err(TrainError::io(&self.path, "write"))
    }
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number:010}{SUFFIX}")
}

/// The numbers in the names of the files of earlier starts, ascending; files of other programs are ignored. Removes
/// the temporary files of a killed process.
fn earlier(folder: &Path) -> Result<Vec<u64>, TrainError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(TrainError::io(folder, "read"))? {
        let path = entry.map_err(TrainError::io(folder, "read"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name.strip_prefix(PREFIX);
        let number = number.and_then(|rest| rest.strip_suffix(SUFFIX)?.parse::<u64>().ok());
        numbers.extend(number);
        if name.starts_with(&format!(".{PREFIX}")) && name.contains(".tmp-") {
            fs::remove_file(&path).map_err(TrainError::io(&path, "remove"))?;
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The first two records: the format's version, and a session start, at which a reader that was watching an earlier file
/// of this run drops what it had read.
fn preamble(time: f64) -> Vec<u8> {
    let mut version = head(time, 0);
    bytes(&mut version, 3, b"brain.Event:2");
    let mut start = head(time, 0);
    // SessionLog { status: START }
    bytes(&mut start, 7, &[1 << 3, 1]);
    [record(&version), record(&start)].concat()
}

/// `Event { wall_time, step, summary { value { tag, simple_value } ... } }`.
fn event(line: &Metrics) -> Vec<u8> {
    let (time, step) = time_and_step(line);
    let mut summary = Vec::new();
    for (tag, number) in scalars(line) {
        let mut value = Vec::new();
        bytes(&mut value, 1, tag.as_bytes());
        float(&mut value, 2, number as f32);
        bytes(&mut summary, 1, &value);
    }
    let mut event = head(time, step);
    bytes(&mut event, 5, &summary);
    event
}

/// The fields at the start of every event.
fn head(time: f64, step: u64) -> Vec<u8> {
    let mut head = Vec::new();
    double(&mut head, 1, time);
    whole(&mut head, 2, step);
    head
}

/// A record: length and data, each with its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// The checksum of a record: a CRC, rotated and offset, because CRCs of data that itself contains CRCs are weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C, Castagnoli's polynomial.
///
/// Source: RFC 3720, appendix B.4.
fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let bit = |crc: u32, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
    !data
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{METRICS_FILE, SkipMetrics, StepMetrics, ValidationMetrics};

    /// The lines that tests/reference/tensorboard_events.py writes with the package tensorboard.
    fn lines() -> Vec<Metrics> {
        let step = |step: u64, peak_memory| {
            Metrics::Step(StepMetrics {
                step,
                epoch: 0.25,
                loss: 2.5,
                learning_rate: 1e-4,
                learning_rates: None,
                grad_norm: 0.75,
                tokens: 40,
                targets: 12,
                seconds: 0.5,
                tokens_per_second: 80.0,
                peak_memory,
                time: 1_700_000_000.125,
            })
        };
        let skip = SkipMetrics {
            step: 200,
            epoch: 0.5,
            skipped: "the loss is NaN".to_owned(),
            rows: "aside/step-000200.jsonl".to_owned(),
            time: 1_700_000_001.0,
        };
        let validation = ValidationMetrics {
            step: 70_000,
            epoch: 1.0,
            validation_loss: 0.0,
            best: true,
            targets: 9,
            seconds: 0.25,
            time: 0.0,
        };
        vec![
            step(1, None),
            step(127, Some(3 << 30)),
            Metrics::Skip(skip),
            Metrics::Validation(validation),
        ]
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn events_are_those_of_the_tensorboard_package() {
        let golden = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/goldens/tensorboard/events"
        );
        let expected = fs::read(golden).unwrap();
        let records = lines()
            .iter()
            .map(|line| record(&event(line)))
            .collect::<Vec<_>>();
        let found = [vec![preamble(1_700_000_000.0)], records].concat().concat();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_start_writes_the_metrics_so_far_and_leaves_other_files_alone() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        let names = [
            ".events.out.tfevents.0000000003.simmer.tmp-x",
            "events.out.tfevents.0000000001.simmer",
            "events.out.tfevents.0000000002.simmer",
            "events.out.tfevents.0000000002.host",
            "notes.txt",
        ];
        for name in names {
            fs::write(folder.join(name), "x").unwrap();
        }
        let text: Vec<String> = lines()
            .iter()
            .map(|line| serde_json::to_string(line).unwrap())
            .collect();
        fs::write(run.path().join(METRICS_FILE), text.join("\n") + "\n").unwrap();
        let mut events = EventFile::begin(run.path()).unwrap();
        events.record(&lines()[0]).unwrap();
        let path = events.path.clone();
        let mut files: Vec<(String, u64)> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    entry.metadata().unwrap().len(),
                )
            })
            .collect();
        files.sort();
        let own = files.remove(2).0;
        assert_eq!(own, path.file_name().unwrap().to_string_lossy());
        let others = [
            ("events.out.tfevents.0000000002.host".to_owned(), 1),
            ("events.out.tfevents.0000000002.simmer".to_owned(), 0),
            ("notes.txt".to_owned(), 1),
        ];
        assert_eq!(files, others);
        let written = fs::read(&path).unwrap();
        let all = [lines(), vec![lines()[0].clone()]].concat();
        let all: Vec<u8> = all.iter().flat_map(|line| record(&event(line))).collect();
        assert!(written.ends_with(&all), "{} bytes", written.len());
        assert_eq!(written.len(), all.len() + preamble(1.5).len());

        // a start within the same second has a later name
        let next = EventFile::begin(run.path()).unwrap();
        assert!(next.path > path, "{}", next.path.display());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }
}
