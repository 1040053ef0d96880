//! The adapters that are combined: what they must have in common, and what the result has of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use burn::tensor::TensorData;
use simmer_checkpoint::family::{Role, module_at};

use super::{CombineError, CombineOptions, CombinedModule, WeightedAdapter, relative_error};
use crate::adapter::AdapterError;
use crate::adapter::card::Card;
use crate::adapter::config::AdapterConfig;
use crate::adapter::inspect::{OpenAdapter, OpenBranch, order, weights_path};
use crate::adapter::kind::LORA;
use crate::adapter::peft::{AdapterFolder, KEY_PREFIX, frozen_key};
use crate::adapter::spectrum::Columns;
use crate::adapter::targets::Targets;
use crate::adapter::trained_with::{PromptTemplate, TrainedWith};
use crate::adapter::weights::check_finite;
use crate::tensor_file::to_data;

/// The adapters, opened and checked.
pub(super) struct Sources<'a> {
    all: Vec<Source<'a>>,
}

struct Source<'a> {
    given: &'a WeightedAdapter,
    folder: AdapterFolder,
    opened: OpenAdapter,
    branches: BTreeMap<String, Branch>,
}

/// The branch of one adapter beside a module.
pub(super) struct Branch {
    branch: OpenBranch,
    adapter: usize,
}

impl Branch {
    /// Which adapter it is of, counted from 0.
    pub(super) fn adapter(&self) -> usize {
        self.adapter
    }

    pub(super) fn rank(&self) -> usize {
        self.branch.rank
    }

    pub(super) fn scale(&self) -> f64 {
        self.branch.scale
    }

    pub(super) fn is_embedding(&self) -> bool {
        self.branch.embedding
    }

    /// Rows of B and columns of A: O and I; of an embedding, hidden size and vocabulary.
    pub(super) fn sides(&self) -> [usize; 2] {
        let [rows, columns] = self.branch.shape();
        if self.branch.embedding {
            [columns, rows]
        } else {
            [rows, columns]
        }
    }

    /// Rows of A, and columns of B.
    pub(super) fn factors(&self) -> [Columns; 2] {
        let [a, b] = self.branch.factors();
        self.branch.columns(&a, &b)
    }
}

impl<'a> Sources<'a> {
    pub(super) fn open(adapters: &'a [WeightedAdapter]) -> Result<Self, CombineError> {
        let opened = adapters
            .iter()
            .enumerate()
            .map(|(at, given)| Source::open(at, given));
        let all = Self {
            all: opened.collect::<Result<_, _>>()?,
        };
        all.check_shapes()?;
        Ok(all)
    }

    /// The modules with a branch in any adapter, in the order in which a model uses them.
    pub(super) fn modules(&self) -> Vec<&str> {
        let names = self.all.iter().flat_map(|source| source.branches.keys());
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        names.sort_by_key(|name| order(name));
        names.dedup();
        names
    }

    /// The largest rank of a branch.
    pub(super) fn largest_rank(&self) -> usize {
        let branches = self.all.iter().flat_map(|source| source.branches.values());
        branches.map(Branch::rank).max().unwrap_or(0)
    }

