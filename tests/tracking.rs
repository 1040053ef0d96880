//! Experiment trackers as a person meets them. `crates/train/src/tracking` tests what they are sent.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

/// Runs simmer on the quickstart's data, with MLflow at an address.
fn simmer(run: &Path, server: &str, words: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_simmer"))
        .args(words)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("MLFLOW_TRACKING_URI", server)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said.replace(&run.display().to_string(), "RUN"))
}

#[test]
fn a_tracker_that_is_down_ends_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let path = run.display().to_string();
    // a port that nobody listens on: it was free a moment ago
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let train = |server: &str| {
        let words = "train recipes/quickstart.toml --device cpu --set train.max_steps=2 --set train.compare_rows=0 \
                     --set train.batch_size=2 --set samples.max_new_tokens=1 --set train.track=[\"wandb\",\"mlflow\"] --out";
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        simmer(&run, server, &[&words[..], &[&path]].concat())
    };
    let (refused, said) = train("");
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("has no MLFLOW_TRACKING_URI"), "{said}");
    assert!(!run.exists());

    let (done, said) = train(&server);
    assert!(done.status.success(), "{said}");
    assert!(run.join("adapter/adapter_model.safetensors").exists());
    assert_eq!(said.matches("warning: MLflow: ").count(), 1, "{said}");
    assert!(
        said.contains("with: simmer track RUN --to mlflow\n"),
        "{said}"
    );
    assert!(
        said.contains("with: wandb sync RUN/wandb/offline-run-"),
        "{said}"
    );

    let (refused, said) = simmer(&run, &server, &["track", &path]);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("W&B: all of the run is in its files\n"),
        "{said}"
    );
    assert!(
        said.contains(&format!("error: {server} cannot be reached")),
        "{said}"
    );
    let folders = fs::read_dir(run.join("wandb")).unwrap();
    assert_eq!(folders.count(), 1, "the run keeps its ID");
}
