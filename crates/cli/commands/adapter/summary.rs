//! The facts above the tables of `simmer adapter inspect`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use simmer_files::size::{counted, readable};
use simmer_model::adapter::AdapterConfig;
use simmer_model::adapter::inspect::Inspection;
use simmer_model::adapter::targets::Targets;

use super::inspect::Inspected;
use super::short;

/// The number of targets up to which their paths are shown, else the last part of each.
const LISTED: usize = 8;

/// A name and its value.
type Line = (&'static str, String);

/// The lines about an adapter as a whole.
pub(super) fn summary(inspected: &Inspected) -> Vec<Line> {
    let found = &inspected.found;
    let mut lines = vec![("file", file(inspected))];
    if let Some(config) = &found.config {
        lines.extend(of_config(config));
    }
    lines.extend(modules(found).map(|text| ("modules", text)));
    lines.extend(alone(found).map(|text| ("tensors", text)));
    lines.extend(whole(found));
    lines.push(("parameters", parameters(found)));
    lines.extend(not_finite(found));
    if !found.modules.is_empty() {
        let norm = format!("norm {} over all modules", short(found.norm()));
        lines.push(("update", norm));
    }
    lines
}

fn file(inspected: &Inspected) -> String {
    let name = inspected.found.weights.file_name().unwrap_or_default();
    format!(
        "{}, {}, sha256 {}",
        name.to_string_lossy(),
        readable(inspected.bytes),
        inspected.sha256
    )
}

fn of_config(config: &AdapterConfig) -> Vec<Line> {
    let base = config.base_model_name_or_path.as_deref();
    let mut lines = vec![
        ("base", base.unwrap_or("not named").to_owned()),
        ("method", method(config)),
        ("targets", targets(config)),
    ];
    let saved = config.modules_to_save.as_ref();
    if let Some(modules) = saved.filter(|names| !names.is_empty()) {
        lines.push(("saved", modules.join(", ")));
    }
    lines
}

fn method(config: &AdapterConfig) -> String {
    let name = config.kind.name;
    if !config.kind.has_rank() {
        return format!("{name}, {}", config.settings());
    }
    let (stabilised, scale) = if config.use_rslora {
        ("rank-stabilised ", "alpha/√rank")
    } else {
        ("", "alpha/rank")
    };
    let mut text = format!(
        "{stabilised}{name}, rank {}, alpha {}, scale {scale}, dropout {}",
        config.r, config.lora_alpha, config.lora_dropout
    );
    for (patterns, what) in [
        (config.rank_pattern.iter().count(), "rank_pattern"),
        (config.alpha_pattern.iter().count(), "alpha_pattern"),
    ] {
        if patterns > 0 {
            let _ = write!(text, ", {what} with {}", counted(patterns, "entry"));
        }
    }
    text
}

fn targets(config: &AdapterConfig) -> String {
    match &config.target_modules {
        None => "PEFT's default for the model family".to_owned(),
        Some(Targets::Regex(pattern)) => pattern.clone(),
        Some(Targets::Names(names)) => {
            let mut names = names.clone();
            if names.len() > LISTED {
                // full paths, as of an adapter of mlx-lm
                for name in &mut names {
                    *name = name.rsplit('.').next().unwrap_or(name).to_owned();
                }
            }
            names.sort();
            names.dedup();
            names.join(", ")
        }
    }
}

/// The tensors of an adapter without low-rank branches.
fn alone(found: &Inspection) -> Option<String> {
    let layers = found.alone.iter().filter_map(|tensor| tensor.layer);
    let layers: BTreeSet<usize> = layers.collect();
    (!found.alone.is_empty()).then(|| {
        format!(
            "{} in {}",
            counted(found.alone.len(), "tensor"),
            counted(layers.len(), "layer")
        )
    })
}

fn modules(found: &Inspection) -> Option<String> {
    if found.modules.is_empty() && !found.alone.is_empty() {
        return None;
    }
    let layers = found.modules.iter().map(|module| module.layer);
    let outside = layers.clone().filter(Option::is_none).count();
    let layers: BTreeSet<usize> = layers.flatten().collect();
    let mut text = format!(
        "{} in {}",
        counted(found.modules.len(), "low-rank module"),
        counted(layers.len(), "layer")
    );
    if outside > 0 {
        let _ = write!(text, ", {outside} outside the layers");
    }
    Some(text)
}

/// The tensors that are not low-rank: those trained as a whole, and those of the base.
fn whole(found: &Inspection) -> Vec<Line> {
    let heads: Vec<String> = found
        .whole
        .iter()
        .filter(|tensor| tensor.is_head())
        .map(|tensor| format!("{} {:?}", tensor.key, tensor.shape))
        .collect();
    let trained = found.whole.iter().filter(|tensor| tensor.trained).count();
    let frozen = found.whole.len() - trained;
    let trained = trained - heads.len();
    let mut lines = Vec::new();
    if !heads.is_empty() {
        lines.push((
            "head",
            heads.join(", ") + ": the head of a classifier or a reward model",
        ));
    }
    if trained > 0 {
        lines.push(("full", counted(trained, "tensor") + " trained in full"));
    }
    if frozen > 0 {
        let of_base = counted(frozen, "tensor") + " of the base, for a resized vocabulary";
        lines.push(("frozen", of_base));
    }
    lines
}

/// How many values are NaN or infinite.
fn not_finite(found: &Inspection) -> Option<Line> {
    let first = found.not_finite.first()?;
    let values = found.not_finite.iter().map(|tensor| tensor.count).sum();
    let text = format!(
        "{} NaN or infinite, in {}; first {}",
        counted(values, "value"),
        counted(found.not_finite.len(), "tensor"),
        first.key
    );
    Some(("not finite", text))
}

fn parameters(found: &Inspection) -> String {
    let dtypes = found.modules.iter().flat_map(|module| &module.dtypes);
    let dtypes = dtypes.chain(found.alone.iter().map(|tensor| &tensor.dtype));
    let dtypes: BTreeSet<&str> = dtypes.map(String::as_str).collect();
    let dtypes: Vec<&str> = dtypes.into_iter().collect();
    format!(
        "{} trainable, in {}",
        found.parameters(),
        dtypes.join(" and ")
    )
}
