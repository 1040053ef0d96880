//! A run sent to a server on the loopback interface that answers as MLflow does. `cargo xtask compare mlflow` sends the same
//! to MLflow itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::metrics::{METRICS_FILE, SkipMetrics, StepMetrics, ValidationMetrics};

/// What the server has.
#[derive(Default)]
struct Stored {
    experiments: Vec<String>,
    /// Status, parameters and metrics of each run, by its number.
    runs: Vec<StoredRun>,
    files: BTreeMap<String, String>,
    authorization: Option<String>,
    /// Requests that are answered with 503 before any other.
    failures: usize,
}

#[derive(Default)]
struct StoredRun {
    status: String,
    info: Value,
    params: BTreeMap<String, String>,
    /// Key, step, value, milliseconds.
    metrics: Vec<(String, u64, Value, u64)>,
}

/// A server, which lives as long as the tests.
struct Server {
    address: String,
    stored: Arc<Mutex<Stored>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stored = Arc::new(Mutex::new(Stored::default()));
        let of_thread = Arc::clone(&stored);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stored = Arc::clone(&of_thread);
                thread::spawn(move || while serve(stream.as_ref().unwrap(), &stored).is_some() {});
            }
        });
        Self { address, stored }
    }

    fn settings(&self, experiment: Experiment) -> Settings {
        let text = |name: &str| match name {
            "MLFLOW_TRACKING_URI" => Some(self.address.clone()),
            "MLFLOW_TRACKING_TOKEN" => Some("secret".to_owned()),
            _ => None,
        };
        Settings {
            experiment,
            ..settings::settings(text).unwrap()
        }
    }

    fn session(&self, run: &Path, running: bool) -> Session {
        let experiment = Experiment::Name("kitchen & co".to_owned());
        Session::new(run, self.settings(experiment), running)
    }
}

