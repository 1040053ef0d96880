//! Warnings about an adapter.

use std::collections::{BTreeMap, BTreeSet};

use simmer_checkpoint::family::{Module, module_at};
use simmer_files::size::counted;

use super::parts::{Parts, place};
use super::{LowRankModule, OpenBranch};
use crate::adapter::config::Bias;
use crate::adapter::kind::Part;
use crate::adapter::rules::{Rules, is_end};
use crate::adapter::targets::Targets;
use crate::adapter::tokens;
use crate::adapter::weights::is_head;
use crate::adapter::{AdapterConfig, AdapterError};

/// Number of names that a message lists; the others are only counted.
const NAMED: usize = 4;
/// An effective rank below this share of the rank is reported,
const FEW: f64 = 0.25;
/// if the rank is at least this.
const FEW_FROM: usize = 8;

/// Whether a key is the key of a bias.
pub(super) fn is_bias(key: &str) -> bool {
    key.rsplit('.').next() == Some("bias")
}

/// Whether `modules_to_save` names a module or one that contains it. PEFT's rule: by the end of the module path, which
/// may start in the middle of a name.
pub(super) fn is_saved(config: Option<&AdapterConfig>, module: &str) -> bool {
    let names = config.and_then(|config| config.modules_to_save.as_ref());
    let ends = module
        .match_indices('.')
        .map(|(dot, _)| dot)
        .chain([module.len()]);
    let mut ends = ends.map(|end| &module[..end]);
    names.is_some_and(|names| {
        ends.any(|path| names.iter().any(|name| path.ends_with(name.as_str())))
    })
}

/// Whether a module is the embedding or the head, which PEFT saves with an adapter if the vocabulary was resized.
fn is_outermost(path: &str) -> bool {
    module_at(path).is_some_and(Module::is_outermost)
}

/// Compares the keys of the file with the configuration.
pub(super) fn of_keys(
    config: Option<&AdapterConfig>,
    parts: &Parts,
    branches: &[OpenBranch],
) -> Result<Vec<String>, AdapterError> {
    let mut warnings = Vec::new();
    if !parts.unknown.is_empty() {
        let keys = listed(&parts.unknown);
        warnings.push(format!("keys that do not belong to a LoRA adapter: {keys}"));
    }
    let magnitudes = parts
        .factors
        .values()
        .filter(|factors| !factors.beside.is_empty())
        .count();
    if magnitudes > 0 {
        warnings.push(format!(
            "magnitude vectors (DoRA) of {}: only s·B·A is shown, but DoRA also scales the rows of the weights",
            counted(magnitudes, "module")
        ));
    }
    if let Some(config) = config.filter(|config| config.init().is_of_weight()) {
        warnings.push(format!(
            "`init_lora_weights` = {}: s·B·A is shown, of which the part of the weights that it started with is subtracted",
            config.init_lora_weights
        ));
    }
    if let Some(config) = config {
        let of_branches = branches.iter().map(|branch| branch.module.as_str());
        let alone = parts.alone.values().map(|(module, _)| module.as_str());
        let mut modules: Vec<&str> = of_branches.chain(alone).collect();
        modules.dedup();
        warnings.extend(missing_beside(config, parts));
        warnings.extend(ranks(config, branches)?);
        warnings.extend(unexplained(config, parts, &modules)?);
        if config.kind.attention.is_none() {
            warnings.extend(missing(config, &modules)?);
        }
    }
    Ok(warnings)
}

/// Modules without a tensor that the kind of adapter has beside the two factors.
fn missing_beside(config: &AdapterConfig, parts: &Parts) -> Option<String> {
    let mut tensors = config.kind.tensors(false).iter();
    let tensor = tensors.find(|tensor| tensor.part == Part::Beside)?;
    let without = parts.factors.iter();
    let without = without.filter(|(_, factors)| factors.beside.is_empty());
    let without: Vec<String> = without.map(|(module, _)| module.clone()).collect();
    (!without.is_empty()).then(|| {
        format!(
            "{} is set, but these modules have no {}: {}",
            config.kind.switch.unwrap_or(config.kind.name),
            tensor.field,
            listed(&without)
        )
    })
}

