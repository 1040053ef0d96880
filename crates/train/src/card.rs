//! The training section in the README of an adapter.
//!
//! It depends only on the recipe, the files that it reads, the program and the machine: it has no times and no number of
//! threads, and a resumed run writes the same text as one without interruption.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use simmer_data::{DataError, Template, Tokenizer, Validation};
use simmer_files::size::counted;
use simmer_model::adapter::{Card, PromptTemplate, QuantisedBase};

use crate::config::{TrainConfig, Weights};
use crate::error::TrainError;
use crate::manifest::{Fingerprint, Manifest};
use crate::metrics::Losses;
use crate::optimizer::OptimizerConfig;
use crate::recipe::{Method, Recipe};
use crate::schedule::Schedule;
use crate::training_state::TrainingState;

/// The most files of one kind that are listed; the hashes of all of them are in the manifest.
const LISTED: usize = 20;

/// The prompt templates of the training rows, each once, in the order of the recipe.
///
/// # Errors
/// A template that cannot be used.
pub(crate) fn templates(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
) -> Result<Vec<PromptTemplate>, TrainError> {
    let mut templates: Vec<PromptTemplate> = Vec::new();
    for source in &recipe.data.train {
        if templates.iter().any(|known| known.name == source.template) {
            continue;
        }
        let template = Template::named(&source.template, tokenizer).map_err(DataError::from)?;
        templates.push(PromptTemplate {
            name: source.template.clone(),
            text: template.source().to_owned(),
        });
    }
    Ok(templates)
}

/// The card of an adapter after the steps of `state`.
pub(crate) fn card(
    recipe: &Recipe,
    templates: &[PromptTemplate],
    base: Option<QuantisedBase>,
    manifest: &Manifest,
    state: &TrainingState,
    losses: Losses,
) -> Card {
    let datasets = recipe.data.sources().filter_map(|source| {
        let name = source.path.to_str()?.strip_prefix("hf://")?;
        let name = name.strip_prefix("datasets/").unwrap_or(name);
        let name: Vec<&str> = name.split('/').take(2).collect();
        Some(name.join("/"))
    });
    let mut datasets: Vec<String> = datasets.collect();
    datasets.dedup();
    Card {
        is_combined: false,
        datasets,
        templates: templates.to_vec(),
        base,
        vocab_size: None,
        converted: None,
        training: training(recipe, manifest, state, losses),
    }
}

fn training(recipe: &Recipe, manifest: &Manifest, state: &TrainingState, losses: Losses) -> String {
    let mut text = "## Training\n\n| | |\n|---|---|\n".to_owned();
    for (name, value) in facts(recipe, manifest, state, losses) {
        let _ = writeln!(text, "| {name} | {} |", cell(&value));
    }
    text += "\nThe run's folder has the whole recipe in `recipe.toml` and all hashes in `manifest.json`.\n";
    text += "\n### Files (SHA-256)\n\n| file | bytes | hash |\n|---|---|---|\n";
    for (what, files) in [
        ("base model", &manifest.base),
        ("tokenizer", &manifest.tokenizer),
        ("started from", &manifest.adapter),
    ] {
        list(&mut text, what, files);
    }
    let data: BTreeMap<String, Fingerprint> = manifest
        .data
        .iter()
        .map(|file| (file.path.clone(), file.fingerprint.clone()))
        .collect();
    list(&mut text, "data", &data);
    let _ = writeln!(text, "| recipe.toml | | {} |", manifest.recipe);
    let _ = writeln!(
        text,
        "| tokens of the training examples | | {} |",
        manifest.examples
    );
    text
}