/// Answers one request of a connection.
fn serve(mut stream: &TcpStream, stored: &Mutex<Stored>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim().split_once(": ") else {
            break;
        };
        match key.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut stored = stored.lock().unwrap();
    stored.authorization = authorization;
    let target = first.split(' ').nth(1).unwrap();
    let (status, answer) = if stored.failures > 0 {
        stored.failures -= 1;
        (503, "<html>Service Unavailable</html>".to_owned())
    } else {
        match stored.answer(target, &String::from_utf8(body).unwrap()) {
            Ok(answer) => (200, answer.to_string()),
            Err((status, code)) => {
                let error = json!({"error_code": code, "message": format!("about {target}")});
                (status, error.to_string())
            }
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    stream.write_all((head + &answer).as_bytes()).ok()
}

impl Stored {
    fn run(&mut self, id: &Value) -> Result<&mut StoredRun, (u16, &'static str)> {
        let number = id
            .as_str()
            .and_then(|id| id.strip_prefix("run-")?.parse::<usize>().ok());
        let run = number.and_then(|number| self.runs.get_mut(number));
        run.ok_or((404, "RESOURCE_DOES_NOT_EXIST"))
    }

    fn answer(&mut self, target: &str, body: &str) -> Result<Value, (u16, &'static str)> {
        let parsed: Value = serde_json::from_str(body).unwrap_or_default();
        let call = target.trim_start_matches("/api/2.0/");
        match call.split_once('?').unwrap_or((call, "")) {
            ("mlflow/experiments/get-by-name", name) => {
                let id = self.experiments.iter().position(|known| *known == name);
                let id = id.ok_or((404, "RESOURCE_DOES_NOT_EXIST"))?;
                Ok(json!({"experiment": {"experiment_id": (id + 1).to_string()}}))
            }
            ("mlflow/experiments/create", _) => {
                let name = parsed["name"].as_str().unwrap();
                let name = simmer_checkpoint::web::encoded(name, "");
                self.experiments.push(format!("experiment_name={name}"));
                Ok(json!({"experiment_id": self.experiments.len().to_string()}))
            }
            ("mlflow/runs/create", _) => {
                let id = format!("run-{}", self.runs.len());
                self.runs.push(StoredRun {
                    status: "RUNNING".to_owned(),
                    info: parsed,
                    ..StoredRun::default()
                });
                let artifacts = format!("mlflow-artifacts:/1/{id}/artifacts");
                Ok(json!({"run": {"info": {"run_id": id, "artifact_uri": artifacts}}}))
            }
            ("mlflow/runs/get", query) => {
                let id = query.trim_start_matches("run_id=");
                let run = self.run(&json!(id))?;
                Ok(json!({"run": {"info": run.info}}))
            }
            ("mlflow/runs/update", _) => {
                let status = parsed["status"].as_str().unwrap().to_owned();
                self.run(&parsed["run_id"])?.status = status;
                Ok(json!({}))
            }
            ("mlflow/runs/log-batch", _) => {
                let list = |key: &str| parsed[key].as_array().cloned().unwrap_or_default();
                let (params, metrics) = (list("params"), list("metrics"));
                assert!(params.len() <= 100 && metrics.len() <= 1000);
                let run = self.run(&parsed["run_id"])?;
                for param in params {
                    let text = |key: &str| param[key].as_str().unwrap().to_owned();
                    let before = run.params.insert(text("key"), text("value"));
                    if before.is_some_and(|before| before != text("value")) {
                        return Err((400, "INVALID_PARAMETER_VALUE"));
                    }
                }
                run.metrics.extend(metrics.iter().map(|metric| {
                    let whole = |key: &str| metric[key].as_u64().unwrap();
                    let key = metric["key"].as_str().unwrap().to_owned();
                    (
                        key,
                        whole("step"),
                        metric["value"].clone(),
                        whole("timestamp"),
                    )
                }));
                Ok(json!({}))
            }
            (path, _) => {
                let file = path.strip_prefix("mlflow-artifacts/artifacts/").unwrap();
                self.files.insert(file.to_owned(), body.to_owned());
                Ok(json!({}))
            }
        }
    }
}

/// A run's folder with the lines of some steps.
fn run_folder() -> tempfile::TempDir {
    let run = tempfile::tempdir().unwrap();
    let recipe = "device = \"cpu\"\n[train]\nseed = 42\nlearning_rate = 1e-3\n";
    fs::write(run.path().join(RECIPE_FILE), recipe).unwrap();
    run
}

fn write(run: &Path, lines: &[Metrics]) {
    let lines = lines
        .iter()
        .map(|line| serde_json::to_string(line).unwrap() + "\n");
    fs::write(run.join(METRICS_FILE), lines.collect::<String>()).unwrap();
}

fn step(step: u64) -> Metrics {
    Metrics::Step(StepMetrics {
        step,
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
        time: 1_700_000_000.125 + step as f64,
    })
}

fn validation(step: u64) -> Metrics {
    Metrics::Validation(ValidationMetrics {
        step,
        epoch: 0.5,
        validation_loss: 2.5,
        best: true,
        targets: 9,
        seconds: 0.25,
        time: 1_700_000_009.0,
    })
}

/// The keys and steps that a run has.
fn points(stored: &StoredRun, key: &str) -> Vec<u64> {
    let of_key = stored.metrics.iter().filter(|(known, ..)| known == key);
    of_key.map(|(_, step, ..)| *step).collect()
}

#[test]
fn a_run_is_sent_while_it_goes_on() {
    let server = Server::start();
    let run = run_folder();
    let skip = Metrics::Skip(SkipMetrics {
        step: 2,
        epoch: 0.5,
        skipped: "the loss is NaN".to_owned(),
        rows: "aside/step-000002.jsonl".to_owned(),
        time: 1_700_000_002.0,
    });
    let mut lines = vec![step(1), skip];
    write(run.path(), &lines);
    let mut session = server.session(run.path(), true);
    session.advance().unwrap();
    let address = &server.address;
    let link = format!("MLflow: {address}/#/experiments/1/runs/run-0");
    assert_eq!(session.notices(), [link]);
    // more lines than one request takes
    lines.extend((3..=400).map(step));
    lines.push(validation(400));
    write(run.path(), &lines);
    session.advance().unwrap();
    fs::create_dir(run.path().join("adapter")).unwrap();
    fs::write(run.path().join("adapter/README.md"), "card").unwrap();
    session.remember(Ending::Finished).unwrap();
    session.close().unwrap();

    let stored = server.stored.lock().unwrap();
    assert_eq!(stored.authorization.as_deref(), Some("Bearer secret"));
    assert_eq!(stored.experiments, ["experiment_name=kitchen%20%26%20co"]);
    let [found] = &stored.runs[..] else {
        panic!("{} runs", stored.runs.len());
    };
    assert_eq!(found.status, "FINISHED");
    assert_eq!(found.info["start_time"], 1_700_000_000_625_u64);
    assert_eq!(found.params["train.learning_rate"], "0.001");
    assert_eq!(points(found, "train/loss").len(), 399);
    assert_eq!(points(found, "train/epoch").len(), 400);
    let (.., value, time) = &found.metrics[0];
    assert_eq!((value, *time), (&json!(2.25), 1_700_000_001_125));
    assert_eq!(points(found, "eval/loss"), [400]);
    let files: Vec<&String> = stored.files.keys().collect();
    assert_eq!(
        files,
        [
            "1/run-0/artifacts/adapter/README.md",
            "1/run-0/artifacts/recipe.toml"
        ]
    );
}

#[test]
fn a_resumed_run_stays_one_run_and_sends_only_what_is_new() {
    let server = Server::start();
    let run = run_folder();
    write(run.path(), &[step(1), step(2), step(3)]);
    let mut session = server.session(run.path(), true);
    session.advance().unwrap();
    session.remember(Ending::Interrupted).unwrap();
    session.close().unwrap();
    assert_eq!(server.stored.lock().unwrap().runs[0].status, "KILLED");
    // the last checkpoint was of step 2
    write(run.path(), &[step(1), step(2)]);
    let mut session = server.session(run.path(), true);
    session.advance().unwrap();
    assert_eq!(server.stored.lock().unwrap().runs[0].status, "RUNNING");
    write(run.path(), &[step(1), step(2), step(3), step(4)]);
    session.advance().unwrap();
    let stored = server.stored.lock().unwrap();
    assert_eq!(stored.runs.len(), 1);
    assert_eq!(points(&stored.runs[0], "train/loss"), [1, 2, 3, 3, 4]);
}

#[test]
fn what_could_not_be_sent_is_sent_later() {
    let server = Server::start();
    let run = run_folder();
    write(run.path(), &[step(1)]);
    let mut session = server.session(run.path(), true);
    session.advance().unwrap();
    server.stored.lock().unwrap().failures = usize::MAX;
    write(run.path(), &[step(1), step(2)]);
    let down = session.advance().unwrap_err();
    assert!(down.is_transient(), "{down}");
    assert!(
        down.to_string().ends_with("runs/log-batch: HTTP 503"),
        "{down}"
    );
    session.remember(Ending::Failed).unwrap();
    assert!(session.close().is_err());
    drop(session);

    server.stored.lock().unwrap().failures = 0;
    let mut session = server.session(run.path(), false);
    session.advance().unwrap();
    session.close().unwrap();
    // a second time there is nothing to send
    let mut session = server.session(run.path(), false);
    session.advance().unwrap();
    session.close().unwrap();
    let stored = server.stored.lock().unwrap();
    assert_eq!(stored.runs[0].status, "FAILED");
    assert_eq!(points(&stored.runs[0], "train/loss"), [1, 2]);
}

#[test]
fn a_run_that_the_server_lost_is_sent_again() {
    let server = Server::start();
    let run = run_folder();
    write(run.path(), &[step(1), step(2)]);
    server.session(run.path(), true).advance().unwrap();
    // the address stays, the database is a new one
    *server.stored.lock().unwrap() = Stored::default();
    let mut session = server.session(run.path(), true);
    session.advance().unwrap();
    assert!(session.notices()[0].contains("has no run run-0 any more"));
    let stored = server.stored.lock().unwrap();
    assert_eq!(points(&stored.runs[0], "train/loss"), [1, 2]);
}

#[test]
fn a_run_that_was_deleted_is_sent_again() {
    for running in [true, false] {
        let server = Server::start();
        let run = run_folder();
        write(run.path(), &[step(1), step(2)]);
        server.session(run.path(), true).advance().unwrap();
        // as MLflow keeps it until it is removed for good
        server.stored.lock().unwrap().runs[0].info["lifecycle_stage"] = json!("deleted");
        server.session(run.path(), running).advance().unwrap();
        let stored = server.stored.lock().unwrap();
        assert_eq!(stored.runs.len(), 2);
        assert_eq!(points(&stored.runs[1], "train/loss"), [1, 2]);
    }
}

#[test]
fn a_server_that_is_down_is_told_from_one_that_refuses() {
    let run = run_folder();
    let at = |address: &str, experiment: &str| {
        let address = address.to_owned();
        let variable = |name: &str| (name == "MLFLOW_TRACKING_URI").then(|| address.clone());
        let settings = Settings {
            experiment: Experiment::Id(experiment.to_owned()),
            ..settings::settings(variable).unwrap()
        };
        Session::new(run.path(), settings, true).advance()
    };
    // a port that nobody listens on: it was free a moment ago
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let down = at(&format!("http://{free}"), "0").unwrap_err();
    assert!(matches!(down, Unsent::Unreachable { .. }), "{down}");
    assert!(down.is_transient());
    // the run of an earlier start is of another server
    let server = Server::start();
    at(&server.address, "0").unwrap();
    assert_eq!(
        server.stored.lock().unwrap().runs[0].info["experiment_id"],
        "0"
    );
}

#[test]
fn numbers_that_json_lacks_are_words() {
    assert_eq!(number(0.5), json!(0.5));
    assert_eq!(number(f64::NAN), json!("NaN"));
    assert_eq!(number(f64::INFINITY), json!("Infinity"));
    assert_eq!(number(f64::NEG_INFINITY), json!("-Infinity"));
}
