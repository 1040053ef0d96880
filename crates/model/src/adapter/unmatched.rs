//! Errors of the selection of modules, and names that match nothing.

use std::collections::BTreeSet;

use simmer_checkpoint::family;
use simmer_checkpoint::layout::{ModuleKind, ModuleLayout};
use simmer_hint::Hint;
use thiserror::Error;

use super::config::AdapterConfig;
use super::names::{Layers, Targets};
use super::rules::{Matcher, end_regex, is_end, is_match};
use super::targets::Selected;

/// Modules that cannot be selected.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// The targets match no module.
    #[error("target_modules: {targets} matches no module{narrowed}; the model's modules end in {ends}{elsewhere}{}", near(nearest.as_deref()))]
    NoMatch {
        /// The targets.
        targets: Box<str>,
        /// Other keys that exclude modules, as the middle of the sentence; may be empty.
        narrowed: Box<str>,
        /// Last parts of the paths of possible targets.
        ends: Box<str>,
        /// The families that have such modules, as the end of the sentence; may be empty.
        elsewhere: Box<str>,
        /// The most similar name.
        nearest: Option<Box<str>>,
        /// The targets that may be meant if one regular expression was given: `"all-linear"`, or a list of names.
        meant: Option<Box<str>>,
        /// The path of a module of the model; may be empty.
        example: Box<str>,
    },
    /// No targets, for a family for which PEFT has no default.
    #[error(
        "target_modules: not set, and PEFT has no default for this family of models; the model's linear modules end in {ends}"
    )]
    NoDefault {
        /// Last parts of the paths of the linear modules.
        ends: String,
    },
    /// A name that matches nothing, while others match.
    #[error("{key}: `{name}` matches no module; the model's modules end in {ends}{elsewhere}{}", near(nearest.as_deref()))]
    Unmatched {
        /// The key.
        key: &'static str,
        /// The name.
        name: String,
        /// Last parts of the paths of possible targets.
        ends: String,
        /// The families that have such a module, as the end of the sentence; may be empty.
        elsewhere: String,
        /// The most similar name.
        nearest: Option<String>,
    },
    /// A pattern that matches modules, none of which is a target.
    #[error("{key}: `{name}` matches no target module")]
    NotTargeted {
        /// The key.
        key: &'static str,
        /// The pattern.
        name: String,
    },
    /// A layer that the model does not have.
    #[error("layers_to_transform: the model has no layer {layer}: expected layers from 0 to {}", count - 1)]
    NoLayer {
        /// The layer.
        layer: usize,
        /// The number of layers.
        count: usize,
    },
    /// A module that cannot have a low-rank branch.
    #[error(
        "target_modules: `{module}` {is}; only linear modules and the embedding can have a low-rank branch"
    )]
    Kind {
        /// The module.
        module: String,
        /// What it is, as verb and object.
        is: &'static str,
    },
    /// A pattern that is not a regular expression.
    #[error("{key}: `{pattern}` is not a valid regular expression: {source}")]
    Regex {
        /// The key.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// The error of the parser.
        source: Box<fancy_regex::Error>,
    },
    /// Keys that exclude each other.
    #[error("{key}: {why}")]
    Conflict {
        /// The key.
        key: &'static str,
        /// Why it is not valid.
        why: String,
    },
}

impl Hint for SelectionError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoMatch {
                targets,
                meant,
                example,
                ..
            } if targets.starts_with('"') => {
                let string = format!(
                    "a string is one regular expression for the whole path of a module, such as {example}"
                );
                Some(match meant {
                    Some(meant) => format!("write {meant}: {string}"),
                    None => string,
                })
            }
            // no default, or names of another family
            Self::NoDefault { .. } | Self::NoMatch { meant: Some(_), .. } => {
                Some(ALL_LINEAR.to_owned())
            }
            Self::NotTargeted { .. } => {
                Some("add the module to the targets, or remove the pattern".to_owned())
            }
            _ => None,
        }
    }
}

const ALL_LINEAR: &str =
    "write \"all-linear\" for every linear module of a layer, whatever the family calls them";

