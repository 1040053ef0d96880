//! `simmer adapter inspect`: the contents of adapters and the size of their updates.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use simmer_checkpoint::hub::What;
use simmer_model::adapter::AdapterConfig;
use simmer_model::adapter::inspect::{Inspection, LowRankModule, inspect};

use super::grid::{Grid, Together};
use super::summary::summary;
use super::{alone, page, sha256, short, table};
use crate::failure::Failure;
use crate::{hub, output, page_file, progress};

/// Show what an adapter contains and how large its updates s·B·A are
///
/// Shows rank, scale, targets, norms, singular values and effective rank of each module, and heat maps by layer and
/// target. Warns about zero B matrices, NaN, layers without an adapter and ranks that are not used. Needs no base model.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer adapter inspect runs/quickstart/adapter
  simmer adapter inspect runs/a/adapter runs/b/adapter --html adapters.html")]
pub(super) struct Inspect {
    /// Adapters: folders, weights files (.safetensors, .bin), or names on the Hugging Face Hub
    #[arg(value_name = "ADAPTER", required = true)]
    adapters: Vec<PathBuf>,
    /// Write an HTML page instead
    #[arg(long, value_name = "FILE.html", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Also print a line for each module, with its singular values
    #[arg(long)]
    modules: bool,
    /// Print the results as JSON, one line per adapter
    #[arg(long)]
    json: bool,
}

/// An adapter, with the size and the hash of its file.
pub(super) struct Inspected {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) found: Inspection,
}

impl Inspect {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(path) = &self.html {
            page_file::check(path, "--html")?;
        }
        let mut all = Vec::new();
        for adapter in &self.adapters {
            let path = hub::locate(adapter, What::Adapter)?;
            let bar = progress::spinner("decomposing");
            let found = inspect(&path)?;
            bar.finish_and_clear();
            all.push(Inspected {
                name: adapter.display().to_string(),
                bytes: found.weights.metadata()?.len(),
                sha256: sha256(&found.weights)?,
                found,
            });
        }
        if let Some(path) = &self.html {
            let html = page::html(&all)?;
            page_file::write(path, &html)?;
            for inspected in &all {
                warn(inspected);
            }
            return output::line(&path.display().to_string());
        }
        for (number, inspected) in all.iter().enumerate() {
            if self.json {
                output::json(&as_json(inspected))?;
                continue;
            }
            if number > 0 {
                output::line("")?;
            }
            let text = text(inspected, self.modules, console::colors_enabled());
            output::text(text.trim_end_matches('\n'))?;
            warn(inspected);
        }
        Ok(())
    }
}

fn warn(inspected: &Inspected) {
    for warning in &inspected.found.warnings {
        output::note(&format!("warning: {}: {warning}", inspected.name));
    }
}

fn as_json(inspected: &Inspected) -> Value {
    let Inspected {
        name,
        bytes,
        sha256,
        found,
    } = inspected;
    let config = found.config.as_ref().map(AdapterConfig::to_json);
    let config: Option<Value> = config.and_then(|text| serde_json::from_str(&text).ok());
    json!({
        "adapter": name,
        "weights": {"file": found.weights, "bytes": bytes, "sha256": sha256},
        "config": config,
        "parameters": found.parameters(),
        "norm": found.norm(),
        "modules": found.modules,
        "tensors": found.alone,
        "whole": found.whole,
        "not_finite": found.not_finite,
        "warnings": found.warnings,
    })
}

fn text(inspected: &Inspected, modules: bool, colours: bool) -> String {
    let found = &inspected.found;
    let mut text = format!("{}\n", inspected.name);
    for (name, value) in summary(inspected) {
        let _ = writeln!(text, "  {name:<10}  {value}");
    }
    if found.modules.is_empty() {
        let _ = write!(text, "\n{}", table(&alone::by_target(found)));
        if modules {
            let _ = write!(text, "\n{}", table(&alone::by_module(found)));
        }
        return text;
    }
    let norms = Grid::of(found, Together::Norm, |module| {
        Some(module.update.as_ref()?.norm)
    });
    let _ = write!(text, "\nnorm of the update s·B·A\n{}", norms.text(colours));
    let ranks = Grid::of(found, Together::Mean, |module| {
        Some(module.update.as_ref()?.effective_rank)
    });
    let _ = write!(text, "\neffective rank\n{}", ranks.text(colours));
    let _ = write!(text, "\n{}", table(&by_target(found)));
    if modules {
        let _ = write!(text, "\n{}", table(&by_module(found)));
    }
    text
}

/// A row for each target: means over its modules, and norms over all of them together.
pub(super) fn by_target(found: &Inspection) -> Vec<Vec<String>> {
    let head = [
        "target",
        "modules",
        "rank",
        "scale",
        "‖A‖",
        "‖B‖",
        "‖s·B·A‖",
        "σ₁",
        "effective rank",
        "least",
        "stable rank",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut targets: Vec<&str> = Vec::new();
    for module in &found.modules {
        if !targets.contains(&module.target.as_str()) {
            targets.push(&module.target);
        }
    }
    for target in targets {
        let of: Vec<&LowRankModule> = found
            .modules
            .iter()
            .filter(|module| module.target == target)
            .collect();
        let values = |value: &dyn Fn(&LowRankModule) -> Option<f64>| -> Vec<f64> {
            of.iter().filter_map(|module| value(module)).collect()
        };
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
        let range = |values: Vec<f64>| {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if least.total_cmp(&most).is_eq() {
                format!("{least}")
            } else {
                format!("{least}-{most}")
            }
        };
        let effective = values(&|module| Some(module.update.as_ref()?.effective_rank));
        rows.push(vec![
            target.to_owned(),
            of.len().to_string(),
            range(values(&|module| Some(module.rank as f64))),
            range(values(&|module| Some((module.scale * 1e4).round() / 1e4))),
            shown(Together::Norm.of(&values(&|module| Some(module.norm_a)))),
            shown(Together::Norm.of(&values(&|module| Some(module.norm_b)))),
            shown(Together::Norm.of(&values(&|module| Some(module.update.as_ref()?.norm)))),
            shown(
                values(&|module| Some(module.update.as_ref()?.largest()))
                    .into_iter()
                    .reduce(f64::max),
            ),
            shown(Together::Mean.of(&effective)),
            shown(effective.iter().copied().reduce(f64::min)),
            shown(Together::Mean.of(&values(&|module| Some(module.update.as_ref()?.stable_rank)))),
        ]);
    }
    rows
}

/// A row for each module.
pub(super) fn by_module(found: &Inspection) -> Vec<Vec<String>> {
    let head = [
        "module",
        "shape",
        "rank",
        "scale",
        "‖A‖",
        "‖B‖",
        "‖s·B·A‖",
        "effective rank",
        "stable rank",
        "singular values",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for module in &found.modules {
        let update = module.update.as_ref();
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
        let values = update.map_or(&[][..], |update| &update.singular_values);
        let mut sigmas: Vec<String> = values.iter().take(8).map(|value| short(*value)).collect();
        if values.len() > 8 {
            sigmas.push(format!("... {}", short(values[values.len() - 1])));
        }
        rows.push(vec![
            module.module.clone(),
            format!("{}x{}", module.shape[0], module.shape[1]),
            module.rank.to_string(),
            short(module.scale),
            short(module.norm_a),
            short(module.norm_b),
            shown(update.map(|update| update.norm)),
            shown(update.map(|update| update.effective_rank)),
            shown(update.map(|update| update.stable_rank)),
            sigmas.join(" "),
        ]);
    }
    rows
}
