//! Which modules an adapter changes: PEFT's rules.
//!
//! A module is left out if `exclude_modules` names it or `modules_to_save` keeps it whole; else it
//! is adapted if `target_modules` names it: one regular expression for the whole path, or a list
//! of paths and their ends ("q_proj" means every path that ends in ".q_proj").
//!
//! Source: PEFT 0.21, src/peft/tuners/tuners_utils.py, `check_target_module_exists`, and
//! src/peft/utils/other.py, `get_pattern_key` and `_set_trainable`.

use std::collections::BTreeSet;

use fancy_regex::Regex;
use thiserror::Error;

use super::config::{AdapterConfig, Bias};
pub use super::names::{Layers, Names, Patterns, Targets};
use crate::layout::{ModuleKind, ModuleLayout};

/// PEFT's choice for LLaMA when a file names no targets.
const DEFAULT_TARGETS: [&str; 2] = ["q_proj", "v_proj"];
/// From this many names on, PEFT writes the shortest ends that mean the same.
const CONDENSED_FROM: usize = 20;

/// What to do about a name that matches no module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// An error: somebody has just written it.
    Refuse,
    /// A warning, as for the files of others, which may name modules of several families.
    Warn,
}

/// The modules that an adapter changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Modules with a low-rank path, in the model's order.
    pub adapted: Vec<Selected>,
    /// Modules that are trained whole, in the model's order, without those that hold others.
    pub saved: Vec<ModuleLayout>,
    /// Modules whose bias is trained beside a frozen weight, and the bias's length, in the
    /// model's order.
    pub biases: Vec<(String, usize)>,
    /// The model's embedding and output head, whatever is done to them.
    pub ends: Vec<ModuleLayout>,
    /// The targets as PEFT would write them.
    pub target_modules: Targets,
    /// What matched nothing, one sentence each.
    pub warnings: Vec<String>,
}

/// A module with a low-rank path.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// Its path.
    pub name: String,
    /// A matrix product or an embedding.
    pub kind: ModuleKind,
    /// `[out, in]`, or `[vocab, hidden]` of the embedding.
    pub shape: [usize; 2],
    /// Rank of the path.
    pub rank: usize,
    /// Its alpha.
    pub alpha: f64,
    /// What the path is multiplied with: alpha/rank, or alpha/√rank.
    pub scaling: f64,
}

/// A choice of modules that cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// Nothing is adapted.
    #[error("target_modules: {targets} matches no module{narrowed}; the model's modules end in {ends}{}", near(nearest.as_deref()))]
    NoMatch {
        /// The targets.
        targets: String,
        /// Which other keys narrow them, as the middle of the sentence.
        narrowed: String,
        /// Last parts of the paths that could be adapted.
        ends: String,
        /// A name that may have been meant.
        nearest: Option<String>,
    },
    /// A name that matches nothing, beside others that do.
    #[error("{key}: `{name}` matches no module; the model's modules end in {ends}{}", near(nearest.as_deref()))]
    Unmatched {
        /// The key.
        key: &'static str,
        /// The name.
        name: String,
        /// Last parts of the paths that could be named.
        ends: String,
        /// A name that may have been meant.
        nearest: Option<String>,
    },
    /// A module that has no low-rank form.
    #[error(
        "target_modules: `{module}` {is}; only matrix products and the embedding have a low-rank path"
    )]
    Kind {
        /// The module.
        module: String,
        /// What it is, as a verb and an object.
        is: &'static str,
    },
    /// A pattern that is not a regular expression.
    #[error("{key}: `{pattern}` is not a valid regular expression: {source}")]
    Regex {
        /// The key.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// What the parser says.
        source: Box<fancy_regex::Error>,
    },
    /// Keys that exclude each other.
    #[error("{key}: {why}")]
    Conflict {
        /// The key.
        key: &'static str,
        /// Why it cannot be used.
        why: String,
    },
}

impl SelectionError {
    /// What the person at the keyboard can do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoMatch {
                targets, nearest, ..
            } if targets.starts_with('"') => Some(match nearest {
                Some(name) => format!(
                    "a string is one regular expression for the whole path: write [\"{name}\"], or \".*\\\\.{name}\""
                ),
                None => "a string is one regular expression for the whole path".to_owned(),
            }),
            _ => None,
        }
    }
}

