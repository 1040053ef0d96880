//! Selects the modules that an adapter changes, by PEFT's rules.
//!
//! A module is excluded if `exclude_modules` names it or `modules_to_save` trains it fully. Otherwise it
//! is a target module if `target_modules` names it: one regular expression for the whole module path, or a
//! list of module paths and ends of module paths ("q_proj" matches every path that ends in ".q_proj").
//!
//! Source: PEFT 0.21, src/peft/tuners/tuners_utils.py, `check_target_module_exists`, and
//! src/peft/utils/other.py, `get_pattern_key` and `_set_trainable`.

use std::collections::BTreeSet;

use simmer_checkpoint::family::Module;
use simmer_checkpoint::layout::{ModuleKind, ModuleLayout};

use super::adaption_prompt::{self, SelectedAttention};
use super::config::{AdapterConfig, Bias};
use super::init::{Factors, Init};
use super::kind::{self, Kind, Trained};
pub use super::names::{Layers, Names, Patterns, Targets};
use super::peft::KEY_PREFIX;
use super::rules::{Rules, is_end};
use super::tokens::{self, SelectedTokens};
pub use super::unmatched::SelectionError;
use super::unmatched::{linear_names, no_match, unmatched_names};

/// From this many names on, PEFT writes the shortest ends of paths that select the same modules.
const CONDENSED_FROM: usize = 20;

/// What to do about a name that matches no module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// An error, for recipes.
    Refuse,
    /// A warning, for existing adapters, which may name modules of several model families.
    Warn,
}

/// The modules that an adapter changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Target modules, in the model's order.
    pub adapted: Vec<Selected>,
    /// Layers whose attention has an adapter, from below.
    pub attention: Vec<SelectedAttention>,
    /// Modules that are trained fully, in the model's order, without containers.
    pub saved: Vec<ModuleLayout>,
    /// Modules of which single rows are trained.
    pub tokens: Vec<SelectedTokens>,
    /// Modules with a frozen weight and a trained bias, in the model's order.
    pub biases: Vec<ModuleLayout>,
    /// The model's embedding and output head, changed or not.
    pub ends: Vec<ModuleLayout>,
    /// The last parts of the paths of all modules of the model.
    pub names: BTreeSet<String>,
    /// The targets as PEFT writes them.
    pub target_modules: Targets,
    /// Names that matched nothing, one sentence each.
    pub warnings: Vec<String>,
}

/// A target module.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// Its module path.
    pub name: String,
    /// Linear, output head or embedding.
    pub kind: ModuleKind,
    /// The kind of its adapter.
    pub adapter: &'static Kind,
    /// Its row in the table of the family.
    pub module: &'static Module,
    /// Its layer; `None` outside the layers.
    pub layer: Option<usize>,
    /// `[out, in]`, or `[vocab, hidden]` of the embedding.
    pub shape: [usize; 2],
    /// Rank of its branch.
    pub rank: usize,
    /// Its alpha.
    pub alpha: f64,
    /// The scale of B·A: alpha/rank, or alpha/√rank.
    pub scaling: f64,
    /// How A and B start.
    pub init: Init,
}

impl AsRef<Self> for Selected {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Selected {
    /// Whether it is the embedding.
    pub fn is_embedding(&self) -> bool {
        self.kind == ModuleKind::Embedding
    }

    /// The factors of its weight that its adapter starts with; `None` if it does not start at any.
    ///
    /// # Shapes
    /// `weight`: that of the module, row after row.
    pub(crate) fn factors(&self, weight: &[f32], seed: u64) -> Option<Factors> {
        let Self {
            name,
            shape,
            rank,
            scaling,
            init,
            ..
        } = self;
        init.factors(name, weight, *shape, *rank, *scaling, seed)
    }

    /// Zeros in the place of [`Self::factors`].
    pub(crate) fn no_factors(&self) -> Option<Factors> {
        let [rows, columns] = self.shape;
        self.init.is_of_weight().then(|| Factors {
            a: vec![0.0; self.rank * columns],
            b: vec![0.0; rows * self.rank],
        })
    }

    /// The tensors of its adapter.
    pub fn tensors(&self) -> &'static [Trained] {
        self.adapter.tensors(self.is_embedding())
    }
}