fn ranks(config: &AdapterConfig, branches: &[OpenBranch]) -> Result<Option<String>, AdapterError> {
    let mut differ = Vec::new();
    for branch in branches {
        let expected = config.rank_of(&branch.module)?;
        if expected != branch.rank {
            differ.push(format!(
                "{} has {} (expected {expected})",
                branch.module, branch.rank
            ));
        }
    }
    Ok((!differ.is_empty()).then(|| {
        format!(
            "ranks differ from adapter_config.json, so PEFT and simmer cannot load the adapter: {}",
            listed(&differ)
        )
    }))
}

/// Tensors that the configuration does not explain.
fn unexplained(
    config: &AdapterConfig,
    parts: &Parts,
    modules: &[&str],
) -> Result<Vec<String>, AdapterError> {
    let mut warnings = Vec::new();
    if let Some(targeted) = Targeted::of(config)? {
        let mut others = Vec::new();
        for module in modules {
            if !targeted.names(module)? {
                others.push((*module).to_owned());
            }
        }
        if !others.is_empty() {
            let [what, _] = of_a_module(config);
            warnings.push(format!(
                "modules with {what} that are not targeted: {}",
                listed(&others)
            ));
        }
    }
    let known = |key: &str, module: &str| {
        (is_bias(key) && config.bias != Bias::None)
            || is_saved(Some(config), module)
            || is_head(key)
            || key.ends_with(tokens::ROWS)
            || is_outermost(module)
    };
    let others = parts
        .whole
        .iter()
        .filter(|(key, module)| !known(key, module));
    let others: Vec<String> = others.map(|(key, _)| key.clone()).collect();
    if !others.is_empty() {
        warnings.push(format!(
            "tensors that neither modules_to_save nor bias explains: {}",
            listed(&others)
        ));
    }
    Ok(warnings)
}

/// What a module with an adapter has, with its article and without.
fn of_a_module(config: &AdapterConfig) -> [&'static str; 2] {
    if config.kind.has_rank() {
        ["a low-rank branch", "low-rank branch"]
    } else {
        ["an adapter", "adapter"]
    }
}

/// Modules that are targeted but have no low-rank branch, judging by the modules of other layers.
fn missing(config: &AdapterConfig, modules: &[&str]) -> Result<Vec<String>, AdapterError> {
    let [what, noun] = of_a_module(config);
    let mut warnings = Vec::new();
    if let Some(Targets::Names(names)) = &config.target_modules {
        let found = |name: &String| modules.iter().any(|module| is_end(module, name));
        let excluded = |name: &String| match &config.exclude_modules {
            Some(Targets::Names(others)) => others.iter().any(|other| is_end(name, other)),
            Some(Targets::Regex(_)) | None => false,
        };
        let without = names.iter().filter(|name| !found(name) && !excluded(name));
        let without: Vec<String> = without.cloned().collect();
        if !without.is_empty() {
            warnings.push(format!(
                "targets without {what} in the file: {}",
                listed(&without)
            ));
        }
    }
    let Some(targeted) = Targeted::of(config)? else {
        return Ok(warnings);
    };
    let there: BTreeSet<&str> = modules.iter().copied().collect();
    let mut patterns: BTreeMap<(String, String), usize> = BTreeMap::new();
    for module in modules {
        if let (Some(layer), _) = place(module) {
            let number = format!(".{layer}.");
            if let Some((before, after)) = module.split_once(&number) {
                patterns.insert((before.to_owned(), after.to_owned()), layer);
            }
        }
    }
    let named = config
        .layers_to_transform
        .iter()
        .flat_map(|layers| &layers.0);
    let last = modules.iter().filter_map(|module| place(module).0);
    let Some(last) = last.chain(named.copied()).max() else {
        return Ok(warnings);
    };
    let mut absent: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (before, after) in patterns.keys() {
        // far more layers than any model has: a layer index in a file must not cause a long loop
        for layer in 0..=last.min(10_000) {
            let path = format!("{before}.{layer}.{after}");
            if !there.contains(path.as_str()) && targeted.names(&path)? {
                absent.entry(after).or_default().push(layer.to_string());
            }
        }
    }
    for (module, layers) in absent {
        warnings.push(format!(
            "`{module}` is targeted but has no {noun} in layers {} (of 0 to {last})",
            layers.join(", ")
        ));
    }
    Ok(warnings)
}

