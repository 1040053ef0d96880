//! The records of W&B's file: protocol buffers with the run, its metrics and its end.
//!
//! Source: wandb 0.31, `wandb/proto/wandb_internal.proto` (MIT): `Record` and the messages in it.

use serde_json::Value;

use crate::tracking::protobuf::{bytes, whole};

/// What a run is for W&B.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) id: String,
    pub(super) name: String,
    /// Empty for W&B's default.
    pub(super) entity: String,
    /// Empty for W&B's default.
    pub(super) project: String,
    /// When it began, in seconds since 1970.
    pub(super) begun: f64,
    /// The configuration: names of tables and their values.
    pub(super) config: Vec<(String, Value)>,
}

/// Writes records in order, each with its number.
#[derive(Debug)]
pub(super) struct Records {
    id: String,
    number: u64,
}

impl Records {
    pub(super) fn of(id: &str) -> Self {
        let id = id.to_owned();
        Self { id, number: 0 }
    }

    /// `Record { num, FIELD: message, _info { stream_id } }`.
    fn record(&mut self, field: u64, message: &[u8]) -> Vec<u8> {
        self.number += 1;
        let mut info = Vec::new();
        bytes(&mut info, 1, self.id.as_bytes());
        let mut record = Vec::new();
        whole(&mut record, 1, self.number);
        bytes(&mut record, field, message);
        bytes(&mut record, 200, &info);
        record
    }

    /// `HeaderRecord { version_info { producer, min_consumer } }`: which library wrote the file, and which reads it.
    pub(super) fn header(&mut self) -> Vec<u8> {
        let mut version = Vec::new();
        bytes(&mut version, 1, PRODUCER.as_bytes());
        bytes(&mut version, 2, MIN_CONSUMER.as_bytes());
        let mut header = Vec::new();
        bytes(&mut header, 1, &version);
        self.record(21, &header)
    }

    /// `RunRecord { run_id, entity, project, config, display_name, start_time }`.
    pub(super) fn run(&mut self, about: &About) -> Vec<u8> {
        let mut config = Vec::new();
        for (key, value) in &about.config {
            let mut item = Vec::new();
            bytes(&mut item, 1, key.as_bytes());
            bytes(&mut item, 16, value.to_string().as_bytes());
            bytes(&mut config, 1, &item);
        }
        let mut time = Vec::new();
        whole(&mut time, 1, about.begun as u64);
        whole(&mut time, 2, (about.begun.fract() * 1e9) as u64);
        let mut run = Vec::new();
        let texts = [(1, &about.id), (2, &about.entity), (3, &about.project)];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            bytes(&mut run, field, text.as_bytes());
        }
        bytes(&mut run, 4, &config);
        bytes(&mut run, 8, about.name.as_bytes());
        bytes(&mut run, 17, &time);
        self.record(17, &run)
    }

    /// Two `MetricRecord`s: charts are drawn over the training steps, as of Hugging Face's Trainer.
    pub(super) fn axis(&mut self, step: &str) -> [Vec<u8>; 2] {
        let mut defined = Vec::new();
        whole(&mut defined, 3, 1);
        let mut axis = Vec::new();
        bytes(&mut axis, 1, step.as_bytes());
        bytes(&mut axis, 6, &defined);
        let mut synced = Vec::new();
        whole(&mut synced, 1, 1);
        whole(&mut synced, 3, 1);
        let mut others = Vec::new();
        bytes(&mut others, 2, b"*");
        bytes(&mut others, 4, step.as_bytes());
        bytes(&mut others, 6, &synced);
        [self.record(12, &axis), self.record(12, &others)]
    }

    /// `SummaryRecord { update ... }`: the last value of each metric.
    pub(super) fn summary(&mut self, values: &[(&str, Value)]) -> Vec<u8> {
        let mut summary = Vec::new();
        for value in values {
            bytes(&mut summary, 1, &item(value));
        }
        self.record(3, &summary)
    }

    /// `HistoryRecord { item ..., step { num } }`: values at a place of the history.
    pub(super) fn history(&mut self, values: &[(&str, Value)], place: u64) -> Vec<u8> {
        let mut step = Vec::new();
        whole(&mut step, 1, place);
        let mut history = Vec::new();
        for value in values {
            bytes(&mut history, 1, &item(value));
        }
        bytes(&mut history, 2, &step);
        self.record(2, &history)
    }

    /// `RunExitRecord { exit_code, runtime }`: 0 is a finished run.
    pub(super) fn exit(&mut self, code: u64, seconds: f64) -> Vec<u8> {
        let mut exit = Vec::new();
        whole(&mut exit, 1, code);
        whole(&mut exit, 2, seconds.max(0.0) as u64);
        self.record(18, &exit)
    }
}

/// `HistoryItem` or `SummaryItem { nested_key, value_json }`: both have the same fields.
fn item((key, value): &(&str, Value)) -> Vec<u8> {
    let mut item = Vec::new();
    bytes(&mut item, 2, key.as_bytes());
    bytes(&mut item, 16, value.to_string().as_bytes());
    item
}

/// The version of wandb whose records these are, and the oldest that reads them, as its own files say.
const PRODUCER: &str = "0.31.0";
const MIN_CONSUMER: &str = "0.70.0";
