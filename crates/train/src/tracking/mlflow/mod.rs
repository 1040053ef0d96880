//! Runs on an MLflow server: metrics while the run goes on, the recipe as parameters, small files, and how the run ended.

mod client;
mod kept;
mod params;
mod settings;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::client::Client;
use self::kept::Kept;
use self::settings::{Experiment, Settings};
use super::follower::{Follower, Pace, Service};
use super::lines::Lines;
use super::scalars::{begun, number, scalars, time_and_step};
use super::{Ending, Unsent, kept as kept_files};
use crate::error::TrainError;
use crate::folder::RECIPE_FILE;
use crate::manifest::{MANIFEST_FILE, Manifest};
use crate::metrics::{History, Metrics, now};
use crate::program;
use simmer_recipe::Problem;

/// Its name, for people.
pub(super) const NAME: &str = "MLflow";

/// Lines in a request: MLflow takes at most 1000 metrics, and a line has up to six.
const LINES: usize = 150;
/// Parameters in a request.
///
/// Source: MLflow's REST API, Log Batch.
const PARAMS: usize = 100;

/// Files of the run that are sent when it begins, and when it is finished.
const FIRST_FILES: [&str; 2] = [RECIPE_FILE, MANIFEST_FILE];
const LAST_FILES: [&str; 2] = ["adapter/README.md", "adapter/adapter_config.json"];

/// Checks that the environment names a server.
pub(super) fn check() -> Result<(), Problem> {
    from_environment().map(drop)
}

fn from_environment() -> Result<Settings, Problem> {
    settings::settings(|name| std::env::var(name).ok())
}

/// Sends the run in a folder while it goes on.
pub(super) fn follow(run: &Path) -> Result<Follower, TrainError> {
    let session = Session::new(run, from_environment()?, true);
    let later = later(run);
    Follower::start(NAME, session, later, Pace::default())
        .map_err(TrainError::io(run, "start a thread for"))
}

/// Sends what the server does not have of a run that has ended.
pub(super) fn send(run: &Path, notify: &mut dyn FnMut(&str)) -> Result<(), TrainError> {
    let mut session = Session::new(run, from_environment()?, false);
    let sent = session.advance().and_then(|()| session.close());
    for notice in session.notices() {
        notify(&notice);
    }
    Ok(sent?)
}

/// The command that sends what is left.
fn later(run: &Path) -> String {
    format!("simmer track {} --to mlflow", run.display())
}

/// What is sent of one run.
struct Session {
    run: PathBuf,
    client: Client,
    experiment: Experiment,
    kept: Kept,
    /// Where the lines begin that the server does not have; `None` before the first request.
    lines: Option<Lines>,
    /// Whether the run goes on meanwhile.
    running: bool,
    notices: Vec<String>,
}

impl Session {
    fn new(run: &Path, settings: Settings, running: bool) -> Self {
        let kept = Kept::read(run).filter(|kept| kept.tracking_uri == settings.address);
        let mut kept = kept.unwrap_or_else(|| Kept {
            tracking_uri: settings.address.clone(),
            ..Kept::default()
        });
        if running {
            kept.ending = None;
            kept.closed = false;
        } else if kept.ending.is_none() {
            // the process was killed
            kept.ending = Some(kept_files::ending(run));
        }
        Self {
            run: run.to_owned(),
            client: Client::new(&settings),
            experiment: settings.experiment,
            kept,
            lines: None,
            running,
            notices: Vec::new(),
        }
    }

    /// Finds the run on the server, or creates it.
    fn open(&mut self) -> Result<(), Unsent> {
        let known = !self.kept.run_id.is_empty() && self.reopen()?;
        if !known {
            self.create()?;
        }
        self.lines = Some(Lines::after(&self.run, self.kept.lines)?);
        // fewer, if the run resumes from an earlier step
        self.kept.lines = self.lines.as_ref().map_or(0, |lines| lines.number);
        self.kept.write(&self.run)?;
        let notice = format!(
            "{NAME}: {}/#/experiments/{}/runs/{}",
            self.client.address(),
            self.kept.experiment_id,
            self.kept.run_id
        );
        self.notices.push(notice);
        Ok(())
    }

    /// Continues the run of an earlier start; false if the server does not have it any more.
    fn reopen(&mut self) -> Result<bool, Unsent> {
        let id = &self.kept.run_id;
        let is_there = match self.client.get("runs/get", "run_id", id) {
            Ok(answer) => answer["run"]["info"]["lifecycle_stage"] != "deleted",
            Err(error) if error.is_missing() => false,
            Err(error) => return Err(error),
        };
        if is_there {
            if self.running {
                let body = json!({"run_id": id, "status": "RUNNING"});
                self.client.post("runs/update", &body)?;
            }
            return Ok(true);
        }
        let notice = format!("{NAME}: the server has no run {id} any more; a new one is created");
        self.notices.push(notice);
        self.kept = Kept {
            tracking_uri: self.kept.tracking_uri.clone(),
            ending: self.kept.ending,
            ..Kept::default()
        };
        Ok(false)
    }