/// Chooses the modules of an adapter.
///
/// # Errors
///
/// See [`SelectionError`].
pub fn select(
    config: &AdapterConfig,
    modules: &[ModuleLayout],
    unmatched: Unmatched,
) -> Result<Selection, SelectionError> {
    check_combination(config)?;
    let targets = resolved_targets(config, modules);
    let rules = Rules::new(config, &targets)?;

    let mut adapted = Vec::new();
    let mut excluded = 0;
    for module in modules {
        if rules.excludes(&module.name)? {
            excluded += 1;
        } else if rules.targets(&module.name)? {
            adapted.push(selected(config, module)?);
        }
    }
    let saved = saved_modules(config, modules);
    if adapted.is_empty() {
        return Err(no_match(config, &targets, modules, excluded));
    }
    check_disjoint(&adapted, &saved)?;
    check_tying(config, &adapted, &saved)?;

    let mut warnings = Vec::new();
    for (key, name) in unmatched_names(config, &targets, modules, &adapted)? {
        let error = SelectionError::Unmatched {
            key,
            nearest: nearest(&name, modules),
            name,
            ends: ends(modules),
        };
        if unmatched == Unmatched::Refuse && key != "exclude_modules" {
            return Err(error);
        }
        warnings.push(error.to_string());
    }
    let biases = trained_biases(config, modules, &adapted, &saved);
    Ok(Selection {
        target_modules: condensed(targets, modules),
        adapted,
        saved,
        biases,
        ends: modules
            .iter()
            .filter(|module| is_outermost(module.kind))
            .cloned()
            .collect(),
        warnings,
    })
}

/// What PEFT refuses before it looks at a model.
fn check_combination(config: &AdapterConfig) -> Result<(), SelectionError> {
    let conflict = |key, why: &str| {
        Err(SelectionError::Conflict {
            key,
            why: why.to_owned(),
        })
    };
    let regex = matches!(config.target_modules, Some(Targets::Regex(_)));
    let pattern = config
        .layers_pattern
        .as_ref()
        .is_some_and(|names| !names.is_empty());
    if regex && config.layers_to_transform.is_some() {
        return conflict(
            "layers_to_transform",
            "only narrows a list of targets; say the layers in the regular expression instead",
        );
    }
    if regex && config.layers_pattern.is_some() {
        return conflict("layers_pattern", "only narrows a list of targets");
    }
    if pattern && config.layers_to_transform.is_none() {
        return conflict("layers_pattern", "needs layers_to_transform beside it");
    }
    if matches!(&config.target_modules, Some(Targets::Names(names)) if names.is_empty()) {
        return conflict("target_modules", "the list is empty");
    }
    Ok(())
}

/// The targets with the default and "all-linear" spelled out.
fn resolved_targets(config: &AdapterConfig, modules: &[ModuleLayout]) -> Targets {
    match &config.target_modules {
        None => Targets::Names(DEFAULT_TARGETS.map(str::to_owned).to_vec()),
        Some(targets) if targets.is_all_linear() => Targets::Names(
            modules
                .iter()
                .filter(|module| module.kind == ModuleKind::Linear)
                .map(|module| module.name.clone())
                .collect(),
        ),
        Some(targets) => targets.clone(),
    }
}

/// The rules of a configuration, its regular expressions compiled.
struct Rules<'a> {
    exclude: Option<Matcher<'a>>,
    save: Vec<Regex>,
    targets: Matcher<'a>,
    layers: Option<&'a [usize]>,
    layer_number: Vec<Regex>,
}

enum Matcher<'a> {
    Names(&'a [String]),
    Whole(Regex),
}