impl SelectionError {
    /// The key, in PEFT's spelling; the message begins with it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::NoMatch { .. } | Self::NoDefault { .. } | Self::Kind { .. } => "target_modules",
            Self::NoLayer { .. } => "layers_to_transform",
            Self::Unmatched { key, .. }
            | Self::NotTargeted { key, .. }
            | Self::Regex { key, .. }
            | Self::Conflict { key, .. } => key,
        }
    }
}

/// The error of a name or pattern that matches nothing.
pub(super) fn unmatched(
    key: &'static str,
    name: String,
    modules: &[ModuleLayout],
) -> Result<SelectionError, SelectionError> {
    if PATTERNS.contains(&key) {
        let compiled = end_regex(key, &name)?;
        for module in modules {
            if is_match(key, &compiled, &module.name)? {
                return Ok(SelectionError::NotTargeted { key, name });
            }
        }
    }
    Ok(SelectionError::Unmatched {
        key,
        nearest: nearest(&name, modules),
        elsewhere: elsewhere(std::slice::from_ref(&name), modules),
        name,
        ends: ends(modules),
    })
}

/// The keys whose patterns choose among the targets.
const PATTERNS: [&str; 2] = ["rank_pattern", "alpha_pattern"];

/// Checks that a model has the layers that are chosen.
///
/// # Errors
/// [`SelectionError::NoLayer`].
pub(super) fn check_layers(
    config: &AdapterConfig,
    modules: &[ModuleLayout],
) -> Result<(), SelectionError> {
    let last = modules.iter().filter_map(|module| module.layer).max();
    let (Some(Layers(layers)), Some(last)) = (&config.layers_to_transform, last) else {
        return Ok(());
    };
    match layers.iter().find(|layer| **layer > last) {
        None => Ok(()),
        Some(layer) => Err(SelectionError::NoLayer {
            layer: *layer,
            count: last + 1,
        }),
    }
}