/// The targets of a configuration, if they are known without the model.
struct Targeted<'a> {
    rules: Option<Rules<'a>>,
}

impl<'a> Targeted<'a> {
    /// `None` if the targets are PEFT's default for the model family.
    fn of(config: &'a AdapterConfig) -> Result<Option<Self>, AdapterError> {
        Ok(match &config.target_modules {
            None => None,
            Some(targets) if targets.is_all_linear() => Some(Self { rules: None }),
            Some(targets) => Some(Self {
                rules: Some(Rules::new(config, targets)?),
            }),
        })
    }

    fn names(&self, path: &str) -> Result<bool, AdapterError> {
        match &self.rules {
            None => Ok(!is_outermost(path)),
            Some(rules) => Ok(!rules.excludes(path)? && rules.targets(path)?),
        }
    }
}

/// Warnings about the values.
pub(super) fn of_modules(modules: &[LowRankModule]) -> Vec<String> {
    let mut warnings = Vec::new();
    if modules.is_empty() {
        return warnings;
    }
    let those = |wanted: &dyn Fn(&LowRankModule) -> bool| -> Vec<String> {
        let found = modules.iter().filter(|module| wanted(module));
        found.map(|module| module.module.clone()).collect()
    };
    let broken = those(&|module| module.update.is_none());
    if !broken.is_empty() {
        warnings.push(format!("NaN or infinite values in {}", listed(&broken)));
    }
    let zero = those(&|module| {
        module
            .update
            .as_ref()
            .is_some_and(|update| update.norm == 0.0)
    });
    if zero.len() == modules.len() {
        let untrained = modules.iter().all(|module| module.norm_b == 0.0);
        let why = if untrained {
            "B is zero everywhere: it was not trained"
        } else {
            "A or B is zero everywhere"
        };
        warnings.push(format!("the adapter changes nothing; {why}"));
    } else if !zero.is_empty() {
        warnings.push(format!("the update is zero in {}", listed(&zero)));
    }
    let few: Vec<(f64, f64, &LowRankModule)> = modules.iter().filter_map(few_directions).collect();
    if let Some((_, least, module)) = few.iter().min_by(|a, b| a.0.total_cmp(&b.0)) {
        warnings.push(format!(
            "in {} of {} the effective rank is below a quarter of the rank (lowest: {least:.1} of {} in {}): a \
             lower rank would represent nearly the same update",
            few.len(),
            counted(modules.len(), "module"),
            module.rank,
            module.module
        ));
    }
    warnings
}

/// Effective rank as a share of the rank, effective rank, and module, if the update uses few of its directions.
fn few_directions(module: &LowRankModule) -> Option<(f64, f64, &LowRankModule)> {
    let update = module.update.as_ref().filter(|update| update.norm > 0.0)?;
    let most = update.singular_values.len();
    let share = update.effective_rank / most as f64;
    (most >= FEW_FROM && share < FEW).then_some((share, update.effective_rank, module))
}

/// The first of some names, and the number of the others.
pub(in crate::adapter) fn listed(names: &[String]) -> String {
    let first = names.iter().take(NAMED).map(String::as_str);
    let first = first.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