impl<'a> Rules<'a> {
    fn new(config: &'a AdapterConfig, targets: &'a Targets) -> Result<Self, SelectionError> {
        let exclude = match &config.exclude_modules {
            Some(targets) if !targets.is_empty() => Some(Matcher::new("exclude_modules", targets)?),
            _ => None,
        };
        let save = config.modules_to_save.iter().flatten();
        let patterns = config
            .layers_pattern
            .as_ref()
            .filter(|names| !names.is_empty());
        let layer_number = match patterns {
            None => vec![regex("layers_pattern", r"^.*?\.[^.]*\.(?P<idx>\d+)\.")?],
            Some(names) => names
                .iter()
                .map(|name| {
                    let pattern = format!(r"^(?:^|.*?\.){name}\.(?P<idx>\d+)\.");
                    regex("layers_pattern", &pattern)
                })
                .collect::<Result<_, _>>()?,
        };
        let layers = config
            .layers_to_transform
            .as_ref()
            .map(|layers| &layers.0[..]);
        Ok(Self {
            exclude,
            save: save
                .map(|name| regex("modules_to_save", &format!(r"^(?:(^|.*\.){name}($|\..*))")))
                .collect::<Result<_, _>>()?,
            targets: Matcher::new("target_modules", targets)?,
            layers: layers.filter(|layers| !layers.is_empty()),
            layer_number,
        })
    }