/// Selects the modules of an adapter.
///
/// # Errors
///
/// See [`SelectionError`].
pub fn select(
    config: &AdapterConfig,
    modules: &[ModuleLayout],
    unmatched: Unmatched,
) -> Result<Selection, SelectionError> {
    if config.kind.attention.is_some() {
        let attention = adaption_prompt::select(config, modules)?;
        let targets = config.target_modules.clone();
        return Ok(Selection {
            attention,
            ..Selection::none(targets.unwrap_or(Targets::Names(Vec::new())), modules)
        });
    }
    check_combination(config)?;
    let targets = resolved_targets(config, modules)?;
    let rules = Rules::new(config, &targets)?;

    let mut adapted = Vec::new();
    let mut excluded = false;
    for module in modules {
        if rules.excludes(&module.name)? {
            excluded = true;
        } else if rules.targets(&module.name)? {
            adapted.push(selected(config, module)?);
        }
    }
    let saved = saved_modules(config, modules);
    if adapted.is_empty() {
        return Err(no_match(config, &targets, modules, excluded));
    }
    check_disjoint(&adapted, &saved)?;

    let mut warnings = Vec::new();
    for (key, name) in unmatched_names(config, &targets, modules, &adapted)? {
        let error = super::unmatched::unmatched(key, name, modules)?;
        if unmatched == Unmatched::Refuse {
            return Err(error);
        }
        warnings.push(error.to_string());
    }
    let tokens = tokens::selected(config, modules, &adapted, &saved)?;
    let biases = trained_biases(config, modules, &adapted, &saved);
    Ok(Selection {
        adapted,
        saved,
        tokens,
        biases,
        warnings,
        ..Selection::none(condensed(targets, modules), modules)
    })
}

/// Refuses combinations of keys that PEFT refuses for every model.
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
            "applies only to a list of targets; write such a list, or the layers into the regular expression",
        );
    }
    if regex && config.layers_pattern.is_some() {
        return conflict("layers_pattern", "applies only to a list of targets");
    }
    if pattern && config.layers_to_transform.is_none() {
        return conflict("layers_pattern", "requires layers_to_transform");
    }
    if matches!(&config.target_modules, Some(Targets::Names(names)) if names.is_empty()) {
        return conflict("target_modules", "the list is empty");
    }
    Ok(())
}

/// The targets, with the default and "all-linear" expanded.
fn resolved_targets(
    config: &AdapterConfig,
    modules: &[ModuleLayout],
) -> Result<Targets, SelectionError> {
    Ok(match &config.target_modules {
        None => {
            let names = default_targets(modules);
            if names.is_empty() {
                let ends = linear_names(modules).join(", ");
                return Err(SelectionError::NoDefault { ends });
            }
            Targets::Names(names)
        }
        Some(targets) if targets.is_all_linear() => Targets::Names(
            modules
                .iter()
                .filter(|module| module.kind == ModuleKind::Linear)
                .map(|module| module.name.clone())
                .collect(),
        ),
        Some(targets) => targets.clone(),
    })
}

/// PEFT's default targets of the family.
fn default_targets(modules: &[ModuleLayout]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let rows = modules.iter().filter_map(|module| module.module);
    for row in rows.filter(|row| row.default_target) {
        if names.iter().all(|name| name != row.last_part()) {
            names.push(row.last_part().to_owned());
        }
    }
    names
}

fn last_parts(modules: &[ModuleLayout]) -> BTreeSet<String> {
    let rows = modules.iter().filter_map(|module| module.module);
    rows.map(|row| row.last_part().to_owned()).collect()
}

fn selected(config: &AdapterConfig, module: &ModuleLayout) -> Result<Selected, SelectionError> {
    let is = match module.kind {
        ModuleKind::Container => Some("is a container of other modules"),
        ModuleKind::Norm => Some("is a normalisation layer"),
        ModuleKind::Linear | ModuleKind::OutputHead | ModuleKind::Embedding => None,
    };
    let shape = <[usize; 2]>::try_from(&module.shape[..]);
    let (Ok(shape), Some(row), None) = (shape, module.module, is) else {
        return Err(SelectionError::Kind {
            module: module.name.clone(),
            is: is.unwrap_or("is not a matrix"),
        });
    };
    let kind = config.kind_of(&module.name)?;
    if let (ModuleKind::Embedding, None) = (module.kind, &kind.embedding) {
        let key = if config.init().is_of_weight() {
            "init_lora_weights"
        } else {
            "target_modules"
        };
        return Err(SelectionError::Conflict {
            key: kind.switch.unwrap_or(key),
            why: format!(
                "{} of an embedding (`{}`) is not supported; leave it out of the targets",
                kind.name, module.name
            ),
        });
    }
    let (rank, alpha) = if kind.has_rank() {
        (
            config.rank_of(&module.name)?,
            config.alpha_of(&module.name)?,
        )
    } else {
        (1, 1.0)
    };
    if rank == 0 {
        return Err(SelectionError::Conflict {
            key: "rank_pattern",
            why: format!("`{}` has rank 0, expected at least 1", module.name),
        });
    }
    let (init, most) = (config.init(), shape[0].min(shape[1]));
    if init.is_of_weight() && rank > most {
        return Err(SelectionError::Conflict {
            key: "rank",
            why: format!(
                "`{}` has a weight of {shape:?}, and {} starts with singular vectors or columns of it: expected a rank of at most \
                 {most}, found {rank}",
                module.name, kind.name
            ),
        });
    }
    Ok(Selected {
        name: module.name.clone(),
        kind: module.kind,
        adapter: kind,
        module: row,
        layer: module.layer,
        shape,
        rank,
        alpha,
        scaling: config.scaling(alpha, rank),
        init,
    })
}

