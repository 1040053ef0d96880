//! The functions of the fuzz targets and of `tests/corpus.rs` for adapters, recipes, tasks and answers, whose crates need
//! Burn.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use simmer_eval::{Answers, Asking, Task};
use simmer_model::adapter::AdapterConfig;
use simmer_train::Recipe;

use super::files::file;

/// The configuration of an adapter.
pub(super) fn adapter_config(bytes: &[u8]) {
    let path = file("adapter/adapter_config.json", bytes);
    if let Ok((config, _)) = AdapterConfig::read(&path) {
        let _ = config.check();
        let written = serde_json::from_str(&config.to_json()).unwrap();
        assert!(AdapterConfig::from_json(written, &path).is_ok());
    }
}

/// A recipe.
pub(super) fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(recipe) = Recipe::parse(Path::new("x.toml"), text, &[]) {
        let resolved = recipe.resolved();
        let again = Recipe::parse(Path::new("x.toml"), &resolved, &[]).unwrap();
        assert_eq!(again.resolved(), resolved);
    }
}

/// An evaluation task, over two rows.
pub(super) fn task(bytes: &[u8]) {
    let rows = file(
        "task/x.jsonl",
        b"{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": 1}\n{\"question\": \"\"}\n",
    );
    let path = file("task/t.toml", bytes);
    if let Ok(task) = Task::named(path.to_str().unwrap()) {
        let _ = task.questions(rows.parent().unwrap(), 9);
    }
}

/// The answers of an evaluation.
pub(super) fn answers(bytes: &[u8]) {
    let asking = Asking {
        model: "m".to_owned(),
        task: "t".to_owned(),
        sha256: BTreeMap::new(),
    };
    let mut content = serde_json::to_vec(&asking).unwrap();
    content.push(b'\n');
    content.extend(bytes);
    let path = file("answers/a.jsonl", &content);
    let _ = Answers::open(&path, &asking);
    let _ = fs::remove_file(path);
}