    fn excludes(&self, path: &str) -> Result<bool, SelectionError> {
        let excluded = match &self.exclude {
            Some(matcher) => matcher.matches("exclude_modules", path)?,
            None => false,
        };
        if excluded {
            return Ok(true);
        }
        for pattern in &self.save {
            if is_match("modules_to_save", pattern, path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn targets(&self, path: &str) -> Result<bool, SelectionError> {
        if !self.targets.matches("target_modules", path)? {
            return Ok(false);
        }
        // A whole path in the list counts in every layer.
        let whole =
            matches!(&self.targets, Matcher::Names(names) if names.iter().any(|n| n == path));
        match self.layers {
            Some(layers) if !whole => {
                let layer = self.layer(path)?;
                Ok(layer.is_some_and(|layer| layers.contains(&layer)))
            }
            _ => Ok(true),
        }
    }

    /// The layer that a path is in, by the first pattern that finds one.
    fn layer(&self, path: &str) -> Result<Option<usize>, SelectionError> {
        for pattern in &self.layer_number {
            let captures = pattern
                .captures(path)
                .map_err(|source| bad_regex("layers_pattern", pattern.as_str(), source))?;
            if let Some(number) =
                captures.and_then(|found| found.name("idx").map(|m| m.as_str().parse().ok()))
            {
                return Ok(number);
            }
        }
        Ok(None)
    }
}

impl<'a> Matcher<'a> {
    fn new(key: &'static str, targets: &'a Targets) -> Result<Self, SelectionError> {
        Ok(match targets {
            Targets::Names(names) => Self::Names(names),
            Targets::Regex(pattern) => Self::Whole(regex(key, &format!("^(?:{pattern})$"))?),
        })
    }

    fn matches(&self, key: &'static str, path: &str) -> Result<bool, SelectionError> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| is_end(path, name))),
            Self::Whole(pattern) => is_match(key, pattern, path),
        }
    }
}

/// Whether a path is `name`, or ends in it after a dot.
fn is_end(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn regex(key: &'static str, pattern: &str) -> Result<Regex, SelectionError> {
    Regex::new(pattern).map_err(|source| bad_regex(key, pattern, source))
}

fn is_match(key: &'static str, pattern: &Regex, path: &str) -> Result<bool, SelectionError> {
    pattern
        .is_match(path)
        .map_err(|source| bad_regex(key, pattern.as_str(), source))
}

fn bad_regex(key: &'static str, pattern: &str, source: fancy_regex::Error) -> SelectionError {
    SelectionError::Regex {
        key,
        pattern: pattern.to_owned(),
        source: Box::new(source),
    }
}

fn selected(config: &AdapterConfig, module: &ModuleLayout) -> Result<Selected, SelectionError> {
    let is = match module.kind {
        ModuleKind::Container => Some("is made of other modules"),
        ModuleKind::Norm => Some("is a normalisation"),
        ModuleKind::Linear | ModuleKind::OutputHead | ModuleKind::Embedding => None,
    };
    let (Ok(shape), None) = (<[usize; 2]>::try_from(&module.shape[..]), is) else {
        return Err(SelectionError::Kind {
            module: module.name.clone(),
            is: is.unwrap_or("is no matrix"),
        });
    };
    let rank = patterned("rank_pattern", &config.rank_pattern, &module.name)?.unwrap_or(config.r);
    let alpha = patterned("alpha_pattern", &config.alpha_pattern, &module.name)?
        .unwrap_or(config.lora_alpha);
    if rank == 0 {
        return Err(SelectionError::Conflict {
            key: "rank_pattern",
            why: format!("`{}` would have rank 0, expected at least 1", module.name),
        });
    }
    let divisor = if config.use_rslora {
        (rank as f64).sqrt()
    } else {
        rank as f64
    };
    Ok(Selected {
        name: module.name.clone(),
        kind: module.kind,
        shape,
        rank,
        alpha,
        scaling: alpha / divisor,
    })
}

/// The value of the first pattern that matches a path's end.
fn patterned<T: Copy>(
    key: &'static str,
    patterns: &Patterns<T>,
    path: &str,
) -> Result<Option<T>, SelectionError> {
    for (pattern, value) in patterns.iter() {
        if is_match(key, &end_regex(key, pattern)?, path)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

fn end_regex(key: &'static str, pattern: &str) -> Result<Regex, SelectionError> {
    regex(key, &format!(r"^(.*\.)?({pattern})$"))
}

/// The modules whose path ends in one of `modules_to_save`, or that lie within one that does.
///
/// The end need not begin at a dot: PEFT saves `input_layernorm` for "norm", too.
fn saved_modules(config: &AdapterConfig, modules: &[ModuleLayout]) -> Vec<ModuleLayout> {
    let names: Vec<&String> = config.modules_to_save.iter().flatten().collect();
    let named = |path: &str| names.iter().any(|name| path.ends_with(name.as_str()));
    modules
        .iter()
        .filter(|module| module.kind != ModuleKind::Container)
        .filter(|module| {
            let ends = module.name.match_indices('.').map(|(dot, _)| dot);
            ends.chain([module.name.len()])
                .any(|end| named(&module.name[..end]))
        })
        .cloned()
        .collect()
}

fn trained_biases(
    config: &AdapterConfig,
    modules: &[ModuleLayout],
    adapted: &[Selected],
    saved: &[ModuleLayout],
) -> Vec<(String, usize)> {
    let adapted: BTreeSet<&str> = adapted.iter().map(|module| module.name.as_str()).collect();
    let saved: BTreeSet<&str> = saved.iter().map(|module| module.name.as_str()).collect();
    modules
        .iter()
        .filter(|module| module.bias && !saved.contains(module.name.as_str()))
        .filter(|module| match config.bias {
            Bias::None => false,
            Bias::All => true,
            Bias::LoraOnly => adapted.contains(module.name.as_str()),
        })
        .map(|module| (module.name.clone(), module.shape[0]))
        .collect()
}

fn check_disjoint(adapted: &[Selected], saved: &[ModuleLayout]) -> Result<(), SelectionError> {
    let both = adapted
        .iter()
        .find(|module| saved.iter().any(|other| other.name == module.name));
    both.map_or(Ok(()), |module| {
        Err(SelectionError::Conflict {
            key: "modules_to_save",
            why: format!("`{}` is among target_modules, too", module.name),
        })
    })
}

/// Adapters that stay tied to each other are not supported.
fn check_tying(
    config: &AdapterConfig,
    adapted: &[Selected],
    saved: &[ModuleLayout],
) -> Result<(), SelectionError> {
    let touched = adapted.iter().any(|module| is_outermost(module.kind))
        || saved.iter().any(|module| is_outermost(module.kind));
    if config.ensure_weight_tying && touched {
        return Err(SelectionError::Conflict {
            key: "ensure_weight_tying",
            why: "adapters of embedding and head that are tied to each other are not supported"
                .to_owned(),
        });
    }
    Ok(())
}

/// Embedding and head, which may be one tensor.
fn is_outermost(kind: ModuleKind) -> bool {
    matches!(kind, ModuleKind::Embedding | ModuleKind::OutputHead)
}

/// Every name and pattern that matches nothing, with its key.
fn unmatched_names(
    config: &AdapterConfig,
    targets: &Targets,
    modules: &[ModuleLayout],
    adapted: &[Selected],
) -> Result<Vec<(&'static str, String)>, SelectionError> {
    let mut unmatched = Vec::new();
    let any = |name: &str| modules.iter().any(|module| is_end(&module.name, name));
    if let Targets::Names(names) = targets {
        let missing = names.iter().filter(|name| !any(name));
        unmatched.extend(missing.map(|name| ("target_modules", name.clone())));
    }
    for name in config.modules_to_save.iter().flatten() {
        if !modules.iter().any(|module| module.name.ends_with(name)) {
            unmatched.push(("modules_to_save", name.clone()));
        }
    }
    match &config.exclude_modules {
        Some(Targets::Names(names)) => {
            let missing = names.iter().filter(|name| !any(name));
            unmatched.extend(missing.map(|name| ("exclude_modules", name.clone())));
        }
        Some(regex @ Targets::Regex(pattern)) if !pattern.is_empty() => {
            let matcher = Matcher::new("exclude_modules", regex)?;
            let mut matched = false;
            for module in modules {
                matched |= matcher.matches("exclude_modules", &module.name)?;
            }
            if !matched {
                unmatched.push(("exclude_modules", pattern.clone()));
            }
        }
        _ => {}
    }
    let ranks = config
        .rank_pattern
        .iter()
        .map(|(pattern, _)| ("rank_pattern", pattern));
    let alphas = config
        .alpha_pattern
        .iter()
        .map(|(pattern, _)| ("alpha_pattern", pattern));
    for (key, pattern) in ranks.chain(alphas) {
        let compiled = end_regex(key, pattern)?;
        let mut matched = false;
        for module in adapted {
            matched |= is_match(key, &compiled, &module.name)?;
        }
        if !matched {
            unmatched.push((key, pattern.clone()));
        }
    }
    Ok(unmatched)
}

fn no_match(
    config: &AdapterConfig,
    targets: &Targets,
    modules: &[ModuleLayout],
    excluded: usize,
) -> SelectionError {
    let mut narrowed = Vec::new();
    if excluded > 0 {
        narrowed.push(format!(
            "exclude_modules and modules_to_save leave out {excluded}"
        ));
    }
    if let Some(layers) = &config.layers_to_transform {
        narrowed.push(format!("layers_to_transform = {:?}", layers.0));
    }
    if let Some(names) = &config.layers_pattern {
        narrowed.push(format!("layers_pattern = {names}"));
    }
    let wanted = match targets {
        Targets::Names(names) => names.first(),
        Targets::Regex(pattern) => Some(pattern),
    };
    SelectionError::NoMatch {
        targets: config
            .target_modules
            .as_ref()
            .map_or_else(|| targets.to_string(), ToString::to_string),
        narrowed: if narrowed.is_empty() {
            String::new()
        } else {
            format!(" ({})", narrowed.join(", "))
        },
        ends: ends(modules),
        nearest: wanted
            .and_then(|name| nearest(name, modules))
            .filter(|name| config.target_modules.is_none() || narrowed_out(targets, name)),
    }
}

/// Whether a similar name is worth saying: it is not what was written, unless as a bare regex.
fn narrowed_out(targets: &Targets, name: &str) -> bool {
    match targets {
        Targets::Names(names) => !names.iter().any(|other| other == name),
        Targets::Regex(_) => true,
    }
}

/// The last parts of the paths that a name can mean, each once, in the model's order.
fn ends(modules: &[ModuleLayout]) -> String {
    let mut seen = BTreeSet::new();
    modules
        .iter()
        .filter(|module| !matches!(module.kind, ModuleKind::Container | ModuleKind::Norm))
        .map(|module| last_part(&module.name))
        .filter(|end| seen.insert(*end))
        .collect::<Vec<_>>()
        .join(", ")
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The last part of a path that is most similar to `name`'s, if any is similar enough.
fn nearest(name: &str, modules: &[ModuleLayout]) -> Option<String> {
    let ends = modules
        .iter()
        .filter(|module| module.kind != ModuleKind::Container)
        .map(|module| last_part(&module.name));
    crate::checkpoint::nearest(last_part(name), ends)
}

fn near(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// PEFT replaces long lists by the shortest ends that separate the targets from all other modules.
fn condensed(targets: Targets, modules: &[ModuleLayout]) -> Targets {
    let Targets::Names(names) = targets else {
        return targets;
    };
    let names: BTreeSet<String> = names.into_iter().collect();
    if names.len() < CONDENSED_FROM {
        return Targets::Names(names.into_iter().collect());
    }
    let suffixes = |path: &str| -> Vec<String> {
        let starts = path.match_indices('.').map(|(dot, _)| dot + 1);
        let mut starts: Vec<usize> = [0].into_iter().chain(starts).collect();
        starts.reverse();
        starts
            .into_iter()
            .map(|start| path[start..].to_owned())
            .collect()
    };
    let others: BTreeSet<String> = modules
        .iter()
        .map(|module| module.name.as_str())
        .filter(|path| !names.iter().any(|name| is_end(path, name)))
        .flat_map(suffixes)
        .collect();
    let mut required: BTreeSet<String> = BTreeSet::new();
    let mut by_suffixes: Vec<(Vec<String>, &String)> =
        names.iter().map(|name| (suffixes(name), name)).collect();
    by_suffixes.sort();
    for (suffixes, name) in by_suffixes {
        let covered = required
            .iter()
            .any(|suffix| suffix != name && is_end(name, suffix));
        if covered {
            continue;
        }
        let free = |suffix: &&String| !required.contains(*suffix) && !others.contains(*suffix);
        if let Some(suffix) = suffixes.iter().find(free) {
            required.insert(suffix.clone());
        }
    }
    if required.is_empty() || required.len() >= names.len() {
        return Targets::Names(names.into_iter().collect());
    }
    Targets::Names(required.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, Value, json};

    use super::*;
    use crate::config::ModelConfig;
    use crate::layout::modules;

    fn model() -> Vec<ModuleLayout> {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 16,
            "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
            "num_attention_heads": 2, "attention_bias": true, "rms_norm_eps": 1e-5,
        });
        modules(&ModelConfig::from_json(&config, Path::new("config.json")).unwrap())
    }

    fn config(keys: Value) -> AdapterConfig {
        let Value::Object(mut keys) = keys else {
            panic!("an object")
        };
        keys.insert("peft_type".to_owned(), "LORA".into());
        let file = Path::new("adapter_config.json");
        AdapterConfig::from_json(keys, file).unwrap().0
    }

    fn refused(keys: Value) -> String {
        let error = select(&config(keys), &model(), Unmatched::Refuse).unwrap_err();
        match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        }
    }

    /// What PEFT itself chooses, from tests/reference/selection.py.
    #[test]
    fn the_choice_is_pefts() {
        let goldens = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/goldens/selection.json"
        );
        let goldens: Value = serde_json::from_slice(&std::fs::read(goldens).unwrap()).unwrap();
        let mut base = goldens["model"].as_object().unwrap().clone();
        base.insert("architectures".to_owned(), json!(["LlamaForCausalLM"]));
        base.insert("model_type".to_owned(), "llama".into());
        let base = Value::Object(base);
        let modules = modules(&ModelConfig::from_json(&base, Path::new("config.json")).unwrap());
        let cases = goldens["cases"].as_array().unwrap();
        assert!(cases.len() >= 49);
        for case in cases {
            let chosen = select(&config(case["config"].clone()), &modules, Unmatched::Warn);
            if case.get("error").is_some() {
                assert!(chosen.is_err(), "{case}");
                continue;
            }
            let chosen = chosen.unwrap_or_else(|error| panic!("{case}: {error}"));
            let adapted: Map<String, Value> = chosen
                .adapted
                .iter()
                .map(|module| (module.name.clone(), json!([module.rank, module.scaling])))
                .collect();
            assert_eq!(Value::Object(adapted), case["modules"], "{case}");
            assert_also_trained(&chosen, case);
        }
    }

    fn assert_also_trained(chosen: &Selection, case: &Value) {
        let trained: Vec<String> = crate::adapter::peft::tensor_shapes(chosen)
            .into_keys()
            .filter(|key| !key.contains(".lora_"))
            .map(|key| key.replace(crate::adapter::peft::KEY_PREFIX, ""))
            .collect();
        // `bias = "all"` makes PEFT write a module that is saved whole three times.
        let expected: Vec<&str> = case["also_trained"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .filter(|key| !key.contains(".modules_to_save.") && !key.contains(".original_module."))
            .collect();
        assert_eq!(trained, expected, "{case}");
    }

    #[test]
    fn nothing_matched_says_what_there_is() {
        insta::assert_snapshot!(refused(json!({"target_modules": ["q_prog"]})), @r#"target_modules: ["q_prog"] matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `q_proj`?"#);
        insta::assert_snapshot!(refused(json!({"target_modules": ["query_key_value"]})), @r#"target_modules: ["query_key_value"] matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"#);
        insta::assert_snapshot!(refused(json!({"target_modules": "q_proj"})), @r#"
        target_modules: "q_proj" matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `q_proj`?
        hint: a string is one regular expression for the whole path: write ["q_proj"], or ".*\\.q_proj"
        "#);
        insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "layers_to_transform": [7]})), @r#"target_modules: ["q_proj"] matches no module (layers_to_transform = [7]); the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"#);
        insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]})), @r#"target_modules: ["q_proj"] matches no module (exclude_modules and modules_to_save leave out 3); the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"#);
    }

