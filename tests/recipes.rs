//! Every shipped recipe takes two steps on a tiny model, with rows of the layout that it was written for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use simmer_data::{Format, SourceConfig};
use simmer_model::adapter::AdapterConfig;
use simmer_train::{Method, Outcome, Recipe, Resume, Silent, train};

use crate::golden;

/// Where a source's rows are taken from instead.
fn rows(source: &SourceConfig) -> PathBuf {
    let name = match source.template.as_str() {
        _ if source.format == Some(Format::Sharegpt) => "sharegpt",
        "baize" => "baize",
        "gpt4all" => "prompt_response",
        "completion" => "text",
        _ => "alpaca",
    };
    golden::folder("rows").join(name).with_extension("jsonl")
}

/// A tiny model like the one that a recipe names.
fn model(recipe: &Recipe) -> PathBuf {
    let named = recipe.base.path.clone().unwrap_or_default();
    let named = named.to_string_lossy();
    let mut sources = recipe.data.train.iter();
    let is_chat = sources.any(|source| source.template == "chat");
    golden::folder(if named.contains("Llama-3") {
        "llama3-rope"
    } else if is_chat || named.contains("SmolLM2") {
        "tied-gqa"
    } else {
        "untied-mha"
    })
}

/// The recipe, on what is here.
fn small(path: &Path) -> Recipe {
    let whole = Recipe::from_file(path, &[]).unwrap();
    let base = model(&whole);
    let mut sets = vec![
        "train.batch_size=3".to_owned(),
        "train.max_steps=2".to_owned(),
        "train.checkpoint_every=\"never\"".to_owned(),
        "train.validate_every=\"never\"".to_owned(),
        "data.max_tokens=256".to_owned(),
    ];
    sets.push(match whole.base.init {
        None => format!("base.path={}", base.display()),
        Some(_) => format!("base.tokenizer={}", base.display()),
    });
    if matches!(whole.method, Method::AdaptionPrompt(_)) {
        sets.push("method.adaption_prompt.adapter_layers=2".to_owned());
    }
    if whole.data.validation.is_some() {
        sets.push("data.validation.rows=2".to_owned());
    }
    for (number, source) in whole.data.train.iter().enumerate() {
        let rows = rows(source);
        sets.push(format!("data.train.{number}.path={}", rows.display()));
    }
    let mut recipe = Recipe::from_file(path, &sets).unwrap();
    recipe.samples = None;
    recipe
}

#[test]
fn every_recipe_takes_two_steps() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let runs = tempfile::tempdir().unwrap();
    let mut trained = 0;
    for entry in fs::read_dir(recipes).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let out = runs.path().join(&name);
        let recipe = small(&path);
        let done = train(
            &recipe,
            &out,
            Resume::Never,
            &mut Silent,
            &AtomicBool::new(false),
        );
        let done = done.unwrap_or_else(|error| panic!("{name}: {error}"));
        let Outcome::Finished { weights, step, .. } = done else {
            panic!("{name} was interrupted");
        };
        assert_eq!(step, 2, "{name}");
        match recipe.method.adapter() {
            None => assert!(weights.join("model.safetensors").is_file(), "{name}"),
            Some(table) => {
                let config = AdapterConfig::read(&weights.join("adapter_config.json"));
                let config = config.unwrap().0;
                assert_eq!(config.kind, table.kind(), "{name}");
                assert!(table.rank().is_none_or(|rank| rank == config.r), "{name}");
            }
        }
        trained += 1;
    }
    assert!(trained > 20);
}