    /// Refuses a copy of an embedding with more rows than another adapter's branch beside an embedding or head has.
    fn check_vocabulary(
        &self,
        folder: &Path,
        module: &str,
        rows: usize,
    ) -> Result<(), CombineError> {
        for source in &self.all {
            for (name, branch) in &source.branches {
                let role = module_at(name).map(|module| module.role);
                let is_end = matches!(role, Some(Role::Embedding | Role::Head));
                let [found, _] = branch.branch.shape();
                if is_end && found != rows {
                    return Err(CombineError::OtherBase {
                        first: folder.to_owned(),
                        second: source.given.folder.clone(),
                        differences: format!(
                            "the first has `{module}` with {rows} rows, the second `{name}` with {found}"
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// The branches beside a module, one place for each adapter.
    pub(super) fn branches(&self, module: &str) -> Vec<Option<&Branch>> {
        let branches = self.all.iter();
        branches.map(|source| source.branches.get(module)).collect()
    }

    fn check_shapes(&self) -> Result<(), CombineError> {
        let Some((first, others)) = self.all.split_first() else {
            return Ok(());
        };
        let mut known: BTreeMap<&str, (&Source<'_>, &Branch)> = BTreeMap::new();
        for source in std::iter::once(first).chain(others) {
            let mut differ = Vec::new();
            let mut other = source;
            for (module, branch) in &source.branches {
                let shape = |of: &Branch| (of.branch.shape(), of.is_embedding());
                let (before, known) = *known.entry(module).or_insert((source, branch));
                if shape(known) != shape(branch) {
                    other = before;
                    let [one, two] = [known, branch].map(|of| of.branch.shape());
                    differ.push(format!("`{module}` is {one:?} and {two:?}"));
                }
            }
            if let Some(shown) = differ.first() {
                let more = match differ.len() - 1 {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                return Err(CombineError::OtherBase {
                    first: other.given.folder.clone(),
                    second: source.given.folder.clone(),
                    differences: format!("{shown}{more}"),
                });
            }
        }
        Ok(())
    }

    /// Frozen copies of base weights: of an adapted or resized embedding.
    pub(super) fn base_weights(&self) -> Result<BTreeMap<String, TensorData>, CombineError> {
        let mut found: BTreeMap<String, TensorData> = BTreeMap::new();
        let adapted: BTreeSet<&str> = self.modules().into_iter().collect();
        for source in &self.all {
            for (key, module, tensor) in source.opened.base_weights()? {
                let file = source.folder.weights().path();
                let rows = tensor.shape.first().copied().unwrap_or(0);
                self.check_vocabulary(&source.given.folder, module, rows)?;
                check_finite(file, key, tensor)?;
                let data = to_data(tensor.clone(), file, key).map_err(AdapterError::from)?;
                let key = frozen_key(module, adapted.contains(module));
                match found.get(&key) {
                    Some(other) if *other != data => {
                        return Err(CombineError::Whole {
                            folder: source.given.folder.clone(),
                            key,
                            what: "copy of a base weight that differs from that of another adapter",
                            merges: true,
                        });
                    }
                    Some(_) => (),
                    None => {
                        found.insert(key, data);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The configuration of the result.
    pub(super) fn config(&self, rank: usize) -> AdapterConfig {
        let first = self.all.first().map(|source| source.folder.config());
        let first = first.cloned().unwrap_or_default();
        AdapterConfig {
            r: rank,
            lora_alpha: rank as f64,
            target_modules: Some(self.targets()),
            base_model_name_or_path: first.base_model_name_or_path,
            revision: first.revision,
            task_type: first.task_type,
            base_class: first.base_class,
            ..AdapterConfig::default()
        }
    }

    /// The names that all adapters give, or every module by its path if one of them chooses modules in another way.
    fn targets(&self) -> Targets {
        let mut names = BTreeSet::new();
        for source in &self.all {
            let config = source.folder.config();
            let plain = config.layers_to_transform.is_none() && config.exclude_modules.is_none();
            match &config.target_modules {
                Some(Targets::Names(own)) if plain => names.extend(own.iter().cloned()),
                _ => {
                    let paths = self.modules().into_iter().map(str::to_owned);
                    return Targets::Names(paths.collect());
                }
            }
        }
        Targets::Names(names.into_iter().collect())
    }

    /// What its README says.
    pub(super) fn card(&self, options: &CombineOptions, modules: &[CombinedModule]) -> Card {
        let mut templates: Vec<PromptTemplate> = Vec::new();
        let trained_with = || self.all.iter().filter_map(Source::trained_with);
        for template in trained_with().flat_map(|with| &with.templates) {
            if !templates.contains(template) {
                templates.push(template.clone());
            }
        }
        let base = trained_with().find_map(|with| with.base.clone());
        let mut training =
            "## What it is combined from\n\n| adapter | weight |\n|---|---|\n".to_owned();
        for source in &self.all {
            let name = source.given.folder.display();
            let _ = writeln!(training, "| `{name}` | {} |", source.given.weight);
        }
        let _ = write!(
            training,
            "\nMethod `{}`{}, on the updates s·B·A. The error of the rank and of rounding is {:.2}% of the norm of the update.",
            options.method.name(),
            options.settings(),
            100.0 * relative_error(modules)
        );
        Card {
            templates,
            base,
            training,
            is_combined: true,
            ..Card::default()
        }
    }

    /// What differs between the adapters, and what was ignored in them.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = Vec::new();
        for source in &self.all {
            warnings.extend_from_slice(source.folder.warnings());
        }
        let Some((first, others)) = self.all.split_first() else {
            return warnings;
        };
        for other in others {
            let [one, two] = [first, other].map(|source| source.given.folder.display());
            let base = |source: &Source<'_>| {
                let config = source.folder.config();
                config.base_model_name_or_path.clone().unwrap_or_default()
            };
            if base(first) != base(other) {
                warnings.push(format!(
                    "{one} was trained on `{}`, {two} on `{}`; the result names the first",
                    base(first),
                    base(other)
                ));
            }
            let kind = |source: &Source<'_>| {
                let base = source.trained_with().and_then(|with| with.base.as_ref());
                base.map_or("a base model that is not quantised".to_owned(), |base| {
                    format!("one in {}", base.kind)
                })
            };
            if kind(first) != kind(other) {
                warnings.push(format!(
                    "{one} was trained on {}, {two} on {}: each is exact for its own alone",
                    kind(first),
                    kind(other)
                ));
            }
        }
        warnings
    }
}

impl<'a> Source<'a> {
    fn open(at: usize, given: &'a WeightedAdapter) -> Result<Self, CombineError> {
        let folder = AdapterFolder::open(&given.folder)?;
        check_kind(&given.folder, folder.config())?;
        let mut opened = OpenAdapter::open(&weights_path(&given.folder)?)?;
        for (key, tensor) in folder.weights().tensors() {
            check_finite(folder.weights().path(), key, tensor)?;
        }
        let branches = std::mem::take(&mut opened.branches);
        let branches = branches.into_iter().map(|branch| {
            let module = branch.module.clone();
            (
                module,
                Branch {
                    branch,
                    adapter: at,
                },
            )
        });
        let source = Self {
            given,
            branches: branches.collect(),
            folder,
            opened,
        };
        source.check_tensors()?;
        Ok(source)
    }

    fn trained_with(&self) -> Option<&TrainedWith> {
        self.folder.trained_with()
    }

    /// Checks that every tensor is a factor, or a copy of a base weight.
    fn check_tensors(&self) -> Result<(), CombineError> {
        let folder = || self.given.folder.clone();
        if let Some(whole) = self
            .opened
            .whole_tensors()?
            .into_iter()
            .find(|of| of.trained)
        {
            let what = if whole.key.ends_with(crate::adapter::tokens::ROWS) {
                "tensor of trained rows"
            } else {
                "whole trained tensor"
            };
            return Err(CombineError::Whole {
                folder: folder(),
                key: whole.key,
                what,
                merges: true,
            });
        }
        let is_known = |key: &str| {
            let path = key.strip_prefix(KEY_PREFIX).unwrap_or(key);
            let module = crate::adapter::kind::split(path).map(|(module, _)| module);
            module.is_some_and(|module| self.branches.contains_key(module))
                || self.opened.whole.contains_key(key)
        };
        match self.folder.weights().names().find(|key| !is_known(key)) {
            None => Ok(()),
            Some(key) => Err(CombineError::Unknown {
                folder: folder(),
                key: key.to_owned(),
            }),
        }
    }
}

/// Refuses adapters whose update is not `s·B·A`.
fn check_kind(folder: &Path, config: &AdapterConfig) -> Result<(), CombineError> {
    if *config.kind == LORA && !config.init().is_of_weight() {
        return Ok(());
    }
    Err(CombineError::Kind {
        folder: folder.to_owned(),
        kind: config.kind.name,
        why: config
            .kind
            .cannot_merge
            .unwrap_or("its update depends on the weights of the base model"),
        merges: config.kind.cannot_merge.is_none(),
    })
}

impl CombineOptions {
    /// The settings beside the method, as a list.
    fn settings(&self) -> String {
        let mut text = String::new();
        if let Some(density) = self.density {
            let _ = write!(text, ", density {density}");
        }
        if self.method.elects() {
            let _ = write!(
                text,
                ", majority sign `{}`",
                self.majority_sign.unwrap_or_default().name()
            );
        }
        if self.method.is_random() || self.iterations.is_some() {
            let _ = write!(text, ", seed {}", self.seed.unwrap_or_default());
        }
        if let Some(iterations) = self.iterations {
            let _ = write!(
                text,
                ", randomised decomposition with {iterations} iterations"
            );
        }
        text
    }
}