fn facts(
    recipe: &Recipe,
    manifest: &Manifest,
    state: &TrainingState,
    losses: Losses,
) -> Vec<(&'static str, String)> {
    let TrainConfig {
        batch_size,
        learning_rate,
        schedule,
        optimizer,
        seed,
        weights,
        ..
    } = &recipe.train;
    let base = recipe
        .base
        .path
        .as_deref()
        .map(|path| match recipe.base.on_hub() {
            Some(name) => format!("`{name}`"),
            None => format!("`{}`", path.display()),
        });
    let base = base.unwrap_or_else(|| "random weights".to_owned());
    let base = match recipe.base.quantised_on_load() {
        Some(quantised) => format!("{base}, quantised to {quantised} while it was loaded"),
        None => base,
    };
    let mut facts = vec![
        ("base model", base),
        ("data", data(recipe)),
        ("method", method(recipe)),
        (
            "steps",
            format!(
                "{} of {}, seed {seed}",
                state.step,
                counted(*batch_size, "example")
            ),
        ),
        ("labels (tokens trained on)", state.targets.to_string()),
        (
            "optimizer",
            format!(
                "{}, learning rate {learning_rate}{}, schedule {}",
                optimizer_name(optimizer),
                other_rates(&recipe.train),
                schedule_name(schedule)
            ),
        ),
    ];
    if let Some(loss) = losses.training {
        facts.push(("training loss", format!("{loss:.4} in the last step")));
    }
    if let Some(loss) = losses.validation {
        facts.push(("validation loss", format!("{loss:.4} at the end")));
    }
    if let Some(best) = state.best {
        let kept = if *weights == Weights::Best {
            "; the adapter has these weights"
        } else {
            ""
        };
        facts.push((
            "lowest validation loss",
            format!("{:.4} after step {}{kept}", best.loss, best.step),
        ));
    }
    for accepted in &manifest.accepted {
        facts.push((
            "changed during the run",
            format!(
                "after step {}: {}",
                accepted.step,
                accepted.changes.join("; ")
            ),
        ));
    }
    facts.push((
        "trained with",
        format!("simmer {}, commit {}", manifest.simmer, manifest.commit),
    ));
    facts.push((
        "device",
        format!("{} on {}", manifest.device, manifest.system),
    ));
    facts.push(("computed in", manifest.compute.clone()));
    facts
}

fn data(recipe: &Recipe) -> String {
    let sources = recipe.data.train.iter();
    let sources =
        sources.map(|source| format!("`{}` ({})", source.path.display(), source.template));
    let text = sources.collect::<Vec<_>>().join(", ");
    match &recipe.data.validation {
        None => text,
        Some(Validation::Fraction(part)) => {
            format!("{text}; {}% of the rows for validation", part * 100.0)
        }
        Some(Validation::Rows(rows)) => format!("{text}; {rows} of the rows for validation"),
        Some(Validation::Files(files)) => {
            let files = files
                .iter()
                .map(|source| format!("`{}`", source.path.display()));
            format!(
                "{text}; validation: {}",
                files.collect::<Vec<_>>().join(", ")
            )
        }
    }
}

fn method(recipe: &Recipe) -> String {
    let Some(table) = recipe.method.adapter() else {
        return "full fine-tuning".to_owned();
    };
    let name = table.kind().name;
    if let Some(from) = table.continued() {
        let dropout = match &recipe.method {
            Method::Lora(lora) => format!(", dropout {}", lora.dropout),
            _ => String::new(),
        };
        let from = from.named().display();
        return format!("{name}, started from the adapter `{from}`{dropout}");
    }
    match &recipe.method {
        Method::Lora(lora) => {
            let scale = if lora.use_rslora {
                "alpha/√rank"
            } else {
                "alpha/rank"
            };
            format!(
                "{name}, rank {}, alpha {}, scale {scale}, dropout {}, on {}",
                lora.rank, lora.alpha, lora.dropout, lora.targets
            )
        }
        Method::Ia3(table) => format!(
            "{name} on {}, of them on the input of {}",
            table.targets, table.feedforward_modules
        ),
        _ => {
            format!("{name}, {}", table.to_peft("").settings())
        }
    }
}

/// The learning rates that differ from `train.learning_rate`, as the end of a part of a sentence.
fn other_rates(train: &TrainConfig) -> String {
    let mut text = String::new();
    if let Some(ratio) = train.loraplus_lr_ratio {
        let _ = write!(text, " (LoRA+: {ratio} times as high for B)");
    }
    let patterns = train.learning_rates.iter();
    let patterns: Vec<String> = patterns
        .map(|(pattern, rate)| format!("{rate} for `{pattern}`"))
        .collect();
    if !patterns.is_empty() {
        let _ = write!(text, " ({})", patterns.join(", "));
    }
    text
}

/// The name of a value in the recipe.
fn optimizer_name(optimizer: &OptimizerConfig) -> String {
    name(toml::Value::try_from(optimizer))
}

fn schedule_name(schedule: &Schedule) -> String {
    name(toml::Value::try_from(schedule))
}

fn name(value: Result<toml::Value, toml::ser::Error>) -> String {
    match value {
        Ok(toml::Value::String(name)) => name,
        Ok(toml::Value::Table(table)) => table.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

fn list(text: &mut String, what: &str, files: &BTreeMap<String, Fingerprint>) {
    for (name, file) in files.iter().take(LISTED) {
        let _ = writeln!(
            text,
            "| {what}: {} | {} | {} |",
            cell(name),
            file.bytes,
            file.sha256
        );
    }
    if let Some(more) = files.len().checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = writeln!(text, "| {what}: {more} more | | in manifest.json |");
    }
}

/// Escapes text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