/// All names and patterns that match nothing, with their keys.
pub(super) fn unmatched_names(
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
    if let (Some(_), Some(Targets::Names(names))) =
        (config.kind.of_input, &config.feedforward_modules)
    {
        let of_none = |name: &&String| {
            let mut adapted = adapted.iter();
            adapted.all(|module| !module.name.ends_with(name.as_str()))
        };
        let missing = names.iter().filter(of_none);
        unmatched.extend(missing.map(|name| ("feedforward_modules", name.clone())));
    }
    let ranks = config
        .rank_pattern
        .iter()
        .map(|(pattern, _)| (PATTERNS[0], pattern));
    let alphas = config
        .alpha_pattern
        .iter()
        .map(|(pattern, _)| (PATTERNS[1], pattern));
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

pub(super) fn no_match(
    config: &AdapterConfig,
    targets: &Targets,
    modules: &[ModuleLayout],
    excluded: bool,
) -> SelectionError {
    let mut narrowed = Vec::new();
    if excluded {
        let names = &config.exclude_modules;
        narrowed.extend(
            names
                .iter()
                .map(|names| format!("exclude_modules = {names}")),
        );
        let names = config.modules_to_save.iter();
        narrowed.extend(names.map(|names| format!("modules_to_save = {names:?}")));
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
            .map_or_else(|| targets.to_string(), ToString::to_string)
            .into(),
        narrowed: if narrowed.is_empty() {
            String::new()
        } else {
            format!(" ({})", narrowed.join(", "))
        }
        .into(),
        ends: ends(modules).into(),
        elsewhere: match targets {
            Targets::Names(names) => elsewhere(names, modules).into(),
            Targets::Regex(_) => "".into(),
        },
        nearest: wanted
            .and_then(|name| nearest(name, modules))
            .filter(|name| is_another(targets, name))
            .map(String::into_boxed_str),
        meant: match targets {
            Targets::Regex(pattern) => meant(pattern, modules).map(String::into_boxed_str),
            Targets::Names(names) => {
                let known = names.iter().any(|name| !families_with(name).is_empty());
                let narrowed_only = names.iter().any(|name| has(modules, name));
                (known && !narrowed_only).then(|| "all-linear".into())
            }
        },
        example: modules
            .iter()
            .find(|module| module.kind == ModuleKind::Linear)
            .map_or_else(String::new, |module| module.name.clone())
            .into(),
    }
}

/// What a string that matches nothing may mean, if it is no regular expression: names, or "all-linear".
fn meant(pattern: &str, modules: &[ModuleLayout]) -> Option<String> {
    let plain = pattern.to_lowercase().replace(['_', ' '], "-");
    if [
        "all",
        "all-linear",
        "all-linears",
        "linear",
        "all-linear-layers",
    ]
    .contains(&plain.as_str())
    {
        return Some("\"all-linear\"".to_owned());
    }
    let is_name = |name: &&str| {
        let mut letters = name.chars();
        !name.is_empty() && letters.all(|c| c.is_alphanumeric() || c == '_' || c == '.')
    };
    let names = pattern.split([',', ' ', '|', ';']).map(str::trim);
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    if names.is_empty() || !names.iter().all(is_name) {
        return None;
    }
    let known = |name: &str| modules.iter().any(|module| is_end(&module.name, name));
    let names = names.iter().map(|name| {
        if known(name) {
            Some((*name).to_owned())
        } else {
            nearest(name, modules)
        }
    });
    let names: Option<Vec<String>> = names.collect();
    names.map(|names| format!("{names:?}"))
}

/// Whether a similar name is worth suggesting: one that the user wrote is not.
fn is_another(targets: &Targets, name: &str) -> bool {
    match targets {
        Targets::Names(names) => !names.iter().any(|other| other == name),
        Targets::Regex(pattern) => pattern != name,
    }
}

/// The last parts of the paths of possible targets, each once, in the model's order.
pub(super) fn ends(modules: &[ModuleLayout]) -> String {
    let is_target = |kind| !matches!(kind, ModuleKind::Container | ModuleKind::Norm);
    last_parts(modules, &is_target).join(", ")
}

/// Last parts of the paths of the linear modules of a layer, each once.
pub(super) fn linear_names(modules: &[ModuleLayout]) -> Vec<String> {
    let names = last_parts(modules, &|kind| kind == ModuleKind::Linear);
    names.into_iter().map(str::to_owned).collect()
}

fn last_parts<'a>(
    modules: &'a [ModuleLayout],
    wanted: &dyn Fn(ModuleKind) -> bool,
) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    modules
        .iter()
        .filter(|module| wanted(module.kind))
        .map(|module| last_part(&module.name))
        .filter(|end| seen.insert(*end))
        .collect()
}

/// Whether a module's path ends in this name.
fn has(modules: &[ModuleLayout], name: &str) -> bool {
    modules.iter().any(|module| is_end(&module.name, name))
}

/// The families with a module that has this name.
fn families_with(name: &str) -> Vec<&'static str> {
    let name = last_part(name);
    let families = family::ALL
        .into_iter()
        .filter(|family| family.has_module(name));
    families.map(|family| family.model_type).collect()
}

/// The families that have modules that this model has not, as the end of a sentence: names that most families have say
/// nothing.
pub(super) fn elsewhere(names: &[String], modules: &[ModuleLayout]) -> String {
    let missing = names.iter().filter(|name| !has(modules, name));
    let mut found = missing.map(|name| (name, families_with(name)));
    let Some((name, families)) = found.find(|(_, families)| (1..=3).contains(&families.len()))
    else {
        return String::new();
    };
    let families: Vec<String> = families.iter().map(|name| format!("`{name}`")).collect();
    format!("; `{name}` is a module of {}", families.join(", "))
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The last part of a module path that is most similar to that of `name`, if any is similar enough.
pub(super) fn nearest(name: &str, modules: &[ModuleLayout]) -> Option<String> {
    let ends = modules
        .iter()
        .filter(|module| module.kind != ModuleKind::Container)
        .map(|module| last_part(&module.name));
    simmer_checkpoint::nearest(last_part(name), ends)
}

fn near(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}
