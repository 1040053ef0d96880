//! `simmer adapter inspect`: what an adapter holds, and how large the changes are that it makes.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use simmer_checkpoint::hub::What;
use simmer_checkpoint::write_file;
use simmer_model::adapter::AdapterConfig;
use simmer_model::adapter::inspect::{Inspection, LowRankModule, inspect};
use simmer_model::adapter::targets::Targets;

use super::grid::{Grid, Together};
use super::{html, sha256, short, table};
use crate::{hub, output, progress};

/// What an adapter holds, and how large the changes s·B·A are that it makes
///
/// Rank, scale, targets, norms, singular values and effective rank of every module, a heat map by layer and target, and
/// what is odd: B that is zero, NaN, layers without a path, a rank that is not used. Needs no base model.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Adapters: folders, weights' files (.safetensors, .bin), or names on the hub
    #[arg(value_name = "ADAPTER", required = true)]
    adapters: Vec<PathBuf>,
    /// Write a page for a browser instead, which needs nothing else
    #[arg(long, value_name = "FILE.html", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// A line for every module, with its singular values
    #[arg(long)]
    modules: bool,
    /// Print everything as JSON, one line an adapter
    #[arg(long)]
    json: bool,
}

/// An adapter and what tells its file from others.
pub(super) struct Inspected {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) found: Inspection,
}

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<()> {
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
            write_file(path, |file| file.write_all(html::html(&all).as_bytes()))?;
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
            output::print(&text(inspected, self.modules, console::colors_enabled()))?;
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
        "whole": found.whole,
        "warnings": found.warnings,
    })
}

/// What stands above the maps, as names and what they are.
pub(super) fn summary(inspected: &Inspected) -> Vec<(&'static str, String)> {
    let found = &inspected.found;
    let mut lines = vec![(
        "file",
        format!(
            "{}, {}, sha256 {}",
            found
                .weights
                .file_name()
                .unwrap_or_default()
                .to_string_lossy(),
            size(inspected.bytes),
            inspected.sha256
        ),
    )];
    if let Some(config) = &found.config {
        let base = config.base_model_name_or_path.as_deref();
        lines.push(("base", base.unwrap_or("not named").to_owned()));
        lines.push(("method", method(config)));
        let targets = config.target_modules.as_ref();
        let targets = match targets {
            None => "PEFT's choice for the family".to_owned(),
            Some(Targets::Regex(pattern)) => pattern.clone(),
            Some(Targets::Names(names)) => {
                let mut names = names.clone();
                names.sort();
                names.join(", ")
            }
        };
        lines.push(("targets", targets));
        if let Some(modules) = config
            .modules_to_save
            .as_ref()
            .filter(|names| !names.is_empty())
        {
            lines.push(("whole", modules.join(", ")));
        }
    }
    let layers: std::collections::BTreeSet<_> = found
        .modules
        .iter()
        .filter_map(|module| module.layer)
        .collect();
    let count = |number: usize, what: &str| {
        format!("{number} {what}{}", if number == 1 { "" } else { "s" })
    };
    let outside = found
        .modules
        .iter()
        .filter(|module| module.layer.is_none())
        .count();
    let outside = if outside > 0 {
        format!(", {outside} outside the layers")
    } else {
        String::new()
    };
    lines.push((
        "modules",
        format!(
            "{} in {}{outside}",
            count(found.modules.len(), "low-rank path"),
            count(layers.len(), "layer")
        ),
    ));
    let whole = found.whole.iter().filter(|tensor| tensor.trained).count();
    let frozen = found.whole.len() - whole;
    if whole > 0 {
        lines.push(("whole", count(whole, "tensor") + " trained whole"));
    }
    if frozen > 0 {
        lines.push((
            "beside",
            count(frozen, "tensor") + " of the base, for a resized vocabulary",
        ));
    }
    let dtypes = found.modules.iter().flat_map(|module| &module.dtypes);
    let dtypes: std::collections::BTreeSet<&String> = dtypes.collect();
    let dtypes: Vec<&str> = dtypes.into_iter().map(String::as_str).collect();
    lines.push((
        "parameters",
        format!(
            "{} trained, in {}",
            found.parameters(),
            dtypes.join(" and ")
        ),
    ));
    lines.push((
        "update",
        format!("norm {} over all modules", short(found.norm())),
    ));
    lines
}

fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        1e6.. => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} kB", bytes / 1e3),
    }
}

fn method(config: &AdapterConfig) -> String {
    let (name, scale) = if config.use_rslora {
        ("rank-stabilised LoRA", "alpha/√rank")
    } else {
        ("LoRA", "alpha/rank")
    };
    let mut text = format!(
        "{name}, rank {}, alpha {}, scale {scale}, dropout {}",
        config.r, config.lora_alpha, config.lora_dropout
    );
    for (patterns, what) in [
        (config.rank_pattern.iter().count(), "rank_pattern"),
        (config.alpha_pattern.iter().count(), "alpha_pattern"),
    ] {
        if patterns > 0 {
            let _ = write!(text, ", {what} of {patterns}");
        }
    }
    text
}

fn text(inspected: &Inspected, modules: bool, colours: bool) -> String {
    let found = &inspected.found;
    let mut text = format!("{}\n", inspected.name);
    for (name, value) in summary(inspected) {
        let _ = writeln!(text, "  {name:<10}  {value}");
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

/// Means over the modules of each target, and norms over all of them together.
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

/// A row for every module.
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