    #[test]
    fn one_name_of_several_that_matches_nothing() {
        insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj", "v_prj"]})), @"target_modules: `v_prj` matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `v_proj`?");
        insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "modules_to_save": ["lm_haed"]})), @"modules_to_save: `lm_haed` matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `lm_head`?");
        insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "rank_pattern": {"k_proj": 4}})), @"rank_pattern: `k_proj` matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `k_proj`?");
        let keys = json!({"target_modules": ["q_proj", "v_prj"], "exclude_modules": ["x"]});
        let chosen = select(&config(keys), &model(), Unmatched::Warn).unwrap();
        assert_eq!(chosen.adapted.len(), 3);
        assert_eq!(chosen.warnings.len(), 2);
        let keys = json!({"target_modules": ["q_proj"], "exclude_modules": "x.*"});
        let chosen = select(&config(keys), &model(), Unmatched::Refuse).unwrap();
        assert!(chosen.warnings[0].starts_with("exclude_modules: `x.*` matches no module"));
    }

    #[test]
    fn what_cannot_be_adapted_is_named() {
        insta::assert_snapshot!(refused(json!({"target_modules": ["self_attn"]})), @"target_modules: `model.layers.0.self_attn` is made of other modules; only matrix products and the embedding have a low-rank path");
        insta::assert_snapshot!(refused(json!({"target_modules": ["norm"]})), @"target_modules: `model.norm` is a normalisation; only matrix products and the embedding have a low-rank path");
        insta::assert_snapshot!(refused(json!({"target_modules": ".*(q_proj"})), @r"target_modules: `^(?:.*(q_proj)$` is not a valid regular expression: Parsing error at position 15: Opening parenthesis without closing parenthesis");
        insta::assert_snapshot!(refused(json!({"target_modules": "all-linear", "layers_to_transform": [1]})), @"layers_to_transform: only narrows a list of targets; say the layers in the regular expression instead");
        insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "layers_pattern": "layers"})), @"layers_pattern: needs layers_to_transform beside it");
        insta::assert_snapshot!(refused(json!({"target_modules": []})), @"target_modules: the list is empty");
        insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "modules_to_save": ["proj"]})), @"modules_to_save: `model.layers.0.self_attn.q_proj` is among target_modules, too");
        insta::assert_snapshot!(refused(json!({"target_modules": ["embed_tokens"], "ensure_weight_tying": true})), @"ensure_weight_tying: adapters of embedding and head that are tied to each other are not supported");
        insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 0}})), @"rank_pattern: `model.layers.0.self_attn.q_proj` would have rank 0, expected at least 1");
    }

    #[test]
    fn long_lists_are_condensed() {
        let chosen = |keys| select(&config(keys), &model(), Unmatched::Refuse).unwrap();
        let names = |targets| match targets {
            Targets::Names(names) => names,
            Targets::Regex(pattern) => panic!("{pattern}"),
        };
        let all = chosen(json!({"target_modules": "all-linear"}));
        let ends = [
            "down_proj",
            "gate_proj",
            "k_proj",
            "o_proj",
            "q_proj",
            "up_proj",
            "v_proj",
        ];
        assert_eq!(names(all.target_modules), ends);
        // 20 of 21 modules: the missing one keeps its name from being shortened.
        let mut most: Vec<String> = all.adapted.into_iter().map(|module| module.name).collect();
        most.retain(|name| name != "model.layers.1.mlp.up_proj");
        let most = chosen(json!({"target_modules": most}));
        let expected = [
            "0.mlp.up_proj",
            "2.mlp.up_proj",
            "down_proj",
            "gate_proj",
            "k_proj",
            "o_proj",
            "q_proj",
            "v_proj",
        ];
        assert_eq!(names(most.target_modules), expected);
    }
}