    fn create(&mut self) -> Result<(), Unsent> {
        let experiment = self.experiment()?;
        let name = self.run.canonicalize().unwrap_or_else(|_| self.run.clone());
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        let tag = |key: &str, value: String| json!({"key": key, "value": value});
        let mut tags = vec![
            tag("mlflow.source.name", "simmer".to_owned()),
            tag("mlflow.source.type", "LOCAL".to_owned()),
            tag("simmer.folder", self.run.display().to_string()),
        ];
        if let Ok(user) = std::env::var("USER") {
            tags.push(tag("mlflow.user", user));
        }
        if let Ok(manifest) = Manifest::read(&self.run) {
            let version = program::version_and_commit(&manifest.simmer, &manifest.commit, "");
            tags.push(tag("simmer.version", version));
            tags.push(tag("simmer.device", manifest.device));
            tags.push(tag("simmer.system", manifest.system));
        }
        let body = json!({
            "experiment_id": experiment,
            "run_name": name,
            "start_time": milliseconds(begun(&History::read(&self.run)?)),
            "tags": tags,
        });
        let answer = self.client.post("runs/create", &body)?;
        let info = |key: &str| {
            let text = answer["run"]["info"][key].as_str();
            text.map(str::to_owned).unwrap_or_default()
        };
        if info("run_id").is_empty() {
            return Err(Unsent::Answer {
                url: self.client.address().to_owned(),
                problem: "the answer to runs/create has no run_id".to_owned(),
            });
        }
        self.kept.experiment_id = experiment;
        self.kept.run_id = info("run_id");
        self.kept.artifact_uri = info("artifact_uri");
        Ok(())
    }

    /// The experiment's ID; an experiment that does not exist is created.
    fn experiment(&self) -> Result<String, Unsent> {
        let name = match &self.experiment {
            Experiment::Id(id) => return Ok(id.clone()),
            Experiment::Name(name) => name,
        };
        let id = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_default();
        let find = || {
            let found = self
                .client
                .get("experiments/get-by-name", "experiment_name", name)?;
            Ok(id(&found["experiment"]["experiment_id"]))
        };
        match find() {
            Err(error @ Unsent::Status { .. }) if error.is_missing() => {}
            found => return found,
        }
        match self
            .client
            .post("experiments/create", &json!({"name": name}))
        {
            Ok(created) => Ok(id(&created["experiment_id"])),
            // another run has just created it
            Err(Unsent::Status {
                code: Some(code), ..
            }) if code == "RESOURCE_ALREADY_EXISTS" => find(),
            Err(error) => Err(error),
        }
    }

    /// Sends the recipe, as parameters and as a file.
    fn describe(&mut self) -> Result<(), Unsent> {
        let path = self.run.join(RECIPE_FILE);
        let recipe = fs::read_to_string(&path).map_err(TrainError::io(&path, "read"))?;
        let params = params::params(&recipe.parse().unwrap_or_default());
        for params in params.chunks(PARAMS) {
            let params: Vec<Value> = params
                .iter()
                .map(|(key, value)| json!({"key": key, "value": value}))
                .collect();
            let body = json!({"run_id": self.kept.run_id, "params": params});
            self.client.post("runs/log-batch", &body)?;
        }
        self.upload(&FIRST_FILES)?;
        self.kept.described = true;
        Ok(self.kept.write(&self.run)?)
    }

    /// Sends files of the run that exist.
    fn upload(&mut self, names: &[&str]) -> Result<(), Unsent> {
        for name in names {
            let Ok(text) = fs::read_to_string(self.run.join(name)) else {
                continue;
            };
            let artifacts = &self.kept.artifact_uri;
            if !self.client.upload(artifacts, name, &text)? {
                let notice = format!(
                    "{NAME}: the server takes no files for {artifacts}; metrics and parameters are sent, {} are not",
                    names.join(" and ")
                );
                self.notices.push(notice);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends the lines of metrics that are new.
    fn log(&mut self) -> Result<(), Unsent> {
        while let Some(lines) = &mut self.lines {
            let next = lines.next(LINES)?;
            if next.is_empty(lines) {
                break;
            }
            let metrics: Vec<Value> = next.lines.iter().flat_map(metrics).collect();
            if !metrics.is_empty() {
                let body = json!({"run_id": self.kept.run_id, "metrics": metrics});
                self.client.post("runs/log-batch", &body)?;
            }
            lines.advance(&next);
            self.kept.lines = lines.number;
            self.kept.write(&self.run)?;
        }
        Ok(())
    }
}

impl Service for Session {
    fn advance(&mut self) -> Result<(), Unsent> {
        if self.lines.is_none() {
            self.open()?;
        }
        if !self.kept.described {
            self.describe()?;
        }
        self.log()
    }

    fn remember(&mut self, ending: Ending) -> Result<(), Unsent> {
        self.kept.ending = Some(ending);
        Ok(self.kept.write(&self.run)?)
    }

    fn close(&mut self) -> Result<(), Unsent> {
        if self.kept.closed {
            return Ok(());
        }
        let status = match self.kept.ending {
            Some(Ending::Finished) => "FINISHED",
            Some(Ending::Failed) => "FAILED",
            Some(Ending::Interrupted) | None => "KILLED",
        };
        if self.kept.ending == Some(Ending::Finished) {
            self.upload(&LAST_FILES)?;
        }
        let mut time = now();
        if !self.running {
            let last = History::read(&self.run)?.lines.last().map(time_and_step);
            time = last.map_or(time, |(time, _)| time);
        }
        let body = json!({
            "run_id": self.kept.run_id,
            "status": status,
            "end_time": milliseconds(time),
        });
        self.client.post("runs/update", &body)?;
        self.kept.closed = true;
        Ok(self.kept.write(&self.run)?)
    }

    fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }
}

/// The metrics of a line.
fn metrics(line: &Metrics) -> Vec<Value> {
    let (time, step) = time_and_step(line);
    let metric = |(key, value): (&str, f64)| json!({"key": key, "value": number(value), "timestamp": milliseconds(time), "step": step});
    scalars(line).into_iter().map(metric).collect()
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3).round() as u64
}