/// The modules whose path ends in one of `modules_to_save`, and the modules inside them.
///
/// The end may start in the middle of a name: for "norm", PEFT also saves `input_layernorm`.
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
) -> Vec<ModuleLayout> {
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
        .cloned()
        .collect()
}

fn check_disjoint(adapted: &[Selected], saved: &[ModuleLayout]) -> Result<(), SelectionError> {
    let both = adapted
        .iter()
        .find(|module| saved.iter().any(|other| other.name == module.name));
    both.map_or(Ok(()), |module| {
        Err(SelectionError::Conflict {
            key: "modules_to_save",
            why: format!("`{}` is also in target_modules", module.name),
        })
    })
}

impl Selection {
    /// No module of a model.
    fn none(target_modules: Targets, modules: &[ModuleLayout]) -> Self {
        Self {
            adapted: Vec::new(),
            attention: Vec::new(),
            saved: Vec::new(),
            tokens: Vec::new(),
            biases: Vec::new(),
            ends: modules
                .iter()
                .filter(|module| is_outermost(module.kind))
                .cloned()
                .collect(),
            names: last_parts(modules),
            target_modules,
            warnings: Vec::new(),
        }
    }

    /// Adds the output head to an adapter with `ensure_weight_tying`, if its file (`has` a key) holds the head's tensors.
    /// The configuration names only the embedding; PEFT trains the head tied to it, and saves both.
    ///
    /// Source: PEFT 0.21, src/peft/tuners/lora/model.py, `_add_modules_to_save_to_tie` and `_add_targets_to_tie`.
    pub(super) fn add_tied_head(
        &mut self,
        config: &AdapterConfig,
        has: &dyn Fn(&str) -> bool,
    ) -> Result<(), SelectionError> {
        let head = self
            .ends
            .iter()
            .find(|end| end.kind == ModuleKind::OutputHead);
        let Some(head) = head.filter(|_| config.ensure_weight_tying).cloned() else {
            return Ok(());
        };
        let is_new = self.adapted.iter().all(|module| module.name != head.name)
            && self.saved.iter().all(|module| module.name != head.name);
        let saved = |kind| self.saved.iter().any(|module| module.kind == kind);
        let adapted = |kind| self.adapted.iter().any(|module| module.kind == kind);
        let key = |end: &str| format!("{KEY_PREFIX}{}{end}", head.name);
        if is_new && saved(ModuleKind::Embedding) && has(&key(".weight")) {
            self.saved.push(head);
        } else if is_new && adapted(ModuleKind::Embedding) && has(&key(kind::factors(false)[0].end))
        {
            self.adapted.push(selected(config, &head)?);
        }
        Ok(())
    }

    /// Refuses to train tied adapters of embedding and head further: simmer would train each for itself.
    pub(super) fn check_trainable(&self, config: &AdapterConfig) -> Result<(), SelectionError> {
        let touched = self.adapted.iter().any(|module| is_outermost(module.kind))
            || self.saved.iter().any(|module| is_outermost(module.kind));
        if config.ensure_weight_tying && touched {
            return Err(SelectionError::Conflict {
                key: "ensure_weight_tying",
                why: "adapters whose embedding and output head are tied can be used and merged, but not trained further"
                    .to_owned(),
            });
        }
        Ok(())
    }
}

/// Whether it is the embedding or the output head, which may share one tensor.
fn is_outermost(kind: ModuleKind) -> bool {
    matches!(kind, ModuleKind::Embedding | ModuleKind::OutputHead)
}

/// Replaces long lists as PEFT does: by the shortest ends of paths that distinguish the targets from all other
/// modules.
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
mod tests;
